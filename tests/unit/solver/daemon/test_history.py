"""The builds that ran, and the filters over them."""

import base64
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.solver.daemon.durations import parse_duration
from brickyard.solver.daemon.history import History, NoSuchBuild
from brickyard.solver.daemon.history_filter import parse, select
from brickyard.wire.pb import control_pb2, rpc_status_pb2

Record = control_pb2.BuildHistoryRecord
Request = control_pb2.BuildHistoryRequest
Update = control_pb2.UpdateBuildHistoryRequest


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    made = History(tmp_path)
    yield made
    made.close()


def never() -> bool:
    return False


def vertex(digest: str, *, done: bool = False, cached: bool = False) -> control_pb2.StatusResponse:
    message = control_pb2.Vertex(digest=digest, name=digest, cached=cached)
    if done:
        message.completed.GetCurrentTime()
    return control_pb2.StatusResponse(vertexes=[message])


def build(history: History, ref: str, error: str = "", *, internal: bool = False) -> Record:
    record = Record(Ref=ref, Frontend="dockerfile.v0", FrontendAttrs={"target": "x"})
    events = history.start(record, internal=internal)
    events.send(vertex("sha256:1"))
    events.send(vertex("sha256:1", done=True))
    events.send(vertex("sha256:2", done=True, cached=True))
    status = rpc_status_pb2.Status(code=1 if "canceled" in error else 2, message=error) if error else None
    history.finish(record, status, internal=internal)
    return record


def listed(history: History, **request: object) -> list[tuple[int, str]]:
    events = history.listen(Request(EarlyExit=True, **request), never)
    return [(event.type, event.record.Ref) for event in events]


def names(messages: Iterator[bytes]) -> list[str]:
    return [v.name for message in messages for v in control_pb2.StatusResponse.FromString(message).vertexes]


def test_a_build_is_kept_over_a_restart(history: History, tmp_path: Path):
    build(history, "one")
    history.close()
    again = History(tmp_path)
    record = again.record("one")
    assert (record.numTotalSteps, record.numCompletedSteps, record.numCachedSteps) == (2, 2, 1)
    assert record.FrontendAttrs == {"target": "x"}
    assert record.CompletedAt.ToNanoseconds() >= record.CreatedAt.ToNanoseconds() > 0
    assert names(again.status("one", never)) == ["sha256:1", "sha256:1", "sha256:2"]
    path = again.blob(record.logs.digest)
    assert path is not None
    assert path.stat().st_size == record.logs.size
    assert record.logs.media_type == "application/vnd.buildkit.status.v0"
    again.close()


def test_the_error_of_a_build(history: History):
    record = build(history, "failed", "it broke")
    assert (record.error.code, record.error.message) == (2, "it broke")
    path = history.blob(record.externalError.digest)
    assert path is not None
    assert rpc_status_pb2.Status.FromString(path.read_bytes()).message == "it broke"


def test_what_an_exporter_wrote(history: History):
    record = Record(Ref="r")
    history.start(record)
    descriptor = {"mediaType": "m", "digest": "sha256:d", "size": 7, "annotations": {"a": "b"}}
    record.ExporterResponse["containerimage.descriptor"] = base64.b64encode(json.dumps(descriptor).encode()).decode()
    history.finish(record, None)
    found = history.record("r").Result.Results[0]
    assert (found.media_type, found.digest, found.size, dict(found.annotations)) == ("m", "sha256:d", 7, {"a": "b"})


def test_a_ref_is_used_once_at_a_time(history: History):
    history.start(Record(Ref="r"))
    with pytest.raises(ValueError, match="runs already"):
        history.start(Record(Ref="r"))


def test_events_come_from_the_start_and_as_they_happen(history: History):
    record = Record(Ref="r")
    events = history.start(record)
    events.send(vertex("a"))
    got: list[str] = []
    follower = threading.Thread(target=lambda: got.extend(names(history.status("r", never))))
    follower.start()
    events.send(vertex("b"))
    late = history.status("r", never)
    history.finish(record, None)
    follower.join(5)
    assert got == ["a", "b"]
    assert names(late) == ["a", "b"]
    with pytest.raises(NoSuchBuild):
        history.status("none", never)


def test_a_follower_that_leaves(history: History):
    history.start(Record(Ref="r")).send(vertex("a"))
    left = False
    follow = history.status("r", lambda: left)
    assert next(follow)
    left = True
    assert list(follow) == []


def test_internal_builds_leave_no_record_but_their_events_for_a_moment(history: History, tmp_path: Path):
    build(history, "r", internal=True)
    assert listed(history) == []
    assert len(names(history.status("r", never))) == 3


def test_listening(history: History):
    build(history, "done")
    running = Record(Ref="running")
    history.start(running)
    assert listed(history) == [(control_pb2.STARTED, "running"), (control_pb2.COMPLETE, "done")]
    assert listed(history, ActiveOnly=True) == [(control_pb2.STARTED, "running")]
    assert listed(history, Ref="done") == [(control_pb2.COMPLETE, "done")]
    events = history.listen(Request(), never)
    assert [next(events).record.Ref, next(events).record.Ref] == ["running", "done"]
    history.finish(running, None)
    history.update(Update(Ref="done", Delete=True))
    assert [(e.type, e.record.Ref) for e in (next(events), next(events))] == [
        (control_pb2.COMPLETE, "running"),
        (control_pb2.DELETED, "done"),
    ]
    rest: list[object] = []
    waiting = threading.Thread(target=lambda: rest.extend(events))
    waiting.start()
    history.close()
    waiting.join(5)
    assert rest == []


