"""A transfer's files into a folder of this machine, over what is there: how clients receive exported files."""

import fcntl
import os
import stat as kernel
from contextlib import suppress
from pathlib import Path

from ..pb.stat_pb2 import Stat
from .errors import is_gone
from .modes import DIRECTORY, SYMLINK, TYPE, permissions, to_kernel

_FICLONE = 0x40049409
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CHUNK = 1 << 20


class DiskReceiver:
    """Puts entries below `folder`, which must be there; they belong to this process's user.

    What an entry names and is of another kind is replaced, links among it too, so that nothing is ever written
    through a link that was there. A file is replaced as a whole. With `delete`, `finish` removes everything that no
    entry named. Entries must be checked already (see `wire.fsutil.check`).
    """

    def __init__(self, folder: Path, *, delete: bool = False) -> None:
        self._root = os.fsencode(folder) + b"/"
        self._delete = delete

        self._folders: list[tuple[bytes, Stat]] = []
        self._named: dict[str, set[str]] = {"": set()}
        self._open: dict[str, tuple[Stat, int, bytes]] = {}
        self._links: list[tuple[str, str]] = []
        self._temporary = 0

    def entry(self, stat: Stat) -> bool:
        """One more entry: the content of every regular file is wanted."""
        path, mode = stat.path, stat.mode
        place = self._root + path.encode()
        if self._delete:
            folder, _, name = path.rpartition("/")
            self._named[folder].add(name)
        if mode & DIRECTORY:
            self._make_folder(place)
            kept = Stat()
            kept.CopyFrom(stat)
            self._folders.append((place, kept))
            if self._delete:
                self._named[path] = set()
            return False
        if not mode & TYPE:
            if stat.linkname:
                self._links.append((stat.linkname, path))
                return False
            kept = Stat()
            kept.CopyFrom(stat)
            self._open[path] = (kept, -1, b"")
            return True
        temporary = self._beside(place)
        if mode & SYMLINK:
            os.symlink(stat.linkname.encode(), temporary)
        else:
            os.mknod(temporary, to_kernel(mode), os.makedev(stat.devmajor, stat.devminor))
            os.chmod(temporary, permissions(mode))
        self._attributes(temporary, stat)
        os.utime(temporary, ns=(stat.modTime, stat.modTime), follow_symlinks=False)
        _replace(temporary, place)
        return False

    @staticmethod
    def _make_folder(place: bytes) -> None:
        try:
            os.mkdir(place, 0o700)
            return
        except FileExistsError:
            mode = os.lstat(place).st_mode
        if not kernel.S_ISDIR(mode):
            os.unlink(place)
            os.mkdir(place, 0o700)
        elif mode & 0o700 != 0o700:
            os.chmod(place, mode | 0o700)

    def data(self, path: str, data: bytes) -> None:
        """A piece of a file."""
        stat, file, place = self._open[path]
        if file < 0:
            file, place = self._create(path)
            self._open[path] = (stat, file, place)
        _write(file, data)

    def end(self, path: str) -> None:
        """All of a file has come."""
        stat, file, place = self._open.pop(path)
        if file < 0:
            file, place = self._create(path)
        self._finish(path, stat, file, place)

    def take(self, entry: Stat, place: bytes) -> None:
        """A file that can be read at `place` on this machine: shares its blocks where the file system can."""
        stat, _, _ = self._open.pop(entry.path)
        file, target = self._create(entry.path)
        # Known to `discard` until it is whole.
        self._open[entry.path] = (stat, file, target)
        try:
            reader = os.open(place, _READ)
        except OSError as error:
            if not is_gone(error):
                raise
        else:
            try:
                _copy(reader, file)
            finally:
                os.close(reader)
        del self._open[entry.path]
        self._finish(entry.path, stat, file, target)

    def _create(self, path: str) -> tuple[int, bytes]:
        place = self._root + path.encode()
        try:
            return os.open(place, _NEW, 0o600), place
        except FileExistsError:
            temporary = self._beside(place)
            return os.open(temporary, _NEW, 0o600), temporary

    def _beside(self, place: bytes) -> bytes:
        self._temporary += 1
        return os.path.dirname(place) + b"/.brickyard-%d-%d.tmp" % (os.getpid(), self._temporary)

    def _finish(self, path: str, stat: Stat, file: int, place: bytes) -> None:
        try:
            self._attributes(file, stat)
            os.fchmod(file, permissions(stat.mode))
            os.utime(file, ns=(stat.modTime, stat.modTime))
        finally:
            os.close(file)
        target = self._root + path.encode()
        if place != target:
            _replace(place, target)

    @staticmethod
    def _attributes(target: int | bytes, stat: Stat) -> None:
        for name, value in stat.xattrs.items():
            # What this file system, or this user, cannot keep is left out.
            with suppress(OSError):
                if isinstance(target, int):
                    os.setxattr(target, name, value)
                else:
                    os.setxattr(target, name, value, follow_symlinks=False)

    def finish(self) -> None:
        """What has to wait until every file is there: links, removals, the metadata of folders. Raises OSError."""
        for first, second in self._links:
            place = self._root + second.encode()
            temporary = self._beside(place)
            os.link(self._root + first.encode(), temporary, follow_symlinks=False)
            _replace(temporary, place)
            # Renaming one name of a file over another leaves both.
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        if self._delete:
            self._remove_others()
        for place, stat in reversed(self._folders):
            self._attributes(place, stat)
            os.chmod(place, permissions(stat.mode))
            os.utime(place, ns=(stat.modTime, stat.modTime))

    def _remove_others(self) -> None:
        for folder, names in self._named.items():
            place = self._root + folder.encode()
            for name in os.listdir(place):
                if os.fsdecode(name) not in names:
                    _remove(os.path.join(place, name))

    def discard(self) -> None:
        """Close what is open, and drop half written files."""
        for _, file, place in self._open.values():
            if file >= 0:
                os.close(file)
                with suppress(OSError):
                    os.unlink(place)
        self._open.clear()


def _copy(reader: int, writer: int) -> None:
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
        return
    except OSError:
        pass
    try:
        while os.copy_file_range(reader, writer, 1 << 30):
            continue
    except OSError:
        while data := os.read(reader, _CHUNK):
            _write(writer, data)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _replace(source: bytes, target: bytes) -> None:
    try:
        os.replace(source, target)
    except (IsADirectoryError, NotADirectoryError, FileExistsError):
        _remove(target)
        os.replace(source, target)


def _remove(place: bytes) -> None:
    """Remove what is there, with all below it; however deep that is."""
    if not kernel.S_ISDIR(os.lstat(place).st_mode):
        os.unlink(place)
        return
    folders = [place]
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    os.unlink(entry.path)
    for folder in reversed(folders):
        os.rmdir(folder)
