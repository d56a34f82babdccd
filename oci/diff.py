"""How a directory differs from another, in the order and with the exactness that layers are made with.

Source: containerd's continuity library and BuildKit's overlay differ: mode, owner and capabilities count, of files also
size and time; a file whose time may have been cut to seconds by an archive is compared by its content.
"""

import os
import stat
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from .pack import CAPABILITY, LayerPacker

_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_CHUNK = 1 << 18
_SECOND = 10**9


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: `path` is relative to the root file system, `source` the file on disk that an add takes."""

    path: str
    kind: Literal["add", "delete"]
    source: Path | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """A path, relative; `status` is that of the file now, None where it is gone.

    `unchanged` ones are files with several names that did not change.
    """

    path: bytes
    status: os.stat_result | None
    unchanged: bool = False


def pack(differences: Iterator[Difference], packer: LayerPacker) -> None:
    """Write differences as a layer. Raises LayerError."""
    for difference in differences:
        if difference.status is None:
            packer.delete(difference.path)
        elif difference.unchanged:
            packer.unchanged(difference.path, difference.status)
        else:
            packer.add(difference.path, difference.status)
    packer.close()


class Below(Protocol):
    """A file system that another is compared with."""

    def find(self, path: bytes) -> tuple[bytes, os.stat_result] | None:
        """Where a path is on this machine, and its status; None where it is not there."""

    def names(self, path: bytes) -> Set[bytes]:
        """What is in a directory; "" is the root."""


class Folder:
    """The file system in a directory."""

    def __init__(self, root: bytes) -> None:
        self._root = root

    def find(self, path: bytes) -> tuple[bytes, os.stat_result] | None:
        """Look there."""
        full = self._root + b"/" + path
        try:
            return full, os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, path: bytes) -> Set[bytes]:
        """List it."""
        return set(os.listdir(self._root + b"/" + path if path else self._root))


class Listings:
    """What is in directories that do not change, listed once; threads may share one."""

    def __init__(self) -> None:
        """Begin with none."""
        self._known: dict[bytes, frozenset[bytes]] = {}

    def __call__(self, folder: bytes) -> tuple[bytes, frozenset[bytes]]:
        """A directory with the names in it."""
        names = self._known.get(folder)
        if names is None:
            names = self._known[folder] = frozenset(os.listdir(folder))
        return folder, names


class Stack:
    """The file system that an overlay of directories shows, without a mount."""

    def __init__(self, layers: Sequence[bytes], listed: Listings | None = None) -> None:
        """Begin with directories in overlayfs's form, the top one first; `listed` is shared with others like it."""
        self._listed = listed or Listings()
        self._parts = {b"": [self._listed(layer) for layer in layers]}

    def find(self, path: bytes) -> tuple[bytes, os.stat_result] | None:
        """Look through the directories from the top."""
        folder, _, name = path.rpartition(b"/")
        for place, names in self._directory(folder):
            if name in names:
                full = place + b"/" + name
                status = os.lstat(full)
                return None if is_whiteout(status) else (full, status)
        return None

    def names(self, path: bytes) -> Set[bytes]:
        """What the directories have together, without what upper ones hide."""
        found: dict[bytes, bool] = {}
        for place, names in self._directory(path):
            for name in names - found.keys():
                found[name] = not is_whiteout(os.lstat(place + b"/" + name))
        return {name for name, there in found.items() if there}

    def _directory(self, path: bytes) -> list[tuple[bytes, frozenset[bytes]]]:
        """The places that make up a directory, with the names in each; none where it is something else."""
        known = self._parts.get(path)
        if known is not None:
            return known
        folder, _, name = path.rpartition(b"/")
        out: list[tuple[bytes, frozenset[bytes]]] = []
        for place, names in self._directory(folder):
            if name not in names:
                continue
            full = place + b"/" + name
            if not stat.S_ISDIR(os.lstat(full).st_mode):
                break
            out.append(self._listed(full))
            if is_opaque(full):
                break
        self._parts[path] = out
        return out


