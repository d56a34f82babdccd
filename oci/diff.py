"""How a directory differs from another, in the order and with the exactness that layers are made with.

Source: containerd's continuity library and BuildKit's overlay differ: mode, owner and capabilities count, of files also
size and time; a file whose time may have been cut to seconds by an archive is compared by its content.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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


def of_upper(upper: bytes, base: bytes | None) -> Iterator[Difference]:
    """What an overlay's upper directory changes of what is below it; None is nothing."""
    yield from _upper(upper, base, b"")


def of_trees(base: bytes | None, now: bytes) -> Iterator[Difference]:
    """What one directory has that another has not, and the other way round."""
    yield from _trees(base, now, b"", overlay=False)


def _names(folder: bytes) -> list[bytes]:
    return sorted(os.listdir(folder))


def _upper(upper: bytes, base: bytes | None, below: bytes) -> Iterator[Difference]:
    here = upper + b"/" + below if below else upper
    for name in _names(here):
        path = below + b"/" + name if below else name
        full = upper + b"/" + path
        status = os.lstat(full)
        before = None if base is None else _status(base + b"/" + path)
        if is_whiteout(status):
            if before is not None:
                yield Difference(path, None)
            continue
        if before is None or not _same(base + b"/" + path if base else b"", before, full, status, both=True):
            yield Difference(path, status)
        if stat.S_ISDIR(status.st_mode):
            if before is not None and is_opaque(full):
                under = base if stat.S_ISDIR(before.st_mode) else None
                yield from _trees(under, upper, path, overlay=True)
            else:
                # Below a directory that was none there is nothing to compare with.
                yield from _upper(upper, base if before is not None and stat.S_ISDIR(before.st_mode) else None, path)


def _trees(base: bytes | None, now: bytes, below: bytes, *, overlay: bool) -> Iterator[Difference]:
    def place(root: bytes) -> bytes:
        return root + b"/" + below if below else root

    before = set(os.listdir(place(base))) if base is not None else set()
    after = {
        name for name in os.listdir(place(now)) if not overlay or not is_whiteout(os.lstat(place(now) + b"/" + name))
    }
    for name in sorted(before | after):
        path = below + b"/" + name if below else name
        if name not in after:
            yield Difference(path, None)
            continue
        full = now + b"/" + path
        status = os.lstat(full)
        old_path = b"" if base is None else base + b"/" + path
        old = _status(old_path) if name in before else None
        if old is None or not _same(old_path, old, full, status, both=False):
            yield Difference(path, status)
        elif status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            yield Difference(path, status, unchanged=True)
        if stat.S_ISDIR(status.st_mode):
            under = base if old is not None and stat.S_ISDIR(old.st_mode) else None
            yield from _trees(under, now, path, overlay=overlay)


def _status(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


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
