"""The smaller parts of the daemon: its worker, garbage collection, statuses, old requests, the log, content."""

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from brickyard.llb.bridge import BridgeError
from brickyard.oci.platform import parse
from brickyard.solver.base import Cancelled, SolveError
from brickyard.solver.daemon.config import Config, DiskSpace, GcPolicy, Oci, Registry
from brickyard.solver.daemon.content import content_service
from brickyard.solver.daemon.control import translate
from brickyard.solver.daemon.gc import GarbageCollector, default_policies, policies
from brickyard.solver.daemon.handlers import status_of
from brickyard.solver.daemon.log import JsonFormatter, TextFormatter, setup
from brickyard.solver.daemon.processes import signal_number
from brickyard.solver.daemon.registries import registry_hosts
from brickyard.solver.daemon.worker import WorkerInfo
from brickyard.wire import errors
from brickyard.wire.calls import CallError
from brickyard.wire.h2.server import ServerStream, StatusError, Unary
from brickyard.wire.pb import content_pb2, control_pb2, errdefs_pb2, worker_pb2


@pytest.fixture
def worker(tmp_path: Path) -> WorkerInfo:
    gc = [worker_pb2.GCPolicy(all=True)]
    return WorkerInfo(tmp_path, "overlay", labels={"team": "shop"}, platforms=[parse("linux/arm64")], policies=gc)


def test_the_worker(worker: WorkerInfo):
    record = worker.record()
    assert record.ID == worker.record().ID
    assert record.Labels["team"] == "shop"
    assert [platform.Architecture for platform in record.platforms] == ["arm64"]
    assert record.GCPolicy[0].all
    assert record.BuildkitVersion.package == "brickyard"


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([], True),
        (["labels.team==shop"], True),
        (["labels.team!=shop"], False),
        (["labels.team~=^sh"], True),
        (["labels.none"], False),
        (["labels.team,platform==linux/arm64"], True),
        (["id==nothing", 'labels."team"==shop'], True),
    ],
)
def test_filters_of_workers(worker: WorkerInfo, filters: list[str], found: bool):
    assert worker.matches(filters) is found


@pytest.mark.parametrize("text", ["colour==red", "id~=["])
def test_filters_of_workers_that_are_none(worker: WorkerInfo, text: str):
    with pytest.raises(SolveError):
        worker.matches([text])


def test_default_policies_are_buildkitds():
    first, *others = default_policies(Oci(), 1000 * 10**9)
    assert first.keep_duration == 48 * 3600
    assert first.max_used_space.bytes == 512 * 10**6
    assert [policy.all for policy in others] == [False, False, True]
    assert others[1].reserved_space.bytes == 10 * 10**9
    assert others[1].max_used_space.bytes == 100 * 10**9
    assert others[1].min_free_space.percent == 20
    small = default_policies(Oci(), 50 * 10**9)[2]
    assert small.reserved_space.of(0) == 5 * 10**9
    limited = default_policies(Oci(reserved_space=DiskSpace(bytes=7)), 1000)[3]
    assert (limited.reserved_space.bytes, limited.min_free_space.percent) == (7, 0)


def test_policies_of_the_configuration(tmp_path: Path):
    oci = Oci(gc_policy=[GcPolicy(filters=["type==regular"], keep_bytes=DiskSpace(bytes=5), keep_duration=2.0)])
    (found,) = policies(oci, tmp_path)
    assert (found.reservedSpace, found.keepDuration, list(found.filters)) == (5, 2 * 10**9, ["type==regular"])
    assert policies(Oci(gc=False), tmp_path) == []


def test_collection_runs_every_policy_and_survives_failures(monkeypatch: pytest.MonkeyPatch):
    asked: list[control_pb2.PruneRequest] = []
    done = threading.Event()

    def prune(request: control_pb2.PruneRequest) -> Iterator[control_pb2.UsageRecord]:
        asked.append(request)
        yield control_pb2.UsageRecord(Size=5)
        if len(asked) == 3:
            raise OSError("disk is gone")

    monkeypatch.setattr("brickyard.solver.daemon.gc.AFTER_BUILD", 0.0)
    monkeypatch.setattr("brickyard.solver.daemon.gc.AT_MOST_EVERY", 0.0)
    wanted = [worker_pb2.GCPolicy(filters=["type==x"], maxUsedSpace=3), worker_pb2.GCPolicy(all=True)]
    collector = GarbageCollector(wanted, prune, done.set)
    assert collector.collect() == 10
    assert (list(asked[0].filter), asked[0].maxUsedSpace, asked[1].all) == (["type==x"], 3, True)
    assert collector.collect() == 5
    done.clear()
    collector.start()
    collector.soon()
    assert done.wait(5)
    collector.stop()


