"""Builds that small frontends drive over the bridge."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from brickyard.grammar.errors import SourceError
from brickyard.llb.bridge import Bridge, BridgeError, Frontend, FrontendCall
from brickyard.llb.graph import Metadata, Output, SourceRange, Vertex
from brickyard.llb.marshal import Definition, SourceFile, marshal
from brickyard.llb.ops import BuildOp, FileAction, FileOp, MkDir, MkFile, PassthroughOp, Rm, SourceOp, Symlink
from brickyard.solver.base import Cancelled, Context, Exportable, Result, SolveError
from brickyard.solver.build import Shared, definition, exportable, run
from brickyard.solver.ops import TABLE
from brickyard.solver.scheduler.inflight import Slots
from brickyard.solver.scheduler.status import Reporter
from brickyard.wire.pb import control_pb2, gateway_pb2, ops_pb2, policy_pb2, rpc_status_pb2


def files(**contents: str) -> Definition:
    """A file system with files."""
    actions = [
        FileAction(MkFile(f"/{name}", 0o644, text.encode()), -1 if not number else number - 1, -1, -1)
        for number, (name, text) in enumerate(contents.items())
    ]
    last = actions[-1]
    actions[-1] = FileAction(last.action, last.input, -1, 0)
    return marshal(Output(Vertex(FileOp(tuple(actions)))))


def failing() -> Definition:
    """A file system that can't be made: what is removed is not there."""
    vertex = Vertex(FileOp((FileAction(Rm("/missing"), -1, -1, 0),)), metadata=Metadata(locations=(SourceRange(2, 3),)))
    return marshal(Output(vertex), source=SourceFile("Buildfile", b"one\ntwo\nthree\n"))


@dataclass
class Exported:
    """An exporter that keeps what it was given."""

    results: list[Exportable] = field(default_factory=list)
    attrs: list[dict[str, str]] = field(default_factory=list)

    def export(self, result: Exportable, id: str, attrs: Any, context: Context) -> dict[str, str]:
        self.results.append(result)
        self.attrs.append(dict(attrs))
        return {f"exported.{id}": attrs.get("name", "")}


@dataclass
class Solver:
    """Runs requests, and keeps what was reported and exported."""

    context: Context
    frontends: dict[str, Frontend] = field(default_factory=dict)
    events: list[control_pb2.StatusResponse] = field(default_factory=list)
    exported: Exported = field(default_factory=Exported)

    def __call__(self, request: control_pb2.SolveRequest, client: Frontend | None = None) -> dict[str, str]:
        answer = run(request, self.context, Reporter(self.events.append), Shared(self.frontends), client)
        return dict(answer.ExporterResponse)

    def frontend(self, call: Callable[[Bridge], gateway_pb2.Result], **opts: str) -> dict[str, str]:
        """Run one frontend, with an export of what it gives."""
        self.frontends["test.v0"] = lambda bridge, _: call(bridge)
        request = control_pb2.SolveRequest(Frontend="test.v0", FrontendAttrs=opts)
        request.Exporters.add(Type="kept")
        return self(request)

    def read(self, result: Result, path: str) -> str:
        """A file of an exported result."""
        with self.context.snapshots.mounted(result.snapshot) as root:
            return (root / path).read_text()

    def names(self) -> list[str]:
        """What was shown as started."""
        found = [
            v.name for e in self.events for v in e.vertexes if v.HasField("started") and not v.HasField("completed")
        ]
        return list(dict.fromkeys(found))


@pytest.fixture
def solver(yard: Any, monkeypatch: pytest.MonkeyPatch) -> Solver:
    made = Solver(yard.context)
    monkeypatch.setattr("brickyard.solver.exporters.find", lambda type: made.exported)
    return made


def solved(bridge: Bridge, what: Definition, **options: Any) -> gateway_pb2.SolveResponse:
    """A solve in the form that today's clients use."""
    return bridge.solve(
        gateway_pb2.SolveRequest(Definition=what.to_pb(), allowResultReturn=True, allowResultArrayRef=True, **options)
    )


def ref_of(bridge: Bridge, what: Definition) -> str:
    """The id of a result."""
    return str(solved(bridge, what).result.ref.id)


