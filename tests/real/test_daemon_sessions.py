"""Builds that a client asks for in one call, as buildctl does, with sessions of its own."""

import io
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from daemons import Daemon, calling, running_daemon

from brickyard.wire import errors
from brickyard.wire.calls import CallError
from brickyard.wire.fsutil import send as sending
from brickyard.wire.fsutil import tree
from brickyard.wire.h2.client import Caller
from brickyard.wire.h2.server import BothStreams, Call, Method, Raw, Server, StatusError, Unary
from brickyard.wire.pb import control_pb2, secrets_pb2
from brickyard.wire.pb.wire_pb2 import Packet
from brickyard.wire.tunnel import tunnel

pytestmark = pytest.mark.real

CONTROL = "/moby.buildkit.v1.Control/"
FILES = "/moby.filesync.v1.FileSync/DiffCopy"
SEND = "/moby.filesync.v1.FileSend/DiffCopy"
SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
HEALTH = "/grpc.health.v1.Health/Check"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture
def caller(daemon: Daemon) -> Iterator[Caller]:
    with calling(daemon) as made:
        yield made


class Client:
    """A session of a client: its folders and secrets, and the archive that it is sent."""

    def __init__(self, folders: Mapping[str, Path], secrets: Mapping[str, bytes] | None = None) -> None:
        self.folders = folders
        self.secrets = secrets or {}
        self.archive = bytearray()
        self.checks = 0

    def methods(self) -> dict[str, Method | Raw]:
        return {
            FILES: BothStreams(None, self.files),
            SEND: BothStreams(None, self.take),
            SECRET: Unary(secrets_pb2.GetSecretRequest, self.secret),
            HEALTH: Unary(None, self.health),
        }

    def health(self, request: bytes, call: Call) -> bytes:
        self.checks += 1
        return b"\x08\x01"

    def secret(self, request: secrets_pb2.GetSecretRequest, call: Call) -> secrets_pb2.GetSecretResponse:
        if request.ID not in self.secrets:
            raise StatusError(errors.NOT_FOUND, "no such secret")
        return secrets_pb2.GetSecretResponse(data=self.secrets[request.ID])

    def files(self, requests: Iterator[bytes], call: Call) -> Iterator[Packet]:
        (name,) = call.values("dir-name")
        if name not in self.folders:
            raise StatusError(errors.NOT_FOUND, f"no access allowed to dir {name!r}")
        yield from sending.send(tree.folder(self.folders[name]), map(Packet.FromString, requests))

    def take(self, requests: Iterator[bytes], call: Call) -> Iterator[bytes]:
        for request in requests:
            self.archive += control_pb2.BytesMessage.FromString(request).data
        return iter(())

    def names(self) -> list[str]:
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as tar:
            return sorted(tar.getnames())


@contextmanager
def session(caller: Caller, id: str, client: Client, *more: tuple[str, str]) -> Iterator[Callable[[], bool]]:
    """The client's session; gives whether the daemon has ended it."""
    methods = client.methods()
    stream = caller.stream(CONTROL + "Session", [
        ("x-docker-expose-session-uuid", id), *more,
        *(("x-docker-expose-session-grpc-method", method) for method in methods),
    ])  # fmt: skip
    server = Server(methods, 16)
    tunnel(stream, server.connect)
    caller.connection.flush()
    try:
        yield lambda: stream.over
    finally:
        stream.close_send()
        server.stop()


def solve(caller: Caller, ref: str, session: str, opts: Mapping[str, str] | None = None) -> None:
    request = control_pb2.SolveRequest(
        Ref=ref, Session=session, Frontend="dockerfile.v0", FrontendAttrs=opts or {},
        Exporters=[control_pb2.Exporter(Type="tar")],
    )  # fmt: skip
    caller.unary(CONTROL + "Solve", request, control_pb2.SolveResponse, (), 60)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY a.txt /\n")
    (folder / "a.txt").write_text("a\n")
    return folder


