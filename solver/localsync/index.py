"""What a client's folder held when it was last transferred, and the snapshot that keeps it.

One file for each client, folder and filter under `local/` of the state folder. It is replaced as a whole after its
snapshot was committed; one that is damaged, or whose snapshot is gone, counts as none.
"""

import hashlib
import json
import os
import secrets
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ...wire.fsutil.walk import MARK_SIZE
from ...wire.pb.stat_pb2 import Stat

FOLDER = "local"
_VERSION = 3
_DIGEST = 32
_LENGTH = struct.Struct(">I")
_NO_MARK = bytes(MARK_SIZE)


@dataclass(slots=True)
class Index:
    """The entries of a transfer.

    `files` maps an entry (an encoded Stat; a folder's without its time) to its checksum as `filehash` makes it, in the
    order of the paths. `recent` are those that were so new that a change right after could have left no trace in
    their times. `content` names all of it together, `plain` all of it but for times. `source` says in words what it
    is. `marks` are those of files that came from this machine (`wire.fsutil.walk.Walk`).
    """

    snapshot: str
    source: str
    content: str
    files: dict[bytes, bytes] = field(default_factory=dict)
    recent: frozenset[bytes] = frozenset()
    marks: dict[bytes, bytes] = field(default_factory=dict)
    plain: str = ""

    def encode(self) -> bytes:
        """The form on disk."""
        numbers = [number for number, entry in enumerate(self.files) if entry in self.recent] if self.recent else []
        head = {
            "version": _VERSION,
            "snapshot": self.snapshot,
            "source": self.source,
            "content": self.content,
            "plain": self.plain,
            "count": len(self.files),
            "recent": numbers,
            "marked": bool(self.marks),
        }
        parts = [json.dumps(head).encode(), b"\n"]
        length = _LENGTH.pack
        for entry, digest in self.files.items():
            parts += (length(len(entry)), entry, digest)
        if self.marks:
            marks = self.marks
            parts += (marks.get(entry, _NO_MARK) for entry in self.files)
        data = b"".join(parts)
        return data + _LENGTH.pack(zlib.crc32(data))

    @classmethod
    def decode(cls, data: bytes) -> "Index":
        """Read the form on disk. Raises ValueError where it is damaged or of another version."""
        if len(data) < _LENGTH.size or _LENGTH.unpack(data[-_LENGTH.size :])[0] != zlib.crc32(data[: -_LENGTH.size]):
            raise ValueError("damaged")
        head_end = data.index(b"\n")
        head = json.loads(data[:head_end])
        if head["version"] != _VERSION:
            raise ValueError("of another version")
        files: dict[bytes, bytes] = {}
        position = head_end + 1
        unpack, width = _LENGTH.unpack_from, _LENGTH.size
        for _ in range(head["count"]):
            start = position + width
            end = start + unpack(data, position)[0]
            position = end + _DIGEST
            files[data[start:end]] = data[end:position]
        marks: dict[bytes, bytes] = {}
        if head["marked"]:
            for entry in files:
                mark = data[position : position + MARK_SIZE]
                position += MARK_SIZE
                if mark != _NO_MARK:
                    marks[entry] = mark
        if head["recent"]:
            entries = list(files)
            recent = frozenset(entries[number] for number in head["recent"])
        else:
            recent = frozenset()
        return cls(head["snapshot"], head["source"], head["content"], files, recent, marks, head["plain"])


@dataclass(frozen=True, slots=True)
class Kept:
    """An index on the disk: its key, its snapshot, its size in bytes, and when it was last written."""

    key: str
    snapshot: str
    size: int
    written: float


def _snapshot_of(path: Path) -> str:
    """The snapshot of an index, read from its first line only; empty where it is damaged."""
    try:
        with path.open("rb") as file:
            return str(json.loads(file.readline())["snapshot"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def content_of(files: dict[bytes, bytes]) -> str:
    """The name of all entries together, times of files included."""
    total = hashlib.sha256()
    for entry, digest in files.items():
        total.update(_LENGTH.pack(len(entry)) + entry + digest)
    return total.hexdigest()


def plain_of(files: dict[bytes, bytes]) -> str:
    """The name of all entries together without times: what their checksums are of, and their paths."""
    total = hashlib.sha256()
    parse = Stat.FromString
    for entry, digest in files.items():
        stat = parse(entry)
        # A second name of a file has no checksum of its own.
        text = json.dumps([stat.path, "" if any(digest) else stat.linkname]).encode()
        total.update(_LENGTH.pack(len(text)) + text + digest)
    return total.hexdigest()


class Indexes:
    """The indexes of one state folder. Builds may use them at the same time: each sees a whole one."""

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER

    def load(self, key: str) -> Index | None:
        """The index of a key."""
        return self._read(self._folder / f"{key}.index")

    @staticmethod
    def _read(path: Path) -> Index | None:
        try:
            return Index.decode(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error):
            path.unlink(missing_ok=True)
            return None

    def save(self, key: str, index: Index) -> None:
        """Replace the index of a key. Its snapshot must be committed. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        new = self._folder / f"{secrets.token_hex(8)}.new"
        try:
            new.write_bytes(index.encode())
            os.replace(new, self._folder / f"{key}.index")
        except BaseException:
            new.unlink(missing_ok=True)
            raise

    def newest(self, prefix: str) -> Index | None:
        """The index that was saved last among those whose key begins with a prefix."""
        found = [(_changed(path), path) for path in self._folder.glob(f"{prefix}*.index")]
        return self._read(max(found)[1]) if found else None

    def of(self, snapshot: str) -> Index | None:
        """An index whose snapshot this is."""
        for path in self._folder.glob("*.index"):
            if _snapshot_of(path) == snapshot:
                index = self._read(path)
                if index is not None and index.snapshot == snapshot:
                    return index
        return None

    def usage(self) -> list[Kept]:
        """What is kept, for the report of what the state folder holds."""
        out = []
        for path in sorted(self._folder.glob("*.index")):
            with suppress(OSError):
                status = path.stat()
                out.append(Kept(path.stem, _snapshot_of(path), status.st_blocks * 512, status.st_mtime))
        return out

    def remove(self, snapshot: str) -> None:
        """Forget what is kept of a snapshot that is removed: the next transfer sends all again.

        Safe at any time. A snapshot that is removed without it costs no more than the file of its index, which
        goes with the next transfer of the same folder.
        """
        for path in self._folder.glob("*.index"):
            if _snapshot_of(path) == snapshot:
                path.unlink(missing_ok=True)

    def clean(self) -> None:
        """Drop what an earlier process left half written; only while no build runs."""
        for left in self._folder.glob("*.new"):
            left.unlink(missing_ok=True)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
