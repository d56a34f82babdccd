"""Blobs named by their digest, under `blobs/sha256`; a blob is there whole or not at all.

That holds where a process is killed. Nothing is forced to the disk, so after a loss of power the blobs of the last
minute are dropped.
"""

import ctypes
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, cast

from ..cache.database import boot_id

_UNWRITTEN_NS = 60 * 10**9
_WRITEBACK = 32 << 20
_SYNC_FILE_RANGE_WRITE = 2


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _sync_file_range(fd: int, offset: int, size: int) -> None:
    """Begin to write a range to the disk, without waiting; where that cannot be done nothing is lost."""
    call = getattr(_library(), "sync_file_range", None)
    if call is not None:
        call(fd, ctypes.c_int64(offset), ctypes.c_int64(size), _SYNC_FILE_RANGE_WRITE)


class DigestMismatchError(ValueError):
    """Bytes that are not those that a digest names."""


class Writer:
    """A blob that is being written."""

    def __init__(self, store: "ContentStore", path: Path, file: BinaryIO, hashed: bool) -> None:
        self._store = store
        self._path = path
        self._file = file
        self._hash = None if hashed else hashlib.sha256()
        self._begun = 0
        self.size = 0

    def write(self, data: bytes) -> int:
        """Add bytes."""
        if self._hash is not None:
            self._hash.update(data)
        self.size += len(data)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
        if self.size - self._begun >= _WRITEBACK:
            # The disk begins now, so that what is to be written does not pile up in memory.
            _sync_file_range(self._file.fileno(), self._begun, self.size - self._begun)
            self._begun = self.size
        return len(data)

    def commit(self, expected: str | None = None) -> str:
        """Make the blob visible and return its digest, which is `expected` where the writer does not make it itself.

        Raises:
            DigestMismatchError: where `expected` is another.
        """
        if self._hash is None:
            if expected is None:
                raise ValueError("a blob without a digest")
            digest = expected
        else:
            digest = "sha256:" + self._hash.hexdigest()
        if expected is not None and digest != expected:
            raise DigestMismatchError(f"expected {expected}, the content is {digest}")
        self._file.flush()
        self._path.rename(self._store.path(digest))
        return digest


class ContentStore:
    """The blobs of one state folder. Opening it drops what an earlier process left half written."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs" / "sha256"
        self._ingest = root / "ingest"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._ingest.mkdir(parents=True, exist_ok=True)
        for left in self._ingest.iterdir():
            left.unlink(missing_ok=True)
        self._drop_unwritten(root / "blobs" / "boot")

    def _drop_unwritten(self, note: Path) -> None:
        """After the machine went down, drop what came so late that it may not be on the disk."""
        boot = boot_id() or "-"
        try:
            known, opened = note.read_text().split()
            since = int(opened)
        except (OSError, ValueError):
            known, since = boot, 0
        if known != boot:
            times = {entry.path: entry.stat().st_mtime_ns for entry in os.scandir(self._blobs)}
            since = max([since, *times.values()]) - _UNWRITTEN_NS
            for path, changed in times.items():
                if changed > since:
                    os.unlink(path)
        new = note.with_suffix(".new")
        new.write_text(f"{boot} {time.time_ns()}")
        new.replace(note)

    def path(self, digest: str) -> Path:
        """Where a blob is, or would be. Raises ValueError for a text that is no digest."""
        algorithm, _, encoded = digest.partition(":")
        if algorithm != "sha256" or len(encoded) != 64 or not all(char in "0123456789abcdef" for char in encoded):
            raise ValueError(f"not a sha256 digest: {digest!r}")
        return self._blobs / encoded

    def has(self, digest: str) -> bool:
        """Whether a blob is there."""
        return self.path(digest).exists()

    def size(self, digest: str) -> int:
        """A blob's size in bytes. Raises FileNotFoundError."""
        return self.path(digest).stat().st_size

    def open(self, digest: str) -> BinaryIO:
        """A blob to read. Raises FileNotFoundError."""
        return self.path(digest).open("rb")

    def read(self, digest: str) -> bytes:
        """A whole blob. Raises FileNotFoundError."""
        return self.path(digest).read_bytes()

    @contextmanager
    def writer(self, *, hashed: bool = False) -> Iterator[Writer]:
        """A new blob; what is not committed at the end is dropped. `hashed`: the caller makes the digest itself."""
        path = self._ingest / secrets.token_hex(12)
        try:
            with path.open("xb", buffering=0) as file:
                yield Writer(self, path, cast(BinaryIO, file), hashed)
        finally:
            path.unlink(missing_ok=True)

    def put(self, data: bytes) -> str:
        """Store bytes and return their digest. What is there already counts as new, so that nothing drops it now."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        try:
            os.utime(self.path(digest))
        except FileNotFoundError:
            with self.writer() as out:
                out.write(data)
                out.commit(digest)
        return digest

    def remove(self, digest: str) -> None:
        """Drop a blob, if it is there."""
        self.path(digest).unlink(missing_ok=True)

    def digests(self) -> Iterator[str]:
        """All blobs."""
        for entry in os.scandir(self._blobs):
            yield "sha256:" + entry.name