def test_updates(history: History, tmp_path: Path):
    record = build(history, "r")
    history.update(Update(Ref="r", Pinned=True))
    assert history.record("r").pinned
    assert history.record("r").Generation == 1
    history.update(Update(Ref="r", Finalize=True))
    history.update(Update(Ref="r", Delete=True))
    assert history.blob(record.logs.digest) is None
    for update in (Update(Ref="r", Pinned=True), Update(Ref="r", Delete=True)):
        with pytest.raises(NoSuchBuild):
            history.update(update)


def test_what_is_past_both_limits_is_forgotten(tmp_path: Path):
    history = History(tmp_path, max_age=0.0, max_entries=2)
    for number in range(4):
        build(history, f"b{number}")
    history.update(Update(Ref="b0", Pinned=True))
    time.sleep(0.01)
    history.collect()
    assert {ref for _, ref in listed(history)} == {"b0", "b2", "b3"}
    history.close()
    young = History(tmp_path, max_age=1000.0, max_entries=0)
    assert len(listed(young)) == 3
    young.close()


def test_what_a_killed_daemon_left_is_dropped(history: History, tmp_path: Path):
    build(history, "whole")
    history.start(Record(Ref="cut")).send(vertex("a"))
    (tmp_path / "blobs" / ("0" * 64)).write_text("of no record")
    history.close()
    again = History(tmp_path)
    assert listed(again) == [(control_pb2.COMPLETE, "whole")]
    assert not list(tmp_path.glob("*.part"))
    assert len(list((tmp_path / "blobs").iterdir())) == 1
    again.close()


def test_a_blob_is_kept_until_its_record_names_it(history: History):
    record = Record(Ref="r")
    history.start(record)
    made = history.add_blob(b"provenance", "application/x")
    build(history, "other")
    history.update(Update(Ref="other", Delete=True))
    assert history.blob(made.digest) is not None
    record.Result.Attestations.append(made)
    history.finish(record, None)
    history.update(Update(Ref="r", Delete=True))
    assert history.blob(made.digest) is None


def test_a_broken_record_is_left_out(history: History, tmp_path: Path):
    build(history, "r")
    with sqlite3.connect(tmp_path / "history.db") as database:
        database.execute("INSERT INTO builds VALUES ('broken', X'FFFF', 0, 0)")
    assert listed(history) == [(control_pb2.COMPLETE, "r")]


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "sha256:../../etc/passwd", "sha512:" + "0" * 64, "sha256:" + "g" * 64]
)
def test_blobs_go_by_digests_only(history: History, digest: str):
    assert history.blob(digest) is None


def made(ref: str, created: float, seconds: float, error: str = "", **attrs: str) -> Record:
    record = Record(Ref=ref, FrontendAttrs={key.replace("_", ":"): value for key, value in attrs.items()})
    record.CreatedAt.FromNanoseconds(int(created * 10**9))
    if seconds >= 0:
        record.CompletedAt.FromNanoseconds(int((created + seconds) * 10**9))
    if error:
        record.error.code, record.error.message = 2, error
    return record


NOW = time.time()
RECORDS = [
    made("aaa", NOW - 7200, 60.0, vcs_source="https://example.com/shop.git"),
    made("bbb", NOW - 600, 5.0, "exit code: 1", context="https://example.com/site.git#main"),
    made("ccc", NOW - 60, 1.0, "context canceled"),
    made("ddd", NOW - 1, -1),
]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([], "aaa bbb ccc ddd"),
        (["status==error"], "bbb"),
        (["status==completed", "status==running"], "aaa ddd"),
        (["status!=completed,ref~=^[ac]"], "ccc"),
        (["status==canceled"], "ccc"),
        (["ref==aaa"], "aaa"),
        (['"ref==""aaa"""'], "aaa"),
        (["repository~=shop"], "aaa"),
        (["repository==https://example.com/site.git"], "bbb"),
        (["repository"], "aaa bbb"),
        (["startedAt>=1h"], "bbb ccc ddd"),
        (["startedAt<1h"], "aaa"),
        (["startedAt>2020-01-01T00:00:00Z"], "aaa bbb ccc ddd"),
        (["completedAt<2020-01-01T00:00:00Z"], "ddd"),
        (["duration>30s"], "aaa"),
        (["duration<=5s,status==error"], "bbb"),
    ],
)
def test_filters(filters: list[str], found: str):
    assert " ".join(record.Ref for record in select(RECORDS, filters, 0)) == found


def test_the_newest_of_a_limit():
    assert [record.Ref for record in select(RECORDS, [], 2)] == ["ddd", "ccc"]
    with pytest.raises(ValueError, match="invalid limit -1"):
        select(RECORDS, [], -1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colour==red", "failed to parse history filter"),
        ("ref~=[", "broken expression"),
        ("startedAt>soon", "invalid time"),
        ("duration>soon", "invalid duration"),
    ],
)
def test_filters_that_are_none(text: str, says: str):
    with pytest.raises(ValueError, match=says):
        parse(text)


@given(st.text(max_size=30))
def test_any_text_is_a_filter_or_refused(text: str):
    try:
        match = parse(text)
    except ValueError:
        return
    assert match(RECORDS[0]) in (True, False)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("1h30m", 5400), ("500ms", 0.5), ("-1.5s", -1.5), ("2us", 2e-6), ("1µs", 1e-6), (".5h", 1800)],
)
def test_durations(text: str, seconds: float):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "h", "1d", "1h 2m", "--1s", "1e3s"])
def test_no_durations(text: str):
    with pytest.raises(ValueError, match="invalid duration"):
        parse_duration(text)