def test_a_result_is_solved_and_exported(solver: Solver) -> None:
    def call(bridge: Bridge) -> gateway_pb2.Result:
        result = solved(bridge, files(a="1")).result
        result.metadata["containerimage.config"] = json.dumps({"os": "linux", "architecture": "arm64"}).encode()
        result.metadata["frontend.note"] = b"said"
        result.metadata["other"] = b"not said"
        return result

    assert solver.frontend(call) == {"exported.0": "", "frontend.note": "said"}
    [result] = solver.exported.results
    found, config = result.refs[""]
    assert solver.read(found, "a") == "1"
    assert config is not None
    assert json.loads(config)["architecture"] == "arm64"
    assert [(id, str(platform)) for id, platform in result.platforms] == [("", "linux/arm64")]
    assert result.metadata["other"] == b"not said"
    assert "exporting to kept" in solver.names()


def test_results_are_lazy(solver: Solver) -> None:
    def call(bridge: Bridge) -> gateway_pb2.Result:
        found = solved(bridge, failing()).result
        assert found.ref.id
        assert getattr(getattr(found.ref, "def"), "def")
        return solved(bridge, files(a="1")).result

    solver.frontend(call)


def test_evaluate_says_what_failed_and_where(solver: Solver) -> None:
    def call(bridge: Bridge) -> gateway_pb2.Result:
        solved(bridge, failing(), Evaluate=True)
        raise AssertionError

    with pytest.raises(SolveError) as caught:
        solver.frontend(call)
    [source] = caught.value.sources
    assert source.info.filename == "Buildfile"
    assert (source.ranges[0].start.line, source.ranges[0].end.line) == (2, 3)

    def second(bridge: Bridge) -> gateway_pb2.Result:
        id = ref_of(bridge, failing())
        with pytest.raises(BridgeError) as failed:
            bridge.evaluate(gateway_pb2.EvaluateRequest(Ref=id))
        status = rpc_status_pb2.Status.FromString(failed.value.status)
        names = [detail.type_url.rpartition("/")[2] for detail in status.details]
        assert names == ["errdefs.Vertex+json", "errdefs.Solve+json", "errdefs.Source+json"]
        op = json.loads(status.details[1].value)["op"]
        assert op["file"]["actions"][0]["rm"] == {"path": "/missing"}
        return gateway_pb2.Result()

    solver.frontend(second)


def test_the_old_forms_of_a_result(solver: Solver) -> None:
    def call(bridge: Bridge) -> gateway_pb2.Result:
        what = files(a="1").to_pb()
        oldest = bridge.solve(gateway_pb2.SolveRequest(Definition=what))
        assert oldest.ref
        assert oldest.result.refDeprecated == oldest.ref
        returned = bridge.solve(gateway_pb2.SolveRequest(Definition=what, allowResultReturn=True))
        assert not returned.ref
        assert returned.result.WhichOneof("result") == "refDeprecated"
        return gateway_pb2.Result(
            refsDeprecated=gateway_pb2.RefMapDeprecated(
                refs={"linux/amd64": oldest.ref, "linux/arm64": returned.result.refDeprecated}
            )
        )

    solver.frontend(call)
    [result] = solver.exported.results
    assert sorted(result.refs) == ["linux/amd64", "linux/arm64"]
    assert sorted(str(platform) for _, platform in result.platforms) == ["linux/amd64", "linux/arm64"]


def test_the_final_solve_of_the_oldest_frontends(solver: Solver) -> None:
    def call(bridge: Bridge) -> gateway_pb2.Result:
        attrs = json.dumps({"containerimage.config": "e30="}).encode()
        bridge.solve(gateway_pb2.SolveRequest(Definition=files(a="1").to_pb(), Final=True, ExporterAttr=attrs))
        return gateway_pb2.Result()

    solver.frontend(call)
    [result] = solver.exported.results
    assert solver.read(result.refs[""][0], "a") == "1"
    assert result.refs[""][1] == b"{}"


