"""What the state folder holds, and how it is made smaller: snapshots with their records and blobs, cache mounts, git
repositories.

Source: the records, order and limits of BuildKit's cache manager.
"""

import heapq
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..wire.pb import control_pb2
from .cache.store import CacheStore, Record
from .content.store import ContentStore
from .localsync.index import Indexes
from .ops import cache_mounts
from .snapshots import trees
from .usage_filter import parse

if TYPE_CHECKING:
    from .snapshots.leases import Leases
    from .snapshots.store import Snapshots

_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")
_NOTES = ("checksum", "layer", "description", "identity")
"""Kinds of items whose keys begin with a snapshot."""
_YOUNG = 3600.0
"""Seconds for which a blob that nothing names yet may be of a build that runs."""
_GIT = "source.git.checkout"


@dataclass(slots=True)
class Entry:
    """One thing that can be removed. `records` are the keys that are forgotten with it; times are in seconds."""

    id: str
    type: str
    size: int
    description: str
    created: float
    used: float
    uses: int
    parents: list[str] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    in_use: bool = False
    mutable: bool = False
    cache: cache_mounts.Cache | None = None
    folder: Path | None = None

    def fields(self) -> dict[str, str | bool]:
        """What filters look at."""
        return {
            "id": self.id,
            "parents": ";".join(self.parents),
            "description": self.description,
            "type": self.type,
            "inuse": self.in_use,
            "mutable": self.mutable,
            "immutable": not self.mutable,
            "shared": False,
            "private": True,
        }

    def to_pb(self) -> control_pb2.UsageRecord:
        """The wire form."""
        record = control_pb2.UsageRecord(
            ID=self.id,
            Mutable=self.mutable,
            InUse=self.in_use,
            Size=self.size,
            UsageCount=self.uses,
            Description=self.description,
            RecordType=self.type,
            Shared=False,
        )
        record.Parents.extend(self.parents)
        for target, value in ((record.CreatedAt, self.created), (record.LastUsedAt, self.used)):
            target.seconds = int(value)
            target.nanos = int(value % 1 * 10**9)
        return record


