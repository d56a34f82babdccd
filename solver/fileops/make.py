"""The small operations: directories, files, links, and removal (BuildKit's file backend)."""

import errno
import os
import stat

from ...llb.ops import MkDir, MkFile, Rm, Symlink
from ...oci.rootfs import Root, from_root, open_below
from .errors import FileOpError, as_file_op_error, told
from .target import Plain, Target
from .wildcard import expand

Owner = tuple[int, int] | None


def mkdir(root: Root, action: MkDir, owner: Owner) -> None:
    """Make a directory; one that is there stays as it is."""
    path = from_root(action.path)
    target = Plain(root)
    with told("mkdir", path):
        place = root.locate(path)
        if action.make_parents:
            make_directories(target, place, action.mode & 0o777, owner, action.timestamp)
        elif place and target.stat(place) is None:
            _make_directory(target, place, action.mode & 0o777, owner, action.timestamp)


def make_directories(target: Target, path: str, mode: int, owner: Owner, timestamp: int) -> list[str]:
    """Make what is missing of a located path, and return what was made, the highest first.

    Raises:
        FileOpError: where something else is in the way.
    """
    missing: list[str] = []
    while path:
        found = target.stat(path)
        if found is not None:
            if not stat.S_ISDIR(found.st_mode):
                raise FileOpError(f"mkdir /{path}: not a directory")
            break
        missing.append(path)
        path = path.rpartition("/")[0]
    for place in reversed(missing):
        _make_directory(target, place, mode, owner, timestamp)
    if timestamp != -1:
        # What was made in them has changed the upper ones again.
        for place in missing[1:]:
            os.utime(place, ns=(timestamp, timestamp), dir_fd=target.fileno(), follow_symlinks=False)
    return missing[::-1]


def _make_directory(target: Target, path: str, mode: int, owner: Owner, timestamp: int) -> None:
    target.make(path)
    fd = target.folder(path)
    try:
        set_owner(fd, owner)
        os.fchmod(fd, mode)
        if timestamp != -1:
            os.utime(fd, ns=(timestamp, timestamp))
    finally:
        os.close(fd)


def set_owner(fd: int, owner: Owner) -> None:
    """Change the owner of an open file; nothing where there is none to set, or no right to."""
    if owner is not None:
        try:
            os.fchown(fd, *owner)
        except PermissionError:
            if os.geteuid() == 0:
                raise


def mkfile(root: Root, action: MkFile, owner: Owner) -> None:
    """Write a file; one that is there keeps its mode, and its other names their content."""
    path = from_root(action.path)
    with told("open", path):
        name, above = _parent(root, path)
        try:
            mode = action.mode & 0o777
            uid, gid = owner or (-1, -1)
            try:
                old = os.stat(name, dir_fd=above, follow_symlinks=False)
            except FileNotFoundError:
                pass
            else:
                if stat.S_ISDIR(old.st_mode):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                mode = old.st_mode & 0o7777
                if owner is None:
                    uid, gid = old.st_uid, old.st_gid
                # The old file may be shared with another snapshot.
                os.unlink(name, dir_fd=above)
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=above)
            with open(fd, "wb", buffering=0) as file:
                view = memoryview(action.data)
                while view:
                    view = view[file.write(view) :]
                set_owner(fd, (uid, gid) if (uid, gid) != (-1, -1) else None)
                os.fchmod(fd, mode)
                if action.timestamp != -1:
                    os.utime(fd, ns=(action.timestamp, action.timestamp))
        finally:
            os.close(above)


def symlink(root: Root, action: Symlink, owner: Owner) -> None:
    """Make a symbolic link, whatever it points to."""
    path = from_root(action.newpath)
    with told(f"symlink {action.oldpath}", path):
        name, above = _parent(root, path)
        try:
            os.symlink(action.oldpath, name, dir_fd=above)
            if owner is not None:
                try:
                    os.chown(name, *owner, dir_fd=above, follow_symlinks=False)
                except PermissionError:
                    if os.geteuid() == 0:
                        raise
            if action.timestamp != -1:
                os.utime(name, ns=(action.timestamp, action.timestamp), dir_fd=above, follow_symlinks=False)
        finally:
            os.close(above)


def _parent(root: Root, path: str) -> tuple[str, int]:
    """The last name of what a path leads to, and the open directory that it is in."""
    place = root.locate(path)
    if not place:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    folder, _, name = place.rpartition("/")
    return name, open_below(root.fileno(), folder, os.O_RDONLY | os.O_DIRECTORY)


def rm(root: Root, action: Rm) -> None:
    """Remove a path, or all that a pattern matches, with what is below."""
    path = from_root(action.path)
    if not action.allow_wildcard:
        _remove(root, path, allow_not_found=action.allow_not_found)
        return
    with told("lstat", path):
        found = expand(root, path, follow=False)
    for match in found:
        _remove(root, match, allow_not_found=action.allow_not_found)


def _remove(root: Root, path: str, *, allow_not_found: bool) -> None:
    if path.strip("/") == "":
        raise FileOpError("rm /: the root itself can't be removed")
    try:
        place = root.find(root.locate(path, follow=False))
        if place.stat() is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        root.remove(place)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not allow_not_found:
            raise as_file_op_error(error, "stat", path) from error
    except OSError as error:
        raise as_file_op_error(error, "unlinkat", path) from error
    except ValueError as error:
        raise FileOpError(f"rm {path}: {error}") from error
