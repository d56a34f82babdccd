"""Ctrl-C, SIGTERM and SIGHUP while a solver works: the first one ends the build cleanly, patience is asked for after
that."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_FORCE = 3


class Terminated(KeyboardInterrupt):
    """Another signal came: what holds for Ctrl-C holds, but for the exit code. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def orderly() -> Iterator[None]:
    """Raise `KeyboardInterrupt` for the first signal; a second one changes nothing, a third one kills."""
    count = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count == 1:
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)
        if count >= _FORCE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        with suppress(OSError):
            os.write(sys.stderr.fileno(), b"stopping; once more kills without cleaning up\n")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # Under nohup it goes on.
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
