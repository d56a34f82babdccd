"""SSH agents of a build, asked by OpenSSH's own programs."""

import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils, x25519

from brickyard.client.agents import Agents
from brickyard.client.errors import ClientError
from brickyard.client.options import Agent

KEYS = {
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ecdsa": ec.generate_private_key(ec.SECP384R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
}


def write(path: Path, kind: str, form: str = "OpenSSH", passphrase: bytes = b"") -> Path:
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    format = serialization.PrivateFormat.OpenSSH if form == "OpenSSH" else serialization.PrivateFormat.PKCS8
    path.write_bytes(KEYS[kind].private_bytes(serialization.Encoding.PEM, format, encryption))
    path.chmod(0o600)
    return path


@contextmanager
def connected(agents: Agents, id: str = "default") -> Iterator[socket.socket]:
    """A process's end of a connection that is served."""
    process, ours = socket.socketpair()
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            agents.serve(id, ours)
        except OSError as error:
            failed.append(error)
        finally:
            ours.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with process:
        process.settimeout(10)
        yield process
    thread.join(10)
    assert not thread.is_alive()
    assert failed == []


def text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def ask(process: socket.socket, request: bytes) -> bytes:
    process.sendall(text(request))
    (length,) = struct.unpack(">I", process.recv(4, socket.MSG_WAITALL))
    return process.recv(length, socket.MSG_WAITALL)


def texts(data: bytes) -> list[bytes]:
    out = []
    while data:
        (length,) = struct.unpack_from(">I", data)
        out.append(data[4 : 4 + length])
        data = data[4 + length :]
    return out


def public(kind: str) -> bytes:
    import base64

    line = KEYS[kind].public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return base64.b64decode(line.split()[1])


@pytest.mark.parametrize("form", ["OpenSSH", "PKCS8"])
def test_keys_in_files(tmp_path: Path, form: str) -> None:
    agents = Agents({"default": Agent(tuple(write(tmp_path / kind, kind, form) for kind in KEYS))})
    assert agents.has("default")
    assert not agents.has("other")
    with connected(agents) as process:
        answer = ask(process, bytes([11]))
        assert answer[:5] == bytes([12]) + struct.pack(">I", 3)
        assert texts(answer[5:])[::2] == [public(kind) for kind in KEYS]

        def sign(kind: str, flags: int = 0) -> tuple[bytes, bytes]:
            answer = ask(process, bytes([13]) + text(public(kind)) + text(b"data") + struct.pack(">I", flags))
            assert answer[0] == 14
            (signature,) = texts(answer[1:])
            name, value = texts(signature)
            return name, value

        name, value = sign("ed25519")
        assert name == b"ssh-ed25519"
        KEYS["ed25519"].public_key().verify(value, b"data")
        name, value = sign("ecdsa")
        assert name == b"ecdsa-sha2-nistp384"
        first, second = (int.from_bytes(part, "big") for part in texts(value))
        KEYS["ecdsa"].public_key().verify(utils.encode_dss_signature(first, second), b"data", ec.ECDSA(hashes.SHA384()))
        for flags, expected, digest in ((2, b"rsa-sha2-256", hashes.SHA256()), (4, b"rsa-sha2-512", hashes.SHA512())):
            name, value = sign("rsa", flags)
            assert name == expected
            KEYS["rsa"].public_key().verify(value, b"data", padding.PKCS1v15(), digest)
            with pytest.raises(InvalidSignature):
                KEYS["rsa"].public_key().verify(value, b"other", padding.PKCS1v15(), digest)


@pytest.mark.parametrize(
    "request_",
    [
        bytes([13]),
        bytes([13]) + text(b"unknown") + text(b"data") + struct.pack(">I", 0),
        bytes([13]) + struct.pack(">I", 1 << 31),
        bytes([17]) + text(b"a new key"),
        bytes([18]) + text(b"x"),
        bytes([19]),
        bytes([22]) + text(b"lock"),
        bytes([27]) + text(b"session-bind@openssh.com"),
        bytes([255]),
    ],
)
def test_what_a_build_may_not_do(tmp_path: Path, request_: bytes) -> None:
    with connected(Agents({"default": Agent((write(tmp_path / "k", "ed25519"),))})) as process:
        assert ask(process, request_) == bytes([5])
        assert ask(process, bytes([11]))[0] == 12


