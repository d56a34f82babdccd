"""A client's session services, asked through the tunnel that `Control.Session` is."""

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from brickyard.solver.daemon import session as services
from brickyard.solver.daemon.late_session import LateSession
from brickyard.solver.daemon.session import GrpcSession, encode_metadata
from brickyard.solver.daemon.sessions import SessionGone, Sessions, interval
from brickyard.wire import errors
from brickyard.wire.calls import CallError
from brickyard.wire.fsutil import send as sending
from brickyard.wire.fsutil import tree
from brickyard.wire.h2.client import Caller
from brickyard.wire.h2.connection import Connection
from brickyard.wire.h2.server import BothStreams, Call, Method, Raw, Server, ServerStream, StatusError, Unary, serve
from brickyard.wire.pb import auth_pb2, content_pb2, control_pb2, secrets_pb2, ssh_pb2, upload_pb2
from brickyard.wire.pb.stat_pb2 import Stat
from brickyard.wire.pb.wire_pb2 import Packet
from brickyard.wire.session import FileFilter
from brickyard.wire.tunnel import tunnel

SESSION = "/moby.buildkit.v1.Control/Session"
BLOB = "sha256:" + "1" * 64


class Client:
    """What a client offers, and what it was asked."""

    def __init__(self) -> None:
        self.seen: dict[str, list[str]] = {}
        self.got = bytearray()
        self.stored: dict[str, bytes] = {}

    def methods(self) -> dict[str, Method | Raw]:
        return {
            services.GET_SECRET: Unary(secrets_pb2.GetSecretRequest, self.secret),
            services.CREDENTIALS: Unary(auth_pb2.CredentialsRequest, self.credentials),
            services.TOKEN_AUTHORITY: Unary(auth_pb2.GetTokenAuthorityRequest, self.authority),
            services.FETCH_TOKEN: Unary(auth_pb2.FetchTokenRequest, self.token),
            services.CHECK_AGENT: Unary(ssh_pb2.CheckAgentRequest, self.agent),
            services.FORWARD_AGENT: BothStreams(ssh_pb2.BytesMessage, self.forward),
            services.PULL: BothStreams(None, self.upload),
            services.SEND: BothStreams(None, self.receive),
            services.DIFF_COPY: BothStreams(None, self.files),
            services.BLOB_INFO: Unary(content_pb2.InfoRequest, self.info),
            services.BLOB_READ: ServerStream(content_pb2.ReadContentRequest, self.read),
            services.BLOB_WRITE: BothStreams(content_pb2.WriteContentRequest, self.write),
            "/grpc.health.v1.Health/Check": Unary(None, lambda request, call: b"\x08\x01"),
        }

    def note(self, call: Call) -> None:
        for key, value in call.metadata:
            self.seen.setdefault(key, []).append(value)

    def secret(self, request: secrets_pb2.GetSecretRequest, call: Call) -> secrets_pb2.GetSecretResponse:
        if request.ID != "key":
            raise StatusError(errors.NOT_FOUND, "no such secret")
        return secrets_pb2.GetSecretResponse(data=b"s3cret")

    def credentials(self, request: auth_pb2.CredentialsRequest, call: Call) -> auth_pb2.CredentialsResponse:
        if request.Host == "open.example":
            return auth_pb2.CredentialsResponse()
        return auth_pb2.CredentialsResponse(Username="mason", Secret=f"for {request.Host}")

    def authority(self, request: auth_pb2.GetTokenAuthorityRequest, call: Call) -> auth_pb2.GetTokenAuthorityResponse:
        if request.Host != "tokens.example":
            raise StatusError(errors.UNAVAILABLE, "client side tokens disabled")
        assert len(request.Salt) == 32
        return auth_pb2.GetTokenAuthorityResponse(PublicKey=bytes(32))

    def token(self, request: auth_pb2.FetchTokenRequest, call: Call) -> auth_pb2.FetchTokenResponse:
        return auth_pb2.FetchTokenResponse(Token=f"{request.Realm} {request.Service} {request.Scopes}", ExpiresIn=60)

    def agent(self, request: ssh_pb2.CheckAgentRequest, call: Call) -> ssh_pb2.CheckAgentResponse:
        if request.ID != "default":
            raise StatusError(errors.UNKNOWN, f"unset ssh forward key {request.ID}")
        return ssh_pb2.CheckAgentResponse()

    def forward(self, requests: Iterator[ssh_pb2.BytesMessage], call: Call) -> Iterator[ssh_pb2.BytesMessage]:
        self.note(call)
        for request in requests:
            yield ssh_pb2.BytesMessage(data=request.data.upper())

    def upload(self, requests: Iterator[bytes], call: Call) -> Iterator[upload_pb2.BytesMessage]:
        self.note(call)
        for number in range(5):
            yield upload_pb2.BytesMessage(data=b"%d" % number * 1000)

    def receive(self, requests: Iterator[bytes], call: Call) -> Iterator[bytes]:
        self.note(call)
        if "refused" in call.values("exporter-md-name"):
            raise StatusError(errors.ALREADY_EXISTS, "target already exists")
        for request in requests:
            self.got += control_pb2.BytesMessage.FromString(request).data
        return iter(())

    def files(self, requests: Iterator[bytes], call: Call) -> Iterator[Packet]:
        self.note(call)
        if call.values("dir-name") != ["context"]:
            raise StatusError(errors.NOT_FOUND, "no access allowed to dir")
        made = tree.Made(((Stat(path="a.txt", mode=0o644), b"a" * 3_000_000), (Stat(path="b.txt", mode=0o600), b"b")))
        yield from sending.send(made, map(Packet.FromString, requests))

    def info(self, request: content_pb2.InfoRequest, call: Call) -> content_pb2.InfoResponse:
        self.note(call)
        store = call.values("buildkit-attachable-store-id")[0]
        if store not in ("oci:layout", "local:cache"):
            raise StatusError(errors.NOT_FOUND, f"unknown store {store}: not found")
        data = self.stored.get(request.digest)
        if data is None:
            raise StatusError(errors.NOT_FOUND, f"content {request.digest}: not found")
        return content_pb2.InfoResponse(info=content_pb2.Info(digest=request.digest, size=len(data)))

    def read(self, request: content_pb2.ReadContentRequest, call: Call) -> Iterator[content_pb2.ReadContentResponse]:
        data = self.stored[request.digest]
        for at in range(0, request.size, 1000):
            yield content_pb2.ReadContentResponse(offset=at, data=data[at : at + 1000])

    def write(
        self, requests: Iterator[content_pb2.WriteContentRequest], call: Call
    ) -> Iterator[content_pb2.WriteContentResponse]:
        data = b""
        for request in requests:
            assert request.offset == len(data)
            data += request.data
            if request.action == content_pb2.COMMIT:
                self.stored[request.expected] = data
            yield content_pb2.WriteContentResponse(action=request.action, offset=len(data))


