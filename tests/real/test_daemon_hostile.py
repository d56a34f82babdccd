"""Frontend images and clients that mean harm, or are broken: the build fails by name, and the next one works."""

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Builder, Daemon, connect, running_daemon
from engine import Cli

from brickyard.wire.h2 import frames
from brickyard.wire.pb import gateway_pb2

pytestmark = pytest.mark.real

RETURN = "/moby.buildkit.v1.frontend.LLBBridge/Return"
PING = "/moby.buildkit.v1.frontend.LLBBridge/Ping"
HELLO = frames.PREFACE + frames.settings([])


def call(stream: int, method: str, message: bytes) -> bytes:
    """A call in one go."""
    block = frames.header_block(
        [(":method", "POST"), (":path", method), (":scheme", "http"), ("content-type", "application/grpc")]
    )
    head = frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block)
    body = struct.pack(">BI", 0, len(message)) + message
    return head + frames.frame(frames.DATA, frames.END_STREAM, stream, body)


FORGED = gateway_pb2.ReturnRequest(result=gateway_pb2.Result(ref=gateway_pb2.Ref(id="0" * 24))).SerializeToString()
EMPTY = gateway_pb2.ReturnRequest(result=gateway_pb2.Result()).SerializeToString()
HUGE = frames.frame(
    frames.HEADERS, 4, 1, frames.header_block([(":path", RETURN), ("content-type", "application/grpc")])
) + frames.frame(frames.DATA, 0, 1, b"\0\x7f\xff\xff\xff" + bytes(100))

# name -> what the frontend says on standard output, what its script does then, what the client is told
FRONTENDS = {
    "garbage": (b"hello, world\n" * 10, "sleep 60", "HTTP/2"),
    "silent": (b"", "exit 0", "ended without a result"),
    "crash": (b"", "echo broken >&2; exit 7", "exit code 7: broken"),
    "not-there": (b"", None, "could not be started"),
    "forged-ref": (HELLO + call(1, RETURN, FORGED), "cat > /dev/null & sleep 1; exit 0", "ended without a result"),
    "huge-message": (HELLO + HUGE, "cat > /dev/null & sleep 1; exit 0", "ended without a result"),
    "many-calls": (HELLO + b"".join(call(n, PING, b"") for n in range(1, 2001, 2)), "exit 0", "ended without a result"),
    "endless-headers": (
        HELLO + frames.frame(frames.HEADERS, 0, 1, b"") + frames.frame(frames.CONTINUATION, 0, 1, bytes(16000)) * 100,
        "sleep 60",
        "HTTP/2",
    ),
    "not-read": (HELLO + frames.frame(frames.PING, 0, 0, bytes(8)) * 400_000, "exit 0", "the frontend"),
    "fails-after-return": (HELLO + call(1, RETURN, EMPTY), "sleep 1; exit 9", "exit code 9"),
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture
def builder(buildx: Cli, daemon: Daemon) -> Builder:
    return connect(buildx, daemon)


def make(builder: Builder, folder: Path, base: str, name: str, said: bytes, script: str | None) -> None:
    """Push a frontend image."""
    folder.mkdir()
    (folder / "said").write_bytes(said)
    (folder / "go").write_text(f"#!/bin/sh\ncat /said\n{script}\n")
    (folder / "go").chmod(0o755)
    program = "/go" if script is not None else "/none"
    (folder / "Dockerfile").write_text(f'FROM {base}\nCOPY said go /\nENTRYPOINT ["{program}"]\n')
    builder.build(folder, "--push", "-t", name, "--provenance=false")


def plain_build_works(builder: Builder, folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    builder.build(folder)


@pytest.mark.parametrize("kind", FRONTENDS)
def test_broken_frontends(
    kind: str, builder: Builder, daemon: Daemon, base_image: str, registry: str, tmp_path: Path
) -> None:
    said, script, told = FRONTENDS[kind]
    name = f"{registry}/hostile/{kind}:1"
    make(builder, tmp_path / "image", base_image, name, said, script)
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f"# syntax={name}\nFROM scratch\n")
    failed = builder.build(context, check=False, timeout=60)
    assert failed.returncode == 1
    assert told in failed.stderr, failed.stderr[-3000:]
    assert "Traceback" not in failed.stderr
    plain_build_works(builder, context)


def test_a_frontend_that_stays_after_its_return_is_ended(
    builder: Builder, base_image: str, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{registry}/hostile/stays:1"
    make(builder, tmp_path / "image", base_image, name, HELLO + call(1, RETURN, EMPTY), "cat > /dev/null & sleep 600")
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f"# syntax={name}\nFROM scratch\n")
    builder.build(context, timeout=60)


def test_repositories_of_frontends_can_be_limited(buildx: Cli, tmp_path: Path, registry: str) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f"# syntax={registry}/hostile/any:1\nFROM scratch\n")
    config = f'[frontend."gateway.v0"]\nallowedRepositories = ["{registry}/trusted/frontend"]\n'
    with running_daemon(tmp_path / "d", config=config) as daemon:
        refused = connect(buildx, daemon).build(context, check=False)
    assert refused.returncode == 1
    assert f"'{registry}/hostile/any:1' is not an allowed gateway source" in refused.stderr
    with running_daemon(tmp_path / "off", config='[frontend."gateway.v0"]\nenabled = false\n') as daemon:
        refused = connect(buildx, daemon, "off").build(context, check=False)
    assert "gateway.v0" in refused.stderr


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01" + bytes(200),
        HELLO + b"\xff" * 1000,
        HELLO + HUGE,
        HELLO + frames.frame(frames.SETTINGS, 0, 0, b"") * 50_000,
        HELLO + b"".join(call(n, "/moby.buildkit.v1.Control/Solve", b"\xff" * 50) for n in range(1, 3000, 2)),
        HELLO + call(1, "/moby.buildkit.v1.Control/Session", b""),
        HELLO + call(1, "/moby.buildkit.v1.Control/Solve", b""),
    ],
    ids=["http1", "tls", "noise", "huge", "settings", "calls", "nameless-session", "nameless-build"],
)
def test_broken_clients(said: bytes, builder: Builder, daemon: Daemon, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(daemon.address.removeprefix("unix://"))
        connection.settimeout(20)
        try:
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                continue
        except OSError:
            # The daemon has hung up, as it may.
            assert connection.fileno() >= 0
    plain_build_works(builder, tmp_path)
    assert "Traceback" not in daemon.log


def test_connections_that_say_nothing_take_no_turn_from_others(
    builder: Builder, daemon: Daemon, tmp_path: Path
) -> None:
    idle = []
    for _ in range(200):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(daemon.address.removeprefix("unix://"))
        idle.append(connection)
    plain_build_works(builder, tmp_path)
    for connection in idle:
        connection.close()


def test_a_client_that_reads_nothing(daemon: Daemon, builder: Builder, tmp_path: Path) -> None:
    """It asks for more than it takes, and hangs up."""
    plain_build_works(builder, tmp_path)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(daemon.address.removeprefix("unix://"))
        connection.settimeout(2)
        done = threading.Event()

        def ask() -> None:
            try:
                for number in range(1, 100_000, 2):
                    connection.sendall((HELLO if number == 1 else b"") + call(number, PING, b""))
            except OSError:
                # The daemon's answers are not read, so it stops reading, or hangs up.
                done.set()

        asking = threading.Thread(target=ask)
        asking.start()
        asking.join(30)
        assert not asking.is_alive()
    plain_build_works(builder, tmp_path)