def test_platforms_keep_their_order_and_configs(solver: Solver) -> None:
    def call(bridge: Bridge) -> gateway_pb2.Result:
        result = gateway_pb2.Result()
        listed = []
        for id, arch in (("linux/arm64", "arm64"), ("linux/amd64", "amd64")):
            result.refs.refs[id].id = ref_of(bridge, files(arch=arch))
            result.metadata[f"containerimage.config/{id}"] = arch.encode()
            listed.append({"ID": id, "Platform": {"os": "linux", "architecture": arch}})
        result.metadata["refs.platforms"] = json.dumps({"Platforms": listed}).encode()
        entry = result.attestations["linux/arm64"].attestation.add()
        entry.kind, entry.path, entry.inTotoPredicateType = gateway_pb2.Bundle, "/sbom", "type"
        entry.ref.id = ref_of(bridge, files(statement="{}"))
        return result

    solver.frontend(call)
    [result] = solver.exported.results
    assert [id for id, _ in result.platforms] == ["linux/arm64", "linux/amd64"]
    assert result.refs["linux/arm64"][1] == b"arm64"
    assert solver.read(result.refs["linux/amd64"][0], "arch") == "amd64"
    [attestation] = result.attestations["linux/arm64"]
    assert (attestation.kind, attestation.path, attestation.predicate_type) == ("bundle", "/sbom", "type")
    assert solver.read(attestation.result, "statement") == "{}"


@pytest.mark.parametrize("text", ["", "[]", '{"Platforms": [{}]}', '{"Platforms": [{"ID": "a", "Platform": 1}]}'])
def test_broken_platforms_are_refused(solver: Solver, text: str) -> None:
    with pytest.raises(SolveError, match=r"refs\.platforms"):
        solver.frontend(lambda bridge: gateway_pb2.Result(metadata={"refs.platforms": text.encode()}))


def test_a_platform_without_a_result_is_refused(solver: Solver) -> None:
    listed = {"Platforms": [{"ID": "linux/s390x", "Platform": {"os": "linux", "architecture": "s390x"}}]}

    def call(bridge: Bridge) -> gateway_pb2.Result:
        result = gateway_pb2.Result(metadata={"refs.platforms": json.dumps(listed).encode()})
        result.refs.refs["linux/amd64"].id = ref_of(bridge, files(a="1"))
        return result

    with pytest.raises(SolveError, match="no result for the platform linux/s390x"):
        solver.frontend(call)


def test_forged_refs_are_refused(solver: Solver) -> None:
    with pytest.raises(SolveError, match="no such ref: forged"):
        solver.frontend(lambda bridge: gateway_pb2.Result(ref=gateway_pb2.Ref(id="forged")))

    def call(bridge: Bridge) -> gateway_pb2.Result:
        with pytest.raises(BridgeError, match="no such ref") as caught:
            bridge.read_file(gateway_pb2.ReadFileRequest(Ref="forged", FilePath="a"))
        assert caught.value.code == 5
        return gateway_pb2.Result()

    solver.frontend(call)


def test_frontends_hand_over_to_others(solver: Solver) -> None:
    seen: list[tuple[dict[str, str], list[str]]] = []

    def inner(bridge: Bridge, call: FrontendCall) -> gateway_pb2.Result:
        seen.append((dict(call.opts), sorted(bridge.inputs().Definitions)))
        return solved(bridge, files(by="inner")).result

    solver.frontends["inner.v0"] = inner

    def outer(bridge: Bridge) -> gateway_pb2.Result:
        response = bridge.solve(
            gateway_pb2.SolveRequest(
                Frontend="inner.v0",
                FrontendOpt={"filename": "x"},
                FrontendInputs={"context": files(a="1").to_pb()},
                allowResultReturn=True,
                allowResultArrayRef=True,
            )
        )
        assert bridge.read_file(gateway_pb2.ReadFileRequest(Ref=response.result.ref.id, FilePath="by")).Data == b"inner"
        return response.result

    solver.frontend(outer)
    assert seen == [({"filename": "x"}, ["context"])]
    assert solver.read(solver.exported.results[0].refs[""][0], "by") == "inner"


def test_frontends_do_not_hand_over_for_ever(solver: Solver) -> None:
    def again(bridge: Bridge) -> gateway_pb2.Result:
        return bridge.solve(gateway_pb2.SolveRequest(Frontend="test.v0", allowResultReturn=True)).result

    with pytest.raises(SolveError, match="more than 16 frontends"):
        solver.frontend(again)