def test_statuses_of_exceptions():
    typed = errors.make_status(7, "no", [errdefs_pb2.Vertex(digest="d")])
    for error, code, message in (
        (StatusError(5, "gone"), 5, "gone"),
        (BridgeError("bad", 3), 3, "bad"),
        (BridgeError("bad", 3, typed.SerializeToString()), 7, "no"),
        (CallError(14, "left"), 2, "left"),
        (CallError(7, "no", typed), 7, "no"),
        (Cancelled("stopped"), 1, "context canceled"),
        (SolveError("broke", exit_code=3), 2, "broke"),
        (ValueError("what"), 2, "what"),
    ):
        status = status_of(error)
        assert (status.code, status.message) == (code, message)


def test_old_forms_of_requests():
    request = control_pb2.SolveRequest(
        ExporterDeprecated="image", ExporterAttrsDeprecated={"name": "x"},
        FrontendAttrs={"build-arg:SOURCE_DATE_EPOCH": "7"},
    )  # fmt: skip
    request.Cache.ExportRefDeprecated = "a/b"
    request.Cache.ExportAttrsDeprecated["mode"] = "max"
    request.Cache.ImportRefsDeprecated.append("c/d")
    translate(request)
    assert (request.Exporters[0].Type, dict(request.Exporters[0].Attrs)) == (
        "image",
        {"name": "x", "source-date-epoch": "7"},
    )
    assert dict(request.Cache.Exports[0].Attrs) == {"mode": "max", "ref": "a/b"}
    assert (request.Cache.Imports[0].Type, dict(request.Cache.Imports[0].Attrs)) == ("registry", {"ref": "c/d"})
    assert not request.ExporterDeprecated
    assert not request.Cache.ImportRefsDeprecated


def test_both_forms_of_exporters_are_one():
    request = control_pb2.SolveRequest(ExporterDeprecated="oci")
    request.Exporters.add(Type="oci", Attrs={"source-date-epoch": "1"})
    request.FrontendAttrs["build-arg:SOURCE_DATE_EPOCH"] = "7"
    translate(request)
    assert [(e.Type, e.Attrs["source-date-epoch"]) for e in request.Exporters] == [("oci", "1")]


def test_the_log_is_one_line_a_message():
    record = logging.LogRecord("x", logging.WARNING, "", 0, "said\nlevel=info %s", ('"quoted"',), None)
    line = TextFormatter().format(record)
    assert "\n" not in line
    assert 'level=warning msg="said\\nlevel=info \\"quoted\\""' in line
    assert json.loads(JsonFormatter().format(record))["msg"] == 'said\nlevel=info "quoted"'
    for level, form in (("loud", "text"), ("info", "xml")):
        with pytest.raises(ValueError, match="unsupported log"):
            setup(level, form)


def test_signals_by_name():
    assert [signal_number(name) for name in ("SIGTERM", "kill", "INT")] == [15, 9, 2]
    with pytest.raises(StatusError):
        signal_number("SIGNOTHING")


def test_content_is_read_in_parts_and_not_written(tmp_path: Path):
    (tmp_path / "blob").write_bytes(b"0123456789")
    methods = content_service(lambda digest: tmp_path / "blob" if digest == "d" else None)
    read = methods["/containerd.services.content.v1.Content/Read"]
    info = methods["/containerd.services.content.v1.Content/Info"]
    assert isinstance(read, ServerStream)
    assert isinstance(info, Unary)
    assert info.function(content_pb2.InfoRequest(digest="d"), None).info.size == 10  # type: ignore[arg-type,union-attr]

    def part(**request: object) -> bytes:
        asked = content_pb2.ReadContentRequest(**request)  # type: ignore[arg-type]
        return b"".join(answer.data for answer in read.function(asked, None))  # type: ignore[arg-type,union-attr]

    assert part(digest="d") == b"0123456789"
    assert part(digest="d", offset=3, size=4) == b"3456"
    assert part(digest="d", offset=8, size=99) == b"89"
    for wrong in ({"digest": "d", "offset": 11}, {"digest": "e"}):
        with pytest.raises(StatusError):
            part(**wrong)


def test_registries_of_the_configuration(tmp_path: Path):
    for name in ("ca.crt", "client.cert"):
        (tmp_path / name).write_text("")
    config = Config(
        registry={
            "a.example": Registry(mirrors=["m.example/x"], http=True, insecure=True, ca=["/ca.pem"]),
            "b.example": Registry(tls_config_dir=[str(tmp_path)]),
        }
    )
    hosts = registry_hosts(config.registry)
    assert hosts["a.example"].mirrors == ("m.example/x",)
    assert hosts["a.example"].plain_http
    assert hosts["a.example"].ca == (Path("/ca.pem"),)
    assert hosts["b.example"].ca == (tmp_path / "ca.crt",)
    assert hosts["b.example"].client_cert == (tmp_path / "client.cert", tmp_path / "client.key")
