"""Which snapshots running builds use, so that nothing prunes them."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .store import Snapshots


class Leases:
    """The snapshots that are in use, counted; one that is being removed can't be taken any more."""

    def __init__(self, snapshots: "Snapshots") -> None:
        self._snapshots = snapshots
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        self._going: set[str] = set()
        self._open = 0

    def open(self) -> "Lease":
        """A lease for one build."""
        with self._lock:
            self._open += 1
        return Lease(self)

    def idle(self) -> bool:
        """Whether no build has a lease."""
        with self._lock:
            return not self._open

    def closed(self) -> None:
        """A lease was released."""
        with self._lock:
            self._open -= 1

    def held(self) -> set[str]:
        """The snapshots in use, with those that they are built on."""
        with self._lock:
            names = list(self._held)
        return self._snapshots.needs(names)

    @contextmanager
    def removing(self, names: Sequence[str]) -> Iterator[frozenset[str]]:
        """Those of `names` that nothing uses; until the end of the block nothing can begin to."""
        used = self.held()
        with self._lock:
            free = frozenset(name for name in names if name not in used and name not in self._held)
            self._going |= free
        try:
            yield free
        finally:
            with self._lock:
                self._going -= free

    def take(self, names: Iterable[str]) -> bool:
        """Count a use of each; False, and nothing counted, where one is not there or is being removed."""
        wanted = list(names)
        with self._lock:
            if self._going and not self._going.isdisjoint(self._snapshots.needs(wanted)):
                return False
            for name in wanted:
                self._held[name] = self._held.get(name, 0) + 1
        if all(self._snapshots.exists(name) for name in wanted):
            return True
        self.drop(wanted)
        return False

    def drop(self, names: Iterable[str]) -> None:
        """The end of a use of each."""
        with self._lock:
            for name in names:
                left = self._held.get(name, 0) - 1
                if left > 0:
                    self._held[name] = left
                else:
                    self._held.pop(name, None)


class Lease:
    """What one build uses."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._lock = threading.Lock()
        self._names: set[str] = set()
        self._released = False

    def add(self, names: Iterable[str]) -> bool:
        """Use snapshots until the release. False where one is not there any more."""
        with self._lock:
            new = [name for name in dict.fromkeys(names) if name not in self._names]
            if new and not self._leases.take(new):
                return False
            self._names.update(new)
            return True

    def release(self) -> None:
        """Use nothing any more."""
        with self._lock:
            self._leases.drop(self._names)
            self._names = set()
            if not self._released:
                self._released = True
                self._leases.closed()