def test_unknown_frontends_are_named(solver: Solver) -> None:
    with pytest.raises(SolveError, match=r"'nothing\.v0' is not supported; there are: none") as caught:
        solver(control_pb2.SolveRequest(Frontend="nothing.v0"))
    assert caught.value.code == 12


def test_errors_of_frontends(solver: Solver) -> None:
    def source(bridge: Bridge) -> gateway_pb2.Result:
        raise SourceError("wrong word")

    with pytest.raises(SourceError, match="wrong word"):
        solver.frontend(source)

    def remote(bridge: Bridge) -> gateway_pb2.Result:
        status = rpc_status_pb2.Status(code=9, message="from afar")
        detail = status.details.add()
        detail.type_url = "github.com/moby/buildkit/errdefs.Source+json"
        detail.value = b'{"info":{"filename":"F","data":"b25l"},"ranges":[{"start":{"line":1},"end":{"line":1}}]}'
        raise BridgeError("from afar", 9, status.SerializeToString())

    with pytest.raises(SolveError, match="from afar") as caught:
        solver.frontend(remote)
    assert caught.value.code == 9
    assert [source.info.data for source in caught.value.sources] == [b"one"]


def test_the_client_drives_a_build(solver: Solver) -> None:
    def client(bridge: Bridge, call: FrontendCall) -> gateway_pb2.Result:
        assert call.session_id == "a-session"
        return solved(bridge, files(by="client")).result

    request = control_pb2.SolveRequest()
    request.Exporters.add(Type="kept")
    solver(request, client)
    assert solver.read(solver.exported.results[0].refs[""][0], "by") == "client"


def test_several_exporters(solver: Solver) -> None:
    request = control_pb2.SolveRequest(Definition=files(a="1").to_pb())
    request.Exporters.add(Type="one", Attrs={"name": "x"})
    request.Exporters.add(Type="two", Attrs={"name": "y"})
    assert solver(request) == {"exported.0": "x", "exported.1": "y"}
    assert {"exporting to one", "exporting to two"} <= set(solver.names())


def test_the_epoch_of_the_build_is_the_exports(solver: Solver) -> None:
    request = control_pb2.SolveRequest(
        Definition=files(a="1").to_pb(), FrontendAttrs={"build-arg:SOURCE_DATE_EPOCH": "7"}
    )
    request.Exporters.add(Type="one")
    request.Exporters.add(Type="two", Attrs={"source-date-epoch": "9"})
    solver(request)
    assert sorted(attrs["source-date-epoch"] for attrs in solver.exported.attrs) == ["7", "9"]


def test_an_exporter_that_fails_stops_the_others(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    stopped: list[bool] = []

    class Both:
        def export(self, result: Exportable, id: str, attrs: Any, context: Context) -> dict[str, str]:
            if id == "0":
                assert begun.wait(5)
                raise SolveError("disk full")
            begun.set()
            stopped.append(context.cancel.wait(5))
            context.check()
            return {}

    monkeypatch.setattr("brickyard.solver.exporters.find", lambda type: Both())
    request = control_pb2.SolveRequest(Definition=files(a="1").to_pb())
    request.Exporters.add(Type="one")
    request.Exporters.add(Type="two")
    with pytest.raises(SolveError, match="disk full"):
        solver(request)
    assert stopped == [True]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (control_pb2.SolveRequest(SourcePolicySession="x"), "source policies that a session decides"),
        (control_pb2.SolveRequest(ProxyNetwork=True), "network through a proxy"),
        (control_pb2.SolveRequest(Frontend="a", Definition=files(a="1").to_pb()), "both a definition and a frontend"),
        (
            control_pb2.SolveRequest(
                Cache=control_pb2.CacheOptions(Imports=[control_pb2.CacheOptionsEntry(Type="gha")])
            ),
            "cache of type 'gha' is not supported",
        ),
    ],
)
def test_what_is_not_supported_is_refused(solver: Solver, request_: control_pb2.SolveRequest, message: str) -> None:
    with pytest.raises(SolveError, match=message):
        solver(request_)


