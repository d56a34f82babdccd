"""Paths under a directory that somebody else filled: nothing named from outside is ever reached through them.

Every step is taken from an open directory and follows no link; symbolic links are read and resolved here, with the
directory as their root, as a process sees them that has it as its root.
"""

import ctypes
import errno
import functools
import os
import posixpath
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_MAX_LINKS = 255
_MAX_PATH = 4096
_MAX_DEPTH = _MAX_PATH // 2
_MAX_STEPS = 8 * _MAX_PATH
_OPEN_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class UnsafePath(ValueError):
    """A path that would leave its root, or that cannot be a path."""


def clean(name: str) -> str:
    """A name from an archive as a relative path without `.`, `..` and double slashes; the root itself is "".

    Raises:
        UnsafePath: where it climbs out of the root, holds a NUL character or is longer than a path can be.
    """
    if "\0" in name or len(os.fsencode(name)) > _MAX_PATH:
        raise UnsafePath(f"{name[:80]!r}: not a path: too long, or with a NUL character")
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise UnsafePath(f"{name!r} leaves the root directory")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def from_root(path: str) -> str:
    """A path as an absolute one without `.`, `..` and double slashes; `..` stops at the root, as in BuildKit's ops.

    Raises:
        UnsafePath: where it holds a NUL character or is longer than a path can be.
    """
    if "\0" in path or len(os.fsencode(path)) > _MAX_PATH:
        raise UnsafePath(f"{path[:80]!r}: not a path: too long, or with a NUL character")
    return "/" + posixpath.normpath("/" + path).lstrip("/")


@dataclass(frozen=True, slots=True)
class Place:
    """A name in an open directory; `path` is where that is from the root, with every link resolved."""

    directory: int
    name: str
    path: str

    def stat(self) -> os.stat_result | None:
        """What is there, links not followed, or None."""
        try:
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def proc(self) -> str:
        """A path for the calls that take no open directory; the name itself must not be followed there."""
        return f"/proc/self/fd/{self.directory}/{self.name}"


