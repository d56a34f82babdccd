"""How much of a process's output is passed on: a step that writes without end must not fill a terminal or a history.

Source: BuildKit's util/progress/logs for the variables, the size and the words. Unlike there, speed is not limited
where it isn't asked for.
"""

import math
import os
import time
from collections.abc import Callable, Mapping

SIZE = 2 << 20
"""The most bytes of one step's output that are passed on."""


class Clip:
    """Passes output on to `log` up to a size; `finish` shows the end of what was left out."""

    def __init__(
        self,
        log: Callable[[int, bytes], None],
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._clock = clock
        self._begun = clock()
        self._most = _number(environ, "BUILDKIT_STEP_LOG_MAX_SIZE", SIZE)
        self._speed = _number(environ, "BUILDKIT_STEP_LOG_MAX_SPEED", -1)
        self._passed = 0
        self._clipping = False

    def write(self, stream: int, data: bytes) -> None:
        """Some output."""
        limit, name = self._limit()
        room = len(data) if limit < 0 else min(len(data), max(0, limit - self._passed))
        self._passed += room
        if room == len(data):
            self._clipping = False
            self._log(stream, data)
            return
        data = data[:room]
        if not self._clipping:
            self._clipping = True
            data += b"\n[output clipped, log limit %s reached]\n" % name.encode()
        if data:
            self._log(stream, data)

    def finish(self, tail: bytes) -> None:
        """The process failed, and `tail` is the last of its output."""
        if self._clipping:
            self._log(2, tail[tail.find(b"\n") + 1 :])

    def _limit(self) -> tuple[int, str]:
        if self._speed >= 0:
            sofar = max(1, math.ceil(self._clock() - self._begun)) * self._speed
            if self._most < 0 or sofar <= self._most:
                return sofar, f"{_size(self._speed)}/s"
        return self._most, _size(self._most)


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(environ.get(name, ""))
    except ValueError:
        return default


def _size(count: int) -> str:
    for unit, power in (("MiB", 20), ("KiB", 10)):
        if count >= 1 << power:
            return f"{count / (1 << power):.6g}{unit}"
    return f"{count}B"