class Usage:
    """Looks at a state folder, and removes from it; builds may run meanwhile."""

    def __init__(
        self, root: Path, cache: CacheStore, snapshots: "Snapshots", content: ContentStore, leases: "Leases"
    ) -> None:
        self._root = root
        self._cache = cache
        self._snapshots = snapshots
        self._content = content
        self._leases = leases

    def entries(self) -> list[Entry]:
        """Everything."""
        return [*self._of_snapshots(), *self._of_caches(), *self._of_repositories()]

    def _of_snapshots(self) -> list[Entry]:
        by_snapshot: dict[str, list[Record]] = {}
        for record in self._cache.records():
            for snapshot in record.results:
                if snapshot is not None:
                    by_snapshot.setdefault(snapshot, []).append(record)
        names = self._snapshots.ids()
        held = self._leases.held()
        sizes = self._snapshots.usages(names)
        blobs = self._blob_sizes()
        local = {kept.snapshot: kept for kept in Indexes(self._root).usage()}
        said = dict(self._cache.values("description"))
        out: list[Entry] = []
        for name in names:
            with suppress(KeyError):
                created = self._snapshots.created(name) / 10**9
                records = by_snapshot.get(name, [])
                description = records[-1].description if records else said.get(name, b"").decode(errors="replace")
                kind = "regular"
                if name in local:
                    kind = "source.local"
                elif description.startswith(("git://", "git snapshot ")):
                    kind = _GIT
                out.append(
                    Entry(
                        id=name,
                        type=kind,
                        size=sizes[name] + blobs.get(name, 0) + (local[name].size if name in local else 0),
                        description=description or "layer of an image or an intermediate result",
                        created=created,
                        used=max((r.used for r in records), default=created),
                        uses=max((r.uses for r in records), default=0),
                        parents=self._snapshots.parents(name),
                        records=[r.key for r in records],
                        in_use=name in held,
                    )
                )
        return out

    def _blob_sizes(self) -> dict[str, int]:
        """The bytes of the blobs that were noted for snapshots."""
        out: dict[str, int] = {}
        for key, value in self._cache.values("layer"):
            match = _DIGEST.search(value)
            if match is not None:
                with suppress(OSError):
                    snapshot = key.partition(":")[0]
                    out[snapshot] = out.get(snapshot, 0) + self._content.size(match[0].decode())
        return out

    def _of_caches(self) -> list[Entry]:
        out = []
        for cache in cache_mounts.caches(self._root):
            with suppress(OSError):
                out.append(
                    Entry(
                        id=cache.name,
                        type="exec.cachemount",
                        # What changes right now has no size, as in BuildKit.
                        size=0 if cache.in_use else trees.size(os.fsencode(cache.folder)),
                        description=cache.description,
                        created=cache.created,
                        used=cache.used,
                        uses=cache.uses,
                        in_use=cache.in_use,
                        mutable=True,
                        cache=cache,
                    )
                )
        return out

    def _of_repositories(self) -> list[Entry]:
        out = []
        folder = self._root / "git"
        busy = not self._leases.idle()
        for repository in sorted(folder.iterdir()) if folder.is_dir() else []:
            with suppress(OSError):
                status = repository.stat()
                out.append(
                    Entry(
                        id=f"git-{repository.name}",
                        type=_GIT,
                        size=trees.size(os.fsencode(repository)),
                        description="what was fetched of a git repository",
                        created=status.st_ctime,
                        used=status.st_mtime,
                        uses=1,
                        in_use=busy,
                        mutable=True,
                        folder=repository,
                    )
                )
        return out

    def disk_usage(self, request: control_pb2.DiskUsageRequest) -> control_pb2.DiskUsageResponse:
        """The entries that the filters let through, and that were not used for the `ageLimit`. Raises SolveError."""
        wanted = parse(request.filter)
        before = time.time() - request.ageLimit / 10**9 if request.ageLimit > 0 else None
        found = [
            entry.to_pb()
            for entry in self.entries()
            if wanted(entry.fields()) and (before is None or entry.used <= before)
        ]
        return control_pb2.DiskUsageResponse(record=found)

    def prune(self, request: control_pb2.PruneRequest) -> Iterator[control_pb2.UsageRecord]:
        """Remove entries as far as the request's limits say, the least and longest not used first; yields each.

        What a running build uses stays, and what others are built on that stay.

        Raises:
            SolveError: for a filter that is none.
        """
        wanted = parse(request.filter)
        return self._prune(request, lambda entry: wanted(entry.fields()))

    def _prune(
        self, request: control_pb2.PruneRequest, wanted: Callable[[Entry], bool]
    ) -> Iterator[control_pb2.UsageRecord]:
        found = self.entries()
        total = sum(entry.size for entry in found)
        keep = self._keep(total, request)
        since = time.time() - request.keepDuration / 10**9 if request.keepDuration > 0 else None
        queue = _Queue(found)
        while (entry := queue.next()) is not None and (not keep or total >= keep):
            if entry.in_use or not wanted(entry) or (since is not None and entry.used > since):
                continue
            if not request.all and entry.type in ("internal", "frontend"):
                continue
            if not self._remove(entry):
                continue
            total -= entry.size
            queue.gone(entry)
            yield entry.to_pb()
        self._drop_unused(everything=request.all and not request.filter and not keep and since is None)

    def _keep(self, total: int, request: control_pb2.PruneRequest) -> int:
        """So many bytes stay; 0 keeps nothing back."""
        most, reserved, free = request.maxUsedSpace, request.reservedSpace, request.minFreeSpace
        if not (most or reserved or free):
            return 0
        keep = most
        if free:
            disk = os.statvfs(self._root)
            missing = free - disk.f_bavail * disk.f_frsize
            if missing > 0:
                keep = total - missing if not keep else min(keep, total - missing)
            elif not keep:
                # There is enough room: nothing has to go.
                keep = total + 1
        # Where even nothing is too much, all goes that may: that is what 1 byte means.
        return max(keep, reserved, 1)

    def _remove(self, entry: Entry) -> bool:
        if entry.cache is not None:
            return cache_mounts.remove(entry.cache)
        if entry.folder is not None:
            if not self._leases.idle():
                return False
            trees.remove(entry.folder)
            return True
        with self._leases.removing([entry.id]) as free:
            if entry.id not in free:
                return False
            try:
                self._snapshots.remove(entry.id)
            except ValueError:
                return False
        self._cache.remove(entry.records)
        if entry.type == "source.local":
            Indexes(self._root).remove(entry.id)
        return True

    def _drop_unused(self, *, everything: bool) -> None:
        """Forget notes about snapshots that are gone, and blobs that no note names."""
        there = set(self._snapshots.ids())
        used: set[str] = set()
        for kind in _NOTES:
            gone = []
            for key, value in self._cache.values(kind):
                if key.partition(":")[0] not in there:
                    gone.append(key)
                elif kind == "layer":
                    used.update(digest.decode() for digest in _DIGEST.findall(value))
            self._cache.remove_values(kind, gone)
        records = {record.key for record in self._cache.records()}
        links = self._cache.values("link")
        self._cache.remove_values("link", [key for key, value in links if value.decode() not in records])
        if everything:
            self._cache.remove_values("step", [key for key, _ in self._cache.values("step")])
        chains = self._cache.values("chain")
        self._cache.remove_values("chain", [key for key, value in chains if value.decode() not in there])
        self._cache.remove_values("sources", [key for key, _ in self._cache.values("sources") if key not in used])
        for _, value in self._cache.values("image"):
            used.update(digest.decode() for digest in _DIGEST.findall(value))
        self._drop_blobs(used, everything=everything)

    def _drop_blobs(self, used: set[str], *, everything: bool) -> None:
        idle = self._leases.idle()
        before = time.time() - _YOUNG
        used = set() if everything and idle else self._with_what_they_name(used)
        for digest in list(self._content.digests()):
            if digest in used:
                continue
            if not idle:
                # A build may have fetched it and not said yet what for.
                with suppress(OSError):
                    if self._content.path(digest).stat().st_mtime > before:
                        continue
            self._content.remove(digest)

    def _with_what_they_name(self, digests: set[str]) -> set[str]:
        """Blobs with those that they name, when they are manifests or indexes."""
        found: set[str] = set()
        pending = list(digests)
        while pending:
            digest = pending.pop()
            if digest in found:
                continue
            found.add(digest)
            with suppress(OSError, ValueError):
                if self._content.size(digest) <= 1 << 20:
                    data = self._content.read(digest)
                    if data[:1] == b"{":
                        pending += [name.decode() for name in _DIGEST.findall(data)]
        return found


