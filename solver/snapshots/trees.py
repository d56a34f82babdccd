"""Copying a whole tree with owners, modes, times, extended attributes and hard links; removing one."""

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

from ...oci.rootfs import Root
from ...wire.fsutil.opening import open_to_read

_FICLONE = 0x40049409
_XATTRS_OF_OVERLAY = ("trusted.overlay.", "user.overlay.")
_PIECE = 64 << 20


def copy_data(source: bytes, target: bytes) -> None:
    """A regular file's bytes to a new file: shared blocks where the file system can, else copied in the kernel."""
    reader = open_to_read(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.ioctl(writer, _FICLONE, reader)
                return
            except OSError:
                pass
            while True:
                try:
                    sent = os.copy_file_range(reader, writer, _PIECE)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                        raise
                    sent = os.sendfile(writer, reader, None, _PIECE)
                if sent == 0:
                    return
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def copy_metadata(source: bytes, target: bytes, status: os.stat_result) -> None:
    """Owner, extended attributes, mode and times, without following links."""
    try:
        os.lchown(target, status.st_uid, status.st_gid)
    except PermissionError:
        if os.geteuid() == 0:
            raise
    copy_xattrs(source, target)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns), follow_symlinks=False)


def copy_xattrs(source: bytes, target: bytes) -> None:
    """Extended attributes but overlay's own; those that the target can't hold are left out."""
    try:
        names = os.listxattr(source, follow_symlinks=False)
    except OSError:
        return
    for name in names:
        if name.startswith(_XATTRS_OF_OVERLAY):
            continue
        with suppress(OSError):
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)


def copy_node(source: bytes, target: bytes, status: os.stat_result, links: dict[tuple[int, int], bytes]) -> None:
    """One entry that is no folder; `links` maps inodes to where they were copied to."""
    mode = status.st_mode
    if status.st_nlink > 1:
        known = links.get((status.st_dev, status.st_ino))
        if known is not None:
            os.link(known, target, follow_symlinks=False)
            return
        links[(status.st_dev, status.st_ino)] = target
    if stat.S_ISREG(mode):
        copy_data(source, target)
    elif stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISSOCK(mode):
        return
    else:
        try:
            os.mknod(target, mode, status.st_rdev)
        except PermissionError:
            return
    copy_metadata(source, target, status)


def link_node(source: bytes, target: bytes, status: os.stat_result) -> None:
    """The same entry, which is no folder and never changes, under another name; a copy where that is impossible."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EMLINK, errno.EPERM, errno.EXDEV):
            raise
        copy_node(source, target, status, {})


def copy_tree(source: bytes, target: bytes, *, share: bool = False) -> None:
    """The content of a folder into another that exists and is empty, and the folder's own metadata.

    With `share` the files are the same ones under another name: for trees that never change.
    """
    links: dict[tuple[int, int], bytes] = {}
    folders: list[tuple[bytes, bytes, os.stat_result]] = [(source, target, os.lstat(source))]
    position = 0
    while position < len(folders):
        here, there, _ = folders[position]
        position += 1
        with os.scandir(here) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                copied = os.path.join(there, entry.name)
                if stat.S_ISDIR(status.st_mode):
                    os.mkdir(copied, 0o700)
                    folders.append((entry.path, copied, status))
                elif share:
                    link_node(entry.path, copied, status)
                else:
                    copy_node(entry.path, copied, status, links)
    for here, there, status in reversed(folders):
        copy_metadata(here, there, status)


def size(folder: bytes) -> int:
    """The bytes that a tree takes on the disk; a file with several names counts once."""
    total = os.lstat(folder).st_blocks * 512
    seen: set[int] = set()
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    pending.append(entry.path)
                elif status.st_nlink > 1:
                    if status.st_ino in seen:
                        continue
                    seen.add(status.st_ino)
                total += status.st_blocks * 512
    return total


def remove(folder: Path) -> None:
    """Remove a tree, however deep, folders without permission for ourselves too; no error where there is none."""
    with suppress(FileNotFoundError), Root(folder.parent) as root:
        root.remove(root.find(folder.name))