@contextmanager
def connected(client: Client, sessions: Sessions, *, id: str = "s1", offers: Any = None) -> Iterator[threading.Event]:
    """A client that opens a session with a daemon; the event is set when the call has ended."""
    left, right = socket.socketpair()
    daemon = Server({SESSION: Raw(sessions.begin)}, 4)
    threads = [
        threading.Thread(target=serve, args=(daemon.connect(right.sendall), lambda: right.recv(65536), right.close))
    ]
    outer = Connection(left.sendall)
    threads.append(threading.Thread(target=serve, args=(outer, lambda: left.recv(65536), lambda: None)))
    for thread in threads:
        thread.start()
    methods = client.methods()
    offered = methods if offers is None else offers
    stream = Caller(outer).stream(SESSION, [
        ("x-docker-expose-session-uuid", id), ("x-docker-expose-session-sharedkey", "shared"),
        *(("x-docker-expose-session-grpc-method", method) for method in offered),
    ])  # fmt: skip
    ended = threading.Event()
    stream.add_callback(ended.set)
    inner = Server(methods, 8)
    tunnel(stream, inner.connect)
    outer.flush()
    try:
        yield ended
    finally:
        stream.close_send()
        assert ended.wait(5)
        left.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
        left.close()
        inner.stop()
        daemon.stop()


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def session(client: Client) -> Iterator[GrpcSession]:
    sessions = Sessions()
    with connected(client, sessions):
        yield sessions.get("s1")
    with pytest.raises(SessionGone):
        sessions.get("s1", wait=0)


