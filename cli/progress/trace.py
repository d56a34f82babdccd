"""The state of a build as its status messages tell it, which the displays draw from.

Times are nanoseconds of the solver's clock. A vertex may start and complete more than once (a cache lookup, then the
run): each stretch is an interval of its own.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...wire.pb import control_pb2

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

CANCELED = "context canceled"
"""The end of the error of a step that another one's failure, or the user, stopped."""


@dataclass(slots=True)
class Interval:
    """A stretch of work; open while `stop` is None."""

    start: int
    stop: int | None = None

    def seconds(self, now: int) -> float:
        """How long it is, at `now` while it is open."""
        return ((now if self.stop is None else self.stop) - self.start) / 1e9


@dataclass(slots=True)
class Item:
    """A part of a vertex with progress of its own: a layer that is pulled, a context that is sent."""

    id: str
    current: int = 0
    total: int = 0
    timestamp: int = 0
    started: int | None = None
    completed: int | None = None


@dataclass(slots=True)
class Step:
    """A vertex, or several that share a progress group and are shown as one."""

    digest: str
    name: str = ""
    cached: bool = False
    error: str = ""
    hidden: bool = False
    intervals: list[Interval] = field(default_factory=list)
    items: dict[str, Item] = field(default_factory=dict)
    warnings: list[control_pb2.VertexWarning] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """Complete lines of its log that a display has yet to take away."""
    kept: deque[str] = field(default_factory=deque)
    """The last lines of its log, to show again if it fails."""
    partial: bytes = b""
    _stretches: dict[tuple[str, int], Interval] = field(default_factory=dict)

    @property
    def started(self) -> bool:
        """Whether any work on it began."""
        return bool(self.intervals)

    @property
    def completed(self) -> bool:
        """Whether its latest stretch of work is over."""
        return bool(self.intervals) and self.intervals[-1].stop is not None

    @property
    def canceled(self) -> bool:
        """Whether it was stopped, rather than failed."""
        return self.error.endswith(CANCELED)

    def seconds(self, now: int) -> float:
        """The time that was spent on it."""
        return sum(interval.seconds(now) for interval in self.intervals)

    def note(self, digest: str, start: int, stop: int | None) -> bool:
        """Take in a stretch of a vertex's work; whether that told anything new."""
        known = self._stretches.get((digest, start))
        if known is not None and known.stop == stop:
            return False
        self._stretches[digest, start] = Interval(start, stop)
        self.intervals = merge(self._stretches.values())
        return True

    def write(self, data: bytes, seconds: float) -> None:
        """Take in a piece of its log, `seconds` after it started; a line counts once its end is there."""
        digits = 3 if seconds < 10 else 2 if seconds < 100 else 1
        *lines, self.partial = (self.partial + data).split(b"\n")
        found = [f"{seconds:.{digits}f} {line.decode(errors='replace')}" for line in lines]
        self.lines += found
        self.kept += found


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    """The intervals in order, those that overlap made one."""
    merged: list[Interval] = []
    for interval in sorted(intervals, key=lambda one: one.start):
        last = merged[-1] if merged else None
        if last is None or (last.stop is not None and last.stop < interval.start):
            merged.append(Interval(interval.start, interval.stop))
        elif last.stop is not None and (interval.stop is None or interval.stop > last.stop):
            last.stop = interval.stop
    return merged


def nanoseconds(time: "Timestamp") -> int:
    """A time of the protocol as a number."""
    return time.seconds * 10**9 + time.nanos


class _Group:
    """The vertices of a progress group; hidden until one of its strong members starts."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.members: dict[str, control_pb2.Vertex] = {}

    def refresh(self) -> bool:
        """Bring the group's step up to date; whether that changed it."""
        step, members = self.step, self.members.values()
        changed = False
        for vertex in members:
            if vertex.HasField("started"):
                changed |= step.note(vertex.digest, nanoseconds(vertex.started), completed_at(vertex))
                if step.hidden and not vertex.progressGroup.weak:
                    step.hidden, changed = False, True
        cached = all(vertex.cached for vertex in members)
        error = next((vertex.error for vertex in members if vertex.error), "")
        changed |= (cached, error) != (step.cached, step.error)
        step.cached, step.error = cached, error
        if error and step.started and step.hidden:
            step.hidden, changed = False, True
        return changed


def completed_at(vertex: control_pb2.Vertex) -> int | None:
    """When a vertex completed, None while it runs."""
    return nanoseconds(vertex.completed) if vertex.HasField("completed") else None


