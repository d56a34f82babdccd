"""One HTTP/2 connection, either end. It has no thread: who reads the bytes feeds them in; who sends writes them out.

The thread that feeds never waits for the other side, so that two ends which both wait to be read can't exist. What
it has to answer at once is written by whichever thread writes already, or else by one that is started for it.
"""

import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from google.protobuf.message import DecodeError
from hpack import Decoder
from hpack.exceptions import HPACKError

from ..calls import CallError, Metadata
from ..errors import CANCELLED, DETAILS_KEY, INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE, UNKNOWN
from ..pb import rpc_status_pb2
from . import frames
from .frames import ConnectionBroken

MESSAGE_LIMIT = 16 << 20
"""The largest message that BuildKit's clients, daemons and frontends accept."""

STREAM_WINDOW = 2 << 20
"""How much the other side may send on a stream before it is read."""

_PARTIAL_LIMIT = 64 << 20
"""How much a connection may hold of messages that are not whole yet."""
_CONTROL_LIMIT = 1 << 20
"""How much the other side may make us want to answer without reading it."""
_PENDING_LIMIT = 1 << 20
"""How much may wait to be written before senders wait."""
_FLUSH = 32 << 10
_LARGEST_FRAME = 1 << 20
_MOST_HEADERS = 1 << 20
_STREAMS = 128
"""How many calls the other side may have under way on a connection."""
_CONNECTION_UPDATE = 1 << 20

_PREFIX = struct.Struct(">BI")
_SETTING = struct.Struct(">HI")
_HTTP_CODES = {
    "400": INTERNAL,
    "401": 16,
    "403": 7,
    "404": 12,
    "429": UNAVAILABLE,
    "502": UNAVAILABLE,
    "503": UNAVAILABLE,
}

RESPONSE: Metadata = ((":status", "200"), ("content-type", "application/grpc"))
"""The header fields that an answer begins with."""

Sink = Callable[[bytes], None]


