"""Layers on disk: a layer tar laid over a directory (OCI image spec, layer; whiteouts and overlayfs's form of them)."""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .compression import CompressionError, decompress
from .rootfs import Place, Root, UnsafePath, clean
from .tar import Entry, Kind, Readable, TarError, TarReader

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_META = ".wh..wh."
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_DEVICES = {Kind.CHAR: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK}


class LayerError(ValueError):
    """A layer that is damaged, hostile or too large, or that the file system cannot hold."""


@dataclass(frozen=True, slots=True)
class LayerStats:
    """What a layer held: entries and bytes of files, the digest of its tar, and what could not be made.

    `hides` says whether it removes anything of what is below it.
    """

    entries: int
    size: int
    diff_id: str
    skipped: tuple[str, ...]
    hides: bool = False


_ALWAYS = 64 << 20


def free_space(folder: Path) -> int | None:
    """The most that an archive may unpack to there: what is free on the disk, but for a tenth of it.

    None where that is not known. A little is always allowed, and then the disk itself says that it is full.
    """
    disk = os.statvfs(folder)
    return max(disk.f_bavail * disk.f_frsize // 10 * 9, _ALWAYS) if disk.f_blocks else None


def apply_layer(
    stream: Readable,
    root: Path,
    *,
    overlay: bool,
    owner: bool,
    userxattr: bool = False,
    parents: Sequence[Path] = (),
    max_size: int | None = None,
    whiteouts: bool = True,
    chown: tuple[int, int] | None = None,
) -> LayerStats:
    """Unpack a layer, compressed or not, over a directory; nothing outside of it is ever touched.

    Args:
        stream: the layer; it is read to its end.
        root: the directory.
        overlay: the directory is an overlay's upper one: what the layer removes is marked there in overlayfs's way
            instead of being removed.
        owner: give files the owners that the layer names, and make its devices; needs the rights of root.
        userxattr: the overlay is mounted with `userxattr`, so the marks are `user.overlay.` attributes.
        parents: the directories under an upper one, nearest first: a directory that the layer itself does not list
            takes its owner, mode and attributes from there.
        max_size: refuse a layer whose tar, or whose files, are larger.
        whiteouts: False takes names beginning with `.wh.` as ordinary files, as in an archive that is no layer.
        chown: one owner for all, instead of those that the layer names.

    Raises:
        LayerError: for a damaged or hostile layer, or where the file system refuses something.
    """
    try:
        with Root(root) as place:
            unpacker = _Unpacker(place, overlay, owner, userxattr, parents, whiteouts, chown)
            reader = TarReader(decompress(stream), max_size)
            for entry in reader:
                try:
                    unpacker.entry(entry, reader)
                except UnsafePath as error:
                    raise LayerError(f"layer: {error}") from None
                except OSError as error:
                    raise LayerError(f"layer: {entry.name!r}: {error.strerror}") from error
            unpacker.finish()
            return LayerStats(unpacker.entries, unpacker.size, reader.digest, tuple(unpacker.skipped), unpacker.hides)
    except (TarError, CompressionError) as error:
        raise LayerError(f"layer: {error}") from None


def is_archive(stream: Readable) -> bool:
    """Whether a stream begins, once decompressed, as a tar archive with at least one entry."""
    try:
        return next(iter(TarReader(decompress(stream), max_size=64 << 20)), None) is not None
    except (TarError, CompressionError):
        return False


class _Unpacker:
    def __init__(
        self,
        root: Root,
        overlay: bool,
        owner: bool,
        userxattr: bool,
        parents: Sequence[Path],
        whiteouts: bool,
        chown: tuple[int, int] | None,
    ) -> None:
        self._root = root
        self._overlay = overlay
        self._owner = owner
        self._opaque = "user.overlay.opaque" if userxattr else "trusted.overlay.opaque"
        self._parents = parents
        self._whiteouts = whiteouts
        self._chown = chown
        self._unprivileged = os.geteuid() != 0
        self._made: set[str] = set()
        self._removed: set[str] = set()
        self._directories: dict[str, tuple[int, int]] = {}
        self.entries = 0
        self.size = 0
        self.skipped: list[str] = []
        self.hides = False

    def entry(self, entry: Entry, reader: TarReader) -> None:
        path = clean(entry.name)
        if not path:
            return
        self.entries += 1
        self.size += entry.size
        name = path.rpartition("/")[2]
        if self._whiteouts and name.startswith(WHITEOUT):
            self._whiteout(path, name)
            return
        place = self._find(path)
        make = self._maker(entry, reader)
        if make is None:
            self.skipped.append(entry.name)
            return
        there = place.stat()
        if there is not None and not (entry.kind is Kind.DIRECTORY and stat.S_ISDIR(there.st_mode)):
            self._root.remove(place)
            place = self._find(path)
        make(place)
        self._made.add(place.path)

    def finish(self) -> None:
        """Set what making the content of a directory would have changed, or prevented."""
        # Deepest first: a directory may take away the right to search what is below it.
        for path in sorted(self._directories, reverse=True):
            mode, mtime_ns = self._directories[path]
            try:
                fd = self._root.open_directory(path)
            except OSError:
                continue
            try:
                os.fchmod(fd, mode)
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)

    def _find(self, path: str, create: bool = True) -> Place:
        place = self._root.find(path, self._missing if create else None)
        if self._unprivileged:
            # A directory of an earlier layer may be closed to its own owner.
            found = os.fstat(place.directory)
            if found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
                mode = stat.S_IMODE(found.st_mode)
                self._directories.setdefault(place.path.rpartition("/")[0], (mode, found.st_mtime_ns))
                os.chmod(f"/proc/self/fd/{place.directory}", mode | stat.S_IRWXU)
        return place

    def _maker(self, entry: Entry, reader: TarReader) -> Callable[[Place], None] | None:
        """How to make an entry, or None where this one may not be made."""
        match entry.kind:
            case Kind.FILE:
                return lambda place: self._file(place, entry, reader)
            case Kind.DIRECTORY:
                return lambda place: self._directory(place, entry)
            case Kind.SYMLINK:
                return lambda place: self._symlink(place, entry)
            case Kind.LINK:
                return lambda place: self._link(place, entry)
            case Kind.FIFO:
                return lambda place: self._special(place, entry, stat.S_IFIFO)
            case Kind.CHAR | Kind.BLOCK:
                # Device 0:0 is overlayfs's mark for a removed file.
                if not self._owner or (self._overlay and entry.device == (0, 0)):
                    return None
                return lambda place: self._special(place, entry, _DEVICES[entry.kind])

    def _file(self, place: Place, entry: Entry, reader: TarReader) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(place.name, flags, 0o600, dir_fd=place.directory)
        try:
            at = 0
            for offset, data in reader.data():
                if offset != at:
                    os.lseek(fd, offset, os.SEEK_SET)
                at = offset + len(data)
                while data:
                    data = data[os.write(fd, data) :]
            if entry.pieces is not None:
                os.ftruncate(fd, entry.size)
            if owner := self._owner_of(entry):
                os.fchown(fd, *owner)
            self._xattrs(fd, entry)
            os.fchmod(fd, entry.mode)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _directory(self, place: Place, entry: Entry) -> None:
        if place.stat() is None:
            os.mkdir(place.name, 0o700, dir_fd=place.directory)
            if self._overlay and place.path in self._removed:
                self._set_opaque(place)
        fd = os.open(place.name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.directory)
        try:
            handle = f"/proc/self/fd/{fd}"
            if owner := self._owner_of(entry):
                os.chown(handle, *owner)
            os.chmod(handle, entry.mode | stat.S_IRWXU)
            self._xattrs(handle, entry)
        finally:
            os.close(fd)
        self._directories[place.path] = (entry.mode, entry.mtime_ns)

    def _symlink(self, place: Place, entry: Entry) -> None:
        os.symlink(entry.linkname, place.name, dir_fd=place.directory)
        if owner := self._owner_of(entry):
            os.chown(place.name, *owner, dir_fd=place.directory, follow_symlinks=False)
        self._xattrs(place, entry)
        self._times(place, entry)

    def _link(self, place: Place, entry: Entry) -> None:
        target = clean(entry.linkname)
        if not target:
            raise UnsafePath(f"{entry.name!r}: a hard link to the root directory")
        # `find` closes the directory of the place before, so this one is kept by a descriptor of its own.
        here = os.dup(place.directory)
        try:
            source = self._root.find(target)
            os.link(source.name, place.name, src_dir_fd=source.directory, dst_dir_fd=here, follow_symlinks=False)
        finally:
            os.close(here)

    def _special(self, place: Place, entry: Entry, kind: int) -> None:
        try:
            os.mknod(place.name, kind | 0o600, os.makedev(*entry.device), dir_fd=place.directory)
        except PermissionError:
            # A user namespace lets nobody make devices.
            self.skipped.append(entry.name)
            return
        if owner := self._owner_of(entry):
            os.chown(place.name, *owner, dir_fd=place.directory, follow_symlinks=False)
        self._xattrs(place, entry)
        fd = os.open(place.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.directory)
        try:
            os.chmod(f"/proc/self/fd/{fd}", entry.mode)
        finally:
            os.close(fd)
        self._times(place, entry)

    def _whiteout(self, path: str, name: str) -> None:
        self.hides = True
        folder = path[: -len(name)].rstrip("/")
        if name == OPAQUE:
            if folder:
                self._hide_below(self._find(folder))
            return
        hidden = name[len(WHITEOUT) :]
        if name.startswith(_META) or hidden in ("", ".", ".."):
            raise UnsafePath(f"{path!r}: not a whiteout of a file")
        path = f"{folder}/{hidden}" if folder else hidden
        try:
            place = self._find(path, create=self._overlay)
        except (FileNotFoundError, NotADirectoryError):
            return
        there = place.stat()
        if place.path in self._made:
            # A whiteout hides what lower layers have, never what its own layer brings.
            if there is not None and stat.S_ISDIR(there.st_mode):
                self._hide_below(place)
        elif self._overlay:
            self._removed.add(place.path)
            self._root.remove(place)
            place = self._find(path)
            os.mknod(place.name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=place.directory)
        else:
            self._root.remove(place)

    def _hide_below(self, place: Place) -> None:
        """Hide all that lower layers have in a directory."""
        there = place.stat()
        if there is None:
            self._missing(place)
        elif not stat.S_ISDIR(there.st_mode):
            return
        if self._overlay:
            self._set_opaque(place)
        else:
            self._root.empty(place, self._made.__contains__)
            self._root.forget()

    def _set_opaque(self, place: Place) -> None:
        os.setxattr(place.proc(), self._opaque, b"y", follow_symlinks=False)

    def _missing(self, place: Place) -> None:
        """Make a parent directory that the layer does not list, like the one below this layer."""
        os.mkdir(place.name, 0o755, dir_fd=place.directory)
        os.chmod(place.proc(), 0o755)
        for parent in self._parents:
            with Root(parent) as lower:
                try:
                    there = lower.find(place.path)
                except (OSError, UnsafePath):
                    continue
                found = there.stat()
                if found is None:
                    continue
                if stat.S_ISDIR(found.st_mode):
                    self._like(place, there, found)
                return

    def _like(self, place: Place, there: Place, found: os.stat_result) -> None:
        if self._owner:
            os.chown(place.name, found.st_uid, found.st_gid, dir_fd=place.directory, follow_symlinks=False)
        for key in os.listxattr(there.proc(), follow_symlinks=False):
            if not key.startswith(_OVERLAY):
                value = os.getxattr(there.proc(), key, follow_symlinks=False)
                _setxattr(place.proc(), key, value, follow=False)
        self._directories[place.path] = (stat.S_IMODE(found.st_mode), found.st_mtime_ns)

    def _owner_of(self, entry: Entry) -> tuple[int, int] | None:
        if not self._owner:
            return None
        return self._chown or (entry.uid, entry.gid)

    def _xattrs(self, target: int | str | Place, entry: Entry) -> None:
        for key, value in entry.xattrs.items():
            # An archive must not steer overlayfs: its marks could show a directory of another place.
            if key.startswith(_OVERLAY):
                continue
            if isinstance(target, Place):
                _setxattr(target.proc(), key, value, follow=False)
            else:
                _setxattr(target, key, value, follow=True)

    @staticmethod
    def _times(place: Place, entry: Entry) -> None:
        os.utime(place.name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=place.directory, follow_symlinks=False)


def _setxattr(target: int | str, key: str, value: bytes, *, follow: bool) -> None:
    """Set an attribute where the file system and the rights allow it; a layer is usable without."""
    try:
        if isinstance(target, int):
            os.setxattr(target, key, value)
        else:
            os.setxattr(target, key, value, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOTSUP):
            raise
