"""The rhythm of a display: messages are drawn at most so often, and something is drawn while nothing arrives."""

import threading
import time
from collections.abc import Callable

TICK = 0.15
PAUSE = 0.1


class Ticker:
    """Calls `draw` every `TICK` seconds from a thread of its own, and on `nudge` unless it was just called."""

    def __init__(self, draw: Callable[[], None]) -> None:
        self._draw = draw
        self._last = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """Something is new."""
        now = time.monotonic()
        if now - self._last >= PAUSE:
            self._last = now
            self._draw()

    def stop(self) -> None:
        """End the thread; nothing is drawn after this."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(TICK):
            self._last = time.monotonic()
            self._draw()