def tree() -> Definition:
    """Links that lead everywhere."""
    steps = [
        MkDir("/dir", 0o750),
        MkFile("/dir/file", 0o640, b"0123456789"),
        Symlink("dir/file", "/link"),
        Symlink("/dir", "/dir/up"),
        Symlink("../../../../../etc/passwd", "/out"),
        Symlink("loop", "/loop"),
        MkFile("/other", 0o644, b""),
    ]
    actions = [FileAction(step, number - 1, -1, -1) for number, step in enumerate(steps)]
    actions[-1] = FileAction(actions[-1].action, actions[-1].input, -1, 0)
    return marshal(Output(Vertex(FileOp(tuple(actions)))))


def test_reads_stay_inside(solver: Solver) -> None:
    def call(bridge: Bridge) -> gateway_pb2.Result:
        id = ref_of(bridge, tree())

        def read(path: str, **place: int) -> bytes:
            request = gateway_pb2.ReadFileRequest(Ref=id, FilePath=path)
            if place:
                request.Range.Offset, request.Range.Length = place["offset"], place["length"]
            return bridge.read_file(request).Data

        assert read("/dir/file") == read("link") == read("dir/up/up/file") == read("../../dir/file") == b"0123456789"
        assert read("link", offset=2, length=3) == b"234"
        assert read("link", offset=8, length=30) == b"89"
        assert read("link", offset=80, length=30) == b""
        with pytest.raises(BridgeError, match="open missing: no such file or directory") as caught:
            read("missing")
        assert caught.value.code == 5
        for path, message in (
            ("out", "no such file"),
            ("other/below", "no such file"),
            ("loop", "too many levels"),
            ("dir", "not a regular file"),
            ("/", "not a regular file"),
        ):
            with pytest.raises(BridgeError, match=message):
                read(path)
        with pytest.raises(BridgeError, match="before the file"):
            read("link", offset=-1, length=3)

        entries = bridge.read_dir(gateway_pb2.ReadDirRequest(Ref=id, DirPath="/")).entries
        assert [entry.path for entry in entries] == ["dir", "link", "loop", "other", "out"]
        assert entries[0].mode == 1 << 31 | 0o750
        assert (entries[1].mode >> 27 & 1, entries[1].linkname) == (1, "dir/file")
        found = bridge.read_dir(gateway_pb2.ReadDirRequest(Ref=id, DirPath="dir/up", IncludePattern="f*")).entries
        assert [(entry.path, entry.size) for entry in found] == [("file", 10)]
        with pytest.raises(BridgeError, match="other is not a folder"):
            bridge.read_dir(gateway_pb2.ReadDirRequest(Ref=id, DirPath="other"))
        stat = bridge.stat_file(gateway_pb2.StatFileRequest(Ref=id, Path="link")).stat
        assert (stat.path, stat.mode, stat.size) == ("link", 0o640, 10)
        assert bridge.stat_file(gateway_pb2.StatFileRequest(Ref=id, Path="/")).stat.mode >> 31
        return gateway_pb2.Result()

    solver.frontend(call)


def test_an_empty_file_system_can_be_read(solver: Solver) -> None:
    def call(bridge: Bridge) -> gateway_pb2.Result:
        assert not bridge.read_dir(gateway_pb2.ReadDirRequest(Ref="", DirPath="/")).entries
        return gateway_pb2.Result()

    solver.frontend(call)
    assert solver.exported.results[0].refs == {}


def test_ping_tells_what_there_is(solver: Solver) -> None:
    def call(bridge: Bridge) -> gateway_pb2.Result:
        pong = bridge.ping()
        assert {"solve.base", "readfile", "return"} <= {cap.ID for cap in pong.FrontendAPICaps if cap.Enabled}
        caps = {cap.ID for cap in pong.LLBCaps if cap.Enabled}
        assert {"file.base", "exec.meta.base", "source.local", "mergeop"} <= caps
        assert "exec.meta.cdi" not in caps
        [worker] = pong.Workers
        assert worker.platforms[0].OS == "linux"
        assert worker.ID == bridge.ping().Workers[0].ID
        return gateway_pb2.Result()

    solver.frontend(call)


