"""`local://`: transfers that only bring what changed, and snapshots that only change where a folder does."""

import hashlib
import json
import os
import shutil
import struct
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickyard.client.inputs import Inputs
from brickyard.client.outputs import Outputs
from brickyard.client.secrets import Secrets
from brickyard.client.session import LocalSession
from brickyard.llb.ops import SourceOp
from brickyard.solver.base import Cancelled, Selection, SolveError
from brickyard.solver.cache import filehash
from brickyard.solver.cache.checksum import checksum
from brickyard.solver.cache.store import CacheStore
from brickyard.solver.localsync.index import Indexes
from brickyard.solver.snapshots.store import Snapshots
from brickyard.solver.sources import find, local
from brickyard.wire.fsutil.walk import walk
from brickyard.wire.pb.stat_pb2 import Stat
from brickyard.wire.session import FileFilter, FileReceiver

LONG_AGO = 1_600_000_000


class Watched(LocalSession):
    """A client's session that notes which files were asked for."""

    marks = False

    def __init__(self, folder: Path) -> None:
        super().__init__(Inputs(dirs={"context": folder}), Outputs((), None), Secrets(()), {})  # type: ignore[arg-type]
        self.wanted: list[str] = []
        self.count = 0

    def receive(self, name: str, wanted: FileFilter, receiver: FileReceiver) -> None:
        entry = receiver.entry

        def noted(stat: Stat) -> bool:
            found = entry(stat)
            if found:
                self.wanted.append(stat.path)
            return found

        def marked(stat: Stat, mark: bytes) -> bool:
            found = receiver_marked(stat, mark)
            if found:
                self.wanted.append(stat.path)
            return bool(found)

        receiver_marked = getattr(receiver, "marked", None)
        receiver.entry = noted  # type: ignore[method-assign]
        if receiver_marked is not None:
            # Without marks it is as if the client were on another machine.
            receiver.marked = marked if self.marks else lambda stat, mark: noted(stat)  # type: ignore[attr-defined]
        super().receive(name, wanted, receiver)


