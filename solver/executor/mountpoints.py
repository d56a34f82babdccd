"""The places in a root file system where something is mounted: found without leaving it, made, and taken away again.

The runtime needs a file or folder under each mount. Those that were not there are removed after the process, as
BuildKit's `MountStubsCleaner` does, and the times of the folder that they were in are kept, so that they never show in
a snapshot.
"""

import errno
import os
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .base import BindMount, ExecError

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 255
NEW_TMPFS_MODE = 0o1777
"""The mode of a tmpfs where there was no folder before."""
_MAX_STEPS = 4096
_MAX_PATH = 4096
# The runtime may still be able to make what we may not.
_LEFT_TO_RUNTIME = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a place is to be where there is nothing yet: whose, and whether it stays."""

    folder: bool = True
    mode: int = 0o755
    owner: tuple[int, int] | None = None
    keep: bool = False


@dataclass(slots=True)
class _Made:
    """What was made in a root file system, as names in open folders, and how many processes use that one now.

    Only after the last of them may it be removed: with a place its mounts go from every namespace.
    """

    users: int = 0
    stubs: list[tuple[int, str]] = field(default_factory=list)


_made: dict[tuple[int, int], _Made] = {}
_lock = threading.Lock()


class Mountpoints:
    """The tree that a process will see, as far as it is mounted. Close it when the process has ended.

    With `recursive` the new folders above the places of mounts are removed too.

    Raises:
        ExecError: where there is no such folder.
    """

    def __init__(self, rootfs: Path, *, recursive: bool = False) -> None:
        self.modes: dict[str, int] = {}
        self._mounted: dict[str, Path | None] = {}
        self._recursive = recursive
        try:
            self._root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ExecError(f"cannot use the root file system: {error.strerror}") from None
        there = os.fstat(self._root)
        self._key = (there.st_dev, there.st_ino)
        with _lock:
            self._shared = _made.setdefault(self._key, _Made())
            self._shared.users += 1

    def add(self, mount: BindMount) -> str:
        """Make the place of a mount that goes over what was added before; gives it with all links resolved.

        A folder that was there already has its mode in `modes` afterwards, by that resolved path.

        Raises:
            ExecError: where it is the root, its source is not there, or it can't be made.
        """
        try:
            is_folder = mount.source is None or stat.S_ISDIR(os.stat(mount.source).st_mode)
        except OSError as error:
            raise ExecError(f"cannot mount at /{mount.dest.lstrip('/')}: {error.strerror}") from None
        # A new file system's root has the mode of the folder below it, with some runtimes.
        path = self._make(mount.dest, _Wanted(is_folder, 0o755 if mount.source else NEW_TMPFS_MODE))
        if not path:
            raise ExecError(f"cannot mount at {mount.dest!r}: it is the root")
        hidden = [name for name in self._mounted if name.startswith(f"{path}/")]
        for name in hidden:
            del self._mounted[name]
        self._mounted[path] = mount.source
        return path

    def system(self, name: str) -> None:
        """Make a folder at the root that the system's own files are mounted on, such as `proc`; it stays.

        Raises:
            ExecError: where the root file system has something else there.
        """
        if self._make(name, _Wanted(keep=True)) != name:
            raise ExecError(f"/{name} of the root file system is a symbolic link; it must be a folder")
        self._mounted[name] = None

    def folder(self, dest: str, owner: tuple[int, int]) -> str:
        """Make a folder where there is none; it and those above it that are new belong to `owner`."""
        return self._make(dest, _Wanted(owner=owner, keep=True))

    def is_temporary(self, path: str) -> bool:
        """Whether a resolved path is in a file system that is only made with the process."""
        above = [name for name in self._mounted if path == name or path.startswith(f"{name}/")]
        return bool(above) and self._mounted[max(above, key=len)] is None

    def _make(self, dest: str, wanted: _Wanted) -> str:
        try:
            return self._walk(dest, wanted)
        except OSError as error:
            raise ExecError(f"cannot make /{dest.lstrip('/')[:200]} in the container: {error.strerror}") from None

    def _walk(self, dest: str, wanted: _Wanted) -> str:
        if len(os.fsencode(dest)) >= _MAX_PATH or "\0" in dest:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        pending = dest.split("/")[::-1]
        names: list[str] = []
        links = steps = 0
        place = _Place(os.dup(self._root), True)
        try:
            while pending:
                name = pending.pop()
                if name in ("", "."):
                    continue
                steps += 1
                if steps > _MAX_STEPS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if name == "..":
                    names = names[:-1]
                    steps += len(names)
                    place.move(self._open(names))
                    continue
                path = "/".join([*names, name])
                last = not any(part not in ("", ".") for part in pending)
                if path in self._mounted:
                    if not last:
                        place.enter(self._mounted[path])
                elif target := place.link(name):
                    links += 1
                    if links > _MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    pending.extend(target.split("/")[::-1])
                    if target.startswith("/"):
                        names = []
                        place.move((os.dup(self._root), True))
                    continue
                else:
                    there = self._step(
                        place, name, wanted if last else _Wanted(owner=wanted.owner, keep=wanted.keep), last
                    )
                    if last and wanted.folder and there is not None:
                        self.modes[path] = stat.S_IMODE(there.st_mode)
                names.append(name)
        finally:
            place.close()
        return "/".join(names)

    def _step(self, place: "_Place", name: str, wanted: _Wanted, last: bool) -> os.stat_result | None:
        """Go into, and where it is not there make, one name; gives what was there."""
        if place.handle is None:
            return None
        there = place.stat(name)
        if there is None:
            try:
                _create(place.handle, name, wanted)
            except FileExistsError:
                # By another process that is being started.
                return self._step(place, name, wanted, last)
            except OSError as error:
                if error.errno not in _LEFT_TO_RUNTIME:
                    raise
                place.move((None, False))
                return None
            if place.in_rootfs and not wanted.keep and (last or self._recursive):
                with _lock:
                    self._shared.stubs.append((os.dup(place.handle), name))
        elif stat.S_ISDIR(there.st_mode) is not wanted.folder:
            raise OSError(errno.ENOTDIR, "a part of it is not a folder" if wanted.folder else "it is a folder")
        if wanted.folder:
            place.move((os.open(name, _FOLDER, dir_fd=place.handle), place.in_rootfs))
        return there

    def _open(self, names: Iterable[str]) -> tuple[int | None, bool]:
        """Open a place whose names are resolved."""
        place = _Place(os.dup(self._root), True)
        path = ""
        try:
            for name in names:
                path = f"{path}/{name}" if path else name
                if path in self._mounted:
                    place.enter(self._mounted[path])
                elif place.handle is not None:
                    place.move((os.open(name, _FOLDER, dir_fd=place.handle), place.in_rootfs))
        except OSError:
            place.close()
            raise
        return place.handle, place.in_rootfs

    def close(self) -> None:
        """Remove the places that were made and are still empty, unless another process uses the file system too."""
        if self._root < 0:
            return
        os.close(self._root)
        self._root = -1
        with _lock:
            self._shared.users -= 1
            if self._shared.users:
                return
            del _made[self._key]
            for folder, name in reversed(self._shared.stubs):
                with suppress(OSError):
                    _remove(folder, name)
                os.close(folder)


class _Place:
    """An open folder, None where nothing can be seen yet: in a `tmpfs` to come, or below what the runtime makes."""

    def __init__(self, handle: int | None, in_rootfs: bool) -> None:
        self.handle = handle
        self.in_rootfs = in_rootfs

    def move(self, to: tuple[int | None, bool]) -> None:
        self.close()
        self.handle, self.in_rootfs = to

    def enter(self, source: Path | None) -> None:
        """Go into what is mounted here."""
        self.move((None if source is None else os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), False))

    def close(self) -> None:
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None

    def stat(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self.handle, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def link(self, name: str) -> str:
        """Where a symbolic link leads; empty where there is none."""
        if self.handle is None:
            return ""
        try:
            return os.readlink(name, dir_fd=self.handle)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return ""
            raise


def _create(folder: int, name: str, wanted: _Wanted) -> None:
    """Make a name in an open folder; where it has no owner, the times of that folder stay as they were."""
    before = os.stat(f"/proc/self/fd/{folder}")
    if wanted.folder:
        os.mkdir(name, wanted.mode, dir_fd=folder)
        os.chmod(name, wanted.mode, dir_fd=folder)
    else:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, wanted.mode, dir_fd=folder))
    if wanted.owner is not None:
        with suppress(PermissionError):
            os.chown(name, *wanted.owner, dir_fd=folder, follow_symlinks=False)
    else:
        _restore_times(folder, before)


def _restore_times(folder: int, before: os.stat_result) -> None:
    with suppress(PermissionError):
        os.utime(f"/proc/self/fd/{folder}", ns=(before.st_atime_ns, before.st_mtime_ns))


def _remove(folder: int, name: str) -> None:
    there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    before = os.stat(f"/proc/self/fd/{folder}")
    if stat.S_ISDIR(there.st_mode):
        os.rmdir(name, dir_fd=folder)
    elif there.st_size == 0:
        os.unlink(name, dir_fd=folder)
    else:
        return
    _restore_times(folder, before)
