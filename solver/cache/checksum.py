"""The content that an op reads of an input, as one digest: names, types, modes, owners, links, extended attributes
and bytes, but no times. Kept for each snapshot and selection.

Source: BuildKit's cache/contenthash: a folder's digest is that of its own header with the names and digests of what
it holds; of filtered folders, headers and files count one by one.
"""

import hashlib
import os
import posixpath
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ...grammar.dockerignore import Matcher, PatternError
from ...oci.rootfs import Root, UnsafePath, from_root
from ...wire.fsutil.opening import open_to_read
from ..base import Context, Selection, SolveError
from ..fileops.wildcard import expand, has_wildcards

if TYPE_CHECKING:
    from .store import CacheStore

_CHUNK = 1 << 20
_KEPT = 6
"""So many snapshots' digests of single files stay in memory."""
_OVERLAYS = ("trusted.overlay.", "user.overlay.")
_KINDS = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}


def checksum(snapshot: str | None, selection: Selection, context: Context) -> str:
    """The digest of a selection of a snapshot's files.

    Raises:
        SolveError: where a path is not there.
        Cancelled: where the build was stopped.
    """
    if snapshot is None:
        return "empty"
    key = f"{snapshot}:{hashlib.sha256(repr(selection).encode('utf-8', 'surrogateescape')).hexdigest()}"
    known = context.cache.get_value("checksum", key)
    if known is not None:
        return known.decode()
    digests = _digests(snapshot, context)
    # Builds that ask for the same at the same time wait for the first.
    with digests.exclusively(key):
        known = context.cache.get_value("checksum", key)
        if known is not None:
            return known.decode()
        with context.snapshots.mounted(snapshot) as folder:
            digest = _Tree(folder, snapshot, digests, context).digest(selection)
        context.cache.set_value("checksum", key, digest.encode())
    return digest


