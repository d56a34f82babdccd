"""Copies between file systems: `cp -a` with BuildKit's rules of what merges, replaces and is refused.

Source: what fsutil's copy package does for BuildKit's file op.
"""

import errno
import fcntl
import os
import posixpath
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...grammar.dockerignore import Matcher, PatternError
from ...llb.ops import Copy
from ...oci.rootfs import Root, from_root, open_below
from ...wire.fsutil.opening import open_to_read
from .chmod import Change, parse_mode
from .errors import FileOpError, as_file_op_error, told
from .make import Owner, make_directories, set_owner
from .target import Target
from .wildcard import expand

_FICLONE = 0x40049409
_SMALL = 128 << 10
_PIECE = 64 << 20
_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_XATTRS_OF_OVERLAY = ("trusted.overlay.", "user.overlay.")


def copy(
    source: Root, target: Target, action: Copy, owner: Owner, check: Callable[[], None], *, link: bool = False
) -> None:
    """Copy what the action selects of one file system into another; with `link` files are shared where they can be.

    Raises:
        FileOpError: where it can't be done.
        OSError: where the machine fails.
    """
    wanted, dest = _slashed(action.src), _slashed(action.dest)
    if not action.create_dest_path:
        with told("lstat", action.dest):
            folder = posixpath.dirname("/" + target.locate(action.dest))
            if folder != "/" and target.stat(folder[1:]) is None:
                raise FileOpError(f"failed to stat {action.dest}: lstat {folder}: no such file or directory")
    paths = [wanted]
    if action.allow_wildcard:
        with told("lstat", wanted):
            paths = expand(source, wanted, follow=action.follow_symlink)
        if not paths:
            if action.allow_empty_wildcard:
                return
            raise FileOpError(f"{wanted} not found")
    for path in paths:
        if action.attempt_unpack and _unpack(source, target, path, dest, action, owner):
            continue
        _Copier(source, target, action, owner, check, link).copy(path, dest)


def _slashed(path: str) -> str:
    """A path from the root, cleaned, with the end that says it is a directory: `/` or `/.`."""
    cleaned = from_root(path)
    if path.endswith("/."):
        return cleaned + ("." if cleaned == "/" else "/.")
    return cleaned + "/" if path.endswith("/") and cleaned != "/" else cleaned


