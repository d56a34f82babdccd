"""The events of a build, as `StatusResponse` messages: what began, what ended, what was written.

Source: BuildKit's solver/progress.go and solver/jobs.go for which events a vertex has.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

from ...llb.graph import Vertex
from ...wire.fsutil.errors import describe
from ...wire.pb import control_pb2
from ..ops.describe import name_of

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

Send = Callable[[control_pb2.StatusResponse], None]

CANCELLED = "context canceled"
"""The error of a vertex that was stopped: clients know it by this text."""
_INTERVAL = 0.1
"""Seconds between two events of one part's progress."""


def _set(target: "Timestamp", nanoseconds: int) -> None:
    target.seconds, target.nanos = divmod(nanoseconds, 10**9)


class _Part:
    """A part of a vertex's work, such as a layer that is fetched."""

    __slots__ = ("current", "done", "sent", "started", "total")

    def __init__(self) -> None:
        self.started = time.time_ns()
        self.sent = 0.0
        self.done = False
        self.current = 0
        self.total = 0


class Reporter:
    """Sends the events of one build; may be called by several threads."""

    def __init__(self, send: Send) -> None:
        self._to = send
        self.broken: Exception | None = None
        """What went wrong when the client was told something: it is told nothing more."""
        self._lock = threading.Lock()
        self._parts: dict[str, dict[str, _Part]] = {}
        self._steps = 0

    def _send(self, status: control_pb2.StatusResponse) -> None:
        if self.broken is None:
            try:
                self._to(status)
            except Exception as error:
                self.broken = error

    def _emit(self, *vertexes: control_pb2.Vertex) -> None:
        with self._lock:
            self._send(control_pb2.StatusResponse(vertexes=vertexes))

    @staticmethod
    def vertex(vertex: Vertex, digest: str, inputs: Sequence[str]) -> control_pb2.Vertex:
        """The message of a vertex, not started yet; `inputs` are digests."""
        message = control_pb2.Vertex(digest=digest, name=name_of(vertex), inputs=inputs)
        group = vertex.metadata.progress_group
        if group is not None:
            message.progressGroup.id = group.id
            message.progressGroup.name = group.name
            message.progressGroup.weak = group.weak
        return message

    def announce(self, messages: Sequence[control_pb2.Vertex]) -> None:
        """Show vertices before they start."""
        if messages:
            self._emit(*messages)

    def cached(self, messages: Sequence[control_pb2.Vertex]) -> None:
        """Vertices whose results were there."""
        if not messages:
            return
        now = time.time_ns()
        out = []
        for message in messages:
            done = control_pb2.Vertex()
            done.CopyFrom(message)
            done.cached = True
            _set(done.started, now)
            _set(done.completed, now)
            out.append(done)
        self._emit(*out)

    def start(self, message: control_pb2.Vertex) -> control_pb2.Vertex:
        """A vertex that begins; give the returned message to `finish`."""
        running = control_pb2.Vertex()
        running.CopyFrom(message)
        _set(running.started, time.time_ns())
        self._emit(running)
        return running

    def finish(self, running: control_pb2.Vertex, error: str = "", cached: bool = False) -> None:
        """The end of a vertex."""
        done = control_pb2.Vertex()
        done.CopyFrom(running)
        _set(done.completed, time.time_ns())
        done.error = error
        done.cached = cached
        status = control_pb2.StatusResponse(vertexes=[done])
        with self._lock:
            for name, part in self._parts.pop(done.digest, {}).items():
                if not part.done:
                    part.done = not error
                    status.statuses.append(_status(done.digest, name, part))
            self._send(status)

    def log(self, digest: str, stream: int, data: bytes) -> None:
        """Output of a vertex's process."""
        entry = control_pb2.VertexLog(vertex=digest, stream=stream, msg=data)
        _set(entry.timestamp, time.time_ns())
        with self._lock:
            self._send(control_pb2.StatusResponse(logs=[entry]))

    def progress(self, digest: str, name: str, current: int, total: int) -> None:
        """How far a part of a vertex has come (see `Context.progress`)."""
        ended = current < 0 or (total > 0 and current >= total)
        with self._lock:
            parts = self._parts.setdefault(digest, {})
            part = parts.get(name)
            if part is None or (part.done and not ended):
                part = parts[name] = _Part()
            part.current, part.total = max(current, part.current if current < 0 else 0), max(total, 0)
            now = time.monotonic()
            if part.done or (not ended and now - part.sent < _INTERVAL):
                return
            part.sent, part.done = now, ended
            self._send(control_pb2.StatusResponse(statuses=[_status(digest, name, part)]))

    def warning(self, message: control_pb2.VertexWarning) -> None:
        """A finding about the definition."""
        with self._lock:
            self._send(control_pb2.StatusResponse(warnings=[message]))

    @contextmanager
    def step(self, name: str, id: str = "") -> Iterator[str]:
        """A step that is no op, such as an export; the block gets its digest, which follows from `id` if given."""
        with self._lock:
            self._steps += 1
            number = self._steps
        digest = "sha256:" + sha256((id or f"{name} {number} {time.time_ns()}").encode()).hexdigest()
        running = self.start(control_pb2.Vertex(digest=digest, name=name))
        try:
            yield digest
        except BaseException as error:
            self.finish(running, error_text(error))
            raise
        self.finish(running)


def _status(digest: str, name: str, part: _Part) -> control_pb2.VertexStatus:
    entry = control_pb2.VertexStatus(ID=name, vertex=digest, name=name, current=part.current, total=part.total)
    _set(entry.started, part.started)
    now = time.time_ns()
    _set(entry.timestamp, now)
    if part.done:
        _set(entry.completed, now)
    return entry


def error_text(error: BaseException) -> str:
    """What the end of a vertex says of an error."""
    from ..base import Cancelled

    if isinstance(error, Cancelled):
        return CANCELLED
    return describe(error) or type(error).__name__