class Stream:
    """One call on a connection, from either side."""

    __slots__ = (
        "_callbacks",
        "_changed",
        "_connection",
        "_consumed",
        "_early",
        "_messages",
        "_partial",
        "ended",
        "error",
        "headers",
        "id",
        "local_ended",
        "on_ended",
        "over",
        "sink",
        "started",
        "trailers",
        "window",
    )

    def __init__(self, connection: "Connection", id: int, window: int) -> None:
        self.id = id
        self.headers: list[tuple[str, str]] = []
        self.trailers: list[tuple[str, str]] = []
        self.window = window
        self.ended = False
        """The other side sends no more."""
        self.local_ended = False
        """We send no more."""
        self.started = False
        """Our headers are sent."""
        self.over = False
        """Neither side has anything to say any more."""
        self.error: CallError | None = None
        self.sink: Sink | None = None
        """Takes messages as they come, in the thread that feeds."""
        self.on_ended: Callable[[], None] | None = None
        """Called, in the thread that feeds, when the other side sends no more."""
        self._connection = connection
        self._changed = threading.Condition()
        self._messages: deque[bytes | tuple[bytes, int]] = deque()
        """Whole messages; one that came in pieces with the part of it that the other side was not credited for yet."""
        self._partial = bytearray()
        self._early = 0
        """How much of the message that is not whole the other side was credited for."""
        self._consumed = 0
        self._callbacks: list[Callable[[], None]] = []

    def send(self, message: bytes, *, flush: bool = True) -> None:
        """Send a message; waits for the other side to take it. What isn't flushed goes with what comes next, at the
        latest when this stream waits to receive.

        Raises:
            CallError: where the call is over.
        """
        size = len(message)
        if size > MESSAGE_LIMIT:
            raise CallError(RESOURCE_EXHAUSTED, f"a message of {size} bytes is over the limit of {MESSAGE_LIMIT}")
        if not self.started:
            self._connection.send_headers(self, RESPONSE, end=False, flush=False)
        self._connection.send_data(self, _PREFIX.pack(0, size) + message, end=False, flush=flush)

    def close_send(self) -> None:
        """No more messages will be sent."""
        try:
            self._connection.send_data(self, b"", end=True, flush=True)
        except CallError:
            # It is over already, which the receiving side learns.
            return

    def receive(self) -> bytes | None:
        """The next message, None at the end. Raises CallError where the call failed."""
        return self.receive_within(None)

    def receive_within(self, seconds: float | None) -> bytes | None:
        """The next message, None at the end. Raises CallError where the call failed, TimeoutError."""
        try:
            item = self._messages.popleft()
        except IndexError:
            self._connection.flush()
            deadline = None if seconds is None else time.monotonic() + seconds
            with self._changed:
                while True:
                    # The end is looked at first: what came before it is there by then.
                    ended, error = self.ended, self.error
                    if self._messages:
                        break
                    if error is not None:
                        raise error from None
                    if ended:
                        return None
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        raise TimeoutError from None
                    self._changed.wait(left)
                item = self._messages.popleft()
        message, size = (item, len(item) + 5) if isinstance(item, bytes) else item
        self._consumed += size
        if self._consumed >= STREAM_WINDOW // 2 and not self.ended:
            consumed, self._consumed = self._consumed, 0
            self._connection.post(frames.window_update(self.id, consumed), flush=False)
        if self._partial and not self._messages:
            with self._changed:
                size = self._early_credit()
            if size:
                self._connection.post(frames.window_update(self.id, size))
        return message

    def _early_credit(self) -> int:
        """How much more may come of a message that may be longer than the window, once nothing else waits to be read.
        The lock is held."""
        if self._messages or self.ended:
            return 0
        size = len(self._partial) - self._early
        self._early += size
        return size

    def cancel(self, code: int = frames.CANCEL) -> None:
        """End the call by force."""
        self._connection.reset(self, code)

    def fail(self, code: int, message: str) -> None:
        """End a call with a status (0: success), from the server's end, in the thread that feeds."""
        self._connection.fail(self, code, message)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have a function called when the call is over; False where it is over already. It must not wait."""
        with self._changed:
            if self.over:
                return False
            self._callbacks.append(callback)
            return True

    def send_headers(self, fields: Metadata, *, end: bool = False) -> None:
        """Send header fields; with `end` the trailers that end the stream. Raises CallError where the call is over."""
        self._connection.send_headers(self, fields, end=end, flush=True)

    def divert(self, sink: Sink, ended: Callable[[], None]) -> None:
        """Have messages, and their end, taken by functions as they come, in the thread that feeds; to be called from
        that thread, or before any of them can have come."""
        self.sink, self.on_ended = sink, ended
        while self._messages:
            item = self._messages.popleft()
            message, size = (item, len(item) + 5) if isinstance(item, bytes) else item
            sink(message)
            self._took(size)

    # What follows is called by the connection, in the thread that feeds.

    def took_data(self, payload: bytes) -> bool:
        """More of the other side's messages; whether one is whole now. Raises ConnectionBroken."""
        size = len(payload)
        if not self._partial and size >= 5 and payload[0] == 0 and int.from_bytes(payload[1:5], "big") == size - 5:
            message = payload[5:]
            if self.sink is None:
                self._messages.append(message)
            else:
                self.sink(message)
                self._took(size)
            return True
        return self._took_piece(payload)

    def _took_piece(self, payload: bytes) -> bool:
        partial = self._partial
        before = len(partial)
        delivered = False
        with self._changed:
            partial += payload
            at = 0
            while len(partial) - at >= 5:
                compressed, size = _PREFIX.unpack_from(partial, at)
                if compressed:
                    raise ConnectionBroken(frames.PROTOCOL_ERROR, "a message is compressed, which was not agreed on")
                if size > MESSAGE_LIMIT:
                    self._connection.fail(
                        self, RESOURCE_EXHAUSTED, f"a message of {size} bytes is over the limit of {MESSAGE_LIMIT}"
                    )
                    return True
                if len(partial) - at < size + 5:
                    break
                message = bytes(partial[at + 5 : at + 5 + size])
                at += size + 5
                credit, self._early = size + 5 - self._early, 0
                delivered = True
                if self.sink is None:
                    self._messages.append((message, credit))
                else:
                    self.sink(message)
                    self._took(credit)
            del partial[:at]
            if partial and (size := self._early_credit()):
                self._connection.post_later(frames.window_update(self.id, size))
        self._connection.held(len(partial) - before)
        return delivered

    def _took(self, size: int) -> None:
        self._consumed += size
        if self._consumed >= STREAM_WINDOW // 2:
            consumed, self._consumed = self._consumed, 0
            self._connection.post_later(frames.window_update(self.id, consumed))

    def wake(self) -> None:
        """Messages, or the end, have come."""
        with self._changed:
            self._changed.notify_all()

    def finish(self, error: CallError | None) -> None:
        """The call is over."""
        with self._changed:
            if self.over:
                return
            self.over = self.ended = True
            if error is not None and self.error is None:
                self.error = error
            callbacks, self._callbacks = self._callbacks, []
            partial = len(self._partial)
            self._partial = bytearray()
            self._changed.notify_all()
        self._connection.held(-partial)
        for callback in callbacks:
            callback()


