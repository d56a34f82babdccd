"""Ctrl-C and SIGTERM while a solver works: the first one ends the build cleanly, patience is asked for after that."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_FORCE = 3


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what holds for Ctrl-C holds, but for the exit code."""


@contextmanager
def orderly() -> Iterator[None]:
    """Raise `KeyboardInterrupt` for the first signal; a second one changes nothing, a third one kills."""
    count = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count == 1:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if count >= _FORCE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        os.write(sys.stderr.fileno(), b"stopping; once more kills without cleaning up\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