class Root:
    """A directory as a root. A context manager; the places it gives are good until the next `find` or `remove`."""

    def __init__(self, path: Path) -> None:
        """Open `path`."""
        self.path = path
        self._root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parent: tuple[str, int, str] | None = None

    def __enter__(self) -> "Root":
        """Give the root itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.forget()
        os.close(self._root)

    def forget(self) -> None:
        """Drop what is kept of the latest directory, because it may have been replaced."""
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def find(self, path: str, missing: Callable[[Place], None] | None = None) -> Place:
        """The place of a cleaned, non-empty path; its parent directories are resolved, the last name is not.

        Args:
            path: from `clean`.
            missing: makes a parent directory that is not there.

        Raises:
            UnsafePath: where links lead in circles or make too long a path.
            FileNotFoundError: where a parent is not there and `missing` is not given.
            NotADirectoryError: where a parent is something else.
        """
        parent, _, name = path.rpartition("/")
        if self._parent is None or self._parent[0] != parent:
            self.forget()
            fd, where = self._walk(parent, missing)
            self._parent = (parent, fd, where)
        _, fd, where = self._parent
        return Place(fd, name, f"{where}/{name}" if where else name)

    def _walk(self, path: str, missing: Callable[[Place], None] | None) -> tuple[int, str]:
        pending = path.split("/")[::-1]
        names: list[str] = []
        links = steps = 0
        fd = os.dup(self._root)
        try:
            while pending:
                name = pending.pop()
                if name in ("", "."):
                    continue
                steps += 1
                if name == "..":
                    os.close(fd)
                    fd = -1
                    names = names[:-1]
                    steps += len(names)
                    fd = self._open(names)
                    continue
                if steps > _MAX_STEPS or len(names) > _MAX_DEPTH:
                    raise UnsafePath(f"{path[:80]!r}: links make it longer than a path can be")
                try:
                    below = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
                except FileNotFoundError:
                    if missing is None:
                        raise
                    missing(Place(fd, name, "/".join([*names, name])))
                    below = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
                except OSError as error:
                    if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                        raise
                    target = _link(name, fd)
                    links += 1
                    if links > _MAX_LINKS:
                        raise UnsafePath(f"{path!r}: too many symbolic links") from None
                    pending.extend(target.split("/")[::-1])
                    if target.startswith("/"):
                        os.close(fd)
                        fd = -1
                        fd, names = os.dup(self._root), []
                    continue
                os.close(fd)
                fd = below
                names.append(name)
        except BaseException:
            if fd >= 0:
                os.close(fd)
            raise
        return fd, "/".join(names)

    def _open(self, names: list[str]) -> int:
        """Open a directory whose names are resolved already."""
        fd = os.dup(self._root)
        for name in names:
            try:
                below = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def locate(self, path: str, *, follow: bool = True) -> str:
        """Where a path leads once links are followed, relative to the root; "" is the root itself.

        Names that are not there are kept as they are, and `..` stops at the root.

        Args:
            path: any path; absolute ones begin at the root too.
            follow: False leaves a link alone that is the last name.

        Raises:
            UnsafePath: for what is no path, and where links lead in circles.
            NotADirectoryError: where a name in the middle is something else than a directory; of the path after it.
        """
        pending = from_root(path).split("/")[::-1]
        names: list[str] = []
        links = steps = missing = 0
        fd = os.dup(self._root)
        try:
            while pending:
                name = pending.pop()
                if name in ("", "."):
                    continue
                steps += 1
                if steps > _MAX_STEPS or len(names) > _MAX_DEPTH:
                    raise UnsafePath(f"{path[:80]!r}: links make it longer than a path can be")
                if name == "..":
                    gone = names.pop() if names else ""
                    missing -= bool(missing and gone)
                    if not missing:
                        os.close(fd)
                        fd = -1
                        fd = self._open(names)
                    continue
                if missing:
                    names.append(name)
                    missing += 1
                    continue
                last = not any(part not in ("", ".") for part in pending)
                target = _read_link(name, fd) if follow or not last else None
                if target is not None:
                    links += 1
                    if links > _MAX_LINKS:
                        raise UnsafePath(f"{path!r}: too many symbolic links")
                    pending.extend(target.split("/")[::-1])
                    if target.startswith("/"):
                        os.close(fd)
                        fd = -1
                        fd, names = os.dup(self._root), []
                    continue
                names.append(name)
                if last:
                    continue
                try:
                    below = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
                except FileNotFoundError:
                    missing = 1
                    continue
                except NotADirectoryError as error:
                    following = next(part for part in reversed(pending) if part not in ("", "."))
                    place = "/".join(["", *names, following])
                    raise NotADirectoryError(error.errno, error.strerror, place) from None
                os.close(fd)
                fd = below
        finally:
            if fd >= 0:
                os.close(fd)
        return "/".join(names)

    def resolve(self, path: str) -> Path:
        """Where a path leads inside the root, as one of this machine, with every link followed; it may not be there.

        It is safe to use where nobody changes the directory in the meantime; `open` is safe in any case.

        Raises:
            UnsafePath, NotADirectoryError: as `locate`.
        """
        found = self.locate(path)
        return self.path / found if found else self.path

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Open what a path leads to inside the root, links followed; the caller closes it.

        Raises:
            UnsafePath: as `locate`.
            OSError: where it is not there, or can't be opened.
        """
        return open_below(self._root, self.locate(path), flags)

    def fileno(self) -> int:
        """The root's own descriptor, which is closed with this."""
        return self._root

    def open_directory(self, path: str) -> int:
        """Open a resolved path, such as a place's, for reading; the caller closes it.

        Raises:
            OSError: where any name on it is not a directory by now.
        """
        above = self._open(path.split("/")[:-1])
        try:
            return os.open(path.rpartition("/")[2], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        finally:
            os.close(above)

    def remove(self, place: Place, keep: Callable[[str], bool] = lambda _: False) -> None:
        """Remove what is at a place, with all below it; no error where there is nothing.

        `keep` says which resolved paths stay, with the directories above them.
        """
        there = place.stat()
        if there is None or keep(place.path):
            return
        if not stat.S_ISDIR(there.st_mode):
            os.unlink(place.name, dir_fd=place.directory)
            if stat.S_ISLNK(there.st_mode):
                self.forget()
            return
        if self.empty(place, keep):
            os.rmdir(place.name, dir_fd=place.directory)
        self.forget()

    def empty(self, place: Place, keep: Callable[[str], bool] = lambda _: False) -> bool:
        """Remove all below a directory but what `keep` says; True where nothing is left in it."""
        top = _open_writable(place.name, place.directory)
        try:
            return _empty(top, place.path, keep)
        finally:
            os.close(top)


def open_below(directory: int, path: str, flags: int, mode: int = 0o600) -> int:
    """Open a relative path whose names are followed through directories only: no link, no `..`, no other root.

    Raises:
        OSError: where a name is a link or no directory, or as `os.open`.
    """
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    if not path:
        return os.open(".", flags, dir_fd=directory)
    global _openat2
    if _openat2:
        fd = _call_openat2(directory, path, flags, mode if flags & os.O_CREAT else 0)
        if fd >= 0:
            return fd
        if -fd not in (errno.ENOSYS, errno.EPERM, errno.E2BIG, errno.EAGAIN):
            raise OSError(-fd, os.strerror(-fd), path)
        # Old kernels and some sandboxes have no such call.
        _openat2 = -fd == errno.EAGAIN
    folder, _, name = path.rpartition("/")
    above = os.dup(directory)
    try:
        for part in folder.split("/") if folder else ():
            below = os.open(part, _OPEN_DIRECTORY, dir_fd=above)
            os.close(above)
            above = below
        return os.open(name, flags, mode, dir_fd=above)
    finally:
        os.close(above)


_openat2 = True
_SYS_OPENAT2 = 437
# RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH
_RESOLVE = 0x02 | 0x04 | 0x08


def _call_openat2(directory: int, path: str, flags: int, mode: int) -> int:
    """The descriptor, or the negative error number."""
    how = struct.pack("QQQ", flags, mode, _RESOLVE)
    call = _libc().syscall
    fd = int(call(_SYS_OPENAT2, directory, os.fsencode(path), how, len(how)))
    return fd if fd >= 0 else -ctypes.get_errno()


@functools.cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


def _read_link(name: str, directory: int) -> str | None:
    """The target of a symbolic link; None for what is none, or is not there."""
    try:
        return os.readlink(name, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def _link(name: str, directory: int) -> str:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name) from None
        raise


def _open_writable(name: str, directory: int) -> int:
    """Open a directory to remove from; its owner may have taken his own right to write it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    if os.geteuid() != 0:
        handle = os.open(name, _OPEN_DIRECTORY, dir_fd=directory)
        try:
            os.chmod(f"/proc/self/fd/{handle}", stat.S_IMODE(os.fstat(handle).st_mode) | stat.S_IRWXU)
        finally:
            os.close(handle)
    return os.open(name, flags, dir_fd=directory)


def _empty(top: int, path: str, keep: Callable[[str], bool]) -> bool:
    # A stack of its own: the tree may be deeper than Python's, and than there are file descriptors.
    fd = os.dup(top)
    frames = [_Frame(path, fd, keep)]
    try:
        while True:
            frame = frames[-1]
            if frame.folders:
                name = frame.folders.pop()
                below = _open_writable(name, fd)
                os.close(fd)
                fd = below
                frames.append(_Frame(f"{frame.path}/{name}" if frame.path else name, fd, keep))
                continue
            if len(frames) == 1:
                return not frame.kept
            frames.pop()
            above = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = above
            if _identity(fd) != frames[-1].identity:
                raise UnsafePath(f"{frame.path[:80]!r} was moved while it was being removed")
            if frame.kept or keep(frame.path):
                frames[-1].kept = True
            else:
                os.rmdir(frame.path.rpartition("/")[2], dir_fd=fd)
    finally:
        os.close(fd)


class _Frame:
    """A directory that is being emptied: its files are gone, its directories are still to do."""

    def __init__(self, path: str, fd: int, keep: Callable[[str], bool]) -> None:
        self.path = path
        self.identity = _identity(fd)
        self.folders: list[str] = []
        self.kept = False
        with os.scandir(fd) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in found:
            if is_directory:
                self.folders.append(name)
            elif keep(f"{path}/{name}" if path else name):
                self.kept = True
            else:
                os.unlink(name, dir_fd=fd)


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino
