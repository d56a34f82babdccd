"""What a state folder holds, and what prune takes of it, in BuildKit's terms."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from brickyard.llb.ops import Mount, MountType
from brickyard.solver.base import SolveError
from brickyard.solver.ops.cache_mounts import CacheFolders
from brickyard.solver.usage import Usage
from brickyard.solver.usage_filter import parse
from brickyard.wire.pb import control_pb2

BIG = os.urandom(300_000)
DAY = 86400.0


class Store:
    """A state folder with things in it that were used at times of the test's choice."""

    def __init__(self, state: Any) -> None:
        self.state = state
        context = state.context
        self.context = context
        self.usage = Usage(context.root, context.cache, context.snapshots, context.content, context.leases)

    def built(self, name: str, parent: str | None = None, *, ago: float = 0.0, uses: int = 1, size: int = 0) -> str:
        snapshot: str = self.state.snapshot({name: BIG[:size]}, parent)
        cache = self.context.cache
        cache.add([f"def:{name}"], [snapshot], "sha256:v", f"build {name}")
        with cache._db.transaction() as db:
            db.execute("UPDATE records SET used = ?, uses = ? WHERE key = ?", (time.time() - ago, uses, f"def:{name}"))
        return snapshot

    def cache(self, id: str) -> None:
        with ExitStack() as stack:
            CacheFolders(self.context, "exec make", stack).folder(Mount("/c", type=MountType.CACHE, cache_id=id), None)

    def du(self, *filters: str, age: float = 0) -> list[control_pb2.UsageRecord]:
        request = control_pb2.DiskUsageRequest(filter=filters, ageLimit=int(age * 10**9))
        return list(self.usage.disk_usage(request).record)

    def prune(self, *filters: str, **limits: Any) -> list[str]:
        return [r.ID for r in self.usage.prune(control_pb2.PruneRequest(filter=filters, **limits))]


@pytest.fixture
def store(state: Any) -> Store:
    return Store(state)


def test_records_say_what_there_is(store: Store) -> None:
    base = store.built("base", size=100_000, uses=3, ago=10)
    top = store.built("top", base)
    store.cache("npm")
    lease = store.context.leases.open()
    lease.add([top])
    found = {record.Description: record for record in store.du()}
    assert set(found) == {"build base", "build top", 'cached mount /c from exec make with id "npm"'}
    record = found["build base"]
    assert (record.ID, record.RecordType, record.UsageCount, record.InUse) == (base, "regular", 3, True)
    assert 100_000 <= record.Size < 150_000
    assert abs(record.LastUsedAt.seconds - (time.time() - 10)) < 5
    assert found["build top"].Parents == [base]
    mount = next(record for record in found.values() if record.RecordType == "exec.cachemount")
    assert mount.Mutable
    assert not mount.InUse
    lease.release()
    assert not any(record.InUse for record in store.du())


def test_blobs_count_for_their_snapshot(store: Store) -> None:
    base = store.built("base")
    digest = store.context.content.put(BIG)
    before = store.du()[0].Size
    store.context.cache.set_value("layer", f"{base}:first", f'{{"digest": "{digest}"}}'.encode())
    assert store.du()[0].Size == before + len(BIG)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], {"old", "new", "mount"}),
        (["type==regular"], {"old", "new"}),
        (["type!=regular"], {"mount"}),
        (["type==exec.cachemount"], {"mount"}),
        (["description~=ol.$"], {"old"}),
        (['description=="build new"'], {"new"}),
        (["description~=build,description!=\"build old\""], {"new"}),
        (["description~=old", "mutable"], {"old", "mount"}),
        (["immutable"], {"old", "new"}),
        (["mutable==false"], {"old", "new"}),
        (["inuse"], set()),
        (["private"], {"old", "new", "mount"}),
        (["shared==true"], set()),
        (["parents~=.", "id"], {"old", "new", "mount"}),
    ],
)  # fmt: skip
def test_filters(store: Store, filters: list[str], expected: set[str]) -> None:
    store.built("old", ago=10 * DAY)
    store.built("new")
    store.cache("x")
    found = {"mount" if r.Mutable else r.Description.removeprefix("build ") for r in store.du(*filters)}
    assert found == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense==1", "unknown field 'nonsense'"),
        ("type==other", "unknown type 'other': known are regular"),
        ("type=regular", "failed to parse"),
        ("id==a b", "failed to parse"),
        ("id~=(", "broken expression"),
        ("inuse==maybe", "inuse is a flag"),
        ("id==a,", "ends in a comma"),
        ("==a", "failed to parse"),
    ],
)
def test_filters_that_are_none(store: Store, text: str, message: str) -> None:
    store.built("a")
    for call in (store.du, store.prune):
        with pytest.raises(SolveError) as caught:
            call(text)
        assert message in str(caught.value)
    assert len(store.du()) == 1


def test_quotes_in_filters() -> None:
    fields: dict[str, str | bool] = {"id": 'a"b,c', "type": "regular"}
    assert parse(['id=="a\\"b,c",type==regular'])(fields)
    assert not parse(['id=="a"'])(fields)


def test_age_limit(store: Store) -> None:
    store.built("old", ago=10 * DAY)
    store.built("new")
    assert [record.Description for record in store.du(age=DAY)] == ["build old"]


def test_prune_takes_all_but_what_is_used(store: Store) -> None:
    base = store.built("base")
    kept = store.built("kept", base)
    gone = [store.built("gone", base)]
    gone.append(store.built("more", gone[0]))
    store.cache("x")
    lease = store.context.leases.open()
    lease.add([kept])
    removed = store.prune(all=True)
    assert set(gone) <= set(removed)
    assert removed.index(gone[1]) < removed.index(gone[0])
    assert {record.ID for record in store.du()} == {base, kept}
    assert store.context.cache.find(["def:gone", "def:kept"]).keys() == {"def:kept"}
    assert not list((store.context.root / "cachemounts").iterdir())
    lease.release()
    assert set(store.prune(all=True)) == {base, kept}
    assert store.context.snapshots.check() == []


def test_prune_by_filter_keeps_what_others_are_built_on(store: Store) -> None:
    base = store.built("base")
    store.built("top", base)
    other = store.built("other")
    assert store.prune(f"id=={base}") == []
    assert store.prune(f"id=={other}") == [other]
    assert len(store.du()) == 2


def test_prune_by_age(store: Store) -> None:
    old = store.built("old", ago=3 * DAY)
    base = store.built("base", ago=3 * DAY)
    store.built("new", base)
    assert store.prune(keepDuration=int(2 * DAY * 10**9)) == [old]


def test_prune_to_a_size_takes_what_is_worth_least(store: Store) -> None:
    names = {}
    for name, ago, uses in (("a", 50, 1), ("b", 40, 9), ("c", 30, 1), ("d", 20, 1), ("e", 10, 9)):
        names[store.built(name, ago=ago, uses=uses, size=200_000)] = name
    assert [names[id] for id in store.prune(maxUsedSpace=800_000)] == ["a", "c"]
    assert store.prune(maxUsedSpace=800_000) == []
    assert store.prune(maxUsedSpace=100, reservedSpace=10_000_000) == []


def test_prune_for_free_space(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        store.built(name, size=200_000)
    free = 0

    def statvfs(path: object) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 1000, 1000, free // 4096, 1, 1, 1, 0, 255))

    monkeypatch.setattr("brickyard.solver.usage.os.statvfs", statvfs)
    free = 4096 * 1000
    assert store.prune(minFreeSpace=4096 * 500) == []
    free = 4096 * 400
    assert len(store.prune(minFreeSpace=4096 * 500)) == 2
    # More is wanted than there is: everything goes, but for what is reserved.
    free = 0
    assert store.prune(minFreeSpace=10**9, reservedSpace=500_000) == []
    assert len(store.prune(minFreeSpace=10**9)) == 1


def test_a_cache_in_use_stays(store: Store) -> None:
    with ExitStack() as stack:
        CacheFolders(store.context, "exec make", stack).folder(Mount("/c", type=MountType.CACHE, cache_id="x"), None)
        assert [(record.InUse, record.Size) for record in store.du()] == [(True, 0)]
        assert store.prune(all=True) == []
    assert len(store.prune(all=True)) == 1


def test_notes_and_blobs_go_with_what_they_are_of(store: Store) -> None:
    content, cache = store.context.content, store.context.cache
    base, gone = store.built("base"), store.built("gone")
    kept, lost, stray = (content.put(data) for data in (b"kept", b"lost", b"stray"))
    for name, digest in ((base, kept), (gone, lost)):
        cache.set_value("layer", f"{name}:first", f'{{"digest": "{digest}"}}'.encode())
        cache.set_value("checksum", f"{name}:x", b"sum")
        cache.set_value("chain", f"sha256:{name}", name.encode())
    config = content.put(b"config")
    manifest = content.put(f'{{"config": {{"digest": "{config}"}}}}'.encode())
    cache.set_value("image", "name:x", manifest.encode())
    store.prune(f"id=={gone}")
    assert set(content.digests()) == {kept, manifest, config}
    assert [key for kind in ("layer", "checksum", "chain") for key, _ in cache.values(kind)] == [
        f"{base}:first",
        f"{base}:x",
        f"sha256:{base}",
    ]
    assert stray not in set(content.digests())


def test_young_blobs_stay_while_a_build_runs(store: Store) -> None:
    content = store.context.content
    young, old = content.put(b"young"), content.put(b"old")
    os.utime(content.path(old), (time.time() - 2 * 3600,) * 2)
    lease = store.context.leases.open()
    store.prune(all=True)
    assert list(content.digests()) == [young]
    lease.release()
    store.prune(all=True)
    assert list(content.digests()) == []


def test_builds_and_prunes_at_the_same_time(store: Store) -> None:
    import threading

    stop = threading.Event()
    errors: list[BaseException] = []

    def guarded(work: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)
                stop.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def prune() -> None:
        while not stop.is_set():
            store.prune(all=True)

    def build(number: int) -> None:
        for step in range(10):
            lease = store.context.leases.open()
            base = store.context.snapshots.prepare(None)
            store.context.snapshots.commit(base)
            if not lease.add([base]):
                continue
            top = store.built(f"{number}-{step}", base)
            with store.context.snapshots.mounted(top if lease.add([top]) else base):
                pass
            lease.release()

    pruner = guarded(prune)
    for builder in [guarded(lambda n=n: build(n)) for n in range(3)]:  # type: ignore[misc]
        builder.join()
    stop.set()
    pruner.join()
    assert errors == []
    assert store.context.snapshots.check() == []
