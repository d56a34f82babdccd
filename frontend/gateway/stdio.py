"""The connection of a frontend container: gRPC over its standard input and output."""

import os
import threading

from ...wire.h2.client import Caller
from ...wire.h2.connection import Connection
from ...wire.h2.frames import ConnectionBroken

_CHUNK = 1 << 16


def connect(reader: int, writer: int) -> Caller:
    """Calls over two file descriptors; a thread of their own reads what comes back."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(writer, view) :]

    connection = Connection(write)
    threading.Thread(target=_feed, args=(connection, reader), name="bridge", daemon=True).start()
    return Caller(connection)


def _feed(connection: Connection, reader: int) -> None:
    try:
        while data := os.read(reader, _CHUNK):
            connection.feed(data)
    except ConnectionBroken:
        # The calls have failed already.
        return
    except OSError as error:
        connection.lost(f"the connection broke: {error.strerror or error}")
        return
    connection.lost("the other side closed the connection")
