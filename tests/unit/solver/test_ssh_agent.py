"""A client's ssh agent behind a socket of this machine."""

import os
import socket
import threading
from typing import Any

import pytest

from brickyard.solver.base import SolveError
from brickyard.solver.ssh_agent import agent_socket


def echo(connection: socket.socket) -> None:
    while data := connection.recv(1 << 16):
        connection.sendall(data.upper())


def ask(path: str, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_connections(yard: Any) -> None:
    yard.client.agents["default"] = echo
    with agent_socket(yard.client, "") as path:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        answers: list[bytes] = []
        threads = [
            threading.Thread(target=lambda n=n: answers.append(ask(os.fspath(path), f"key {n}".encode())))
            for n in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [f"KEY {n}".encode() for n in range(5)]
    assert not path.exists()


def test_the_end_closes_connections(yard: Any) -> None:
    yard.client.agents["default"] = echo
    with agent_socket(yard.client, "default") as path:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(os.fspath(path))
        connection.sendall(b"a")
        assert connection.recv(1) == b"A"
    assert connection.recv(1) == b""
    connection.close()


def test_no_such_agent(yard: Any) -> None:
    with pytest.raises(SolveError, match="forwards no ssh agent 'other'"), agent_socket(yard.client, "other"):
        pass
