"""An HTTP/2 connection inside the byte messages of a call, as `Control.Session` carries one.

The daemon is the client of that connection, and the client of the build serves it. Both make their end with `tunnel`.
"""

from collections.abc import Callable

from google.protobuf.message import DecodeError

from .h2.connection import Connection, Stream
from .h2.frames import ConnectionBroken
from .pb import control_pb2
from .streams import encode_bytes

_CHUNK = 1 << 20
"""The largest piece that goes into one message; Go's clients take at most 4 MiB."""


def tunnel(outer: Stream, connect: Callable[[Callable[[bytes], None]], Connection]) -> Connection:
    """A connection whose bytes go through `outer`; `connect` makes it for a function that writes bytes.

    It is fed in the thread that feeds the outer connection, and is gone when the outer call is over.
    """

    def write(data: bytes) -> None:
        for at in range(0, len(data), _CHUNK):
            outer.send(encode_bytes(data[at : at + _CHUNK]))

    inner = connect(write)
    parse = control_pb2.BytesMessage.FromString

    def feed(message: bytes) -> None:
        if inner.broken:
            return
        try:
            inner.feed(parse(message).data)
        except (ConnectionBroken, DecodeError):
            inner.lost("the tunnel broke HTTP/2's rules")

    if not outer.add_callback(lambda: inner.lost("the client of the session is gone")):
        inner.lost("the client of the session is gone")

    def ended() -> None:
        inner.lost("the client of the session has left")
        outer.fail(0, "")

    outer.divert(feed, ended)
    return inner