def test_warnings_are_told(solver: Solver) -> None:
    def call(bridge: Bridge) -> gateway_pb2.Result:
        bridge.warn(gateway_pb2.WarnRequest(short=b"careful", detail=[b"why"], url="u", digest="sha256:x"))
        return gateway_pb2.Result()

    solver.frontend(call)
    [warning] = [warning for event in solver.events for warning in event.warnings]
    assert (warning.short, warning.level, warning.vertex, warning.url) == (b"careful", 1, "sha256:x", "u")


def test_an_image_is_resolved_once(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str]] = []

    def resolve(reference: str, platform: Any, mode: str, context: Context) -> tuple[str, str, bytes]:
        asked.append((reference, str(platform), mode))
        return f"{reference}@sha256:{'1' * 64}", f"sha256:{'1' * 64}", b"{}"

    monkeypatch.setattr("brickyard.solver.sources.image.resolve_config", resolve)

    def call(bridge: Bridge) -> gateway_pb2.Result:
        platform = ops_pb2.Platform(OS="linux", Architecture="x86_64")
        old = gateway_pb2.ResolveImageConfigRequest(
            Ref="docker.io/library/a:1", Platform=platform, ResolveMode="pull", LogName="[internal] load metadata for a"
        )
        first = bridge.resolve_image_config(old)
        assert (first.Digest, first.Config) == (f"sha256:{'1' * 64}", b"{}")
        assert first.Ref == f"docker.io/library/a:1@sha256:{'1' * 64}"
        new = gateway_pb2.ResolveSourceMetaRequest(
            Source=ops_pb2.SourceOp(identifier="docker-image://docker.io/library/a:1"),
            Platform=platform,
            ResolveMode="pull",
        )
        second = bridge.resolve_source_meta(new)
        assert second.Image.Digest == first.Digest
        assert second.Source.identifier == f"docker-image://{first.Ref}"
        return gateway_pb2.Result()

    solver.frontend(call)
    assert asked == [("docker.io/library/a:1", "linux/amd64", "pull")]
    assert "[internal] load metadata for a" in solver.names()


def test_nothing_is_known_of_local_files_before(solver: Solver) -> None:
    def call(bridge: Bridge) -> gateway_pb2.Result:
        for identifier, message in (("local://context", "nothing is known"), ("", "source is required")):
            with pytest.raises(BridgeError, match=message):
                bridge.resolve_source_meta(
                    gateway_pb2.ResolveSourceMetaRequest(Source=ops_pb2.SourceOp(identifier=identifier))
                )
        return gateway_pb2.Result()

    solver.frontend(call)