class Build:
    """One build after another of the same folder, each with a session of its own."""

    def __init__(self, yard, folder: Path) -> None:  # type: ignore[no-untyped-def]
        self.yard = yard
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def write(self, files: Mapping[str, str], when: int = LONG_AGO) -> None:
        for path, text in files.items():
            place = self.folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
            os.utime(place, (when, when))

    def __call__(self, name: str = "context", **attrs: object) -> tuple[str, str, list[str]]:
        """The key, the snapshot, and the files that were sent."""
        texts = {f"local.{key}": value if isinstance(value, str) else json.dumps(value) for key, value in attrs.items()}
        op = SourceOp(f"local://{name}", texts)
        session = self.yard.context.session = Watched(self.folder)
        assert find(op.identifier) is local
        key = local.cache_key(op, None, self.yard.context)
        result = local.snapshot(op, None, self.yard.context)
        assert result.snapshot is not None
        return key, result.snapshot, session.wanted

    def files(self, snapshot: str) -> dict[str, str]:
        with self.yard.context.snapshots.mounted(snapshot) as root:
            return {str(p.relative_to(root)): p.read_text() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def build(yard, tmp_path: Path) -> Build:  # type: ignore[no-untyped-def]
    return Build(yard, tmp_path / "ctx")


def test_only_what_changed_is_sent(build: Build) -> None:
    build.write({"a": "1", "b/c": "2"})
    key, first, sent = build()
    assert sent == ["a", "b/c"]
    assert build() == (key, first, [])
    build.write({"b/c": "3"}, LONG_AGO + 1)
    changed, second, sent = build()
    assert (sent, changed != key, second != first) == (["b/c"], True, True)
    assert build.files(second) == {"a": "1", "b/c": "3"}
    assert build.files(first) == {"a": "1", "b/c": "2"}
    (build.folder / "a").unlink()
    _, third, sent = build()
    assert (sent, build.files(third)) == ([], {"b/c": "3"})
    assert build.files(second) == {"a": "1", "b/c": "3"}


def test_unchanged_files_are_shared_and_a_changed_one_is_never_written_in_place(build: Build) -> None:
    build.write({"a": "1", "b": "2"})
    _, first, _ = build()
    build.write({"b": "22"})
    _, second, _ = build()
    snapshots = build.yard.context.snapshots
    one, two = snapshots.own_files(first), snapshots.own_files(second)
    assert (one / "a").stat().st_ino == (two / "a").stat().st_ino
    assert (one / "b").read_text() == "2"


def test_metadata_of_files(build: Build) -> None:
    build.write({"d/file": "x"})
    os.chmod(build.folder / "d/file", 0o640)
    os.chmod(build.folder / "d", 0o1750)
    os.utime(build.folder / "d", (5, 5))
    (build.folder / "link").symlink_to("d/../../out")
    os.link(build.folder / "d/file", build.folder / "zhard")
    os.mkfifo(build.folder / "pipe")
    _, first, _ = build()
    root = build.yard.context.snapshots.own_files(first)
    status = (root / "d/file").stat()
    assert (status.st_mode & 0o7777, status.st_mtime, status.st_uid) == (0o640, LONG_AGO, os.geteuid())
    assert ((root / "d").stat().st_mode & 0o7777, (root / "d").stat().st_mtime) == (0o1750, 5)
    assert os.readlink(root / "link") == "d/../../out"
    assert (root / "zhard").stat().st_ino == status.st_ino
    assert (root / "pipe").is_fifo()
    os.chmod(build.folder / "d/file", 0o600)
    key, second, _ = build()
    assert second != first
    assert (build.yard.context.snapshots.own_files(second) / "zhard").stat().st_mode & 0o7777 == 0o600
    assert (root / "d/file").stat().st_mode & 0o7777 == 0o640
    assert build()[:2] == (key, second)


def test_a_folder_of_another_time_is_no_change(build: Build) -> None:
    build.write({"d/file": "x"})
    key, first, _ = build()
    os.utime(build.folder / "d", (7, 7))
    assert build() == (key, first, [])


def test_the_end_of_the_key_is_without_times(build: Build) -> None:
    build.write({"d/file": "x", "other": "y"})
    os.link(build.folder / "other", build.folder / "second")
    first = build()[0].partition("+")
    os.utime(build.folder / "d/file", (7, 7))
    second = build()[0].partition("+")
    assert first[0] != second[0]
    assert first[1:] == second[1:]
    assert first[2]
    (build.folder / "d/file").chmod(0o600)
    third = build()[0].partition("+")
    assert third[2] != second[2]
    (build.folder / "second").unlink()
    os.link(build.folder / "d/file", build.folder / "second")
    assert build()[0].partition("+")[2] != third[2]


def test_kinds_that_change(build: Build) -> None:
    build.write({"x/y": "1", "z": "2"})
    build()
    shutil.rmtree(build.folder / "x")
    (build.folder / "z").unlink()
    build.write({"x": "file", "z/inside": "now a folder"})
    _, snapshot, sent = build()
    assert sent == ["x", "z/inside"]
    assert build.files(snapshot) == {"x": "file", "z/inside": "now a folder"}
    (build.folder / "x").unlink()
    (build.folder / "x").symlink_to("z")
    _, snapshot, _ = build()
    assert os.readlink(build.yard.context.snapshots.own_files(snapshot) / "x") == "z"


def test_a_file_as_new_as_the_build_is_sent_again(build: Build) -> None:
    """A change within one tick of the clock leaves no trace in size or time."""
    build.write({"old": "1"})
    (build.folder / "new").write_text("1")
    key, _, _ = build()
    status = (build.folder / "new").stat()
    (build.folder / "new").write_text("2")
    os.utime(build.folder / "new", ns=(status.st_mtime_ns, status.st_mtime_ns))
    changed, second, sent = build()
    assert (sent, changed != key) == (["new"], True)
    assert build.files(second)["new"] == "2"
    os.utime(build.folder / "new", (LONG_AGO, LONG_AGO))
    third = build()
    assert third[2] == ["new"]
    assert build() == (third[0], third[1], [])


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client on this machine, on which nothing counts as recent."""
    monkeypatch.setattr(Watched, "marks", True)
    monkeypatch.setattr("brickyard.solver.localsync.receiver._RECENT_NS", -3600 * 10**9)


def test_a_change_that_keeps_size_and_time_is_seen_on_this_machine(build: Build, marks: None) -> None:
    build.write({"a": "1", "b": "1"})
    key, snapshot, _ = build()
    assert build() == (key, snapshot, [])
    build.write({"b": "2"})
    changed, second, sent = build()
    assert (sent, changed != key) == (["b"], True)
    assert build.files(second) == {"a": "1", "b": "2"}
    assert build() == (changed, second, [])
    # Written to, though with what it held before.
    build.write({"a": "1"})
    assert build() == (changed, second, ["a"])
    assert build() == (changed, second, [])


def test_a_file_that_was_replaced_is_seen_on_this_machine(build: Build, marks: None) -> None:
    build.write({"a": "1", "new": "2"})
    build(excludepatterns=["new"])
    (build.folder / "new").rename(build.folder / "a")
    _, snapshot, sent = build(excludepatterns=["new"])
    assert (sent, build.files(snapshot)) == (["a"], {"a": "2"})


def test_what_changed_just_now_is_sent_again(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "marks", True)
    monkeypatch.setattr("brickyard.solver.localsync.receiver._RECENT_NS", 3600 * 10**9)
    build.write({"a": "1"})
    key, snapshot, _ = build()
    assert build() == (key, snapshot, ["a"])


def test_the_same_content_sent_again_keeps_the_snapshot(build: Build) -> None:
    build.write({"a": "1"})
    key, snapshot, _ = build()
    assert build(differ="none") == (key, snapshot, ["a"])
    assert len(build.yard.context.snapshots.ids()) == 1


def test_filters(build: Build) -> None:
    build.write({"a": "1", "b/c": "2", "b/d": "3", "node_modules/x": "4"})
    (build.folder / "link").symlink_to("b/c")
    _, snapshot, _ = build(excludepatterns=["node_modules", "b", "!b/d"])
    assert build.files(snapshot) == {"a": "1", "b/d": "3"}
    # Another filter begins with what is there of the folder, and each filter keeps its own.
    _, other, sent = build(includepattern=["b"])
    assert (sent, build.files(other)) == (["b/c"], {"b/c": "2", "b/d": "3"})
    assert build(excludepatterns=["node_modules", "b", "!b/d"])[1:] == (snapshot, [])
    assert build.files(build(followpaths=["link"])[1]) == {"b/c": "2"} | {"link": "2"}


def test_other_folders_and_hints_are_kept_apart(build: Build, tmp_path: Path) -> None:
    build.write({"a": "1"})
    build()
    assert build(sharedkeyhint="x")[2] == ["a"]
    assert build(sharedkeyhint="x")[2] == []
    elsewhere = Build(build.yard, tmp_path / "elsewhere")
    elsewhere.write({"a": "1"})
    assert elsewhere()[2] == ["a"]


def test_metadata_only(build: Build) -> None:
    build.write({"a": "1", "b/c": "2", "b/d": "3"})
    _, snapshot, sent = build(metadatatransfer="true", metadatatransferexclude=["b/d"])
    assert sent == ["b/d"] or sent == []
    root = build.yard.context.snapshots.own_files(snapshot)
    assert sorted(path.name for path in root.rglob("*")) == [".fsutil-metadata", "b", "d"]
    data, entries = (root / ".fsutil-metadata").read_bytes(), []
    while data:
        (length,) = struct.unpack_from("<I", data)
        entries.append(Stat.FromString(data[4 : 4 + length]).path)
        data = data[4 + length :]
    assert entries == ["a", "b", "b/c", "b/d"]
    assert build(metadatatransfer="true", metadatatransferexclude=["b/d"])[1] == snapshot


def test_a_snapshot_that_was_pruned(build: Build) -> None:
    build.write({"a": "1"})
    key, snapshot, _ = build()
    indexes = Indexes(build.yard.context.root)
    assert [kept.snapshot for kept in indexes.usage()] == [snapshot]
    build.yard.context.snapshots.remove(snapshot)
    again, second, sent = build()
    assert (again, sent, build.files(second)) == (key, ["a"], {"a": "1"})
    indexes.remove(second)
    assert indexes.usage() == []
    assert build()[2] == ["a"]


@pytest.mark.parametrize("damage", [b"", b"{}", b"\0" * 50, "cut", "flipped"])
def test_a_damaged_index_counts_as_none(build: Build, damage: bytes | str) -> None:
    build.write({"a": "1", "b": "2"})
    key, _, _ = build()
    (path,) = (build.yard.context.root / "local").glob("*.index")
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
    else:
        data = bytearray(damage)  # type: ignore[arg-type]
    path.write_bytes(data)
    again, snapshot, sent = build()
    assert (again, sent) == (key, ["a", "b"])
    assert build.files(snapshot) == {"a": "1", "b": "2"}


def test_what_breaks_off_leaves_nothing(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    build.write({"a": "1", "b": "x" * 10, "c": "2"})
    read = os.read

    def broken(file: int, size: int) -> bytes:
        data = read(file, size)
        if data.startswith(b"x"):
            raise OSError(5, "Input/output error")
        return data

    monkeypatch.setattr(os, "read", broken)
    with pytest.raises(SolveError, match=r"local source context: .*Input/output error"):
        build()
    monkeypatch.undo()
    snapshots = build.yard.context.snapshots
    assert snapshots.ids() == []
    assert Snapshots(build.yard.context.root).ids() == []
    assert build()[2] == ["a", "b", "c"]


def test_a_context_that_holds_the_state_folder(build: Build) -> None:
    build.folder = build.yard.context.root.parent
    with pytest.raises(SolveError, match="holds the state of the solver") as caught:
        build()
    assert "name it in .dockerignore" in caught.value.hint
    build(excludepatterns=["state"])


def test_a_build_that_is_stopped(build: Build) -> None:
    build.write({"a": "1"})
    build.yard.context.cancel.set()
    with pytest.raises(Cancelled):
        build()
    assert build.yard.context.snapshots.ids() == []


def test_progress_is_shown(build: Build) -> None:
    build.write({"a": "1" * 1000})
    build()
    reports = [report for report in build.yard.progress if report[0] == "transferring context:"]
    assert reports[0] == ("transferring context:", 0, 0)
    assert reports[-2][1] > 1000
    assert reports[-1] == ("transferring context:", -1, 0)


def test_several_builds_at_once(build: Build, yard) -> None:  # type: ignore[no-untyped-def]
    build.write({f"d{number % 7}/f{number}": str(number) for number in range(200)})
    found, failed = [], []

    def one() -> None:
        from dataclasses import replace

        op = SourceOp("local://context", {})
        context = replace(yard.context, session=Watched(build.folder))
        try:
            found.append((local.cache_key(op, None, context), local.snapshot(op, None, context).snapshot))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len({key for key, _ in found}) == 1
    expected = {f"d{number % 7}/f{number}": str(number) for number in range(200)}
    for _, snapshot in found:
        assert build.files(snapshot) == expected
    assert build()[2] == []


class Interleaved(Watched):
    """A client that sends all of its files at the same time, a piece of each in turn."""

    def receive(self, name: str, wanted: FileFilter, receiver: FileReceiver) -> None:
        names = [f"f{number:03}" for number in range(self.count)]
        for path in names:
            assert receiver.entry(Stat(path=path, mode=0o644, size=600_000, modTime=self.count))
        for piece in range(3):
            for path in names:
                receiver.data(path, b"%d" % piece * 200_000)
        for path in names:
            receiver.end(path)


def test_files_that_come_in_turns(build: Build, yard) -> None:  # type: ignore[no-untyped-def]
    session = yard.context.session = Interleaved(build.folder)
    session.count = 60
    result = local.snapshot(SourceOp("local://context"), None, yard.context)
    expected = b"0" * 200_000 + b"1" * 200_000 + b"2" * 200_000
    root = yard.context.snapshots.own_files(result.snapshot)
    assert {(root / f"f{number:03}").read_bytes() for number in range(60)} == {expected}
    session.count = 100
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SolveError, match="too many large files at the same time"):
        local.snapshot(SourceOp("local://context"), None, yard.context)
    assert len(os.listdir("/proc/self/fd")) == before


def test_checksums_of_files_are_there_without_reading_them(build: Build) -> None:
    build.write({"a": "1", "d/b": "2"})
    _, snapshot, _ = build()
    digests = local.digests(snapshot, build.yard.context)
    assert digests is not None
    assert sorted(digests) == ["a", "d", "d/b"]
    (entry,) = [entry for entry in walk(os.fsencode(build.folder)) if entry.path == "d/b"]
    entry.uid = entry.gid = 0
    total = filehash.start(entry)
    total.update(b"2")
    assert digests["d/b"] == total.digest()
    assert local.digests("other", build.yard.context) is None


def test_the_header_of_a_checksum() -> None:
    entry = Stat(path="x/y", mode=0o4755 & 0o777 | 1 << 23, uid=1, gid=2, size=3, modTime=99)
    entry.xattrs["user.b"] = b"2"
    entry.xattrs["user.a"] = b"1"
    entry.xattrs["security.selinux"] = b"no"
    entry.xattrs["security.capability"] = b"cap"
    entry.xattrs["system.posix_acl_access"] = b"no"
    entry.xattrs["trusted.overlay.opaque"] = b"no"
    expected = (
        b"namemode2541uid1gid2size3typeflag0linknameunamegnamedevmajor0devminor0security.capabilitycapuser.a1user.b2"
    )
    assert filehash.header(entry) == expected
    assert filehash.start(entry).digest() == hashlib.sha256(expected).digest()
    link = Stat(mode=1 << 27 | 0o777, linkname="to/é", size=5)
    assert filehash.header(link) == (
        "namemode511uid0gid0size0typeflag2linknameto/éunamegnamedevmajor0devminor0".encode()
    )
    device = Stat(mode=1 << 26 | 1 << 21 | 0o600, devmajor=1, devminor=3)
    assert b"typeflag3linknameunamegnamedevmajor1devminor3" in filehash.header(device)
    assert b"mode493" in filehash.header(Stat(mode=1 << 31 | 0o755))


def test_a_checksum_is_the_same_from_the_transfer_and_from_the_files(build: Build) -> None:
    build.write({"a": "1", "d/b": "22", "d/e/f": "x" * 5000})
    os.chmod(build.folder / "d/b", 0o4711)
    (build.folder / "d/link").symlink_to("b")
    os.link(build.folder / "a", build.folder / "second")
    os.mkfifo(build.folder / "pipe")
    _, snapshot, _ = build()
    given = checksum(snapshot, Selection(), build.yard.context)
    Indexes(build.yard.context.root).remove(snapshot)
    fresh = CacheStore(build.yard.context.root / "fresh")
    build.yard.context.cache = fresh
    assert local.digests(snapshot, build.yard.context) is None
    assert checksum(snapshot, Selection(), build.yard.context) == given
    fresh.close()


@pytest.mark.parametrize(
    ("name", "attrs", "said"),
    [
        ("nothing", {}, "the client offers no local source 'nothing'"),
        ("context", {"excludepatterns": ["["]}, "invalid exclude patterns"),
        ("context", {"includepattern": '"x"'}, r"local\.includepattern must be a JSON list"),
        ("context", {"followpaths": "["}, r"local\.followpaths must be a JSON list"),
        ("context", {"metadatatransfer": "maybe"}, r"local\.metadatatransfer must be true or false"),
        ("context", {"differ": "exact"}, r"unknown local\.differ 'exact'"),
    ],
)
def test_wrong_requests(build: Build, name: str, attrs: dict[str, object], said: str) -> None:
    with pytest.raises(SolveError, match=said):
        build(name, **attrs)


def test_a_session_that_the_op_names(build: Build) -> None:
    request = local.Request.of(SourceOp("local://context", {"local.session": "abc:xyz"}))
    assert (request.name, request.session) == ("abc-context", "xyz")
    request = local.Request.of(SourceOp("local://context", {"local.session": "xyz"}))
    assert (request.name, request.session) == ("context", "xyz")


def test_unknown_schemes() -> None:
    for identifier in ("ftp://x", "context", "local"):
        with pytest.raises(SolveError, match="unknown source"):
            find(identifier)


_STATES = st.lists(
    st.dictionaries(
        st.sampled_from(["a", "b", "d/x", "d/y", "d/e/z"]), st.sampled_from(["1", "22", "333"]), max_size=5
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_STATES)
def test_any_history_ends_with_what_is_there(build: Build, states: list[dict[str, str]]) -> None:
    for number, state in enumerate(states):
        shutil.rmtree(build.folder)
        build.folder.mkdir()
        build.write(state, LONG_AGO + number)
        key, snapshot, _ = build()
        assert build.files(snapshot) == state
        assert build() == (key, snapshot, [])


class Unknown(Watched):
    """A client that says nothing of itself."""

    def shared_key(self) -> str:
        return self.id


def test_clients_that_say_nothing_of_themselves(build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(globals(), "Watched", Unknown)
    build.write({"whole": "1", "exact": "1"})
    os.utime(build.folder / "exact", ns=(LONG_AGO * 10**9 + 1, LONG_AGO * 10**9 + 1))
    key, snapshot, sent = build()
    assert sent == ["exact", "whole"]
    # Another's file may have the same time in seconds, though not the same content.
    other = Build(build.yard, tmp_path / "elsewhere")
    other.write({"whole": "2", "exact": "1"})
    os.utime(other.folder / "exact", ns=(LONG_AGO * 10**9 + 1, LONG_AGO * 10**9 + 1))
    _, second, sent = other()
    assert (sent, other.files(second)) == (["whole"], {"whole": "2", "exact": "1"})
    again = build()
    assert (again[0], again[2]) == (key, ["whole"])
    assert build.files(again[1]) == build.files(snapshot)
