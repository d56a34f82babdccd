"""Sockets of the daemon."""

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from brickyard.solver.daemon.listeners import ListenError, Listeners, Tls, activated
from brickyard.wire.calls import CallError
from brickyard.wire.h2.client import Caller
from brickyard.wire.h2.connection import Connection
from brickyard.wire.h2.server import Server, Unary, serve
from brickyard.wire.pb import control_pb2

Bytes = control_pb2.BytesMessage


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server({"/t.T/Echo": Unary(Bytes, lambda request, call: request)}, 4)
    yield made
    made.stop()


@pytest.fixture
def listeners(server: Server) -> Iterator[Listeners]:
    made = Listeners(server)
    yield made
    made.close()


def ask(connection: socket.socket) -> bytes:
    ours = Connection(connection.sendall)
    threading.Thread(target=serve, args=(ours, lambda: connection.recv(65536), lambda: None), daemon=True).start()
    answer = Caller(ours).unary("/t.T/Echo", Bytes(data=b"hello"), Bytes, timeout=5).data
    connection.shutdown(socket.SHUT_RDWR)
    return answer


def test_a_unix_socket_is_private_and_goes_away(server: Server, tmp_path: Path):
    listeners = Listeners(server)
    path = tmp_path / "deep/er/socket"
    listeners.add([f"unix://{path}"], None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    listeners.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert ask(client) == b"hello"
    listeners.stop()
    listeners.close()
    assert not path.exists()


def test_the_socket_of_another_is_left_alone(server: Server, tmp_path: Path):
    first, path = Listeners(server), tmp_path / "s"
    first.add([f"unix://{path}"], None)
    path.unlink()
    path.write_text("somebody else's")
    first.close()
    assert path.read_text() == "somebody else's"


def test_a_stale_socket_is_taken_over(listeners: Listeners, tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "s"))
    listeners.add([f"unix://{tmp_path}/s"], None)


def test_addresses_that_cannot_be_taken(listeners: Listeners, tmp_path: Path):
    (tmp_path / "file").write_text("")
    taken = socket.create_server(("127.0.0.1", 0))
    busy = socket.socket(socket.AF_UNIX)
    busy.bind(str(tmp_path / "busy"))
    busy.listen()
    for address, says in (
        ("/run/x.sock", "must contain a scheme"),
        ("npipe://x", "'npipe' is not supported"),
        ("unix://relative", "must be absolute"),
        (f"unix://{tmp_path}/file", "no socket"),
        (f"unix://{tmp_path}/busy", "another process listens there"),
        (f"unix://{tmp_path}/file/s", "File exists"),
        ("tcp://127.0.0.1", "write tcp://HOST:PORT"),
        ("tcp://127.0.0.1:99999", "out of range"),
        (f"tcp://127.0.0.1:{taken.getsockname()[1]}", "Address already in use"),
        ("fd://", "no socket was handed over"),
    ):
        with pytest.raises(ListenError, match=says):
            listeners.add([address], None)
    taken.close()
    busy.close()


def test_tcp(listeners: Listeners):
    listeners.add(["tcp://127.0.0.1:0"], None)
    port = listeners.addresses[0][1]
    listeners.start()
    with socket.create_connection(("127.0.0.1", port)) as client:
        assert ask(client) == b"hello"


def test_no_more_connections_than_allowed(listeners: Listeners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("brickyard.solver.daemon.listeners.CONNECTIONS", 1)
    listeners.add([f"unix://{tmp_path}/s"], None)
    listeners.start()
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.connect(f"{tmp_path}/s")
        second.connect(f"{tmp_path}/s")
        with pytest.raises((CallError, OSError)):
            ask(second)


def test_files_of_tls(tmp_path: Path):
    with pytest.raises(ListenError, match="cannot read"):
        Tls(tmp_path / "none", tmp_path / "none").context()
    for name in ("cert", "key", "ca"):
        (tmp_path / name).write_text("nonsense")
    with pytest.raises(ListenError, match="cannot use"):
        Tls(tmp_path / "cert", tmp_path / "key", tmp_path / "ca").context()


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, []),
        ({"LISTEN_PID": "1", "LISTEN_FDS": "2"}, []),
        ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}, []),
        ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, [(3, "a"), (4, "b")]),
        ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}, [(3, ""), (4, "")]),
    ],
)
def test_descriptors_of_a_service_manager(environ: dict[str, str], found: list[tuple[int, str]]):
    assert activated(environ) == found
