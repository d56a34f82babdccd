"""Files over the byte messages of a call: archives sent and uploads received."""

import io
from collections.abc import Callable
from typing import Any

from .calls import CallError, Stream

CHUNK = 1 << 20
"""How much of a file is sent in one message; Go's clients take at most 4 MiB."""


class StreamReader(io.RawIOBase):
    """A readable file over the messages that a call receives. `data_of` takes the bytes out of a message."""

    def __init__(self, stream: Stream, data_of: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._stream = stream
        self._data_of = data_of
        self._rest = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, as they come. Raises CallError where the call fails."""
        if size is None or size < 0:
            return self.readall()
        self._fill()
        data = bytes(self._rest[:size])
        self._rest = self._rest[size:]
        return data

    def readall(self) -> bytes:
        """All that is left."""
        pieces = []
        while piece := self.read(CHUNK):
            pieces.append(piece)
        return b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what has come."""
        self._fill()
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _fill(self) -> None:
        while not self._rest and not self._ended:
            message = self._stream.receive()
            if message is None:
                self._ended = True
            else:
                self._rest = memoryview(self._data_of(message))

    def close(self) -> None:
        """End the call, whether or not all was read."""
        if not self.closed and not self._ended:
            self._stream.cancel()
        super().close()


class StreamWriter(io.RawIOBase):
    """A writable file over byte messages (`bytes data = 1`); closing it waits until the receiver has all.

    Leaving a `with` block by an exception ends the call instead, so that the receiver sees a failure.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream
        self._pending = bytearray()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any) -> int:
        """Take all bytes; they go out in large messages. Raises CallError where the receiver is gone."""
        if self.closed:
            raise ValueError("write to a closed stream")
        view = memoryview(data).cast("B")
        if not self._pending and len(view) >= CHUNK:
            for at in range(0, len(view), CHUNK):
                self._stream.send(encode_bytes(view[at : at + CHUNK]))
            return len(view)
        self._pending += view
        if len(self._pending) >= CHUNK:
            self._flush_pending()
        return len(view)

    def _flush_pending(self) -> None:
        pending, self._pending = self._pending, bytearray()
        if pending:
            self._stream.send(encode_bytes(pending))

    def close(self) -> None:
        """Send the rest, and wait for the receiver's end. Raises CallError where it failed."""
        if self.closed:
            return
        try:
            self._flush_pending()
            self._stream.close_send()
            if self._stream.receive() is not None:
                raise CallError(2, "the receiver of an export answered out of turn")
        finally:
            super().close()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        # Forgotten without a close, an archive is not complete.
        self.abort()

    def abort(self) -> None:
        """Give up: the receiver sees a failed call."""
        if not self.closed:
            self._pending.clear()
            self._stream.cancel()
            super().close()


def encode_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """The wire form of a message that has one field, `bytes data = 1`."""
    size = len(data)
    head = bytearray(b"\x0a")
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return b"".join((head, data))
