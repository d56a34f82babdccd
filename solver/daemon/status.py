"""What happened in a build, kept in a file as it happens: whoever asks, however late, gets all from the start.

The file is what BuildKit keeps in its history under `application/vnd.buildkit.status.v0`: encoded `StatusResponse`
messages, each after its length in four little-endian bytes.
"""

import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from io import FileIO
from pathlib import Path

from ...wire.pb import control_pb2

MEDIA_TYPE = "application/vnd.buildkit.status.v0"

_LENGTH = struct.Struct("<I")
_BATCH = 512 << 10
"""Messages are joined for a subscriber up to about this size, far below what clients accept."""

_LARGEST = 8 << 20
"""No message of ours is larger; a longer one in a file means that the file is broken."""


class StatusLog:
    """The events of one build, in a file that grows until `close`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._file = path.open("wb", buffering=0)
        self._size = 0
        self._closed = False
        self.lost = 0
        """How many events could not be written, on a full disk."""

    def send(self, status: control_pb2.StatusResponse) -> None:
        """Add an event. After `close` it is dropped: nobody could see it any more. So it is where the disk is full: the
        build fails by what it can't write itself, and says so in its own words."""
        data = status.SerializeToString()
        if len(data) > _LARGEST:
            for part in _split(status):
                self._append(part.SerializeToString())
            return
        self._append(data)

    def _append(self, data: bytes) -> None:
        record = _LENGTH.pack(len(data)) + data
        with self._changed:
            if self._closed:
                return
            try:
                # By its place: what was written in part is written over.
                if os.pwrite(self._file.fileno(), record, self._size) != len(record):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self.lost += 1
                return
            self._size += len(record)
            self._changed.notify_all()

    def close(self) -> None:
        """No more events will come: subscribers get to the end."""
        with self._changed:
            if not self._closed:
                self._closed = True
                with suppress(OSError):
                    self._file.truncate(self._size)
                self._file.close()
                self._changed.notify_all()

    def follow(self, stop: Callable[[], bool]) -> Iterator[bytes]:
        """Encoded `StatusResponse` messages from the first event on, until the log closes or `stop` says so."""
        # Opened now: by the time that somebody reads, the file may have got another name.
        return self._follow(self._path.open("rb", buffering=0), stop)

    def _follow(self, file: FileIO, stop: Callable[[], bool]) -> Iterator[bytes]:
        with file:
            at = 0
            while True:
                with self._changed:
                    while at >= self._size and not self._closed and not stop():
                        self._changed.wait(1.0)
                    size = self._size
                if at >= size or stop():
                    return
                for end, data in _batches(file.fileno(), at, size):
                    yield data
                    at = end


def replay(path: Path) -> Iterator[bytes]:
    """The encoded messages of a log that is complete. Raises OSError, or ValueError where it is broken."""
    return _replayed(path.open("rb", buffering=0))


def _replayed(file: FileIO) -> Iterator[bytes]:
    with file:
        for _, data in _batches(file.fileno(), 0, os.fstat(file.fileno()).st_size):
            yield data


def _batches(file: int, at: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Joined messages between two offsets, each with the offset behind it: joined encodings are one message."""
    while at < size:
        data = os.pread(file, min(size - at, _BATCH + _LARGEST), at)
        pieces: list[bytes] = []
        place = total = 0
        while place + _LENGTH.size <= len(data) and total < _BATCH:
            (length,) = _LENGTH.unpack_from(data, place)
            end = place + _LENGTH.size + length
            if end > len(data):
                break
            pieces.append(data[place + _LENGTH.size : end])
            total += length
            place = end
        if not pieces:
            raise ValueError("the log of the build is broken")
        at += place
        yield at, b"".join(pieces)


def _split(status: control_pb2.StatusResponse) -> Iterator[control_pb2.StatusResponse]:
    """The parts of a message that is too large to be sent as one."""
    for vertex in status.vertexes:
        yield control_pb2.StatusResponse(vertexes=[vertex])
    for progress in status.statuses:
        yield control_pb2.StatusResponse(statuses=[progress])
    for entry in status.logs:
        for at in range(0, len(entry.msg), _BATCH):
            part = control_pb2.VertexLog(
                vertex=entry.vertex,
                timestamp=entry.timestamp,
                stream=entry.stream,
                msg=entry.msg[at : at + _BATCH],
            )
            yield control_pb2.StatusResponse(logs=[part])
    for warning in status.warnings:
        yield control_pb2.StatusResponse(warnings=[warning])


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished log: its digest and size, and how many steps and warnings it tells of."""

    digest: str
    size: int
    steps: int
    completed: int
    cached: int
    warnings: int


def summarize(path: Path) -> Summary:
    """Read a finished log. Raises OSError, ValueError."""
    seen: dict[str, tuple[bool, bool]] = {}
    warnings = 0
    for data in replay(path):
        status = control_pb2.StatusResponse.FromString(data)
        warnings += len(status.warnings)
        for vertex in status.vertexes:
            completed, cached = seen.get(vertex.digest, (False, False))
            seen[vertex.digest] = (completed or vertex.HasField("completed"), cached or vertex.cached)
    total = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            total.update(piece)
    return Summary(
        digest=f"sha256:{total.hexdigest()}",
        size=path.stat().st_size,
        steps=len(seen),
        completed=sum(completed for completed, _ in seen.values()),
        cached=sum(cached for _, cached in seen.values()),
        warnings=warnings,
    )