def _unpack(source: Root, target: Target, path: str, dest: str, action: Copy, owner: Owner) -> bool:
    """Unpack an archive; False for what is none."""
    from ...oci.layer import LayerError, apply_layer, free_space, is_archive

    with told("open", path):
        place = source.locate(path)
        try:
            fd = open_below(source.fileno(), place, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return False
    with open(fd, "rb") as file:
        if not is_archive(file):
            return False
        file.seek(0)
        with told("mkdir", dest):
            folder = target.locate(dest)
            make_directories(target, folder, 0o755, owner, action.timestamp)
            there = target.folder(folder)
        try:
            folder_itself = Path(f"/proc/self/fd/{there}")
            root, limit = os.geteuid() == 0, free_space(folder_itself)
            apply_layer(file, folder_itself, overlay=False, owner=root, whiteouts=False, chown=owner, max_size=limit)
        except LayerError as error:
            full = error.__cause__
            if isinstance(full, OSError) and full.errno in (errno.ENOSPC, errno.EDQUOT):
                raise full from None
            raise FileOpError(f"failed to unpack {path}: {str(error).removeprefix('layer: ')}") from error
        finally:
            os.close(there)
    return True


@dataclass(slots=True)
class _Folder:
    """A directory that is copied; paths are below the roots, `below` is that from the top of the copy.

    `there` says that the target is made; else it is made when something in it is copied.
    """

    source: str
    target: str
    below: str
    status: os.stat_result
    above: "_Folder | None"
    there: bool


class _Copier:
    """One path to one destination."""

    def __init__(
        self, source: Root, target: Target, action: Copy, owner: Owner, check: Callable[[], None], link: bool
    ) -> None:
        self._source = source
        self._target = target
        self._owner = owner
        self._check = check
        self._contents = action.dir_copy_contents
        self._follow = action.follow_symlink
        self._replace = action.always_replace_existing_dest_paths
        self._timestamp = action.timestamp
        self._new_mode: Change | None = None
        self._parent_mode = 0o755
        if action.mode_str:
            self._new_mode = parse_mode(action.mode_str)
        elif action.mode != -1:
            mode = action.mode & 0o7777
            self._new_mode = lambda _: mode
            self._parent_mode = action.mode & 0o777
        try:
            self._include = Matcher(action.include_patterns) if action.include_patterns else None
            self._exclude = Matcher(action.exclude_patterns) if action.exclude_patterns else None
        except PatternError as error:
            raise FileOpError(f"invalid pattern: {error}") from error
        # By name outside of the copy, device and inode: the first copy, which later names are linked to.
        self._links: dict[tuple[int, int], str] = {}
        self._finished: list[_Folder] = []
        self._unprivileged = os.geteuid() != 0
        # A file with a second name has one owner, mode and time under both.
        self._link = link and self._timestamp == -1

    def copy(self, path: str, dest: str) -> None:
        """Copy a path to where it belongs by the rules of `cp`."""
        made: list[str] = []
        head, _, last = dest.rpartition("/")
        with told("mkdir", dest):
            made += self._parents(self._target.locate(dest if last in ("", ".") else head))
            place = self._target.locate(dest)
        with told("lstat", path):
            found = self._source.locate(path, follow=self._follow)
            status = _stat(self._source, found)
            if status is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        is_folder = stat.S_ISDIR(status.st_mode)
        with told("mkdir", dest):
            there = self._target.stat(place)
            into = there is not None and (not self._contents if is_folder else stat.S_ISDIR(there.st_mode))
            name = posixpath.basename(posixpath.normpath(path))
            if into and name:
                place = f"{place}/{name}" if place else name
            whole = self._contents and is_folder and there is None
            made += self._parents(place if whole else place.rpartition("/")[0])
            if (into and name) or whole:
                there = self._target.stat(place)
        if is_folder:
            self._tree(found, place, status, there)
        else:
            self._single(found, place, status)
        if self._timestamp != -1:
            for folder in reversed(made):
                times = (self._timestamp, self._timestamp)
                os.utime(folder, ns=times, dir_fd=self._target.fileno(), follow_symlinks=False)

    def _parents(self, place: str) -> list[str]:
        return make_directories(self._target, place, self._parent_mode, self._owner, self._timestamp)

    def _single(self, found: str, place: str, status: os.stat_result) -> None:
        here = open_below(self._source.fileno(), found.rpartition("/")[0], _READ_DIRECTORY)
        try:
            there = self._target.folder(place.rpartition("/")[0])
            try:
                self._entry(here, found.rpartition("/")[2], there, place, status)
            except OSError as error:
                raise as_file_op_error(error, "copy", "/" + place) from error
            finally:
                os.close(there)
        finally:
            os.close(here)

    def _tree(self, found: str, place: str, status: os.stat_result, there: os.stat_result | None) -> None:
        """A directory with all in it that the patterns choose."""
        top = _Folder(found, place, "", status, None, there=True)
        with told("mkdir", "/" + place):
            if there is None:
                self._target.make(place)
                self._finished.append(top)
            elif not stat.S_ISDIR(there.st_mode):
                if not self._replace:
                    raise FileOpError(f"cannot copy to non-directory: /{place}")
                self._target.remove(place)
                self._target.make(place)
                self._finished.append(top)
        pending = [top]
        while pending:
            self._check()
            pending += reversed(self._folder(pending.pop()))
        # Times last and from below: what was put in changed them.
        for folder in reversed(self._finished):
            self._finish(folder)
        if there is not None:
            times = self._times(status)
            fd = self._target.folder(place)
            try:
                os.utime(fd, ns=times)
            finally:
                os.close(fd)

    def _folder(self, folder: _Folder) -> list[_Folder]:
        """Copy the files of a directory; returns the directories in it."""
        below: list[_Folder] = []
        name = ""
        try:
            here = open_below(self._source.fileno(), folder.source, _READ_DIRECTORY)
        except OSError as error:
            raise as_file_op_error(error, "open", "/" + folder.source) from error
        there = -1
        prefix = f"{folder.below}/" if folder.below else ""
        target = f"{folder.target}/" if folder.target else ""
        source = f"{folder.source}/" if folder.source else ""
        try:
            with os.scandir(here) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
            for entry in entries:
                name = entry.name
                path = prefix + name
                chosen, searched = self._chosen(path, entry)
                if not chosen and not searched:
                    continue
                status = entry.stat(follow_symlinks=False)
                is_folder = stat.S_ISDIR(status.st_mode)
                if not chosen:
                    if is_folder:
                        below.append(_Folder(source + name, target + name, path, status, folder, there=False))
                    continue
                if there < 0:
                    self._ensure(folder)
                    there = self._target.folder(folder.target)
                if not is_folder:
                    self._entry(here, name, there, target + name, status)
                    continue
                inner = _Folder(source + name, target + name, path, status, folder, there=True)
                self._present(inner)
                self._finished.append(inner)
                if searched:
                    below.append(inner)
        except OSError as error:
            raise as_file_op_error(error, "copy", f"/{target}{name}") from error
        finally:
            os.close(here)
            if there >= 0:
                os.close(there)
        return below

    def _chosen(self, path: str, entry: "os.DirEntry[str]") -> tuple[bool, bool]:
        """Whether an entry is copied itself, and whether what is in it is looked at."""
        include, exclude = self._include, self._exclude
        if include is None and exclude is None:
            return True, True
        if exclude is not None and exclude.matches(path):
            return False, exclude.exclusions and entry.is_dir(follow_symlinks=False)
        if include is None or include.matches(path):
            return True, True
        return False, entry.is_dir(follow_symlinks=False)

    def _ensure(self, folder: _Folder) -> None:
        """Make a directory that was put off, with those above it."""
        late: list[_Folder] = []
        at: _Folder | None = folder
        while at is not None and not at.there:
            late.append(at)
            at = at.above
        for one in reversed(late):
            if self._present(one):
                self._finished.append(one)
            else:
                fd = self._target.folder(one.target)
                try:
                    os.fchmod(fd, one.status.st_mode & 0o7777)
                finally:
                    os.close(fd)
            one.there = True

    def _present(self, folder: _Folder) -> bool:
        """Make a directory where there is none; True where it was made."""
        status = self._target.stat(folder.target)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            if not self._replace:
                raise FileOpError(f"cannot copy to non-directory: /{folder.target}")
            self._target.remove(folder.target)
            status = None
        if status is None:
            self._target.make(folder.target)
            return True
        return False

    def _finish(self, folder: _Folder) -> None:
        status = folder.status
        try:
            fd = self._target.folder(folder.target)
            try:
                here = open_below(self._source.fileno(), folder.source, _READ_DIRECTORY)
                try:
                    self._metadata(here, fd, status)
                finally:
                    os.close(here)
            finally:
                os.close(fd)
        except OSError as error:
            raise as_file_op_error(error, "copy", "/" + folder.target) from error

    def _times(self, status: os.stat_result) -> tuple[int, int]:
        if self._timestamp != -1:
            return self._timestamp, self._timestamp
        return status.st_atime_ns, status.st_mtime_ns

    def _metadata(self, here: int, there: int, status: os.stat_result) -> None:
        """Owner, mode, times and extended attributes from one open file to another."""
        set_owner(there, self._owner or (status.st_uid, status.st_gid))
        mode = status.st_mode & 0o7777
        if self._new_mode is not None:
            mode = self._new_mode(status.st_mode)
        os.fchmod(there, mode)
        if names := os.listxattr(here):
            _copy_xattrs(here, there, names)
        os.utime(there, ns=self._times(status))

    def _entry(self, here: int, name: str, there: int, place: str, status: os.stat_result) -> None:
        """One entry that is no directory, with what is in its way removed."""
        mode = status.st_mode
        made = place.rpartition("/")[2]
        if not made:
            raise FileOpError("cannot replace to directory / with file")
        known = self._links.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None
        self._meet(place)
        if stat.S_ISREG(mode) and known is None:
            if not (self._link and self._linked(here, name, there, made, place, status)):
                self._file(here, name, there, made, place, status)
        else:
            self._clear(there, made, place)
            if stat.S_ISREG(mode) and known is not None:
                os.link(known, made, src_dir_fd=self._target.fileno(), dst_dir_fd=there, follow_symlinks=False)
                return
            if stat.S_ISLNK(mode):
                os.symlink(os.readlink(name, dir_fd=here), made, dir_fd=there)
            elif not self._device(there, made, status):
                return
            self._special_metadata(here, name, there, made, status)
        if status.st_nlink > 1 and stat.S_ISREG(mode):
            self._links[status.st_dev, status.st_ino] = place

    def _meet(self, place: str) -> None:
        """Refuse to hide a directory of below by a file."""
        below = self._target.below(place)
        if below is not None and stat.S_ISDIR(below.st_mode) and not self._replace:
            raise FileOpError(f"cannot replace to directory /{place} with file")

    def _linked(self, here: int, name: str, there: int, made: str, place: str, status: os.stat_result) -> bool:
        """Give a file a second name where it is to be the same in everything; False where that can't be."""
        if self._owner is not None and self._owner != (status.st_uid, status.st_gid):
            return False
        if self._new_mode is not None and self._new_mode(status.st_mode) != stat.S_IMODE(status.st_mode):
            return False
        try:
            try:
                os.link(name, made, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
            except FileExistsError:
                self._clear(there, made, place)
                os.link(name, made, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.EXDEV:
                self._link = False
            elif error.errno not in (errno.EMLINK, errno.EPERM):
                raise
            return False
        return True

    def _clear(self, there: int, made: str, place: str) -> None:
        try:
            old = os.stat(made, dir_fd=there, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(old.st_mode):
            os.unlink(made, dir_fd=there)
        elif self._replace:
            self._target.remove(place)
        else:
            raise FileOpError(f"cannot replace to directory /{place} with file")

    def _file(self, here: int, name: str, there: int, made: str, place: str, status: os.stat_result) -> None:
        reader = open_to_read(name, _READ_FILE, dir_fd=here)
        try:
            try:
                writer = os.open(made, _NEW_FILE, 0o600, dir_fd=there)
            except FileExistsError:
                self._clear(there, made, place)
                writer = os.open(made, _NEW_FILE, 0o600, dir_fd=there)
            try:
                if status.st_size:
                    self._data(reader, writer, status.st_size)
                self._metadata(reader, writer, status)
            finally:
                os.close(writer)
        finally:
            os.close(reader)

    def _data(self, reader: int, writer: int, size: int) -> None:
        if size <= _SMALL:
            while data := os.read(reader, _SMALL):
                view = memoryview(data)
                while view:
                    view = view[os.write(writer, view) :]
            return
        try:
            fcntl.ioctl(writer, _FICLONE, reader)
            return
        except OSError:
            pass
        while True:
            self._check()
            try:
                sent = os.copy_file_range(reader, writer, _PIECE)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                sent = os.sendfile(writer, reader, None, _PIECE)
            if sent == 0:
                return

    @staticmethod
    def _device(there: int, made: str, status: os.stat_result) -> bool:
        """A device, a pipe, or an empty file for a socket; False where nobody may make one here."""
        mode = status.st_mode
        if stat.S_ISSOCK(mode):
            mode = stat.S_IFREG | stat.S_IMODE(mode)
        try:
            os.mknod(made, mode, status.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0, dir_fd=there)
        except PermissionError:
            if os.geteuid() == 0:
                raise
            return False
        return True

    def _special_metadata(self, here: int, name: str, there: int, made: str, status: os.stat_result) -> None:
        """As `_metadata`, for what can't be opened."""
        try:
            os.chown(made, *(self._owner or (status.st_uid, status.st_gid)), dir_fd=there, follow_symlinks=False)
        except PermissionError:
            if not self._unprivileged:
                raise
        new = f"/proc/self/fd/{there}/{made}"
        if not stat.S_ISLNK(status.st_mode):
            mode = status.st_mode & 0o7777
            if self._new_mode is not None:
                mode = self._new_mode(status.st_mode)
            fd = os.open(made, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=there)
            try:
                os.chmod(f"/proc/self/fd/{fd}", mode)
            finally:
                os.close(fd)
        old = f"/proc/self/fd/{here}/{name}"
        for key in os.listxattr(old, follow_symlinks=False):
            if not key.startswith(_XATTRS_OF_OVERLAY):
                try:
                    os.setxattr(new, key, os.getxattr(old, key, follow_symlinks=False), follow_symlinks=False)
                except OSError:
                    continue
        os.utime(made, ns=self._times(status), dir_fd=there, follow_symlinks=False)


def _stat(root: Root, path: str) -> os.stat_result | None:
    try:
        fd = open_below(root.fileno(), path, os.O_PATH)
    except FileNotFoundError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _copy_xattrs(here: int, there: int, names: list[str]) -> None:
    """Those that the target can't hold are left out, as BuildKit does; overlay's own steer nothing elsewhere."""
    for name in names:
        if name.startswith(_XATTRS_OF_OVERLAY):
            continue
        try:
            os.setxattr(there, name, os.getxattr(here, name))
        except OSError:
            continue
