"""Progress as lines of text that are only ever added to, in the form of buildx's `--progress=plain`.

One step at a time has the floor. It keeps it while it talks; others get it when it ends, when they wait too long, or
when it takes more than its fair share.
"""

import threading
import time
from collections.abc import Callable
from typing import TextIO

from ...wire.pb import control_pb2
from .sink import Sink
from .ticking import Ticker
from .trace import Item, Step, Trace, byte_count, error_logs

FLOOR_SECONDS = 5.0
"""How long a step keeps the floor at least while it has something to say."""
WAIT_SECONDS = 10.0
"""How long another one waits at most."""
ITEM_SECONDS = 5.0
ITEM_SHARE = 0.05
_KEPT_LINES = 10


class PlainDisplay:
    """Writes a build's progress to a stream."""

    def __init__(
        self, stream: TextIO, clock: Callable[[], float] = time.monotonic, ticker: Callable[..., Ticker] | None = Ticker
    ) -> None:
        self._stream = Sink(stream)
        self._clock = clock
        self._lock = threading.Lock()
        self._trace = Trace(_KEPT_LINES)
        self._talks: dict[str, _Talk] = {}
        self._numbers: dict[str, int] = {}
        self._floor: Step | None = None
        self._spoke = False
        self._told_items: dict[tuple[str, str], tuple[int, int]] = {}
        self._told_warnings: dict[str, int] = {}
        self._ticker = ticker(self._draw) if ticker is not None else None

    def update(self, status: control_pb2.StatusResponse) -> None:
        """Take in one message."""
        with self._lock:
            for step in self._trace.update(status):
                talk = self._talks.setdefault(step.digest, _Talk(step, self._clock()))
                talk.events += 1
                talk.pending = True
        if self._ticker is not None:
            self._ticker.nudge()

    def close(self) -> None:
        """Show what is left, and the logs of steps that failed."""
        if self._ticker is not None:
            self._ticker.stop()
        self._draw()
        for line in error_logs(self._trace):
            print(line, file=self._stream)
        self._stream.flush()

    def _draw(self) -> None:
        with self._lock:
            self._speak()
            self._stream.flush()

    def _speak(self) -> None:
        had_floor = self._floor
        completed = [talk.step for talk in self._talks.values() if talk.pending and talk.step.completed]
        completed.sort(key=lambda step: (step is not had_floor, step.intervals[-1].stop or 0))
        for step in completed:
            self._print(step)
        if any(talk.pending for talk in self._talks.values()):
            self._share()
        elif self._floor is None:
            for step in self._trace.shown:
                if not step.completed:
                    self._print(step)
                    return

    def _share(self) -> None:
        own = self._talks.get(self._floor.digest) if self._floor is not None else None
        if own is not None and own.pending:
            self._print(own.step)
        others = [talk for talk in self._talks.values() if talk.pending and talk is not own]
        if not others:
            return
        now = self._clock()
        loudest = max(others, key=lambda talk: talk.speed(now))
        late = next((talk for talk in others if now - talk.since > WAIT_SECONDS), None)
        if own is None:
            self._print(loudest.step)
        elif late is not None:
            self._print(late.step)
        else:
            total = own.speed(now) + sum(talk.speed(now) for talk in others)
            if FLOOR_SECONDS / (1 - own.speed(now) / total) < now - own.since:
                self._print(loudest.step)

    def _print(self, step: Step) -> None:
        number = self._numbers.setdefault(step.digest, len(self._numbers) + 1)
        if step is not self._floor:
            self._take_floor(step, number)
        unfinished = self._print_items(step, number)
        told = self._told_warnings.get(step.digest, 0)
        for warning in step.warnings[told:]:
            self._line(number, f"WARN: {warning.short.decode(errors='replace')}")
        self._told_warnings[step.digest] = len(step.warnings)
        for line in step.lines:
            self._line(number, line)
        step.lines.clear()
        self._floor = step
        if step.completed and not unfinished:
            self._floor = None
            self._line(number, _ending(step))
            self._talks.pop(step.digest, None)
        else:
            self._talks.setdefault(step.digest, _Talk(step, self._clock())).pending = False

    def _take_floor(self, step: Step, number: int) -> None:
        if self._floor is not None:
            self._line(self._numbers[self._floor.digest], "...")
            self._talks.pop(self._floor.digest, None)
        if self._spoke:
            print(file=self._stream)
        self._spoke = True
        self._line(number, step.name)

    def _line(self, number: int, text: str) -> None:
        print(f"#{number} {text}", file=self._stream)

    def _print_items(self, step: Step, number: int) -> bool:
        unfinished = False
        for item in step.items.values():
            if item.started is None:
                continue
            unfinished |= item.completed is None
            key = (step.digest, item.id)
            state = (item.current, item.timestamp if item.completed is None else -1)
            told = self._told_items.get(key)
            if told == state or (told is not None and item.completed is None and not _moved(item, *told)):
                continue
            self._told_items[key] = state
            self._line(number, _progress(item))
        return unfinished


def _moved(item: Item, current: int, timestamp: int) -> bool:
    share = (item.current - current) / item.total if item.total > 0 else 0.0
    return share >= ITEM_SHARE or (item.timestamp - timestamp) / 1e9 >= ITEM_SECONDS


def _progress(item: Item) -> str:
    text = item.id
    if item.total:
        text += f" {byte_count(item.current)} / {byte_count(item.total)}"
    elif item.current:
        text += f" {byte_count(item.current)}"
    end = item.timestamp if item.completed is None else item.completed
    seconds = 0.0 if item.started is None else (end - item.started) / 1e9
    if seconds > 0.01:
        text += f" {seconds:.1f}s"
    return text if item.completed is None else f"{text} done"


def _ending(step: Step) -> str:
    if step.canceled:
        return "CANCELED"
    if step.error:
        return f"ERROR: {step.error}"
    return "CACHED" if step.cached else f"DONE {step.seconds(0):.1f}s"


class _Talk:
    """How much a step has had to say, and since when; starts anew when it loses the floor."""

    def __init__(self, step: Step, since: float) -> None:
        self.step = step
        self.since = since
        self.events = 0
        self.pending = False

    def speed(self, now: float) -> float:
        return self.events / max(now - self.since, 1e-6)
