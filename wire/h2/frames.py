"""HTTP/2's frames (RFC 9113) and header blocks (RFC 7541), as far as gRPC uses them."""

import base64
import binascii
import struct
from collections.abc import Iterable

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 5, 6, 7, 8, 9
ENHANCE_YOUR_CALM = 11

ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 2, 3, 4, 5, 6

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIRST_WINDOW = 65535
FIRST_FRAME = 16384
WIDEST_WINDOW = 2**31 - 1

HEAD = struct.Struct(">BHBBI")
"""A frame's head: the length in two parts, kind, flags, stream."""

_NUMBER = struct.Struct(">I")
_SETTING = struct.Struct(">HI")


def frame(kind: int, flags: int, stream: int, payload: bytes | bytearray | memoryview = b"") -> bytes:
    """One frame."""
    size = len(payload)
    return HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(key, value) for key, value in values))


def window_update(stream: int, size: int) -> bytes:
    """Leave to send so many bytes more."""
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(size))


def reset(stream: int, code: int) -> bytes:
    """The end of a stream by force."""
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def goaway(last: int, code: int, reason: str = "") -> bytes:
    """No streams after `last` are taken."""
    return frame(GOAWAY, 0, 0, _NUMBER.pack(last) + _NUMBER.pack(code) + reason.encode()[:512])


def header_block(fields: Iterable[tuple[str, str | bytes]]) -> bytes:
    """Header fields, each by itself: without a table there is no state that frames' order could spoil."""
    return b"".join(literal(name, value) for name, value in fields)


def literal(name: str, value: str | bytes) -> bytes:
    """One field (RFC 7541, section 6.2.2). Values of keys that end in `-bin` are given as bytes."""
    data = encode_binary(value) if isinstance(value, bytes) else value.encode()
    return b"".join((b"\0", _text(name.encode()), _text(data)))


def _text(data: bytes) -> bytes:
    size = len(data)
    if size < 127:
        return bytes((size,)) + data
    head = bytearray(b"\x7f")
    size -= 127
    while size >= 128:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + data


def encode_binary(value: bytes) -> bytes:
    """A binary value, in base64 without padding."""
    return base64.b64encode(value).rstrip(b"=")


def decode_binary(text: str) -> bytes:
    """A binary value; what is no base64 is empty."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


class ConnectionBroken(OSError):
    """The other side broke HTTP/2's rules: the connection ends. `code` is HTTP/2's error code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
