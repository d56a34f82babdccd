"""Two connected sockets, each joined to something else: bytes go both ways until either side has had enough."""

import select
import socket
from contextlib import suppress

_CHUNK = 64 * 1024


def join(first: socket.socket, second: socket.socket) -> None:
    """Carry bytes both ways until both directions have ended. An end of one direction is passed on as such.

    Raises:
        OSError: where a connection breaks.
    """
    other = {first: second, second: first}
    reading = {first, second}
    while reading:
        ready, _, _ = select.select(list(reading), [], [])
        for source in ready:
            data = source.recv(_CHUNK)
            if data:
                other[source].sendall(data)
                continue
            reading.discard(source)
            with suppress(OSError):
                other[source].shutdown(socket.SHUT_WR)
