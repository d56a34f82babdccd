"""TLS on a socket that one thread reads while another one writes, which Python's own TLS sockets don't allow."""

import socket
import ssl
import threading
from contextlib import suppress

_CHUNK = 256 << 10


class TlsSocket:
    """The server's end of a TLS connection.

    Raises:
        OSError: where the handshake fails or takes too long; the client has been told why.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, seconds: float) -> None:
        self._socket = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._handshake(seconds)

    def _handshake(self, seconds: float) -> None:
        self._socket.settimeout(seconds)
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._send_outgoing()
                data = self._socket.recv(_CHUNK)
                if not data:
                    raise OSError("the client ended the connection during TLS's handshake") from None
                self._incoming.write(data)
                continue
            except ssl.SSLError:
                # The alert tells the client what was wrong with it.
                self._send_outgoing()
                raise
            self._send_outgoing()
            break
        self._socket.settimeout(None)

    def _send_outgoing(self) -> None:
        if data := self._outgoing.read():
            self._socket.sendall(data)

    def recv(self, size: int) -> bytes:
        """What the client says, b"" at the end. Raises OSError."""
        while True:
            with self._lock, suppress(ssl.SSLWantReadError):
                try:
                    return self._tls.read(size)
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
            data = self._socket.recv(_CHUNK)
            with self._lock:
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()

    def sendall(self, data: bytes) -> None:
        """Tell the client. Raises OSError."""
        # What is encrypted first has to be sent first.
        with self._sending:
            with self._lock:
                self._tls.write(data)
                encrypted = self._outgoing.read()
            self._socket.sendall(encrypted)

    def close(self) -> None:
        """End the connection."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            # Not connected any more, which is what was wanted.
            return
