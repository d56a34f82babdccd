"""Making the files of a snapshot: each with its owner, attributes, mode and time, none of them ever changed after."""

import fcntl
import os
import stat
from contextlib import suppress

from ...wire.fsutil.modes import DIRECTORY, SYMLINK, TYPE, permissions, to_kernel
from ...wire.pb.stat_pb2 import Stat

_FICLONE = 0x40049409
_AS_ROOT = os.geteuid() == 0
_OVERLAY = ("trusted.overlay.", "user.overlay.")
"""Attributes that overlay mounts take for their own notes: a client must not write any."""
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def finish(file: int, entry: Stat) -> None:
    """The metadata of an open regular file. Raises OSError."""
    if _AS_ROOT and (entry.uid or entry.gid):
        os.fchown(file, entry.uid, entry.gid)
    if entry.xattrs:
        _set_xattrs(file, entry)
    os.fchmod(file, permissions(entry.mode))
    os.utime(file, ns=(entry.modTime, entry.modTime))


def finish_folder(place: bytes, entry: Stat) -> None:
    """The metadata of a folder, once all that it holds is there. Raises OSError."""
    if _AS_ROOT and (entry.uid or entry.gid):
        os.chown(place, entry.uid, entry.gid)
    if entry.xattrs:
        _set_xattrs(place, entry)
    os.chmod(place, permissions(entry.mode))
    os.utime(place, ns=(entry.modTime, entry.modTime))


def make_special(place: bytes, entry: Stat) -> None:
    """A symbolic link, device or pipe. Raises OSError."""
    if entry.mode & SYMLINK:
        os.symlink(entry.linkname.encode(), place)
    else:
        os.mknod(place, to_kernel(entry.mode), os.makedev(entry.devmajor, entry.devminor))
        os.chmod(place, permissions(entry.mode))
    if _AS_ROOT:
        os.lchown(place, entry.uid, entry.gid)
    if entry.xattrs:
        _set_xattrs(place, entry)
    os.utime(place, ns=(entry.modTime, entry.modTime), follow_symlinks=False)


def is_special(entry: Stat) -> bool:
    """Whether an entry is neither a folder nor a regular file."""
    return bool(entry.mode & TYPE and not entry.mode & DIRECTORY)


def _set_xattrs(target: int | bytes, entry: Stat) -> None:
    for name, value in entry.xattrs.items():
        if name.startswith(_OVERLAY):
            continue
        # What this file system, or this user, cannot keep is left out, as BuildKit does.
        with suppress(OSError):
            if isinstance(target, int):
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)


def clone(source: int, target: int) -> bool:
    """Let a new file share another's blocks; False where the file system can't."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def link_or_copy(source: bytes, target: bytes) -> None:
    """The same file under another name; a copy of it where it has too many names. Raises OSError."""
    try:
        os.link(source, target, follow_symlinks=False)
        return
    except OSError:
        if os.path.lexists(target):
            raise
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writer = os.open(target, NEW, 0o600)
        try:
            if not clone(reader, writer):
                while data := os.read(reader, 1 << 20):
                    os.write(writer, data)
            status = os.fstat(reader)
            if _AS_ROOT:
                os.fchown(writer, status.st_uid, status.st_gid)
            for name in os.listxattr(reader):
                with suppress(OSError):
                    os.setxattr(writer, name, os.getxattr(reader, name))
            os.fchmod(writer, stat.S_IMODE(status.st_mode))
            os.utime(writer, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(writer)
    finally:
        os.close(reader)
