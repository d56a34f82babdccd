"""The receiving side of a folder: asks for what the last snapshot has not, and makes the next one of both."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ...wire.fsutil.errors import TransferError, is_gone
from ...wire.fsutil.modes import DIRECTORY, TYPE
from ...wire.pb.stat_pb2 import Stat
from ..base import SolveError
from ..cache import filehash
from .files import NEW, clone, finish, finish_folder, is_special, link_or_copy, make_special
from .index import Index, content_of, plain_of

if TYPE_CHECKING:
    from hashlib import _Hash

    from ..snapshots.store import Snapshots

_SMALL = 256 * 1024
_CHUNK = 1 << 20
_SECOND = 10**9
_MOST_OPEN = 64
_STEP, _TURNS = 64 * 1024, 32
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_RECENT_NS = 50_000_000
"""Clocks of file systems tick coarsely: a file that is changed twice within a tick has one time for both."""
_NOTHING = bytes(32)


@dataclass(slots=True)
class _Coming:
    """A file whose content is on its way; small ones wait in memory until they are whole."""

    entry: Stat
    total: "_Hash"
    first: bytes = b""
    file: int = -1


class FolderReceiver:
    """One transfer, as `wire.session.FileReceiver`. Entries must be checked already (see `wire.fsutil.check`).

    `base` is what the last transfer left, `began` the time before the walk in nanoseconds. Without `differ` everything
    is asked for again; with `strict`, files whose time is a whole second are: two clients' files may well have the
    same one of those, but hardly one to the nanosecond. `state` is a folder whose files are refused: a context that
    holds it would go on for ever. `size` counts what came, in bytes.

    Files go right to their place in the new snapshot, which is only begun when the first one comes.
    """

    def __init__(
        self,
        snapshots: "Snapshots",
        base: Index | None,
        began: int,
        check: Callable[[], None],
        progress: Callable[[int], None],
        *,
        differ: bool = True,
        strict: bool = False,
        state: Path | None = None,
    ) -> None:
        self._snapshots = snapshots
        self._state = os.fsencode(os.path.realpath(state)) + b"/" if state is not None else b"\0"
        self._base = base
        self._known = base.files if base is not None and differ else {}
        self._recent_before = base.recent if base is not None else frozenset()
        self._strict = strict
        self._began = began - _RECENT_NS
        self._check = check
        self._progress = progress
        self._marks: dict[bytes, bytes] = {}
        self._marks_before = base.marks if base is not None else {}
        self._files: dict[bytes, bytes] = {}
        self._recent: set[bytes] = set()
        self._folder_times: dict[bytes, int] = {}
        self._digests: dict[str, bytes] = {}
        self._keys: dict[str, bytes] = {}
        self._coming: dict[str, _Coming] = {}
        self._snapshot = ""
        self._root = b""
        self._folders: set[str] = {""}
        self.size = 0
        self._quiet = self._told = self._open = 0

    def entry(self, stat: Stat) -> bool:
        """One more entry: wanted where it is a regular file that the last snapshot has not like this."""
        return self._take_note(stat, b"")

    def marked(self, stat: Stat, mark: bytes) -> bool:
        """As `entry`, for a file that has another mark, too: it was written to, though it shows no other sign of it."""
        return self._take_note(stat, mark)

    def _take_note(self, stat: Stat, mark: bytes) -> bool:
        mode = stat.mode
        if mode & DIRECTORY:
            time, stat.modTime = stat.modTime, 0
            key = stat.SerializeToString(deterministic=True)
            stat.modTime = time
            self._folder_times[key] = time
        else:
            key = stat.SerializeToString(deterministic=True)
        digest = self._known.get(key)
        self.size += len(key)
        unsure = key in self._recent_before or (self._strict and stat.modTime % _SECOND == 0)
        if mark:
            self._marks[key] = mark
            unsure = unsure or self._marks_before.get(key, mark) != mark
        if digest is None or unsure:
            self._tell()
            if not mode & TYPE and not stat.linkname:
                self._files[key] = digest or _NOTHING
                self._keys[stat.path] = key
                if stat.modTime >= self._began or int.from_bytes(mark[:8], "little") >= self._began:
                    self._recent.add(key)
                entry = Stat()
                entry.CopyFrom(stat)
                self._coming[stat.path] = _Coming(entry, filehash.start(stat))
                return True
            digest = self._digest_of(stat)
        self._files[key] = digest
        return False

    def _tell(self) -> None:
        """Say how far it has come, and end where the build was stopped: often enough, and not for every small file."""
        self._quiet -= 1
        if self._quiet <= 0 or self.size - self._told >= _STEP:
            self._quiet, self._told = _TURNS, self.size
            self._check()
            self._progress(self.size)

    def _digest_of(self, stat: Stat) -> bytes:
        if stat.linkname and not stat.mode & TYPE:
            # A second name says where the first is, which has the checksum.
            return _NOTHING
        return sha256(filehash.header(stat)).digest()

    def data(self, path: str, data: bytes) -> None:
        """A piece of a wanted file."""
        coming = self._coming[path]
        self.size += len(data)
        self._tell()
        coming.total.update(data)
        if coming.file < 0:
            if not coming.first and len(data) <= _SMALL:
                coming.first = data
                return
            self._open += 1
            if self._open > _MOST_OPEN:
                raise TransferError("the client sends too many large files at the same time")
            coming.file = self._create(path)
            if coming.first:
                _write(coming.file, coming.first)
                coming.first = b""
        _write(coming.file, data)

    def end(self, path: str) -> None:
        """All of a wanted file has come."""
        coming = self._coming.pop(path)
        self._open -= coming.file >= 0
        file = coming.file if coming.file >= 0 else self._create(path)
        try:
            if coming.first:
                _write(file, coming.first)
            finish(file, coming.entry)
        finally:
            os.close(file)
        self._done(path, coming.total)

    def take(self, entry: Stat, place: bytes) -> None:
        """A wanted file that can be read at `place`."""
        path = entry.path
        if place.startswith(self._state):
            raise SolveError(
                f"the folder holds the state of the solver ({os.fsdecode(self._state[:-1])})",
                hint="name it in .dockerignore, or keep the state elsewhere with --root",
            )
        coming = self._coming.pop(path)
        file = self._create(path)
        try:
            try:
                reader = os.open(place, _READ)
            except OSError as error:
                if not is_gone(error):
                    raise
            else:
                try:
                    self._copy(reader, file, entry.size, coming.total)
                finally:
                    os.close(reader)
            finish(file, entry)
        finally:
            os.close(file)
        self._done(path, coming.total)

    def _copy(self, reader: int, writer: int, size: int, total: "_Hash") -> None:
        if size > _SMALL and clone(reader, writer):
            # Reads the copy, which nobody changes meanwhile.
            reader, writer = writer, -1
        # A file that grows is taken as it was when its entry was made.
        while size > 0 and (data := os.read(reader, min(size, _CHUNK))):
            total.update(data)
            if writer >= 0:
                _write(writer, data)
            size -= len(data)
            self.size += len(data)
            self._tell()

    def _done(self, path: str, total: "_Hash") -> None:
        key = self._keys.pop(path)
        self._files[key] = self._digests[path] = total.digest()

    def _create(self, path: str) -> int:
        if not self._snapshot:
            self._begin()
        parent = path.rpartition("/")[0]
        if parent not in self._folders:
            self._make_folder(parent)
        return os.open(self._root + path.encode(), NEW, 0o600)

    def _begin(self) -> None:
        self._snapshot = self._snapshots.prepare(None)
        self._root = os.fsencode(self._snapshots.own_files(self._snapshot)) + b"/"

    def _make_folder(self, path: str) -> None:
        missing = []
        while path not in self._folders:
            missing.append(path)
            path = path.rpartition("/")[0]
        for folder in reversed(missing):
            os.mkdir(self._root + folder.encode(), 0o700)
            self._folders.add(folder)

    def finish(self, source: str) -> tuple[Index, bool]:
        """What came of it, and whether that is news: the index of a committed snapshot, the last one if it fits.

        Raises:
            OSError: where something can't be made.
        """
        base = self._base
        if base is not None and self._files == base.files:
            self.discard()
            recent = frozenset(self._recent)
            fresh = Index(base.snapshot, source, base.content, base.files, recent, self._marks, base.plain)
            return fresh, fresh.recent != base.recent or fresh.marks != base.marks
        if not self._snapshot:
            self._begin()
        self._build()
        self._snapshots.commit(self._snapshot)
        content, plain = content_of(self._files), plain_of(self._files)
        index = Index(self._snapshot, source, content, self._files, frozenset(self._recent), self._marks, plain)
        self._snapshot = ""
        return index, True

    def _build(self) -> None:
        """Everything that is not there yet: folders, links, what the last snapshot has. Times of folders come last."""
        root, fresh = self._root, self._digests
        old = b""
        if self._base is not None:
            old = os.fsencode(self._snapshots.own_files(self._base.snapshot)) + b"/"
        folders: list[tuple[bytes, Stat]] = []
        parse = Stat.FromString
        for number, key in enumerate(self._files):
            if number % 1024 == 0:
                self._check()
            stat = parse(key)
            path = stat.path
            place = root + path.encode()
            if stat.mode & DIRECTORY:
                if path not in self._folders:
                    os.mkdir(place, 0o700)
                stat.modTime = self._folder_times[key]
                folders.append((place, stat))
            elif is_special(stat):
                make_special(place, stat)
            elif stat.linkname:
                link_or_copy(root + stat.linkname.encode(), place)
            elif path not in fresh:
                link_or_copy(old + path.encode(), place)
        for place, stat in reversed(folders):
            finish_folder(place, stat)

    def discard(self) -> None:
        """Drop what was begun."""
        for coming in self._coming.values():
            if coming.file >= 0:
                os.close(coming.file)
        self._coming.clear()
        if self._snapshot:
            self._snapshots.remove(self._snapshot)
            self._snapshot = ""


def _write(file: int, data: bytes) -> None:
    written = os.write(file, data)
    while written < len(data):
        data = data[written:]
        written = os.write(file, data)