def of_upper(upper: bytes, base: Below | None) -> Iterator[Difference]:
    """What an overlay's upper directory changes of what is below it; None is nothing."""
    yield from _upper(upper, base, b"")


def of_trees(base: bytes | Below | None, now: bytes) -> Iterator[Difference]:
    """What one directory has that another has not, and the other way round."""
    yield from _trees(Folder(base) if isinstance(base, bytes) else base, now, b"", overlay=False)


def _upper(upper: bytes, base: Below | None, below: bytes) -> Iterator[Difference]:
    here = upper + b"/" + below if below else upper
    for name in sorted(os.listdir(here)):
        path = below + b"/" + name if below else name
        full = upper + b"/" + path
        status = os.lstat(full)
        old = None if base is None else base.find(path)
        if is_whiteout(status):
            if old is not None:
                yield Difference(path, None)
            continue
        if old is None or not _same(*old, full, status, both=True):
            yield Difference(path, status)
        if stat.S_ISDIR(status.st_mode):
            # Below a directory that was none there is nothing to compare with.
            under = base if old is not None and stat.S_ISDIR(old[1].st_mode) else None
            if old is not None and is_opaque(full):
                yield from _trees(under, upper, path, overlay=True)
            else:
                yield from _upper(upper, under, path)


def _trees(base: Below | None, now: bytes, below: bytes, *, overlay: bool) -> Iterator[Difference]:
    here = (now + b"/" + below if below else now) + b"/"
    before = base.names(below) if base is not None else frozenset()
    after = {name for name in os.listdir(here) if not overlay or not is_whiteout(os.lstat(here + name))}
    for name in sorted(before | after):
        path = below + b"/" + name if below else name
        if name not in after:
            yield Difference(path, None)
            continue
        full = now + b"/" + path
        status = os.lstat(full)
        old = base.find(path) if base is not None and name in before else None
        if old is None or not _same(*old, full, status, both=False):
            yield Difference(path, status)
        elif status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            yield Difference(path, status, unchanged=True)
        if stat.S_ISDIR(status.st_mode):
            under = base if old is not None and stat.S_ISDIR(old[1].st_mode) else None
            yield from _trees(under, now, path, overlay=overlay)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this is overlayfs's mark for a removed file."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(folder: bytes) -> bool:
    """Whether a directory of an overlay hides what is below it."""
    for name in _OPAQUE:
        try:
            if os.getxattr(folder, name, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False


def _same(old_path: bytes, old: os.stat_result, new_path: bytes, new: os.stat_result, *, both: bool) -> bool:
    """Whether two files are the same as far as a layer goes.

    A time without a fraction of a second may have been cut: then the content decides, where both times, or any of the
    two, have none.
    """
    if (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino):
        return True
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (new.st_mode, new.st_uid, new.st_gid, new.st_rdev):
        return False
    link = stat.S_ISLNK(new.st_mode)
    if not link and _attribute(old_path) != _attribute(new_path):
        return False
    if stat.S_ISDIR(new.st_mode):
        return True
    if old.st_size != new.st_size or old.st_mtime_ns // _SECOND != new.st_mtime_ns // _SECOND:
        return False
    cut = [moment.st_mtime_ns % _SECOND == 0 for moment in (old, new)]
    if all(cut) if both else any(cut):
        if link:
            return os.readlink(old_path) == os.readlink(new_path)
        return not new.st_size or not stat.S_ISREG(new.st_mode) or _same_content(old_path, new_path)
    return old.st_mtime_ns == new.st_mtime_ns


def _attribute(path: bytes) -> bytes:
    try:
        return os.getxattr(path, CAPABILITY, follow_symlinks=False)
    except OSError:
        return b""


def _same_content(first: bytes, second: bytes) -> bool:
    with open(first, "rb", buffering=0) as a, open(second, "rb", buffering=0) as b:
        while True:
            left, right = a.read(_CHUNK), b.read(_CHUNK)
            if left != right:
                return False
            if not left:
                return True
