"""SSH agents of a build: the user's own, of which a build may only use the keys, or one over key files.

Source: the agent protocol as in draft-miller-ssh-agent; what is let through is what BuildKit's clients let through.
"""

import base64
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ClientError
from .options import Agent

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    Key = ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

LARGEST_KEY = 100 * 1024
"""The most bytes of a key file."""

_LARGEST = 256 * 1024
_FAILURE = b"\x05"
_LIST, _LIST_ANSWER = 11, 12
_SIGN, _SIGN_ANSWER = 13, 14
_RSA_SHA256, _RSA_SHA512 = 2, 4
_SECONDS = 2.0

Answer = Callable[[bytes], bytes]
"""An agent as a function from a request's bytes to the answer's."""


class Agents:
    """The agents of one build by id.

    Raises:
        ClientError: for a socket or key that can't be used, and for both together.
    """

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        self._sockets: dict[str, tuple[Path, bool]] = {}
        self._keys: dict[str, Answer] = {}
        for id, agent in agents.items():
            sockets = [path for path in agent.paths if path.is_socket()]
            if sockets and len(agent.paths) > 1:
                raise ClientError(f"--ssh {id}: a socket stands alone, without others or key files")
            if agent.raw and not sockets:
                raise ClientError(f"--ssh {id}: raw=true needs a socket")
            if sockets:
                self._sockets[id] = (sockets[0], agent.raw)
            else:
                self._keys[id] = _keyring({path: _load(id, path) for path in agent.paths})

    def has(self, id: str) -> bool:
        """Whether there is an agent of this id."""
        return id in self._sockets or id in self._keys

    def serve(self, id: str, connection: socket.socket) -> None:
        """Answer one connection, until either side closes it.

        Raises:
            KeyError: where there is no agent of this id.
            OSError: where the agent's socket can't be reached, or breaks.
        """
        if id in self._keys:
            _serve(connection, self._keys[id])
            return
        path, raw = self._sockets[id]
        with socket.socket(socket.AF_UNIX) as agent:
            agent.settimeout(_SECONDS)
            agent.connect(str(path))
            agent.settimeout(None)
            if raw:
                from ..wire.pipe import join

                join(connection, agent)
            else:
                _serve(connection, lambda request: _asked(agent, request))


def _serve(connection: socket.socket, answer: Answer) -> None:
    """Answer requests for lists and signatures. All others would change the agent, or let it be taken over."""
    while (request := _receive(connection)) is not None:
        allowed = request[:1] in (bytes([_LIST]), bytes([_SIGN]))
        _send(connection, answer(request) if allowed else _FAILURE)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def _asked(agent: socket.socket, request: bytes) -> bytes:
    _send(agent, request)
    answer = _receive(agent)
    if answer is None:
        raise ConnectionError("the ssh agent closed the connection")
    return answer


def _send(connection: socket.socket, message: bytes) -> None:
    connection.sendall(_text(message))


def _receive(connection: socket.socket) -> bytes | None:
    """The next message; None at the end, and for one that is no message."""
    head = _exactly(connection, 4)
    if head is None:
        return None
    (length,) = struct.unpack(">I", head)
    return _exactly(connection, length) if 0 < length <= _LARGEST else None


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            return None
        data += part
    return bytes(data)


def _text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _read_text(data: bytes, at: int) -> tuple[bytes, int]:
    """A text with its length before it, and where it ends. Raises ValueError."""
    if len(data) < at + 4:
        raise ValueError("cut off")
    end = at + 4 + struct.unpack_from(">I", data, at)[0]
    if end > len(data):
        raise ValueError("cut off")
    return data[at + 4 : end], end


def _load(id: str, path: Path) -> "Key":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_KEY)
    except OSError as error:
        raise ClientError(f"--ssh {id}: cannot read the key {path}: {error.strerror}") from error
    try:
        key = (load_ssh_private_key if b"BEGIN OPENSSH" in data else load_pem_private_key)(data, None)
    except TypeError:
        raise ClientError(
            f"--ssh {id}: the key {path} has a passphrase", "add it to an agent with ssh-add, and use --ssh default"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ClientError(
            f"--ssh {id}: {path} is neither an agent's socket nor a private key that can be read"
        ) from None
    if isinstance(key, ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        return key
    raise ClientError(f"--ssh {id}: {path} is no private key that can be used: only ed25519, ECDSA and RSA keys are")


def _keyring(keys: Mapping[Path, "Key"]) -> Answer:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    known: dict[bytes, Key] = {}
    for key in keys.values():
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        known[base64.b64decode(public.split()[1])] = key

    def answer(request: bytes) -> bytes:
        if request[0] == _LIST:
            names = b"".join(_text(name) + _text(b"") for name in known)
            return bytes([_LIST_ANSWER]) + struct.pack(">I", len(known)) + names
        try:
            name, at = _read_text(request, 1)
            data, at = _read_text(request, at)
            (flags,) = struct.unpack_from(">I", request, at)
        except (ValueError, struct.error):
            return _FAILURE
        key = known.get(name)
        return _FAILURE if key is None else bytes([_SIGN_ANSWER]) + _text(_signature(key, data, flags))

    return answer


def _signature(key: "Key", data: bytes, flags: int) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return _text(b"ssh-ed25519") + _text(key.sign(data))
    if isinstance(key, rsa.RSAPrivateKey):
        kind, digest = (
            (b"rsa-sha2-512", hashes.SHA512())
            if flags & _RSA_SHA512
            else (b"rsa-sha2-256", hashes.SHA256())
            if flags & _RSA_SHA256
            else (b"ssh-rsa", hashes.SHA1())
        )
        return _text(kind) + _text(key.sign(data, padding.PKCS1v15(), digest))
    size = key.curve.key_size
    algorithm = {256: hashes.SHA256(), 384: hashes.SHA384()}.get(size, hashes.SHA512())
    first, second = utils.decode_dss_signature(key.sign(data, ec.ECDSA(algorithm)))
    return _text(b"ecdsa-sha2-nistp%d" % size) + _text(_number(first) + _number(second))


def _number(value: int) -> bytes:
    """A number that is not negative, in the protocol's form: its sign bit is clear."""
    return _text(value.to_bytes(value.bit_length() // 8 + 1, "big"))