def test_one_call_builds(caller: Caller, context: Path) -> None:
    client = Client({"context": context, "dockerfile": context})
    with session(caller, "plain", client):
        solve(caller, "plain-build", "plain")
    assert client.names() == ["a.txt"]


def test_the_session_may_come_after_the_solve(caller: Caller, context: Path) -> None:
    client = Client({"context": context, "dockerfile": context})
    failed: list[CallError] = []

    def build() -> None:
        try:
            solve(caller, "early-build", "late")
        except CallError as error:
            failed.append(error)

    building = threading.Thread(target=build)
    building.start()
    building.join(0.3)
    assert building.is_alive()
    with session(caller, "late", client):
        building.join(30)
    assert not failed
    assert client.names() == ["a.txt"]


def test_a_session_that_never_comes(caller: Caller) -> None:
    with pytest.raises(CallError, match="no active session for nobody"):
        solve(caller, "lonely-build", "nobody")


def test_several_sessions_for_one_build(caller: Caller, context: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.txt").write_text("the other's\n")
    first, second = Client({"dockerfile": context}), Client({"context": other})
    with session(caller, "first", first), session(caller, "second", second):
        solve(caller, "two-sessions", "first", {"local-sessionid:context": "second"})
    with tarfile.open(fileobj=io.BytesIO(first.archive)) as tar:
        assert tar.extractfile("a.txt").read() == b"the other's\n"  # type: ignore[union-attr]


def test_sessions_that_leave_in_the_middle(daemon: Daemon, caller: Caller, context: Path) -> None:
    """The client of the session goes away while it is asked for files: the build fails at once, and says why."""
    gone = threading.Event()

    class Leaving(Client):
        def files(self, requests: Iterator[bytes], call: Call) -> Iterator[Packet]:
            over = threading.Event()
            call.on_end(over.set)
            gone.set()
            over.wait(20)
            return iter(())

    with ExitStack() as stack:
        other = stack.enter_context(calling(daemon))
        stack.enter_context(session(other, "leaving", Leaving({"context": context, "dockerfile": context})))
        failed: list[str] = []

        def build() -> None:
            try:
                solve(caller, "left-alone", "leaving")
            except CallError as error:
                failed.append(str(error))

        building = threading.Thread(target=build)
        building.start()
        assert gone.wait(10)
    building.join(15)
    assert not building.is_alive()
    assert "session" in failed[0]


def test_health_is_asked_for(caller: Caller, context: Path) -> None:
    client = Client({})
    with session(caller, "checked", client, ("x-buildkit-session-health-custom-timeout", "1000")) as over:
        for _ in range(100):
            if client.checks:
                break
            threading.Event().wait(0.05)
        assert client.checks
        assert not over()


def test_a_client_without_a_pulse_is_cut_off(caller: Caller) -> None:
    class Dead(Client):
        def health(self, request: bytes, call: Call) -> bytes:
            raise StatusError(errors.UNAVAILABLE, "not well")

    with session(caller, "dead", Dead({}), ("x-buildkit-session-health-custom-timeout", "1000")) as over:
        for _ in range(100):
            if over():
                break
            threading.Event().wait(0.05)
        assert over()


def test_secrets_are_nowhere_in_the_store(daemon: Daemon, caller: Caller, context: Path, base_image: str) -> None:
    value = b"s3cret-of-the-sessions-test"
    (context / "Dockerfile").write_text(
        f"FROM {base_image}\n"
        "RUN --mount=type=secret,id=key --network=none cat /run/secrets/key | wc -c > /length\n"
        "RUN --mount=type=secret,id=key,env=KEY --network=none echo ${#KEY} > /again\n"
        "RUN --mount=type=secret,id=key --network=none exit 3\n"
    )
    client = Client({"context": context, "dockerfile": context}, {"key": value})
    with session(caller, "secretive", client), pytest.raises(CallError, match="exit code: 3"):
        solve(caller, "secret-build", "secretive")
    root = daemon.folder
    found = [path for path in root.rglob("*") if path.is_file() and value in path.read_bytes()]
    assert found == []
