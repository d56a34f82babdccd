"""Where a copy goes: a directory that is the file system, or the upper folder of an overlay that is not mounted.

Into an upper folder one may write without a mount what copies make, since they only add: a new file hides one of
below, and a folder is one with those below it. Files of the same disk can be given a second name there.
"""

import os
import stat
from typing import Protocol

from ...oci.rootfs import Root, open_below

_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_XATTRS_OF_OVERLAY = ("trusted.overlay.", "user.overlay.")


class Target(Protocol):
    """A file system that is written to. Paths are located ones, relative to its root."""

    def locate(self, path: str) -> str:
        """Where a path leads, with every link followed. Raises UnsafePath, NotADirectoryError."""

    def stat(self, path: str) -> os.stat_result | None:
        """What is there, links not followed."""

    def folder(self, path: str) -> int:
        """A directory, open for making files in it; the caller closes it. Raises OSError."""

    def make(self, path: str) -> None:
        """A new directory in one that is there, closed to others at first. Raises OSError."""

    def remove(self, path: str) -> None:
        """Remove what is at a path, with all below it."""

    def below(self, path: str) -> os.stat_result | None:
        """What an entry is that a new file would hide rather than meet: only in an upper folder there is such."""

    def fileno(self) -> int:
        """The directory that is written to."""


class Plain:
    """A directory that is the whole file system."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def locate(self, path: str) -> str:
        """See `Target`."""
        return self._root.locate(path)

    def stat(self, path: str) -> os.stat_result | None:
        """See `Target`."""
        return _stat(self._root.fileno(), path)

    def folder(self, path: str) -> int:
        """See `Target`."""
        return open_below(self._root.fileno(), path, _READ_DIRECTORY)

    def make(self, path: str) -> None:
        """See `Target`."""
        above, _, name = path.rpartition("/")
        fd = self.folder(above)
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
        finally:
            os.close(fd)

    def remove(self, path: str) -> None:
        """See `Target`."""
        self._root.remove(self._root.find(path))
        self._root.forget()

    def below(self, path: str) -> os.stat_result | None:
        """See `Target`."""
        return None

    def fileno(self) -> int:
        """See `Target`."""
        return self._root.fileno()


class Upper:
    """An overlay's upper folder, with a view of what it and the folders below it show when the work begins.

    Nothing may be hidden in the upper folder, as only removals do.
    """

    def __init__(self, view: Root, upper: Root) -> None:
        self._view = view
        self._upper = upper
        self._removed: set[str] = set()
        self._fresh: set[str] = set()

    def locate(self, path: str) -> str:
        """See `Target`. Copies make no link that a later step of the same copy would follow."""
        return self._view.locate(path)

    def stat(self, path: str) -> os.stat_result | None:
        """See `Target`."""
        found = _stat(self._upper.fileno(), path)
        return found if found is not None else self.below(path)

    def folder(self, path: str) -> int:
        """See `Target`. A directory that is only below is made here, too."""
        try:
            return open_below(self._upper.fileno(), path, _READ_DIRECTORY)
        except FileNotFoundError:
            pass
        seen = open_below(self._view.fileno(), path, _READ_DIRECTORY)
        try:
            above, _, name = path.rpartition("/")
            fd = self.folder(above)
            try:
                status = os.fstat(fd)
                os.mkdir(name, 0o700, dir_fd=fd)
                # For whoever looks nothing was made there.
                os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(fd)
            made = open_below(self._upper.fileno(), path, _READ_DIRECTORY)
            _like(seen, made)
            return made
        finally:
            os.close(seen)

    def make(self, path: str) -> None:
        """See `Target`."""
        above, _, name = path.rpartition("/")
        found = None if above in self._fresh else _stat(self._view.fileno(), path)
        if found is None or not stat.S_ISDIR(found.st_mode):
            self._fresh.add(path)
        fd = self.folder(above)
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
            if path in self._removed:
                # What was here hid what is below: that stays hidden.
                os.setxattr(f"/proc/self/fd/{fd}/{name}", "trusted.overlay.opaque", b"y", follow_symlinks=False)
        finally:
            os.close(fd)

    def remove(self, path: str) -> None:
        """See `Target`. What is below is hidden by what comes instead."""
        if _stat(self._upper.fileno(), path) is not None:
            self._removed.add(path)
            self._upper.remove(self._upper.find(path))
            self._upper.forget()

    def below(self, path: str) -> os.stat_result | None:
        """See `Target`."""
        return None if path.rpartition("/")[0] in self._fresh else _stat(self._view.fileno(), path)

    def fileno(self) -> int:
        """See `Target`."""
        return self._upper.fileno()


def _stat(root: int, path: str) -> os.stat_result | None:
    try:
        fd = open_below(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _like(source: int, target: int) -> None:
    """Give a new directory the metadata of one below."""
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    for name in os.listxattr(source):
        if not name.startswith(_XATTRS_OF_OVERLAY):
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError:
                continue
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
