"""Keeps the store small: the policies of the configuration, run in the background after builds and now and then."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from ...wire.pb import control_pb2, worker_pb2
from .config import DiskSpace, GcPolicy, Oci
from .log import log

AFTER_BUILD = 1.0
"""Seconds between a build's end and the collection that follows it."""
AT_MOST_EVERY = 5.0
"""Seconds between two collections, however many builds end; more where a collection takes long."""
_SHARE = 20
"""Collections take at most this part of the time."""

WHILE_IDLE = 3600.0
"""Seconds between two collections when no build ends."""

_RESERVE = DiskSpace(percent=10), 10 * 10**9
_MOST = DiskSpace(percent=80), 100 * 10**9
_FREE = DiskSpace(percent=20)
_DAY = 86400.0


def default_policies(oci: Oci, total: int) -> list[GcPolicy]:
    """buildkitd's policies for a disk of `total` bytes, with the limits of the configuration where it has some."""
    reserved = oci.reserved_space or oci.gc_keep_storage
    free, most = oci.min_free_space, oci.max_used_space
    if not (reserved or free or most):
        reserved = DiskSpace(bytes=min(_RESERVE[0].of(total), _RESERVE[1]))
        most = DiskSpace(bytes=min(_MOST[0].of(total), _MOST[1]))
        free = _FREE
    limits = {"reserved_space": reserved, "max_used_space": most, "min_free_space": free}
    return [
        # What is most easily made again goes first.
        GcPolicy(
            filters=["type==source.local", "type==exec.cachemount", "type==source.git.checkout"],
            keep_duration=2 * _DAY,
            max_used_space=DiskSpace(bytes=512 * 10**6),
        ),
        GcPolicy(keep_duration=60 * _DAY, **limits),
        GcPolicy(**limits),
        GcPolicy(all=True, **limits),
    ]


def policies(oci: Oci, root: "os.PathLike[str]") -> list[worker_pb2.GCPolicy]:
    """The policies in force, with shares of the disk in bytes; none where collection is switched off."""
    if not oci.gc:
        return []
    disk = os.statvfs(root)
    total = disk.f_frsize * disk.f_blocks
    return [
        worker_pb2.GCPolicy(
            all=policy.all,
            filters=policy.filters,
            keepDuration=int(policy.keep_duration * 10**9),
            reservedSpace=(policy.reserved_space or policy.keep_bytes).of(total),
            maxUsedSpace=policy.max_used_space.of(total),
            minFreeSpace=policy.min_free_space.of(total),
        )
        for policy in (oci.gc_policy or default_policies(oci, total))
    ]


class GarbageCollector:
    """Prunes by policies in a thread of its own, asked for by `soon`."""

    def __init__(
        self,
        wanted: Sequence[worker_pb2.GCPolicy],
        prune: Callable[[control_pb2.PruneRequest], Iterable[control_pb2.UsageRecord]],
        also: Callable[[], None],
    ) -> None:
        self._policies = wanted
        self._prune = prune
        self._also = also
        self._asked = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gc", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def soon(self) -> None:
        """Collect shortly."""
        self._asked.set()

    def stop(self) -> None:
        """End, after a collection that is under way."""
        self._stop.set()
        self._asked.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            # Records also become too old where nobody builds.
            self._asked.wait(WHILE_IDLE)
            if self._stop.wait(AFTER_BUILD):
                return
            self._asked.clear()
            began = time.monotonic()
            self.collect()
            if self._stop.wait(max(AT_MOST_EVERY, (time.monotonic() - began) * _SHARE)):
                return

    def collect(self) -> int:
        """Run every policy once; gives the bytes that were freed."""
        freed = 0
        try:
            for policy in self._policies:
                request = control_pb2.PruneRequest(
                    all=policy.all,
                    filter=policy.filters,
                    keepDuration=policy.keepDuration,
                    reservedSpace=policy.reservedSpace,
                    maxUsedSpace=policy.maxUsedSpace,
                    minFreeSpace=policy.minFreeSpace,
                )
                for record in self._prune(request):
                    freed += record.Size
                    if self._stop.is_set():
                        return freed
            self._also()
        except Exception as error:
            # A failed collection must not end the thread: the next one may work.
            log.error("garbage collection failed: %s", error)
        if freed:
            log.debug("garbage collection freed %d bytes", freed)
        return freed