class Connection:
    """One end of an HTTP/2 connection.

    `write` writes bytes to the other side, waiting where it must. With `accept` this is the server's end: it is called,
    in the thread that feeds, for each call that begins, and must not wait.
    """

    def __init__(self, write: Callable[[bytes], None], accept: Callable[[Stream], None] | None = None) -> None:
        self._write = write
        self._accept = accept
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._pending = bytearray()
        self._writing = False
        self._broken: CallError | None = None
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._last = 0
        self._window = frames.FIRST_WINDOW
        self._stream_window = frames.FIRST_WINDOW
        self._frame = frames.FIRST_FRAME
        self._most_streams = frames.WIDEST_WINDOW
        self._decoder = Decoder(max_header_list_size=_MOST_HEADERS)
        self._rest = b""
        self._preface = accept is not None
        self._settled = False
        self._block = bytearray()
        self._block_stream = 0
        self._block_flags = 0
        self._unacknowledged = 0
        self._partial = 0
        values = [
            (frames.INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (frames.MAX_FRAME_SIZE, _LARGEST_FRAME),
            (frames.MAX_HEADER_LIST_SIZE, _MOST_HEADERS),
        ]
        values.append((frames.MAX_CONCURRENT_STREAMS, _STREAMS) if accept is not None else (frames.ENABLE_PUSH, 0))
        widen = frames.window_update(0, frames.WIDEST_WINDOW - frames.FIRST_WINDOW)
        preface = frames.PREFACE if accept is None else b""
        self.post_later(preface + frames.settings(values) + widen)

    # Sending

    def post(self, data: bytes, *, flush: bool = True) -> None:
        """Write frames; without `flush` with what comes next."""
        with self._lock:
            self._pending += data
            if self._writing or (not flush and len(self._pending) < _FLUSH) or self._broken is not None:
                return
            self._writing = True
        self._drain()

    def flush(self) -> None:
        """Write what waits."""
        if self._pending:
            self.post(b"")

    def post_later(self, data: bytes) -> None:
        """Write frames without waiting for the other side: for the thread that feeds."""
        with self._lock:
            self._pending += data
            if len(self._pending) > _CONTROL_LIMIT + _PENDING_LIMIT + MESSAGE_LIMIT:
                raise ConnectionBroken(frames.ENHANCE_YOUR_CALM, "too many answers wait to be read")
            if self._writing or self._broken is not None:
                return
            self._writing = True
        threading.Thread(target=self._drain, name="h2-write", daemon=True).start()

    def _drain(self) -> None:
        """Write all that waits. Only one thread is here at a time."""
        while True:
            with self._lock:
                if not self._pending or self._broken is not None:
                    self._writing = False
                    self._room.notify_all()
                    return
                data, self._pending = bytes(self._pending), bytearray()
                self._room.notify_all()
            try:
                self._write(data)
            except (OSError, ValueError) as error:
                # A file that somebody closed meanwhile raises ValueError.
                with self._lock:
                    self._writing = False
                self.lost(f"the connection broke: {error}")
                return

    def send_data(self, stream: Stream, body: bytes, *, end: bool, flush: bool) -> None:
        """Send a piece of a stream in frames, as the other side's windows allow. Raises CallError."""
        view = memoryview(body)
        done = False
        while not done:
            with self._lock:
                if stream.over or stream.local_ended or self._broken is not None:
                    raise stream.error or self._broken or CallError(CANCELLED, "the call is over")
                room = min(self._window, stream.window, self._frame) if view else 1
                if room <= 0 or len(self._pending) >= _PENDING_LIMIT:
                    if self._writing or not self._pending:
                        self._room.wait()
                        continue
                else:
                    piece, view = view[:room], view[room:]
                    self._window -= len(piece)
                    stream.window -= len(piece)
                    last = end and not view
                    self._pending += frames.frame(frames.DATA, frames.END_STREAM if last else 0, stream.id, piece)
                    if view:
                        continue
                    stream.local_ended = last
                    if self._writing or not (flush or len(self._pending) >= _FLUSH):
                        break
                    done = True
                self._writing = True
            self._drain()
        if end and stream.ended:
            self._forget(stream, None)

    def send_headers(self, stream: Stream, fields: Metadata, *, end: bool, flush: bool) -> None:
        """Send header fields, split where they are longer than a frame. Raises CallError."""
        block = frames.header_block(fields)
        with self._lock:
            if stream.over or stream.local_ended or self._broken is not None:
                raise stream.error or self._broken or CallError(CANCELLED, "the call is over")
            self._append_block(stream.id, block, end=end)
            stream.started = True
            stream.local_ended = end
            drain = flush and not self._writing
            self._writing = self._writing or drain
        if drain:
            self._drain()
        if end:
            if not stream.ended:
                # The other side need not send what nobody will read (RFC 9113, section 8.1).
                self.post(frames.reset(stream.id, frames.NO_ERROR))
            self._forget(stream, None)

    def _append_block(self, id: int, block: bytes, *, end: bool) -> None:
        limit = self._frame
        flags = frames.END_STREAM if end else 0
        kind = frames.HEADERS
        while True:
            piece, block = block[:limit], block[limit:]
            self._pending += frames.frame(kind, flags if block else flags | frames.END_HEADERS, id, piece)
            if not block:
                return
            kind, flags = frames.CONTINUATION, 0

    def open(self, fields: Metadata) -> Stream:
        """Begin a call, from the client's end; waits while the other side takes no more at a time.

        Raises:
            CallError: where the connection is gone.
        """
        block = frames.header_block(fields)
        with self._lock:
            while self._broken is None and len(self._streams) >= self._most_streams:
                self._room.wait()
            if self._broken is not None:
                raise self._broken
            stream = Stream(self, self._next, self._stream_window)
            self._next += 2
            self._streams[stream.id] = stream
            self._append_block(stream.id, block, end=False)
            stream.started = True
        return stream

    def fail(self, stream: Stream, code: int, message: str) -> None:
        """End a call with a status (0: success), from the thread that feeds."""
        with self._lock:
            if stream.over or self._broken is not None:
                return
            if self._accept is not None and not stream.local_ended:
                fields = (
                    *(() if stream.started else RESPONSE),
                    ("grpc-status", str(code)),
                    ("grpc-message", encode_message(message)),
                )
                self._append_block(stream.id, frames.header_block(fields), end=True)
                stream.local_ended = True
        code_of_reset = frames.CANCEL if self._accept is None else frames.NO_ERROR
        self.post_later(b"" if stream.ended else frames.reset(stream.id, code_of_reset))
        self._forget(stream, CallError(code, message) if code else None)

    def reset(self, stream: Stream, code: int) -> None:
        """End a stream by force."""
        if not stream.over:
            self.post(frames.reset(stream.id, code))
            self._forget(stream, CallError(CANCELLED, "the call was cancelled"))

    def _forget(self, stream: Stream, error: CallError | None) -> None:
        with self._lock:
            self._streams.pop(stream.id, None)
            self._room.notify_all()
        stream.finish(error)

    # The end

    def lost(self, reason: str, code: int = UNAVAILABLE) -> None:
        """The connection is gone: every call fails."""
        with self._lock:
            if self._broken is None:
                self._broken = CallError(code, reason)
            streams = list(self._streams.values())
            self._streams.clear()
            self._pending.clear()
            self._room.notify_all()
        for stream in streams:
            stream.finish(self._broken)

    def leave(self) -> None:
        """Tell the other side that no new calls are taken."""
        self.post(frames.goaway(self._last, frames.NO_ERROR, "the server stops"))

    @property
    def broken(self) -> bool:
        """Whether the connection is gone."""
        return self._broken is not None

    @property
    def calls(self) -> int:
        """How many calls are under way."""
        return len(self._streams)

    # Receiving

    def feed(self, data: bytes) -> None:
        """Take what came from the other side; call it from one thread at a time.

        Raises:
            ConnectionBroken: where the other side broke the rules; all calls have failed.
        """
        try:
            touched = self._feed(data)
        except (ConnectionBroken, HPACKError, struct.error, IndexError, UnicodeDecodeError) as error:
            broken = (
                error if isinstance(error, ConnectionBroken) else ConnectionBroken(frames.PROTOCOL_ERROR, str(error))
            )
            self.lost(f"the other side broke HTTP/2's rules: {broken}", INTERNAL)
            raise broken from None
        for stream in touched:
            stream.wake()
        if self._unacknowledged >= _CONNECTION_UPDATE:
            size, self._unacknowledged = self._unacknowledged, 0
            self.post_later(frames.window_update(0, size))

    def held(self, size: int) -> None:
        """So many bytes more, or less, are kept of messages that are not whole."""
        if size:
            with self._lock:
                self._partial += size
                much = self._partial > _PARTIAL_LIMIT
            if much and size > 0:
                raise ConnectionBroken(frames.ENHANCE_YOUR_CALM, "too many messages at the same time")

    def _feed(self, data: bytes) -> set[Stream]:
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        if self._preface:
            if not frames.PREFACE.startswith(data[:24]):
                raise ConnectionBroken(frames.PROTOCOL_ERROR, "this is not HTTP/2")
            if size < 24:
                self._rest = data
                return set()
            self._preface = False
            at = 24
        touched: set[Stream] = set()
        unpack, streams = frames.HEAD.unpack_from, self._streams
        while size - at >= 9:
            high, low, kind, flags, id = unpack(data, at)
            length = high << 16 | low
            if length > _LARGEST_FRAME:
                raise ConnectionBroken(frames.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            end = at + 9 + length
            if end > size:
                break
            if kind == frames.DATA and not self._block_stream and self._settled:
                stream = streams.get(id & 0x7FFFFFFF)
                self._unacknowledged += length
                if stream is None or stream.ended:
                    if id & 0x7FFFFFFF == 0 or id & 0x7FFFFFFF >= max(self._next, self._last + 1):
                        raise ConnectionBroken(frames.PROTOCOL_ERROR, "data of a stream that was not opened")
                else:
                    payload = data[at + 9 : end] if not flags & frames.PADDED else _unpadded(data[at + 9 : end])
                    if stream.took_data(payload):
                        touched.add(stream)
                    if flags & frames.END_STREAM:
                        self._remote_end(stream)
            else:
                stream = self._control(kind, flags, id & 0x7FFFFFFF, data[at + 9 : end])
                if stream is not None:
                    touched.add(stream)
            at = end
        self._rest = data[at:]
        return touched

    def _remote_end(self, stream: Stream) -> None:
        """The other side has said all. A client's call is over by that, whatever we still had to say."""
        if self._accept is None:
            # Set before the end is, which whoever receives looks at without a lock.
            stream.error = status_error(stream.headers, stream.trailers)
        stream.ended = True
        stream.wake()
        if self._accept is None:
            if not stream.local_ended:
                self.post_later(frames.reset(stream.id, frames.CANCEL))
            self._forget(stream, stream.error)
        elif stream.local_ended:
            self._forget(stream, None)
        elif stream.on_ended is not None:
            stream.on_ended()

    def _control(self, kind: int, flags: int, id: int, payload: bytes) -> Stream | None:
        if self._block_stream and (kind != frames.CONTINUATION or id != self._block_stream):
            raise ConnectionBroken(frames.PROTOCOL_ERROR, "headers were interrupted by another frame")
        if not self._settled and kind != frames.SETTINGS:
            raise ConnectionBroken(frames.PROTOCOL_ERROR, "the first frame is no SETTINGS")
        if kind == frames.HEADERS:
            return self._headers(flags, id, payload)
        if kind == frames.CONTINUATION:
            if not self._block_stream:
                raise ConnectionBroken(frames.PROTOCOL_ERROR, "a continuation of nothing")
            return self._more_headers(flags, payload)
        if kind == frames.SETTINGS:
            self._settings(flags, id, payload)
        elif kind == frames.WINDOW_UPDATE:
            self._window_update(id, payload)
        elif kind == frames.PING:
            if len(payload) != 8:
                raise ConnectionBroken(frames.FRAME_SIZE_ERROR, "a PING has eight bytes")
            if not flags & frames.ACK:
                self.post_later(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.RST_STREAM:
            if len(payload) != 4:
                raise ConnectionBroken(frames.FRAME_SIZE_ERROR, "a RST_STREAM has four bytes")
            stream = self._streams.get(id)
            if stream is not None:
                code = int.from_bytes(payload, "big")
                self._forget(stream, _reset_error(code, server=self._accept is not None))
        elif kind == frames.GOAWAY:
            self._goaway(payload)
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionBroken(frames.PROTOCOL_ERROR, "a push, which is not allowed")
        return None

    def _headers(self, flags: int, id: int, payload: bytes) -> Stream | None:
        if id == 0:
            raise ConnectionBroken(frames.PROTOCOL_ERROR, "headers of no stream")
        if flags & frames.PADDED:
            payload = _unpadded(payload)
        if flags & frames.HAS_PRIORITY:
            payload = payload[5:]
        self._block = bytearray()
        self._block_stream, self._block_flags = id, flags
        return self._more_headers(flags, payload)

    def _more_headers(self, flags: int, payload: bytes) -> Stream | None:
        self._block += payload
        if len(self._block) > _MOST_HEADERS:
            raise ConnectionBroken(frames.ENHANCE_YOUR_CALM, "the headers are too long")
        if not flags & frames.END_HEADERS:
            return None
        id, first = self._block_stream, self._block_flags
        self._block_stream = 0
        # What is not wanted is decoded all the same: the decoder has a state.
        fields = [(_string(name), _string(value)) for name, value, *_ in self._decoder.decode(bytes(self._block))]
        self._block = bytearray()
        end = bool(first & frames.END_STREAM)
        stream = self._streams.get(id)
        if stream is None:
            return self._begin(id, fields, end)
        if stream.ended:
            raise ConnectionBroken(frames.STREAM_CLOSED, "headers after the end of a stream")
        if stream.headers and not end and self._accept is not None:
            raise ConnectionBroken(frames.PROTOCOL_ERROR, "headers in the middle of a stream")
        if stream.headers or end:
            stream.trailers = fields
        if not stream.headers:
            stream.headers = fields
        if end:
            self._remote_end(stream)
        return stream

    def _begin(self, id: int, fields: list[tuple[str, str]], end: bool) -> Stream | None:
        if self._accept is None:
            # Of a call that we gave up.
            return None
        if id <= self._last:
            return None
        if id % 2 == 0:
            raise ConnectionBroken(frames.PROTOCOL_ERROR, "a client's streams have odd numbers")
        self._last = id
        if len(self._streams) >= _STREAMS:
            self.post_later(frames.reset(id, frames.REFUSED_STREAM))
            return None
        with self._lock:
            stream = Stream(self, id, self._stream_window)
            self._streams[id] = stream
        stream.headers = fields
        stream.ended = end
        self._accept(stream)
        return None

    def _settings(self, flags: int, id: int, payload: bytes) -> None:
        if id != 0 or len(payload) % 6:
            raise ConnectionBroken(frames.FRAME_SIZE_ERROR, "broken settings")
        self._settled = True
        if flags & frames.ACK:
            return
        with self._lock:
            for key, value in _SETTING.iter_unpack(payload):
                if key == frames.INITIAL_WINDOW_SIZE:
                    if value > frames.WIDEST_WINDOW:
                        raise ConnectionBroken(frames.FLOW_CONTROL_ERROR, "a window that is too wide")
                    for stream in self._streams.values():
                        stream.window += value - self._stream_window
                    self._stream_window = value
                elif key == frames.MAX_CONCURRENT_STREAMS:
                    self._most_streams = value
                elif key == frames.MAX_FRAME_SIZE:
                    if not frames.FIRST_FRAME <= value < 1 << 24:
                        raise ConnectionBroken(frames.PROTOCOL_ERROR, "a frame size out of bounds")
                    self._frame = min(value, _LARGEST_FRAME)
            self._room.notify_all()
        self.post_later(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _window_update(self, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionBroken(frames.FRAME_SIZE_ERROR, "a WINDOW_UPDATE has four bytes")
        size = int.from_bytes(payload, "big") & 0x7FFFFFFF
        with self._lock:
            if id == 0:
                self._window += size
                wide = self._window
            else:
                stream = self._streams.get(id)
                if stream is None:
                    return
                stream.window += size
                wide = stream.window
            self._room.notify_all()
        if wide > frames.WIDEST_WINDOW or size == 0:
            raise ConnectionBroken(frames.FLOW_CONTROL_ERROR, "a window that is too wide, or not at all")

    def _goaway(self, payload: bytes) -> None:
        if self._accept is not None:
            return
        last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        gone = CallError(UNAVAILABLE, "the other side ends the connection")
        with self._lock:
            if self._broken is None:
                self._broken = gone
            refused = [stream for id, stream in self._streams.items() if id > last]
        for stream in refused:
            self._forget(stream, gone)


def _string(value: Any) -> str:
    return value if isinstance(value, str) else bytes(value).decode("utf-8", "replace")


def _unpadded(payload: bytes) -> bytes:
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionBroken(frames.PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - padding]


def _reset_error(code: int, *, server: bool) -> CallError:
    if server or code == frames.CANCEL:
        return CallError(CANCELLED, "the other side cancelled the call")
    if code == frames.REFUSED_STREAM:
        return CallError(UNAVAILABLE, "the other side refused the call")
    return CallError(INTERNAL, f"the other side reset the call (HTTP/2 error {code})")


def value_of(fields: Sequence[tuple[str, str]], name: str) -> str | None:
    """The first value of a header field."""
    return next((value for key, value in fields if key == name), None)


def status_error(headers: Sequence[tuple[str, str]], trailers: Sequence[tuple[str, str]]) -> CallError | None:
    """What gRPC's trailers say, None for success."""
    code = value_of(trailers, "grpc-status")
    if code == "0":
        return None
    if code is None or not code.isdigit():
        http = value_of(headers, ":status")
        if http in (None, "200"):
            return CallError(INTERNAL, "the other side ended the call without a status")
        return CallError(
            _HTTP_CODES.get(http or "", UNKNOWN), f"the other side does not speak gRPC (HTTP status {http})"
        )
    message = unquote_to_bytes(value_of(trailers, "grpc-message") or "").decode("utf-8", "replace")
    status = None
    encoded = value_of(trailers, DETAILS_KEY)
    if encoded:
        try:
            status = rpc_status_pb2.Status.FromString(frames.decode_binary(encoded.partition(",")[0]))
        except DecodeError:
            # The plain code and message say what is known.
            status = None
    return CallError(int(code), message, status)


def encode_message(text: str) -> str:
    """A status message as a header field has it: percent-encoded but for printable ASCII."""
    return quote(text, safe="".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%"))