@dataclass(slots=True)
class _Digests:
    """What is known of the files of a snapshot: checksums by path, of folders with all that they hold."""

    given: Mapping[str, bytes]
    files: dict[str, bytes] = field(default_factory=dict)
    folders: dict[str, bytes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _busy: dict[str, threading.Lock] = field(default_factory=dict)

    def exclusively(self, key: str) -> threading.Lock:
        """A lock for one selection."""
        with self._lock:
            return self._busy.setdefault(key, threading.Lock())


_known: "WeakKeyDictionary[CacheStore, OrderedDict[str, _Digests]]" = WeakKeyDictionary()
_guard = threading.Lock()


def _digests(snapshot: str, context: Context) -> _Digests:
    with _guard:
        kept = _known.setdefault(context.cache, OrderedDict())
        found = kept.get(snapshot)
        if found is not None:
            kept.move_to_end(snapshot)
            return found
    from ..sources.local import digests

    found = _Digests(digests(snapshot, context) or {})
    with _guard:
        found = kept.setdefault(snapshot, found)
        while len(kept) > _KEPT:
            kept.popitem(last=False)
    return found


def _text(digest: bytes) -> bytes:
    return b"sha256:" + digest.hex().encode()


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


class _Tree:
    """The files of a snapshot that is mounted. Paths are relative to its root, which is the empty one."""

    def __init__(self, folder: Path, snapshot: str, digests: _Digests, context: Context) -> None:
        self._folder = folder
        self._root = os.fsencode(folder)
        self._snapshot = snapshot
        self._digests = digests
        self._context = context
        self._steps = 0

    def digest(self, selection: Selection) -> str:
        """The digest of a selection with all its parts."""
        parts = []
        with Root(self._folder) as root:
            for one in (selection, *selection.also):
                for path in one.paths or ("/",):
                    parts.append(self._part(root, one, from_root(path)))
        if len(parts) == 1:
            return parts[0].decode()
        return _text(hashlib.sha256(b"\0".join(parts)).digest()).decode()

    def _part(self, root: Root, selection: Selection, path: str) -> bytes:
        try:
            wild = selection.wildcard and has_wildcards(path)
            if not wild and not selection.include and not selection.exclude:
                return _text(self._whole(root.locate(path, follow=selection.follow)))
            return self._filtered(root, selection, path, wild)
        except (FileNotFoundError, NotADirectoryError) as error:
            if selection.optional:
                return b"missing"
            raise self._missing(path) from error
        except (PatternError, UnsafePath) as error:
            raise SolveError(f"failed to calculate checksum of {path}: {error}") from error

    def _missing(self, path: str) -> SolveError:
        from ...frontend.dockerfile.gotext import quote

        # The words of BuildKit, which people search the net for.
        return SolveError(
            f"failed to compute cache key: failed to calculate checksum of ref {self._snapshot}: "
            f"{quote(path)}: not found"
        )

    def _filtered(self, root: Root, selection: Selection, path: str, wild: bool) -> bytes:
        """What patterns choose, with the headers of the folders above it."""
        include = Matcher(selection.include) if selection.include else None
        exclude = Matcher(selection.exclude) if selection.exclude else None
        chosen: list[tuple[str, bytes]] = []
        prefix = path
        if wild:
            names = path.split("/")
            prefix = "/".join(names[: next(i for i, name in enumerate(names) if has_wildcards(name))])
        # Links above are followed; the path is called what the selection calls it.
        for found in expand(root, path, follow=True) if wild else [path]:
            top = root.locate(found, follow=selection.follow or not wild)
            if not wild or found.startswith(prefix + "/"):
                self._choose(top, found, include, exclude, chosen, itself=found != "/")
        for required in selection.required:
            if not any(name.startswith(required) for name, _ in chosen):
                raise self._missing(required)
        if len(chosen) == 1 and posixpath.basename(path) == posixpath.basename(chosen[0][0]):
            return _text(chosen[0][1])
        total = hashlib.sha256()
        for name, digest in chosen:
            total.update((_encoded(name.removeprefix(prefix)).replace(b"/", b"\0") or b"\0") + _text(digest))
        return _text(total.digest())

    def _choose(
        self,
        top: str,
        shown: str,
        include: Matcher | None,
        exclude: Matcher | None,
        chosen: list[tuple[str, bytes]],
        *,
        itself: bool,
    ) -> None:
        """Add what is chosen of a path and all below it, in path order; `shown` is what the path is called."""
        status = self._lstat(top)
        if not stat.S_ISDIR(status.st_mode):
            chosen.append((shown, self._file(top)))
            return
        late: list[str] = []
        waiting: list[tuple[str, str, bool]] = [(top, "", True)]
        while waiting:
            path, below, is_folder = waiting.pop()
            while late and not (below + "/").startswith(late[-1] + "/" if late[-1] else ""):
                late.pop()
            wanted = not below or (
                (include is None or include.matches(below)) and (exclude is None or not exclude.matches(below))
            )
            if wanted and not below:
                # The top folder counts by its header, unless patterns have to choose.
                wanted = itself and include is None
            if wanted:
                for folder in late:
                    self._add(top, shown, folder, chosen, header=True)
                late.clear()
                self._add(top, shown, below, chosen, header=is_folder)
            if not is_folder:
                continue
            excluded = bool(below) and exclude is not None and exclude.matches(below)
            if excluded and exclude is not None and not exclude.exclusions:
                continue
            if not wanted and (below or itself):
                late.append(below)
            children = [
                (child, f"{below}/{name}" if below else name, folder) for child, name, folder in self._list(path)
            ]
            waiting += reversed(children)

    def _add(self, top: str, shown: str, below: str, chosen: list[tuple[str, bytes]], *, header: bool) -> None:
        path = f"{top}/{below}" if top and below else top or below
        name = f"{shown.rstrip('/')}/{below}" if below else shown
        chosen.append((name, self._header(path) if header else self._file(path)))

    def _list(self, path: str) -> Iterator[tuple[str, str, bool]]:
        """What a folder holds, sorted: paths, names, and whether it is a folder."""
        self._context.check()
        with os.scandir(self._root + b"/" + os.fsencode(path) if path else self._root) as entries:
            found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        for raw, is_folder in found:
            name = os.fsdecode(raw)
            yield f"{path}/{name}" if path else name, name, is_folder

    def _lstat(self, path: str) -> os.stat_result:
        return os.lstat(self._root + b"/" + os.fsencode(path) if path else self._root)

    def _whole(self, path: str) -> bytes:
        """The digest of a file, or of a folder with all that it holds."""
        if not stat.S_ISDIR(self._lstat(path).st_mode):
            return self._file(path)
        # Folders wait on a stack for those that they hold: a tree may be deeper than Python's own.
        folders = self._digests.folders
        pending: list[tuple[str, list[tuple[str, str, bool]] | None]] = [(path, None)]
        while pending:
            at, held = pending.pop()
            if at in folders:
                continue
            if held is None:
                held = list(self._list(at))
                pending.append((at, held))
                pending += [(child, None) for child, _, is_folder in held if is_folder and child not in folders]
                continue
            total = hashlib.sha256(b"\0" + _text(self._header(at)))
            for child, name, is_folder in held:
                digest = folders[child] if is_folder else self._file(child)
                total.update(b"\0" + _encoded(name) + _text(digest))
            folders[at] = total.digest()
        return folders[path]

    def _header(self, path: str) -> bytes:
        """The digest of a folder itself."""
        known = self._digests.given.get(path)
        if known is not None:
            return known
        return hashlib.sha256(self._head(path, self._lstat(path))).digest()

    def _file(self, path: str) -> bytes:
        """The digest of what is no folder."""
        known = self._digests.given.get(path)
        if known is None:
            known = self._digests.files.get(path)
        if known is not None:
            return known
        self._steps += 1
        if self._steps % 256 == 0:
            self._context.check()
        status = self._lstat(path)
        total = hashlib.sha256(self._head(path, status))
        if stat.S_ISREG(status.st_mode) and status.st_size:
            full = self._root + b"/" + os.fsencode(path)
            file = open_to_read(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                while data := os.read(file, _CHUNK):
                    total.update(data)
                    if len(data) == _CHUNK:
                        self._context.check()
            finally:
                os.close(file)
        self._digests.files[path] = total.digest()
        return self._digests.files[path]

    def _head(self, path: str, status: os.stat_result) -> bytes:
        """What goes before a file's content, as `filehash.header` makes it."""
        full = self._root + b"/" + os.fsencode(path) if path else self._root
        kind = stat.S_IFMT(status.st_mode)
        mode, size, link, major, minor = status.st_mode & 0o7777, 0, b"", 0, 0
        if kind == stat.S_IFREG:
            size = status.st_size
        elif kind == stat.S_IFLNK:
            mode, link = 0o777, os.readlink(full)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        head = b"namemode%duid%dgid%dsize%dtypeflag%blinkname%bunamegnamedevmajor%ddevminor%d" % (
            mode,
            status.st_uid,
            status.st_gid,
            size,
            _KINDS.get(kind, b"0"),
            link,
            major,
            minor,
        )
        try:
            names = os.listxattr(full, follow_symlinks=False)
        except OSError:
            return head
        for name in sorted(names):
            if name == "security.capability" or not name.startswith(("security.", "system.", *_OVERLAYS)):
                head += _encoded(name) + os.getxattr(full, name, follow_symlinks=False)
        return head
