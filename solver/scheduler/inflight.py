"""What several builds of one solver share: vertices that run now, and how many may."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..base import Cancelled

_POLL = 0.1
"""Seconds between two looks at whether a waiting build was stopped; what it waits for wakes it at once."""

Listener = Callable[[int, bytes], None]


class _Flight:
    __slots__ = ("ended", "listeners")

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.listeners: list[Listener] = []


class Inflight:
    """Vertices that run now, by key, so that builds at the same time run equal ones once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, _Flight] = {}

    def claim(self, key: str, cancel: threading.Event, listener: Listener | None = None) -> bool:
        """Take a key. False after another had it and has ended, whatever came of it: look for its record.

        While another has it, `listener` gets the output of its process. Raises Cancelled.
        """
        with self._lock:
            flight = self._running.get(key)
            if flight is None:
                self._running[key] = _Flight()
                return True
            if listener is not None:
                flight.listeners = [*flight.listeners, listener]
        while not flight.ended.wait(_POLL):
            if cancel.is_set():
                raise Cancelled("the build was cancelled")
        return False

    def log(self, key: str, stream: int, data: bytes) -> None:
        """Hand the output of a claimed vertex to the builds that wait for it."""
        flight = self._running.get(key)
        if flight is not None:
            for listener in flight.listeners:
                listener(stream, data)

    def release(self, key: str) -> None:
        """Give a key back."""
        with self._lock:
            flight = self._running.pop(key, None)
        if flight is not None:
            flight.ended.set()


class Slots:
    """How many ops may run at the same time in all builds together; 0 is without a limit."""

    def __init__(self, limit: int = 0) -> None:
        self._free = threading.Semaphore(limit) if limit > 0 else None

    @contextmanager
    def taken(self, cancel: threading.Event) -> Iterator[None]:
        """One slot for the time of the block. Raises Cancelled while waiting for it."""
        free = self._free
        if free is None:
            yield
            return
        while not free.acquire(timeout=_POLL):
            if cancel.is_set():
                raise Cancelled("the build was cancelled")
        try:
            yield
        finally:
            free.release()
