"""Layers in overlayfs's form: a whiteout is a character device 0:0, a folder that hides what is below has a mark.

Such marks show through where nothing is below them, so a layer that has some may only be stacked on what it was made
for; elsewhere a folder is made of it in which they are settled.
"""

import os
import stat
from collections.abc import Iterator

from ...oci.diff import Difference, is_opaque, is_whiteout
from . import trees

_OPAQUE = "trusted.overlay.opaque"
_WHITEOUT = os.makedev(0, 0)


def has_marks(folder: bytes) -> bool:
    """Whether a layer hides anything of what is below it."""
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if is_opaque(entry.path):
                        return True
                    pending.append(entry.path)
                elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                    continue
                elif is_whiteout(entry.stat(follow_symlinks=False)):
                    return True
    return False


def lay_over(layer: bytes, target: bytes) -> None:
    """Lay a layer over a folder that holds lower ones in the same form; files are shared. Marks are kept."""
    _metadata(layer, target)
    for name in os.listdir(layer):
        here, there = layer + b"/" + name, target + b"/" + name
        status = os.lstat(here)
        if stat.S_ISDIR(status.st_mode):
            fresh = not _is_folder(there)
            hidden = fresh and os.path.lexists(there)
            if fresh or is_opaque(here):
                _clear(there)
                os.mkdir(there, 0o700)
            lay_over(here, there)
            if hidden or is_opaque(here):
                # What this hid is hidden in the folders below both, too.
                os.setxattr(there, _OPAQUE, b"y")
                os.utime(there, ns=(status.st_mtime_ns, status.st_mtime_ns))
        else:
            _clear(there)
            trees.link_node(here, there, status)
    _times(layer, target)


def settle(folder: bytes, base: bytes | None) -> None:
    """Take the marks out of a layer that hide nothing of a base; None is an empty one."""
    status = os.lstat(folder)
    for name in os.listdir(folder):
        here = folder + b"/" + name
        below = None if base is None else base + b"/" + name
        found = os.lstat(here)
        if is_whiteout(found):
            if below is None or not os.path.lexists(below):
                os.unlink(here)
        elif stat.S_ISDIR(found.st_mode):
            under = below if below is not None and _is_folder(below) else None
            if under is None and is_opaque(here) and (below is None or not os.path.lexists(below)):
                os.removexattr(here, _OPAQUE)
            # A folder that hides all below it has nothing under it that its own marks could hide.
            settle(here, None if is_opaque(here) else under)
    os.utime(folder, ns=(status.st_mtime_ns, status.st_mtime_ns))


def apply(differences: Iterator[Difference], source: bytes, target: bytes, *, overlay: bool) -> None:
    """Make differences between two trees in another folder.

    Args:
        differences: in path order, as `oci.diff` gives them.
        source: the tree with the files; they never change and are shared.
        target: an overlay's upper folder, where what is gone is marked; or, without `overlay`, a whole tree.
        overlay: which of the two.
    """
    made: list[tuple[bytes, bytes]] = []
    for difference in differences:
        if difference.unchanged:
            continue
        path = difference.path
        there = target + b"/" + path
        _parents(path, source, target, made)
        _clear(there, keep_folder=difference.status is not None and stat.S_ISDIR(difference.status.st_mode))
        if difference.status is None:
            if overlay:
                os.mknod(there, stat.S_IFCHR, _WHITEOUT)
            continue
        here = source + b"/" + path
        if stat.S_ISDIR(difference.status.st_mode):
            if not _is_folder(there):
                os.mkdir(there, 0o700)
            made.append((here, there))
        else:
            trees.link_node(here, there, difference.status)
    for here, there in reversed(made):
        trees.copy_metadata(here, there, os.lstat(here))
    trees.copy_metadata(source, target, os.lstat(source))


def _parents(path: bytes, source: bytes, target: bytes, made: list[tuple[bytes, bytes]]) -> None:
    missing: list[bytes] = []
    folder = path.rpartition(b"/")[0]
    while folder and not _is_folder(target + b"/" + folder):
        missing.append(folder)
        folder = folder.rpartition(b"/")[0]
    for name in reversed(missing):
        os.mkdir(target + b"/" + name, 0o700)
        made.append((source + b"/" + name, target + b"/" + name))


def _metadata(source: bytes, target: bytes) -> None:
    trees.copy_metadata(source, target, os.lstat(source))


def _times(source: bytes, target: bytes) -> None:
    status = os.lstat(source)
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _is_folder(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _clear(path: bytes, *, keep_folder: bool = False) -> None:
    """Remove what is at a path, with all below it."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(path)
    elif not keep_folder:
        _remove_folder(path)


def _remove_folder(folder: bytes) -> None:
    with os.scandir(folder) as entries:
        found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for path, is_folder in found:
        if is_folder:
            _remove_folder(path)
        else:
            os.unlink(path)
    os.rmdir(folder)