def test_secrets(session: GrpcSession):
    assert session.secret("key") == b"s3cret"
    assert session.secret("none") is None


def test_credentials_and_tokens(session: GrpcSession):
    assert session.credentials("a.example") == ("mason", "for a.example")
    assert session.credentials("open.example") is None
    assert session.fetch_token("a.example", "r", "s", ["x"]) is None
    assert session.fetch_token("tokens.example", "r", "s", ["x"]) == ("r s ['x']", 60)


def test_ssh(session: GrpcSession, client: Client):
    assert session.has_ssh("")
    assert not session.has_ssh("other")
    ours, theirs = socket.socketpair()
    forward = threading.Thread(target=session.forward_ssh, args=("", theirs))
    forward.start()
    ours.sendall(b"sign this")
    assert ours.recv(100) == b"SIGN THIS"
    ours.shutdown(socket.SHUT_WR)
    assert ours.recv(100) == b""
    forward.join(5)
    ours.close()
    assert client.seen["buildkit.ssh.id"] == ["default"]


def test_uploads(session: GrpcSession, client: Client):
    with session.upload("http://buildkit-session/abc?x=1") as stream:
        assert stream.read(4) == b"0000"
        assert stream.read() == b"0" * 996 + b"".join(b"%d" % n * 1000 for n in range(1, 5))
    assert client.seen["urlpath"] == ["/abc"]
    assert client.seen["urlhost"] == ["buildkit-session"]


def test_an_archive_goes_out_whole(session: GrpcSession, client: Client):
    with session.output_file("3", {"name": "x"}) as out:
        out.write(b"head")
        out.write(b"x" * 5_000_000)
        out.write(memoryview(b"tail"))
    assert bytes(client.got) == b"head" + b"x" * 5_000_000 + b"tail"
    assert client.seen["buildkit-attachable-exporter-id"] == ["3"]
    assert client.seen["exporter-md-name"] == ["x"]


