"""Layer tars from changes on disk (OCI image spec, layer): the same changes give the same bytes.

Source: containerd's change writer, whose bytes these are, so that equal layers have equal digests everywhere.
"""

import errno
import os
import stat

from ..wire.fsutil.opening import open_to_read
from .blob import LayerWriter
from .tar import Entry, Kind, TarWriter, Writable
from .unpack import WHITEOUT, LayerError

CAPABILITY = "security.capability"
"""The one extended attribute that goes into a layer."""

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}
_CHUNK = 1 << 20
_SECOND = 10**9


class LayerPacker:
    """Takes changes in path order and writes them as an uncompressed layer tar.

    Directories above a change are written before it. Times are whole seconds; sockets are left out.
    """

    def __init__(
        self,
        out: Writable,
        root: bytes,
        *,
        timestamp: int | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        """Begin a layer.

        Args:
            out: where the tar goes; give a `LayerWriter` for a compressed one.
            root: the directory with the changed files and those above them.
            timestamp: no file is younger than this, in seconds (SOURCE_DATE_EPOCH with rewritten times).
            owner: one owner for all files, for a file system that was built without root.
        """
        self._tar = TarWriter(out)
        self._out = out if isinstance(out, LayerWriter) else None
        self._root = root
        self._timestamp = timestamp
        self._owner = owner
        self._directories: set[bytes] = set()
        self._links: dict[tuple[int, int], str] = {}
        self._unchanged: dict[tuple[int, int], list[bytes]] = {}

    def add(self, path: bytes, status: os.stat_result) -> None:
        """One more file that is new or another than before. `path` is relative.

        Raises:
            LayerError: where it cannot be read, changes meanwhile, or has a name that a layer cannot hold.
        """
        try:
            self._add(path, status)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise LayerError(f"it cannot be written: {error.strerror}") from error
            raise LayerError(f"{os.fsdecode(path)!r}: cannot be read: {error.strerror}") from error

    def delete(self, path: bytes) -> None:
        """One that is gone. Raises LayerError."""
        folder, slash, name = path.rpartition(b"/")
        self._parents(path)
        self._tar.add(Entry(os.fsdecode(folder + slash) + WHITEOUT + os.fsdecode(name), Kind.FILE, 0))

    def unchanged(self, path: bytes, status: os.stat_result) -> None:
        """One that did not change, and is the same file as others: it is written again where one of those was.

        Raises:
            LayerError: as `add`.
        """
        inode = (status.st_dev, status.st_ino)
        if inode in self._links:
            self.add(path, status)
        else:
            self._unchanged.setdefault(inode, []).append(path)

    def close(self) -> None:
        """End the tar."""
        self._tar.close()

    def _add(self, path: bytes, status: os.stat_result) -> None:
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return
        name = os.fsdecode(path)
        if name.rpartition("/")[2].startswith(WHITEOUT):
            raise LayerError(f"{name!r}: a layer cannot hold a file whose name begins with {WHITEOUT!r}")
        seconds = status.st_mtime_ns // _SECOND
        if self._timestamp is not None and seconds > self._timestamp:
            seconds = self._timestamp
        uid, gid = self._owner or (status.st_uid, status.st_gid)
        entry = Entry(name, kind, stat.S_IMODE(status.st_mode), uid, gid, mtime_ns=seconds * _SECOND)
        others: list[bytes] = []
        if status.st_nlink > 1 and kind is not Kind.DIRECTORY:
            inode = (status.st_dev, status.st_ino)
            first = self._links.setdefault(inode, name)
            if first != name:
                entry.kind, entry.linkname = Kind.LINK, first
            else:
                others = self._unchanged.pop(inode, [])
        full = self._root + b"/" + path
        if kind is not Kind.SYMLINK and (capability := _capability(full)):
            entry.xattrs = {CAPABILITY: capability}
        self._parents(path)
        match entry.kind:
            case Kind.FILE:
                self._file(entry, full, status.st_size)
            case Kind.DIRECTORY:
                self._directories.add(path)
                self._tar.add(entry)
            case Kind.SYMLINK:
                entry.linkname = os.fsdecode(os.readlink(full))
                self._tar.add(entry)
            case Kind.CHAR | Kind.BLOCK:
                entry.device = (os.major(status.st_rdev), os.minor(status.st_rdev))
                self._tar.add(entry)
            case _:
                self._tar.add(entry)
        for other in others:
            self._parents(other)
            again = Entry(os.fsdecode(other), Kind.LINK, entry.mode, uid, gid, mtime_ns=entry.mtime_ns)
            again.linkname, again.xattrs = name, entry.xattrs
            self._tar.add(again)

    def _parents(self, path: bytes) -> None:
        """Write the directories above a path that are not written yet."""
        folder = path.rpartition(b"/")[0]
        if folder and folder not in self._directories:
            self._directories.add(folder)
            self.add(folder, os.lstat(self._root + b"/" + folder))

    def _file(self, entry: Entry, full: bytes, size: int) -> None:
        entry.size = size
        if not size:
            self._tar.add(entry)
            return
        fd = open_to_read(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._tar.add(entry)
            left = size
            while left:
                data = os.read(fd, min(left, _CHUNK if self._out is None else self._out.room))
                if not data:
                    raise LayerError(f"{entry.name!r}: became shorter while it was read")
                left -= len(data)
                self._tar.write(data)
        finally:
            os.close(fd)


def _capability(full: bytes) -> bytes:
    try:
        return os.getxattr(full, CAPABILITY, follow_symlinks=False)
    except OSError:
        # There is none, or the file system has no such thing.
        return b""