def test_policies_change_and_deny_sources(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    class Sources:
        selections = staticmethod(lambda vertex: ())
        cache_key = staticmethod(lambda vertex, context: repr(vertex.op))

        @staticmethod
        def run(vertex: Vertex, inputs: Any, context: Context) -> list[Result]:
            fetched.append(vertex.op.identifier)  # type: ignore[union-attr]
            return [Result(None)]

    monkeypatch.setitem(TABLE, SourceOp, Sources)
    base = Output(Vertex(SourceOp("docker-image://docker.io/library/golang:1.19")))
    vertex = Vertex(
        FileOp((FileAction(MkDir("/x", 0o755), 0, -1, 0),)), [base], metadata=Metadata({"llb.customname": "mine"})
    )
    request = control_pb2.SolveRequest(Definition=marshal(Output(vertex)).to_pb())
    convert = policy_pb2.Rule(
        action=policy_pb2.CONVERT,
        selector=policy_pb2.Selector(identifier="docker-image://docker.io/library/golang:*"),
        updates=policy_pb2.Update(identifier="docker-image://mirror.test/golang:${1}-slim"),
    )
    request.SourcePolicy.rules.append(convert)
    solver(request)
    assert fetched == ["docker-image://mirror.test/golang:1.19-slim"]
    assert "mine" in solver.names()
    request.SourcePolicy.rules.add(
        action=policy_pb2.DENY, selector=policy_pb2.Selector(identifier="docker-image://mirror.test/*")
    )
    with pytest.raises(SolveError, match="denied by policy") as caught:
        solver(request)
    assert caught.value.code == 7


def test_the_definition_alone(solver: Solver) -> None:
    def frontend(bridge: Bridge, call: FrontendCall) -> gateway_pb2.Result:
        return solved(bridge, failing()).result

    solver.frontends["test.v0"] = frontend
    request = control_pb2.SolveRequest(Frontend="test.v0")
    found = definition(request, solver.context, Reporter(solver.events.append), Shared(solver.frontends))
    assert list(getattr(found, "def")) == list(failing().ops)
    assert solver.events == []


def test_a_build_that_was_stopped_exports_nothing(solver: Solver) -> None:
    def call(bridge: Bridge) -> gateway_pb2.Result:
        result = solved(bridge, files(a="1"), Evaluate=True).result
        solver.context.cancel.set()
        return result

    with pytest.raises(Cancelled):
        solver.frontend(call)
    assert solver.exported.results == []


def test_an_empty_result_has_nothing_to_solve() -> None:
    from brickyard.solver.gateway.refs import Outcome

    assert exportable(Outcome()).refs == {}


def test_a_build_op_solves_a_definition_from_a_file(solver: Solver) -> None:
    inner = files(by="inner").to_pb().SerializeToString()
    holder = Output(Vertex(FileOp((FileAction(MkFile("/d", 0o644, inner), -1, -1, 0),))))
    request = control_pb2.SolveRequest(Definition=marshal(Output(Vertex(BuildOp(0, "/d"), [holder]))).to_pb())
    request.Exporters.add(Type="kept")
    solver(request)
    assert solver.read(solver.exported.results[0].refs[""][0], "by") == "inner"
    assert "build" in solver.names()


@pytest.mark.parametrize(
    ("data", "message"), [(b"\xff", "/d is not an encoded definition"), (None, "the definition to build: open /d")]
)
def test_a_build_op_without_a_definition(solver: Solver, data: bytes | None, message: str) -> None:
    action = MkFile("/d" if data else "/e", 0o644, data or b"")
    holder = Output(Vertex(FileOp((FileAction(action, -1, -1, 0),))))
    request = control_pb2.SolveRequest(Definition=marshal(Output(Vertex(BuildOp(0, "/d"), [holder]))).to_pb())
    with pytest.raises(SolveError, match=message):
        solver(request)


def test_build_ops_do_not_wait_for_each_other_for_ever(solver: Solver) -> None:
    definition = files(by="inner").to_pb()
    for _ in range(20):
        action = MkFile("/d", 0o644, definition.SerializeToString())
        holder = Output(Vertex(FileOp((FileAction(action, -1, -1, 0),))))
        definition = marshal(Output(Vertex(BuildOp(0, "/d"), [holder]))).to_pb()
    shared = Shared({}, slots=Slots(1))
    run(control_pb2.SolveRequest(Definition=definition), solver.context, Reporter(solver.events.append), shared)


def test_a_passthrough_gives_inputs_on(solver: Solver) -> None:
    def mkfile(name: str) -> Output:
        return Output(Vertex(FileOp((FileAction(MkFile(f"/{name}", 0o644, name.encode()), -1, -1, 0),))))

    vertex = Vertex(PassthroughOp("gate", (1, 0)), [mkfile("a"), mkfile("b")])
    request = control_pb2.SolveRequest(Definition=marshal(Output(vertex)).to_pb())
    request.Exporters.add(Type="kept")
    solver(request)
    assert solver.read(solver.exported.results[0].refs[""][0], "b") == "b"
    assert {"mkfile /a", "mkfile /b", "passthrough gate"} <= set(solver.names())


def test_capabilities_that_are_not_there_are_refused(solver: Solver) -> None:
    vertex = Vertex(
        FileOp((FileAction(MkDir("/x", 0o755), -1, -1, 0),)),
        metadata=Metadata(caps=frozenset({"file.base", "file.new"})),
    )
    with pytest.raises(SolveError, match=r"requested feature file\.new is not supported") as caught:
        solver(control_pb2.SolveRequest(Definition=marshal(Output(vertex)).to_pb()))
    assert caught.value.code == 12
