"""Where the daemon listens: `unix://`, `tcp://` (with TLS where it has a certificate), `fd://` (socket activation)."""

import errno
import os
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from ...wire.h2.connection import Connection
from ...wire.h2.server import Server, serve
from .log import log
from .tls import TlsSocket

FIRST_FD = 3
"""The first descriptor that a service manager hands over (sd_listen_fds)."""

CONNECTIONS = 512
"""The most connections at the same time; one more is closed at once."""

HANDSHAKE_SECONDS = 10.0
"""How long a client may take over TLS's handshake."""

_SOCKET_MODE = 0o660
_CHUNK = 256 << 10


class ListenError(Exception):
    """An address that can't be listened on. The text names it."""


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's certificate and key, and the authority whose certificates clients must show (None: none)."""

    cert: Path
    key: Path
    ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """What a listener needs. Raises ListenError where a file can't be used."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.set_alpn_protocols(["h2"])
        for path in (self.cert, self.key, *([self.ca] if self.ca is not None else [])):
            if not os.access(path, os.R_OK):
                raise ListenError(f"cannot read {path}")
        try:
            made.load_cert_chain(self.cert, self.key)
            if self.ca is not None:
                made.load_verify_locations(self.ca)
                made.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            raise ListenError(f"cannot use {self.cert}, {self.key} or {self.ca}: {error}") from error
        return made


class Peer(Protocol):
    """A connected socket, with TLS or without."""

    def recv(self, size: int) -> bytes:
        """What the other side says, b"" at the end."""

    def sendall(self, data: bytes) -> None:
        """Tell the other side."""

    def close(self) -> None:
        """End the connection; wakes who waits in `recv`."""


class _PlainPeer:
    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self.recv: Callable[[int], bytes] = connection.recv
        self.sendall: Callable[[bytes], None] = connection.sendall

    def close(self) -> None:
        shut(self._socket)


def shut(connection: socket.socket) -> None:
    """End a connection that another thread may be reading."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # Not connected any more, which is what was wanted.
        return