def test_an_archive_that_is_not_finished_fails_at_the_client(session: GrpcSession, client: Client):
    out = session.output_file("0", {})
    out.write(b"half")
    del out

    def fail() -> None:
        with session.output_file("0", {}) as other:
            other.write(b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_a_client_that_takes_no_archive(session: GrpcSession):
    def export() -> None:
        with session.output_file("0", {"name": "refused"}) as out:
            for _ in range(100):
                out.write(b"x" * 1_000_000)

    with pytest.raises(CallError, match="target already exists"):
        export()


class Receiver:
    def __init__(self) -> None:
        self.files: dict[str, bytearray] = {}
        self.ended: list[str] = []

    def entry(self, stat: Stat) -> bool:
        self.files[stat.path] = bytearray()
        return True

    def data(self, path: str, data: bytes) -> None:
        self.files[path] += data

    def end(self, path: str) -> None:
        self.ended.append(path)


def test_files_of_the_client(session: GrpcSession, client: Client):
    receiver = Receiver()
    wanted = FileFilter(include=("*.txt", "ünder"), exclude=("c",), follow=("a.txt",))
    session.receive("context", wanted, receiver)
    assert {path: len(data) for path, data in receiver.files.items()} == {"a.txt": 3_000_000, "b.txt": 1}
    assert sorted(receiver.ended) == ["a.txt", "b.txt"]
    assert client.seen["include-patterns"] == ["%2A.txt", "%C3%BCnder"]
    assert client.seen["include-patterns-encoded"] == ["1"]
    assert client.seen["exclude-patterns"] == ["c"]
    assert client.seen["followpaths"] == ["a.txt"]
    with pytest.raises(KeyError):
        session.receive("other", FileFilter(), Receiver())


def test_blobs_of_the_clients_stores(session: GrpcSession, client: Client):
    client.stored[BLOB] = b"z" * 2500
    with session.open_blob("layout", BLOB) as stream:
        assert stream.read() == b"z" * 2500
    with pytest.raises(FileNotFoundError):
        session.open_blob("layout", "sha256:" + "2" * 64)
    with pytest.raises(KeyError):
        session.open_blob("nothing", BLOB)
    pieces = [b"x" * 1_500_000, b"y"]
    session.write_blob("local:cache", "sha256:new", 1_500_001, pieces, {})
    assert client.stored["sha256:new"] == b"".join(pieces)
    session.write_blob("local:cache", "sha256:new", 1, iter(()), {})
    assert client.stored["sha256:new"] == b"".join(pieces)


def test_what_a_client_does_not_offer(client: Client):
    sessions = Sessions()
    with connected(client, sessions, offers=()):
        bare = sessions.get("s1")
        assert bare.secret("key") is None
        assert bare.credentials("a.example") is None
        assert bare.fetch_token("tokens.example", "r", "s", []) is None
        assert not bare.has_ssh("")
        assert bare.shared_key() == "shared"
        with pytest.raises(KeyError):
            bare.receive("context", FileFilter(), Receiver())
        with pytest.raises(KeyError):
            bare.upload("http://buildkit-session/x")
        with pytest.raises(KeyError):
            bare.open_blob("layout", BLOB)
        with pytest.raises(OSError, match="not supported by the client"):
            bare.output_file("0", {})


def test_a_session_that_has_left(client: Client):
    sessions = Sessions()
    with connected(client, sessions):
        gone = sessions.get("s1")
    for ask in (lambda: gone.secret("key"), lambda: gone.output_file("0", {})):
        with pytest.raises(CallError, match="gone"):
            ask()


def test_an_id_is_used_once(client: Client):
    sessions = Sessions()
    with connected(client, sessions), connected(Client(), sessions) as second:
        assert second.wait(5)
    with connected(client, sessions, id="") as nameless:
        assert nameless.wait(5)


def test_a_build_waits_for_its_session(client: Client):
    sessions = Sessions()
    late = LateSession(sessions, "s1", threading.Event())
    got: list[bytes | None] = []
    asking = threading.Thread(target=lambda: got.append(late.secret("key")))
    asking.start()
    with connected(client, sessions):
        asking.join(5)
        assert late.other("x:s1").shared_key() == "shared"
        assert late.other("") is late
    assert got == [b"s3cret"]


def test_a_build_that_is_stopped_waits_no_more():
    stop = threading.Event()
    stop.set()
    with pytest.raises(CallError, match="no active session for s9"):
        LateSession(Sessions(), "s9", stop).secret("key")
    assert LateSession(Sessions(), "", stop).credentials("a.example") is None
    with pytest.raises(SessionGone):
        Sessions().get("x", wait=0.01)


@pytest.mark.parametrize(
    ("header", "expected"),
    [([], (5.0, 15.0, 2)), (["2500"], (2.5, 2.5, 1)), (["10"], (1.0, 1.0, 1)), (["soon"], (5.0, 15.0, 2))],
)
def test_health_checks(header: list[str], expected: tuple[float, float, int]):
    assert interval({"x-buildkit-session-health-custom-timeout": header}) == expected


def test_metadata_is_escaped_only_where_it_must_be():
    assert encode_metadata({"a": ["x y", "%"], "b": []}) == [("a", "x y"), ("a", "%")]
    assert encode_metadata({"a": ["é", "x y"]}) == [("a-encoded", "1"), ("a", "%C3%A9"), ("a", "x+y")]


def test_a_stream_is_a_file(session: GrpcSession):
    with io.BufferedReader(session.upload("http://buildkit-session/x")) as buffered:  # type: ignore[arg-type]
        assert buffered.read(1001) == b"0" * 1000 + b"1"
