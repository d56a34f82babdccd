"""Layer tars from changes on disk (OCI image spec, layer): the same changes give the same bytes."""

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .rootfs import UnsafePath, clean
from .tar import Entry, Kind, TarWriter, Writable
from .unpack import OPAQUE, WHITEOUT, LayerError

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: `path` is relative to the root file system, `source` the file on disk that an add takes."""

    path: str
    kind: Literal["add", "delete"]
    source: Path | None = None


def write_layer(
    entries: Iterable[Change],
    out: Writable,
    *,
    timestamp: int | None = None,
    root: Path | None = None,
    owner: tuple[int, int] | None = None,
) -> None:
    """Write changes as an uncompressed layer tar; give a `LayerWriter` as `out` for a compressed one.

    Times are whole seconds, as BuildKit writes them. A directory that is both deleted and added is a new one that
    hides what was in the old one.

    Args:
        entries: the changes, in any order.
        out: where the tar goes.
        timestamp: no file is younger than this, in seconds (SOURCE_DATE_EPOCH with rewritten times).
        root: where directories are taken from that hold a change and are none themselves.
        owner: one owner for all files, for a file system that was built without root.

    Raises:
        LayerError: where a change names no proper path, or a source is missing or changes while it is read.
    """
    adds: dict[str, Path] = {}
    deletes: set[str] = set()
    for change in entries:
        try:
            path = clean(change.path)
        except UnsafePath as error:
            raise LayerError(str(error)) from None
        if not path:
            continue
        if path.rpartition("/")[2].startswith(WHITEOUT):
            raise LayerError(f"{path!r}: a layer cannot hold a file whose name begins with {WHITEOUT!r}")
        if change.kind == "delete":
            deletes.add(path)
        elif change.source is None:
            raise LayerError(f"{path!r}: an added file without a source")
        else:
            adds[path] = change.source
    if root is not None:
        for path in [*adds, *deletes]:
            while path := path.rpartition("/")[0]:
                if path in adds:
                    break
                adds[path] = root / path
    packer = _Packer(out, timestamp, owner)
    for path in sorted(adds.keys() | deletes, key=lambda path: path.split("/")):
        if path not in adds:
            packer.whiteout(path)
            continue
        packer.add(path, adds[path])
        if path in deletes and adds[path].is_dir() and not adds[path].is_symlink():
            packer.opaque(path)
    packer.close()


class _Packer:
    def __init__(self, out: Writable, timestamp: int | None, owner: tuple[int, int] | None) -> None:
        self._tar = TarWriter(out)
        self._timestamp = timestamp
        self._owner = owner
        self._links: dict[tuple[int, int], str] = {}

    def close(self) -> None:
        self._tar.close()

    def whiteout(self, path: str) -> None:
        folder, slash, name = path.rpartition("/")
        self._tar.add(Entry(f"{folder}{slash}{WHITEOUT}{name}", Kind.FILE, 0))

    def opaque(self, path: str) -> None:
        self._tar.add(Entry(f"{path}/{OPAQUE}", Kind.FILE, 0))

    def add(self, path: str, source: Path) -> None:
        try:
            self._add(path, source)
        except OSError as error:
            raise LayerError(f"{path!r}: cannot read {source}: {error.strerror}") from error

    def _add(self, path: str, source: Path) -> None:
        found = os.lstat(source)
        kind = _KINDS.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            # A socket means nothing without the process that listens.
            return
        entry = Entry(
            path,
            kind,
            stat.S_IMODE(found.st_mode),
            *(self._owner or (found.st_uid, found.st_gid)),
            mtime_ns=self._time(found) * 10**9,
            xattrs=_xattrs(source),
        )
        if found.st_nlink > 1 and kind is not Kind.DIRECTORY:
            first = self._links.setdefault((found.st_dev, found.st_ino), path)
            if first != path:
                entry.kind, entry.linkname = Kind.LINK, first
                self._tar.add(entry)
                return
        match kind:
            case Kind.FILE:
                self._file(entry, source)
                return
            case Kind.SYMLINK:
                entry.linkname = os.readlink(source)
            case Kind.CHAR | Kind.BLOCK:
                entry.device = (os.major(found.st_rdev), os.minor(found.st_rdev))
        self._tar.add(entry)

    def _file(self, entry: Entry, source: Path) -> None:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            entry.size = left = os.fstat(fd).st_size
            self._tar.add(entry)
            while left:
                data = os.read(fd, min(left, _CHUNK))
                if not data:
                    raise LayerError(f"{entry.name!r}: became shorter while it was read")
                left -= len(data)
                self._tar.write(data)
        finally:
            os.close(fd)

    def _time(self, found: os.stat_result) -> int:
        seconds = max(0, found.st_mtime_ns // 10**9)
        return seconds if self._timestamp is None else min(seconds, self._timestamp)


def _xattrs(source: Path) -> dict[str, bytes]:
    """The attributes that belong to a file wherever it is: capabilities and the user's own."""
    try:
        keys = os.listxattr(source, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    return {
        key: os.getxattr(source, key, follow_symlinks=False)
        for key in keys
        if key == "security.capability" or (key.startswith("user.") and not key.startswith("user.overlay."))
    }