class Trace:
    """Everything that is known of a build so far."""

    def __init__(self, kept_lines: int) -> None:
        self._kept_lines = kept_lines
        self.steps: dict[str, Step] = {}
        """Each step by its vertex's digest; the members of a group share the group's step."""
        self.shown: list[Step] = []
        """The steps that have started, in that order."""
        self.started: int | None = None
        self._groups: dict[str, _Group] = {}

    def update(self, status: control_pb2.StatusResponse) -> list[Step]:
        """Take in one message; gives the visible steps that it changed."""
        changed: dict[str, Step] = {}
        groups: dict[str, _Group] = {}
        for vertex in status.vertexes:
            if self.started is None and vertex.HasField("started"):
                self.started = nanoseconds(vertex.started)
            if vertex.HasField("progressGroup"):
                groups[vertex.progressGroup.id] = self._join_group(vertex)
            elif self._take_vertex(vertex):
                changed[vertex.digest] = self.steps[vertex.digest]
        for group in groups.values():
            if group.refresh() and not group.step.hidden:
                changed[group.step.digest] = group.step
                self._show(group.step)
        for item in status.statuses:
            self._take_item(item, changed)
        for warning in status.warnings:
            step = self.steps.get(warning.vertex)
            if step is not None:
                # Not a change: a warning is said when its step next speaks, and all are listed at the end.
                step.warnings.append(warning)
        for log in status.logs:
            self._take_log(log, changed)
        return [step for step in changed.values() if not step.hidden and step.started]

    def _new(self, digest: str, name: str) -> Step:
        return Step(digest, name, kept=deque(maxlen=self._kept_lines))

    def _show(self, step: Step) -> None:
        if not any(step is other for other in self.shown):
            self.shown.append(step)

    def _join_group(self, vertex: control_pb2.Vertex) -> _Group:
        key = vertex.progressGroup.id
        group = self._groups.get(key)
        if group is None:
            step = self.steps[key] = self._new(key, vertex.progressGroup.name)
            step.hidden = True
            group = self._groups[key] = _Group(step)
        group.members[vertex.digest] = vertex
        self.steps[vertex.digest] = group.step
        return group

    def _take_vertex(self, vertex: control_pb2.Vertex) -> bool:
        step = self.steps.get(vertex.digest)
        if step is None:
            step = self.steps[vertex.digest] = self._new(vertex.digest, vertex.name)
        if not vertex.HasField("started"):
            # A vertex may be announced again after it ran, as part of another target: that tells nothing.
            return False
        changed = step.note(vertex.digest, nanoseconds(vertex.started), completed_at(vertex))
        changed |= (step.name, step.cached, step.error) != (vertex.name, vertex.cached, vertex.error)
        step.name, step.cached, step.error = vertex.name, vertex.cached, vertex.error
        if step.completed and step.partial:
            step.write(b"\n", step.intervals[-1].seconds(0))
        self._show(step)
        return changed

    def _take_item(self, status: control_pb2.VertexStatus, changed: dict[str, Step]) -> None:
        step = self.steps.get(status.vertex)
        if step is None:
            return
        item = step.items.setdefault(status.ID, Item(status.ID))
        item.current, item.total, item.timestamp = status.current, status.total, nanoseconds(status.timestamp)
        item.started = nanoseconds(status.started) if status.HasField("started") else item.started
        item.completed = nanoseconds(status.completed) if status.HasField("completed") else None
        changed[step.digest] = step

    def _take_log(self, log: control_pb2.VertexLog, changed: dict[str, Step]) -> None:
        step = self.steps.get(log.vertex)
        if step is None or not log.msg:
            return
        start = step.intervals[-1].start if step.intervals else nanoseconds(log.timestamp)
        step.write(log.msg, (nanoseconds(log.timestamp) - start) / 1e9)
        changed[step.digest] = step


def error_logs(trace: Trace) -> list[str]:
    """The last log lines of each step that failed, as shown once more at the end."""
    lines = []
    for step in trace.shown:
        if step.error and not step.canceled:
            lines += ["------", f" > {step.name}:", *step.kept, "------"]
    return lines


def byte_count(count: int) -> str:
    """A number of bytes in the unit that fits: `532B`, `1.21MB`."""
    if count < 1000:
        return f"{count}B"
    power = 1
    while power < 4 and count >= 1000 ** (power + 1):
        power += 1
    return f"{count / 1000**power:.2f}{' kMGT'[power]}B"
