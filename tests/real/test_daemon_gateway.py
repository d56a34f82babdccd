"""A client that is the frontend itself, as buildx is: the gateway on the daemon's own server, with containers."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon, calling, running_daemon

from brickyard.llb.marshal import marshal
from brickyard.llb.state import source
from brickyard.oci.platform import host
from brickyard.wire import errors
from brickyard.wire.calls import CallError
from brickyard.wire.h2.client import Caller
from brickyard.wire.h2.connection import Stream
from brickyard.wire.pb import control_pb2, gateway_pb2, ops_pb2

pytestmark = pytest.mark.real

BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"
CONTROL = "/moby.buildkit.v1.Control/"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture
def caller(daemon: Daemon) -> Iterator[Caller]:
    with calling(daemon) as made:
        yield made


class Build:
    """A build that this test drives."""

    number = 0

    def __init__(self, caller: Caller, **request: Any) -> None:
        type(self).number += 1
        self.ref = f"gateway-{self.number}"
        self.caller = caller
        self.answer: control_pb2.SolveResponse | CallError | None = None
        message = control_pb2.SolveRequest(Ref=self.ref, **request)
        self._thread = threading.Thread(target=self._solve, args=(message,))
        self._thread.start()

    def _solve(self, request: control_pb2.SolveRequest) -> None:
        try:
            self.answer = self.caller.unary(CONTROL + "Solve", request, control_pb2.SolveResponse)
        except CallError as error:
            self.answer = error

    @property
    def metadata(self) -> list[tuple[str, str | bytes]]:
        return [("buildkit-controlapi-buildid", self.ref)]

    def call(self, method: str, request: Any, reply: Any) -> Any:
        return self.caller.unary(BRIDGE + method, request, reply, self.metadata, 30)

    def solve(self, definition: ops_pb2.Definition) -> str:
        request = gateway_pb2.SolveRequest(Definition=definition, allowResultReturn=True, allowResultArrayRef=True)
        return str(self.call("Solve", request, gateway_pb2.SolveResponse).result.ref.id)

    def end(self, result: gateway_pb2.Result | None = None, **failure: Any) -> Any:
        request = gateway_pb2.ReturnRequest(result=None if failure else result or gateway_pb2.Result())
        if failure:
            request.error.code, request.error.message = failure["code"], failure["message"]
        self.call("Return", request, gateway_pb2.ReturnResponse)
        self._thread.join(30)
        return self.answer


def image(reference: str) -> ops_pb2.Definition:
    return marshal(source(f"docker-image://{reference}", platform=host()).output).to_pb()


@pytest.fixture
def build(caller: Caller) -> Iterator[Build]:
    made = Build(caller)
    yield made
    if made.answer is None:
        made.end()


def test_what_the_gateway_can_do(build: Build) -> None:
    pong = build.call("Ping", gateway_pb2.PingRequest(), gateway_pb2.PongResponse)
    names = {cap.ID for cap in pong.FrontendAPICaps if cap.Enabled}
    assert {"solve.base", "return", "gateway.exec", "gateway.exec.signals", "gateway.evaluate"} <= names
    assert pong.Workers[0].platforms[0].OS == "linux"
    assert build.end().ExporterResponse == {}


def test_files_of_a_ref(build: Build, base_image: str) -> None:
    ref = build.solve(image(base_image))
    build.call("Evaluate", gateway_pb2.EvaluateRequest(Ref=ref), gateway_pb2.EvaluateResponse)
    read = gateway_pb2.ReadFileRequest(Ref=ref, FilePath="/etc/passwd")
    assert build.call("ReadFile", read, gateway_pb2.ReadFileResponse).Data.startswith(b"root:")
    read = gateway_pb2.ReadDirRequest(Ref=ref, DirPath="/etc")
    assert "passwd" in {e.path for e in build.call("ReadDir", read, gateway_pb2.ReadDirResponse).entries}
    stat = gateway_pb2.StatFileRequest(Ref=ref, Path="/etc")
    assert build.call("StatFile", stat, gateway_pb2.StatFileResponse).stat.mode & 1 << 31
    result = gateway_pb2.Result(ref=gateway_pb2.Ref(id=ref), metadata={"frontend.said": b"hello"})
    assert build.end(result).ExporterResponse == {"frontend.said": "hello"}


def test_refs_of_others_are_not_ours(caller: Caller, build: Build, base_image: str) -> None:
    other = Build(caller)
    ref = other.solve(image(base_image))
    for forged in (ref, "0" * 24, "../x"):
        with pytest.raises(CallError) as caught:
            build.call("ReadFile", gateway_pb2.ReadFileRequest(Ref=forged, FilePath="/x"), gateway_pb2.ReadFileResponse)
        assert caught.value.code == errors.NOT_FOUND
        with pytest.raises(CallError):
            build.end(gateway_pb2.Result(ref=gateway_pb2.Ref(id=forged)))
    other.end()
    build.end()


def test_a_result_is_given_once(build: Build) -> None:
    with pytest.raises(CallError) as caught:
        build.call("Return", gateway_pb2.ReturnRequest(), gateway_pb2.ReturnResponse)
    assert caught.value.code == errors.INVALID_ARGUMENT
    build.end()
    with pytest.raises(CallError):
        build.call("Return", gateway_pb2.ReturnRequest(result=gateway_pb2.Result()), gateway_pb2.ReturnResponse)


def test_an_error_is_handed_on_with_its_code(build: Build) -> None:
    answer = build.end(code=errors.PERMISSION_DENIED, message="not today")
    assert isinstance(answer, CallError)
    assert (answer.code, str(answer)) == (errors.PERMISSION_DENIED, "not today")


def test_calls_without_a_build(caller: Caller) -> None:
    with pytest.raises(CallError, match="no buildid found"):
        caller.unary(BRIDGE + "Ping", gateway_pb2.PingRequest(), gateway_pb2.PongResponse, (), 10)


class Exec:
    """An ExecProcess call."""

    def __init__(self, build: Build) -> None:
        self.stream: Stream = build.caller.stream(BRIDGE + "ExecProcess", build.metadata)

    def send(self, process: str, **message: Any) -> None:
        self.stream.send(gateway_pb2.ExecMessage(ProcessID=process, **message).SerializeToString())

    def start(
        self, process: str, container: str, *args: str, tty: bool = False, fds: tuple[int, ...] = (0, 1, 2)
    ) -> None:
        meta = ops_pb2.Meta(args=args, cwd="/", env=["PATH=/bin"])
        self.send(process, Init=gateway_pb2.InitMessage(ContainerID=container, Meta=meta, Fds=fds, Tty=tty))

    def next(self) -> gateway_pb2.ExecMessage:
        message = self.stream.receive()
        assert message is not None
        return gateway_pb2.ExecMessage.FromString(message)

    def until(self, process: str, kind: str) -> tuple[gateway_pb2.ExecMessage, dict[int, bytes]]:
        """Messages of a process up to one of a kind, with what it wrote."""
        wrote: dict[int, bytes] = {}
        while True:
            message = self.next()
            if message.ProcessID != process:
                continue
            if message.WhichOneof("Input") == "File":
                wrote[message.File.Fd] = wrote.get(message.File.Fd, b"") + message.File.Data
            if message.WhichOneof("Input") == kind:
                return message, wrote


@pytest.fixture
def container(build: Build, base_image: str) -> Iterator[str]:
    mount = ops_pb2.Mount(dest="/", resultID=build.solve(image(base_image)))
    request = gateway_pb2.NewContainerRequest(ContainerID="box", Mounts=[mount], Network=ops_pb2.NONE, hostname="box")
    build.call("NewContainer", request, gateway_pb2.NewContainerResponse)
    yield "box"
    release = gateway_pb2.ReleaseContainerRequest(ContainerID="box")
    build.call("ReleaseContainer", release, gateway_pb2.ReleaseContainerResponse)
    with pytest.raises(CallError):
        build.call("ReleaseContainer", release, gateway_pb2.ReleaseContainerResponse)


def test_processes_in_a_container(build: Build, container: str) -> None:
    call = Exec(build)
    call.start("one", container, "sh", "-c", "cat; echo err >&2; echo left > /file; exit 3")
    call.until("one", "Started")
    call.send("one", File=gateway_pb2.FdMessage(Fd=0, Data=b"through\n"))
    call.send("one", File=gateway_pb2.FdMessage(Fd=0, EOF=True))
    ended, wrote = call.until("one", "Exit")
    assert wrote == {1: b"through\n", 2: b"err\n"}
    assert ended.Exit.Code == 3
    (code,) = errors.read_details(ended.Exit.Error)
    assert code == gateway_pb2.ExitMessage(Code=3)
    call.until("one", "Done")
    call.start("two", container, "sh", "-c", "cat /file; hostname", fds=(1, 2))
    ended, wrote = call.until("two", "Exit")
    assert wrote[1] == b"left\nbox\n"
    assert ended.Exit.Code == 0
    assert not ended.Exit.HasField("Error")
    read = gateway_pb2.ReadFileRequest(Ref=container, FilePath="/file")
    assert build.call("ReadFileContainer", read, gateway_pb2.ReadFileResponse).Data == b"left\n"
    call.stream.close_send()
    while call.stream.receive() is not None:
        continue


def test_a_terminal(build: Build, container: str) -> None:
    call = Exec(build)
    call.start("shell", container, "sh", tty=True, fds=(0, 1))
    call.until("shell", "Started")
    call.send("shell", Resize=gateway_pb2.ResizeMessage(Rows=33, Cols=77))
    call.send("shell", File=gateway_pb2.FdMessage(Fd=0, Data=b"tty && stty size; exit 4\n"))
    ended, wrote = call.until("shell", "Exit")
    assert b"33 77" in wrote[1]
    assert ended.Exit.Code == 4


def test_signals(build: Build, container: str) -> None:
    call = Exec(build)
    call.start(
        "one", container, "sh", "-c", "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    )
    while b"ready" not in call.until("one", "File")[1].get(1, b""):
        continue
    call.send("one", Signal=gateway_pb2.SignalMessage(Name="SIGTERM"))
    ended, wrote = call.until("one", "Exit")
    assert wrote[1] == b"caught\n"
    assert ended.Exit.Code == 5


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (gateway_pb2.ExecMessage(), errors.INVALID_ARGUMENT),
        (gateway_pb2.ExecMessage(ProcessID="x", File=gateway_pb2.FdMessage(Fd=0)), errors.NOT_FOUND),
        (gateway_pb2.ExecMessage(ProcessID="x", Exit=gateway_pb2.ExitMessage()), errors.INVALID_ARGUMENT),
        (gateway_pb2.ExecMessage(ProcessID="x", Init=gateway_pb2.InitMessage(ContainerID="none")), errors.NOT_FOUND),
    ],
)
def test_messages_out_of_turn(build: Build, message: gateway_pb2.ExecMessage, code: int) -> None:
    call = Exec(build)
    call.stream.send(message.SerializeToString())
    with pytest.raises(CallError) as caught:
        call.next()
    assert caught.value.code == code


def test_processes_end_with_the_build(caller: Caller, base_image: str) -> None:
    build = Build(caller)
    mount = ops_pb2.Mount(dest="/", resultID=build.solve(image(base_image)))
    request = gateway_pb2.NewContainerRequest(ContainerID="left", Mounts=[mount], Network=ops_pb2.NONE)
    build.call("NewContainer", request, gateway_pb2.NewContainerResponse)
    call = Exec(build)
    call.start("one", "left", "sleep", "271")
    call.until("one", "Started")
    build.end()
    ended, _ = call.until("one", "Exit")
    assert ended.Exit.Code == 128 + 9


def test_a_client_that_leaves_stops_its_build(daemon: Daemon, base_image: str) -> None:
    with calling(daemon) as caller:
        build = Build(caller)
        build.call("Ping", gateway_pb2.PingRequest(), gateway_pb2.PongResponse)
    with calling(daemon) as caller:
        request = control_pb2.BuildHistoryRequest(Ref=build.ref, EarlyExit=True)
        found: list[control_pb2.BuildHistoryEvent] = []
        for _ in range(200):
            stream = caller.stream(CONTROL + "ListenBuildHistory")
            stream.send(request.SerializeToString())
            stream.close_send()
            found = [control_pb2.BuildHistoryEvent.FromString(m) for m in iter(stream.receive, None)]
            if found and found[0].type == control_pb2.COMPLETE:
                break
            threading.Event().wait(0.02)
        assert found[0].record.error.code == errors.CANCELLED


def test_status_of_a_build_that_has_ended(caller: Caller, build: Build, base_image: str) -> None:
    ref = build.solve(image(base_image))
    build.end(gateway_pb2.Result(ref=gateway_pb2.Ref(id=ref)))
    for _ in range(2):
        stream = caller.stream(CONTROL + "Status")
        stream.send(control_pb2.StatusRequest(Ref=build.ref).SerializeToString())
        stream.close_send()
        names = [
            vertex.name
            for message in iter(stream.receive, None)
            for vertex in control_pb2.StatusResponse.FromString(message).vertexes
        ]
        assert any(base_image in name for name in names)


def test_the_daemon_answers_health_and_takes_traces(caller: Caller) -> None:
    empty = control_pb2.InfoRequest()
    answer = caller.unary("/grpc.health.v1.Health/Check", empty, control_pb2.InfoRequest, (), 10)
    assert answer.SerializeToString() == b"\x08\x01"
    traces = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    assert caller.unary(traces, empty, control_pb2.InfoRequest, (), 10) == empty
    with pytest.raises(CallError) as caught:
        caller.unary(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", empty, control_pb2.InfoRequest, (), 10
        )
    assert caught.value.code == errors.UNIMPLEMENTED


def test_an_image_config_is_resolved(build: Build, base_image: str, tmp_path: Path) -> None:
    request = gateway_pb2.ResolveImageConfigRequest(Ref=base_image)
    found = build.call("ResolveImageConfig", request, gateway_pb2.ResolveImageConfigResponse)
    assert found.Digest.startswith("sha256:")
    assert json.loads(found.Config)["os"] == "linux"
