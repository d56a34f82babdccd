"""What a receiver demands of the entries that it is sent, before it believes any of them."""

from ..pb.stat_pb2 import Stat
from .errors import TransferError
from .modes import DIRECTORY, SYMLINK, TYPE, to_kernel

_MAX_PATH = 4095
_MAX_NAME = 255
_MAX_XATTR = 64 * 1024
_MAX_XATTRS = 256


class EntryCheck:
    """Entries in the order that they come in. Afterwards each path is relative, clean, new, and in a folder that came
    before it; a hard link's target is a file that came before it."""

    def __init__(self) -> None:
        # The folders on the way to the last entry, with a slash at the end, and the last name in each.
        self._folders = [""]
        self._last = [""]
        self._files: set[str] = set()

    def add(self, entry: Stat) -> None:
        """One more entry. Raises TransferError."""
        path = entry.path
        folders, last = self._folders, self._last
        while not path.startswith(folders[-1]):
            folders.pop()
            last.pop()
        name = path[len(folders[-1]) :]
        if name in ("", ".", "..") or "\0" in name:
            raise TransferError(f"the entry {path!r} is no clean relative path")
        if "/" in name:
            _refuse_path(path)
            raise TransferError(f"the entry {path!r} comes without its folder, or is not in one")
        if name <= last[-1]:
            raise TransferError(f"the entry {path!r} comes after {folders[-1] + last[-1]!r}: out of order")
        if len(name) * 4 > _MAX_NAME and len(name.encode()) > _MAX_NAME:
            raise TransferError(f"the name {name[:40]!r}… is too long")
        if len(path) * 4 > _MAX_PATH and len(path.encode()) > _MAX_PATH:
            raise TransferError(f"the path {path[:40]!r}… is too long")
        last[-1] = name
        mode = entry.mode
        if not mode & TYPE:
            self._file(entry)
        elif mode & DIRECTORY:
            folders.append(path + "/")
            last.append("")
        elif mode & SYMLINK:
            _check_target(entry)
        elif entry.linkname:
            self._link(entry)
        else:
            self._files.add(path)
        if mode & TYPE:
            try:
                to_kernel(mode)
            except ValueError as error:
                raise TransferError(f"the entry {path!r}: {error}") from None
        if entry.size < 0:
            raise TransferError(f"the entry {path!r} has a negative size")
        if entry.xattrs:
            _check_xattrs(entry)

    def _file(self, entry: Stat) -> None:
        if entry.linkname:
            self._link(entry)
        else:
            self._files.add(entry.path)

    def _link(self, entry: Stat) -> None:
        if entry.linkname not in self._files:
            raise TransferError(f"the entry {entry.path!r} links to {entry.linkname!r}, which is no file before it")


def _refuse_path(path: str) -> None:
    if path.startswith("/"):
        raise TransferError(f"the entry {path!r} is an absolute path")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise TransferError(f"the entry {path!r} is no clean relative path")


def _check_target(entry: Stat) -> None:
    target = entry.linkname
    if not target or "\0" in target or len(target.encode()) > _MAX_PATH:
        raise TransferError(f"the link {entry.path!r} has no usable target")


def _check_xattrs(entry: Stat) -> None:
    if len(entry.xattrs) > _MAX_XATTRS:
        raise TransferError(f"the entry {entry.path!r} has too many extended attributes")
    for name, value in entry.xattrs.items():
        if not name or "\0" in name or len(name.encode()) > _MAX_NAME or len(value) > _MAX_XATTR:
            raise TransferError(f"the entry {entry.path!r} has an unusable extended attribute")
