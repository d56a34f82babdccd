"""Progress on a terminal: the steps with their times, the latest lines of those that talk, drawn over and over."""

import os
import re
import threading
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from ...wire.pb import control_pb2
from .sink import Sink
from .ticking import Ticker
from .trace import Step, Trace, byte_count, error_logs

LOG_LINES = 6
"""How many lines of a running step's log are shown."""
_KEPT_LINES = 200
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f]")
_HIDE, _SHOW, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[?25l", "\x1b[?25h", "\x1b[2K", "\x1b[J"
_BLUE, _RED, _YELLOW, _FAINT, _RESET = "\x1b[34m", "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the display: the text at the left, the time at its right end, and its color."""

    text: str
    timer: str = ""
    color: str = ""
    running: bool = False
    step: Step | None = None


class TtyDisplay:
    """Draws a build's progress on a terminal."""

    def __init__(
        self,
        stream: TextIO,
        color: bool = True,
        size: Callable[[], os.terminal_size] | None = None,
        ticker: Callable[..., Ticker] | None = Ticker,
        log_lines: int = LOG_LINES,
    ) -> None:
        self._stream = Sink(stream)
        self._log_lines = log_lines
        self._color = color
        self._size = size or (lambda: _terminal_size(stream))
        self._lock = threading.Lock()
        self._trace = Trace(_KEPT_LINES)
        self._began = time.monotonic()
        self._skew: int | None = None
        self._widths: list[int] = []
        self._ticker = ticker(self._draw) if ticker is not None else None

    def update(self, status: control_pb2.StatusResponse) -> None:
        """Take in one message."""
        with self._lock:
            self._trace.update(status)
            if self._skew is None and self._trace.started is not None:
                self._skew = time.time_ns() - self._trace.started
                self._began = time.monotonic()
        if self._ticker is not None:
            self._ticker.nudge()

    def close(self) -> None:
        """Draw the final state, with every step, and the logs of steps that failed."""
        if self._ticker is not None:
            self._ticker.stop()
        self._draw(final=True)
        for line in error_logs(self._trace):
            print(line, file=self._stream)
        self._stream.flush()

    def _draw(self, final: bool = False) -> None:
        with self._lock:
            width, height = self._size()
            now = time.time_ns() - (self._skew or 0)
            rows = self._rows(now)
            if not final:
                rows = _fit(rows, height - 2)
                rows = self._with_logs(rows, height)
            lines = [_line(row, width, self._color) for row in [self._head(final), *rows]]
            # Lines that were drawn on a wider terminal now take more than one row each.
            up = sum(max(1, -(-drawn // max(1, width))) for drawn in self._widths)
            out = [_HIDE, f"\x1b[{up}A" if up else "", "\r"]
            out += [f"{_CLEAR_LINE}{text}\n" for text, _ in lines]
            out += [_CLEAR_BELOW, _SHOW]
            self._widths = [shown for _, shown in lines]
            self._stream.write("".join(out))
            self._stream.flush()

    def _head(self, final: bool) -> Row:
        steps = {id(step): step for step in self._trace.steps.values() if not step.hidden}
        done = sum(step.completed for step in steps.values())
        seconds = time.monotonic() - self._began
        state = " FINISHED" if final and done and done == len(steps) else ""
        return Row(f"[+] Building {seconds:.1f}s ({done}/{len(steps)}){state}")

    def _rows(self, now: int) -> list[Row]:
        rows = []
        for step in self._trace.shown:
            rows.append(_step_row(step, now))
            for item in step.items.values():
                if item.started is None:
                    continue
                text = f" => => {item.id}"
                if item.total:
                    text += f" {byte_count(item.current)} / {byte_count(item.total)}"
                elif item.current:
                    text += f" {byte_count(item.current)}"
                seconds = ((now if item.completed is None else item.completed) - item.started) / 1e9
                done = item.completed is not None
                rows.append(Row(text, _timer(seconds), _BLUE if done else "", not done))
            rows += [Row(f" => WARN: {_plain(w.short.decode(errors='replace'))}", "", _YELLOW) for w in step.warnings]
        return rows

    def _with_logs(self, rows: list[Row], height: int) -> list[Row]:
        free = height - 2 - len(rows)
        found = []
        for row in rows:
            found.append(row)
            if row.step is None or not row.running:
                continue
            lines = [text for text in map(_plain, list(row.step.kept)[-self._log_lines :]) if text][-max(0, free) :]
            if free > 0:
                found += [Row(f" => => # {text}", "", _FAINT) for text in lines]
                free -= len(lines)
        return found


def _terminal_size(stream: TextIO) -> os.terminal_size:
    try:
        size = os.get_terminal_size(stream.fileno())
    except OSError:
        return os.terminal_size((80, 24))
    return size if size.columns > 0 and size.lines > 0 else os.terminal_size((80, 24))


def _step_row(step: Step, now: int) -> Row:
    name, color = _plain(step.name), _BLUE if step.completed else ""
    if step.canceled:
        name, color = f"CANCELED {name}", _YELLOW
    elif step.error:
        name, color = f"ERROR {name}", _RED
    elif step.cached:
        name = f"CACHED {name}"
    return Row(f" => {name}", _timer(step.seconds(now)), color, not step.completed, step)


def _timer(seconds: float) -> str:
    return f"{seconds if seconds >= 0.05 else 0.0:.1f}s"


def _plain(text: str) -> str:
    """The text without what would move the cursor; of a line that was overwritten, its last state."""
    return _ESCAPES.sub("", text.rstrip("\r").rpartition("\r")[2].replace("\t", " "))


def _fit(rows: list[Row], limit: int) -> list[Row]:
    """The last rows that fit, with those of running steps kept in preference to finished ones."""
    if len(rows) <= limit:
        return rows
    if limit <= 0:
        return []
    kept = set(range(len(rows) - limit, len(rows)))
    for index in range(len(rows) - limit - 1, -1, -1):
        if rows[index].running:
            finished = next((other for other in sorted(kept) if not rows[other].running), None)
            if finished is None:
                break
            kept.remove(finished)
            kept.add(index)
    return [rows[index] for index in sorted(kept)]


def _line(row: Row, width: int, color: bool) -> tuple[str, int]:
    """The text of a row, cut and filled to the width, and how many columns it takes."""
    left = width - len(row.timer) - 1
    text, shown = _cut(row.text, max(0, left))
    if row.timer:
        text += " " * (left - shown) + f" {row.timer}"
        shown = max(shown, left) + 1 + len(row.timer)
    return (f"{row.color}{text}{_RESET}" if color and row.color else text), shown


def _cut(text: str, columns: int) -> tuple[str, int]:
    if text.isascii():
        return text[:columns], min(len(text), columns)
    used = 0
    for index, char in enumerate(text):
        wide = 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if used + wide > columns:
            return text[:index], used
        used += wide
    return text, used
