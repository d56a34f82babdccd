"""Files of a result for a frontend: links are followed inside its root only, and devices are never opened."""

import os
import posixpath
import stat
from collections.abc import Iterator
from pathlib import Path

from ...oci.rootfs import Root, UnsafePath
from ...wire.pb.stat_pb2 import Stat

LARGEST_READ = 16 << 20
"""The most bytes that are read at once: a message may not be longer."""
_MAX_LINKS = 255

_GO_TYPES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


class NotFound(FileNotFoundError):
    """A path that is not there, by the name that the frontend gave it."""

    def __init__(self, path: str) -> None:
        super().__init__(f"open {path}: no such file or directory")


def _inside(path: str) -> str:
    """A path of a frontend's from the root; `..` stops there."""
    return posixpath.normpath("/" + path).lstrip("/")


def _open(folder: Path, path: str, flags: int) -> int:
    """What a path leads to, opened. Raises NotFound, ValueError."""
    with Root(folder) as root:
        current = _inside(path)
        for _ in range(_MAX_LINKS):
            try:
                if not current:
                    return os.open(folder, flags | os.O_CLOEXEC)
                place = root.find(current)
                found = place.stat()
                if found is None:
                    raise NotFound(path)
                if flags & os.O_DIRECTORY and not stat.S_ISLNK(found.st_mode) and not stat.S_ISDIR(found.st_mode):
                    raise ValueError(f"{path} is not a folder")
                if not stat.S_ISLNK(found.st_mode):
                    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) or flags & os.O_PATH):
                        raise ValueError(f"{path} is not a regular file")
                    return os.open(place.name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.directory)
                target = os.readlink(place.name, dir_fd=place.directory)
            except (FileNotFoundError, NotADirectoryError):
                raise NotFound(path) from None
            except UnsafePath as error:
                raise ValueError(str(error)) from None
            current = _inside(
                target if target.startswith("/") else posixpath.join(posixpath.dirname(place.path), target)
            )
    raise ValueError(f"{path}: too many levels of symbolic links")


def read_file(folder: Path, path: str, offset: int = 0, length: int | None = None) -> bytes:
    """A regular file's bytes, or a part of them.

    Raises:
        FileNotFoundError: where it is not there.
        ValueError: where it is no regular file, or more than `LARGEST_READ` is asked for.
    """
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"{path}: a range that begins or ends before the file")
    descriptor = _open(folder, path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is not a regular file")
        left = max(0, status.st_size - offset)
        wanted = left if length is None else min(left, length)
        if wanted > LARGEST_READ:
            raise ValueError(f"{path} is larger than {LARGEST_READ >> 20} MiB: read it in parts")
        out = b""
        while len(out) < wanted and (data := os.pread(descriptor, wanted - len(out), offset + len(out))):
            out += data
        return out
    finally:
        os.close(descriptor)


def stat_file(folder: Path, path: str) -> Stat:
    """What is known of a path, whose links are followed. Raises FileNotFoundError, ValueError."""
    descriptor = _open(folder, path, os.O_PATH)
    try:
        status = os.fstat(descriptor)
        return _stat(posixpath.basename(_inside(path)) or "/", status, "", f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def read_dir(folder: Path, path: str, pattern: str = "") -> list[Stat]:
    """The entries of a folder, sorted by name; `pattern` is one as in a `.dockerignore` file, for those wanted.

    Raises:
        FileNotFoundError: where it is not there.
        ValueError: where it is no folder.
    """
    descriptor = _open(folder, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return list(_entries(descriptor, pattern))
    finally:
        os.close(descriptor)


def _entries(descriptor: int, pattern: str) -> Iterator[Stat]:
    from ...wire.patterns import Matcher

    wanted = Matcher([pattern]) if pattern else None
    for name in sorted(os.listdir(descriptor)):
        if wanted is not None and not wanted.matches(name):
            continue
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        link = os.readlink(name, dir_fd=descriptor) if stat.S_ISLNK(status.st_mode) else ""
        yield _stat(name, status, link, f"/proc/self/fd/{descriptor}/{name}")


def _stat(name: str, status: os.stat_result, link: str, place: str) -> Stat:
    entry = Stat(
        path=name, mode=go_mode(status.st_mode), uid=status.st_uid, gid=status.st_gid, modTime=status.st_mtime_ns,
        linkname=link,
    )  # fmt: skip
    if stat.S_ISREG(status.st_mode):
        entry.size = status.st_size
    elif stat.S_ISLNK(status.st_mode):
        entry.size = len(os.fsencode(link))
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    if not link:
        try:
            for key in os.listxattr(place):
                entry.xattrs[key] = os.getxattr(place, key)
        except OSError:
            entry.xattrs.clear()
    return entry


def go_mode(mode: int) -> int:
    """A mode as Go's `os.FileMode` has it."""
    out = stat.S_IMODE(mode) & 0o777 | _GO_TYPES.get(stat.S_IFMT(mode), 0)
    return out | sum(go for bit, go in _GO_BITS if mode & bit)