class Listeners:
    """The sockets of a server: each connection is read by a thread of its own."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._listening: list[tuple[socket.socket, ssl.SSLContext | None]] = []
        self._undo: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._open: dict[Connection, Peer] = {}
        self._handshakes = 0
        self._stopping = False

    def add(self, addresses: Sequence[str], tls: Tls | None, *, uid: int | None = None, gid: int | None = None) -> None:
        """Bind addresses; nobody is answered before `start`.

        Raises:
            ListenError: for an address in a form that isn't known, in use, or not ours to take.
        """
        context = tls.context() if tls is not None else None
        for address in addresses:
            scheme, separator, rest = address.partition("://")
            if not separator:
                raise ListenError(f"address {address!r} must contain a scheme: unix://, tcp:// or fd://")
            if scheme == "unix":
                self._listening.append((self._unix(Path(rest), uid, gid), None))
            elif scheme == "tcp":
                self._listening.append((_tcp(address, tls), context))
            elif scheme == "fd":
                self._listening += [(one, context) for one in _handed_over(rest)]
            else:
                raise ListenError(f"address {address}: the scheme {scheme!r} is not supported: use unix, tcp or fd")

    def _unix(self, path: Path, uid: int | None, gid: int | None) -> socket.socket:
        if not path.is_absolute():
            raise ListenError(f"unix://{path}: the path must be absolute")
        listener = socket.socket(socket.AF_UNIX)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(path)
            # The mask makes the socket private from its first moment.
            mask = os.umask(0o777 & ~_SOCKET_MODE)
            try:
                listener.bind(str(path))
            finally:
                os.umask(mask)
            found = path.stat()
            os.chown(path, found.st_uid if uid is None else uid, found.st_gid if gid is None else gid)
            listener.listen(128)
        except OSError as error:
            listener.close()
            raise ListenError(f"unix://{path}: {error.strerror or error}") from error
        identity = found.st_dev, found.st_ino
        self._undo.append(lambda: _remove_own(path, identity))
        log.info("running server on %s", path)
        return listener

    def start(self) -> None:
        """Begin to answer."""
        for listener, context in self._listening:
            threading.Thread(target=self._accept, args=(listener, context), name="listener", daemon=True).start()

    def stop(self) -> None:
        """Take no new connections, and tell those there are to make no new calls."""
        with self._lock:
            self._stopping = True
            connections = list(self._open)
        for listener, _ in self._listening:
            shut(listener)
        for connection in connections:
            threading.Thread(target=connection.leave, name="leave", daemon=True).start()

    def close(self) -> None:
        """Close everything."""
        with self._lock:
            self._stopping = True
            peers = list(self._open.values())
        for listener, _ in self._listening:
            shut(listener)
            listener.close()
        for peer in peers:
            peer.close()
        for undo in self._undo:
            undo()

    @property
    def addresses(self) -> list[Any]:
        """What the sockets are bound to."""
        return [listener.getsockname() for listener, _ in self._listening]

    def _accept(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if self._stopping or error.errno not in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED, errno.ENOMEM):
                    return
                log.warning("a connection could not be taken: %s", error)
                continue
            with self._lock:
                full = self._stopping or len(self._open) + self._handshakes >= CONNECTIONS
                self._handshakes += not full
            if full:
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection, context), name="connection", daemon=True).start()

    def _serve(self, connection: socket.socket, context: ssl.SSLContext | None) -> None:
        counted = True
        with connection:
            try:
                peer: Peer = _PlainPeer(connection)
                if connection.family != socket.AF_UNIX:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if context is not None:
                    peer = TlsSocket(connection, context, HANDSHAKE_SECONDS)
                ours = self._server.connect(peer.sendall)
                with self._lock:
                    self._handshakes -= 1
                    counted = False
                    self._open[ours] = peer
                try:
                    serve(ours, lambda: peer.recv(_CHUNK), peer.close)
                finally:
                    with self._lock:
                        del self._open[ours]
            except OSError as error:
                log.debug("a connection failed: %s", error)
            finally:
                if counted:
                    with self._lock:
                        self._handshakes -= 1


def _remove_own(path: Path, identity: tuple[int, int]) -> None:
    """Remove our socket, if it is still that."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if (found.st_dev, found.st_ino) == identity:
        path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove the socket of a daemon that is gone. Raises OSError where one still listens, or it is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is a file of that name which is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, "another process listens there")


def _tcp(address: str, tls: Tls | None) -> socket.socket:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ListenError(f"{address}: {error}") from None
    if port is None or parts.path not in ("", "/"):
        raise ListenError(f"{address}: write tcp://HOST:PORT")
    if tls is None:
        log.warning("TLS is not enabled for %s: enabling mutual TLS authentication is highly recommended", address)
    try:
        both = not host and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=128, dualstack_ipv6=both)
    except OSError as error:
        raise ListenError(f"{address}: {error.strerror or error}") from error
    log.info("running server on %s", address if port else f"tcp://{host}:{listener.getsockname()[1]}")
    return listener


def activated(environ: Mapping[str, str] = os.environ) -> list[tuple[int, str]]:
    """The descriptors that a service manager handed to this process, each with its name (sd_listen_fds(3))."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    try:
        count = int(environ.get("LISTEN_FDS", "0"))
    except ValueError:
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    return [(FIRST_FD + number, names[number] if number < len(names) else "") for number in range(count)]


def _handed_over(wanted: str) -> list[socket.socket]:
    """Descriptors that were handed over: all of them, or those with a number or name."""
    found = [number for number, name in activated() if wanted in ("", "*", name, str(number))]
    if not found:
        raise ListenError(f"fd://{wanted}: no socket was handed over for it (LISTEN_FDS, LISTEN_PID)")
    out = []
    for number in found:
        try:
            out.append(socket.socket(fileno=number))
        except OSError as error:
            raise ListenError(f"fd://{wanted}: descriptor {number}: {error.strerror or error}") from error
        log.info("running server on fd %d", number)
    return out