@pytest.mark.parametrize("noise", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0"])
def test_noise_ends_the_connection(tmp_path: Path, noise: bytes) -> None:
    with connected(Agents({"default": Agent((write(tmp_path / "k", "ed25519"),))})) as process:
        process.sendall(noise)
        process.shutdown(socket.SHUT_WR)
        assert process.recv(10) == b""


@contextmanager
def listening(folder: Path) -> Iterator[tuple[Path, socket.socket]]:
    """An agent's socket, and what listens there."""
    path = folder / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(10)
        yield path, listener


def test_the_users_agent_is_only_asked_what_a_build_may_ask(tmp_path: Path) -> None:
    with listening(tmp_path) as (path, listener), connected(Agents({"x": Agent((path,))}), "x") as process:
        agent, _ = listener.accept()
        with agent:
            agent.settimeout(10)
            assert ask(process, bytes([19])) == bytes([5])
            process.sendall(text(bytes([11])))
            assert agent.recv(100) == text(bytes([11]))
            agent.sendall(text(b"\x0canswer"))
            assert process.recv(100) == text(b"\x0canswer")


def test_a_raw_socket_is_passed_on_as_it_is(tmp_path: Path) -> None:
    agents = None
    with listening(tmp_path) as (path, listener):
        agents = Agents({"x": Agent((path,), raw=True)})
        with connected(agents, "x") as process:
            server, _ = listener.accept()
            with server:
                server.settimeout(10)
                process.sendall(b"any question")
                assert server.recv(100) == b"any question"
                server.sendall(b"any answer")
                assert process.recv(100) == b"any answer"
                process.shutdown(socket.SHUT_WR)
                assert server.recv(100) == b""
            assert process.recv(100) == b""
    process, ours = socket.socketpair()
    with process, ours:
        with pytest.raises(KeyError):
            agents.serve("other", ours)
        path.unlink()
        with pytest.raises(OSError):
            agents.serve("x", ours)


def test_what_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "noise").write_text("no key")
    locked = write(tmp_path / "locked", "ed25519", "PKCS8", passphrase=b"secret")
    key = write(tmp_path / "key", "ed25519")
    other = x25519.X25519PrivateKey.generate()
    (tmp_path / "x25519").write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with ExitStack() as stack:
        path, _ = stack.enter_context(listening(tmp_path))
        for agent, said in (
            (Agent((tmp_path / "noise",)), "noise is neither an agent's socket nor a private key"),
            (Agent((locked,)), "has a passphrase"),
            (Agent((tmp_path / "x25519",)), "only ed25519, ECDSA and RSA"),
            (Agent((path, key)), "a socket stands alone"),
            (Agent((path, path)), "a socket stands alone"),
            (Agent((key,), raw=True), "raw=true needs a socket"),
            (Agent((tmp_path / "none",)), "cannot read the key"),
            (Agent((tmp_path,)), "cannot read the key"),
        ):
            with pytest.raises(ClientError, match=said):
                Agents({"x": agent})


@pytest.mark.skipif(shutil.which("ssh-add") is None, reason="OpenSSH's client is not installed")
def test_openssh_lists_and_uses_the_keys(tmp_path: Path) -> None:
    agents = Agents({"default": Agent(tuple(write(tmp_path / kind, kind) for kind in KEYS))})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    agents.serve("default", connection)

        thread = threading.Thread(target=accept)
        thread.start()
        environ = {**os.environ, "SSH_AUTH_SOCK": str(tmp_path / "sock")}

        def run(*args: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(args, env=environ, capture_output=True, text=True, timeout=10, check=False)

        try:
            listed = run("ssh-add", "-L").stdout.split()
            assert [word for word in listed if word.startswith(("ssh-", "ecdsa-"))] == [
                "ssh-ed25519", "ecdsa-sha2-nistp384", "ssh-rsa",
            ]  # fmt: skip
            for kind in KEYS:
                line = (
                    KEYS[kind]
                    .public_key()
                    .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
                )
                (tmp_path / f"{kind}.pub").write_bytes(line + b"\n")
                assert run("ssh-add", "-T", str(tmp_path / f"{kind}.pub")).returncode == 0
            assert run("ssh-add", "-D").returncode != 0
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