class _Queue:
    """Entries in the order in which they may go: those that others need come after these."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = {entry.id: entry for entry in entries}
        self._users = dict.fromkeys(self._entries, 0)
        for entry in entries:
            for parent in entry.parents:
                if parent in self._users:
                    self._users[parent] += 1
        self._rank = _ranks(entries)
        self._heap = [(self._rank[name], name) for name, users in self._users.items() if not users]
        heapq.heapify(self._heap)

    def next(self) -> Entry | None:
        """The entry that should go next."""
        return self._entries[heapq.heappop(self._heap)[1]] if self._heap else None

    def gone(self, entry: Entry) -> None:
        """An entry was removed: those below it may be free now."""
        for parent in entry.parents:
            if parent in self._users:
                self._users[parent] -= 1
                if not self._users[parent]:
                    heapq.heappush(self._heap, (self._rank[parent], parent))


def _ranks(entries: Sequence[Entry]) -> dict[str, float]:
    """How much an entry is worth keeping: when it was used last and how often count the same (BuildKit's order)."""
    out = dict.fromkeys((entry.id for entry in entries), 0.0)
    for values in ([entry.used for entry in entries], [float(entry.uses) for entry in entries]):
        steps = {value: number for number, value in enumerate(sorted(set(values)), 1)}
        for entry, value in zip(entries, values, strict=True):
            out[entry.id] += steps[value] / len(steps)
    return out
