"""gRPC services on connections, from the server's end."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.message import DecodeError, Message

from ..calls import CallError, Metadata
from ..errors import DETAILS_KEY, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAVAILABLE, UNIMPLEMENTED, UNKNOWN
from ..pb import rpc_status_pb2
from . import frames
from .connection import RESPONSE, Connection, Stream, encode_message, value_of


class StatusError(Exception):
    """A call that is answered with this status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Call:
    """What a method is told of its call."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """The client's metadata, with HTTP/2's own fields."""
        return self._stream.headers

    def values(self, key: str) -> list[str]:
        """The values of a metadata key."""
        return [value for name, value in self._stream.headers if name == key]

    @property
    def active(self) -> bool:
        """Whether the client still wants an answer."""
        return not self._stream.over

    def on_end(self, callback: Callable[[], None]) -> bool:
        """Call a function when the call is over, however; False where it is already. The function must not wait."""
        return self._stream.add_callback(callback)

    def send_metadata(self, fields: Metadata) -> None:
        """Tell the client something ahead of the first message. Raises CallError where the call is over."""
        self._stream.send_headers((*RESPONSE, *fields))

    def send(self, message: bytes) -> None:
        """Send a message. Raises CallError where the call is over."""
        self._stream.send(message)

    def end(self, status: rpc_status_pb2.Status | None) -> None:
        """Send the status, None for success."""
        fields: list[tuple[str, str | bytes]] = [] if self._stream.started else [*RESPONSE]
        if status is None:
            fields.append(("grpc-status", "0"))
        else:
            fields.append(("grpc-status", str(status.code or UNKNOWN)))
            fields.append(("grpc-message", encode_message(status.message)))
            if status.details:
                fields.append((DETAILS_KEY, status.SerializeToString()))
        try:
            self._stream.send_headers(fields, end=True)
        except CallError:
            # Nobody is left to be told.
            return


class Method(Protocol):
    """A method of a service."""

    def run(self, stream: Stream, call: Call) -> None:
        """Serve a call, in a thread of its own. What is raised becomes its status."""


@dataclass(frozen=True, slots=True)
class Unary:
    """One message for one."""

    kind: type[Message] | None
    function: Callable[[Any, Call], Message | bytes]

    def run(self, stream: Stream, call: Call) -> None:
        """Serve a call."""
        answer = self.function(_one(stream, self.kind), call)
        # The status follows at once, and takes the message with it.
        stream.send(answer if isinstance(answer, bytes) else answer.SerializeToString(), flush=False)


@dataclass(frozen=True, slots=True)
class ServerStream:
    """One message for many."""

    kind: type[Message] | None
    function: Callable[[Any, Call], Iterator[Message | bytes]]

    def run(self, stream: Stream, call: Call) -> None:
        """Serve a call."""
        _send_all(self.function(_one(stream, self.kind), call), call)


@dataclass(frozen=True, slots=True)
class BothStreams:
    """Many messages for many."""

    kind: type[Message] | None
    function: Callable[[Iterator[Any], Call], Iterator[Message | bytes]]

    def run(self, stream: Stream, call: Call) -> None:
        """Serve a call."""
        _send_all(self.function(_all(stream, self.kind), call), call)


@dataclass(frozen=True, slots=True)
class Raw:
    """A call that is taken over as it begins, in the thread that reads the connection: the function must not wait."""

    function: Callable[[Stream, Call], None]


def _one(stream: Stream, kind: type[Message] | None) -> Any:
    message = stream.receive()
    if message is None:
        raise StatusError(INVALID_ARGUMENT, "the call has no message")
    return message if kind is None else _read(message, kind)


def _all(stream: Stream, kind: type[Message] | None) -> Iterator[Any]:
    while (message := stream.receive()) is not None:
        yield message if kind is None else _read(message, kind)


def _read(message: bytes, kind: type[Message]) -> Message:
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise StatusError(INVALID_ARGUMENT, f"not a {kind.DESCRIPTOR.full_name}: {error}") from None


def _send_all(messages: Iterator[Message | bytes], call: Call) -> None:
    for message in messages:
        call.send(message if isinstance(message, bytes) else message.SerializeToString())


def status_of(error: BaseException) -> rpc_status_pb2.Status:
    """The status of an exception that has one of its own, else of code UNKNOWN with its text."""
    if isinstance(error, StatusError):
        return rpc_status_pb2.Status(code=error.code, message=str(error))
    if isinstance(error, CallError):
        return error.status or rpc_status_pb2.Status(code=error.code, message=str(error))
    return rpc_status_pb2.Status(code=UNKNOWN, message=str(error) or type(error).__name__)


class Server:
    """Methods by path (`/package.Service/Method`), served by at most `calls` threads at once.

    `describe` makes the statuses of exceptions.
    """

    def __init__(
        self,
        methods: Mapping[str, Method | Raw],
        calls: int,
        describe: Callable[[BaseException], rpc_status_pb2.Status] = status_of,
    ) -> None:
        self._methods = dict(methods)
        self._describe = describe
        self._calls = calls
        self._changed = threading.Condition()
        self._running = 0
        self._pool = ThreadPoolExecutor(calls, thread_name_prefix="call")
        self._stopped = False

    def connect(self, write: Callable[[bytes], None]) -> Connection:
        """A connection whose calls are served; feed it what the client says."""
        return Connection(write, self._begin)

    def stop(self) -> None:
        """Take no more calls."""
        self._stopped = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, stream: Stream) -> None:
        path = value_of(stream.headers, ":path") or ""
        method = self._methods.get(path)
        if method is None:
            stream.fail(UNIMPLEMENTED, f"unknown method {path}")
        elif not (value_of(stream.headers, "content-type") or "").startswith("application/grpc"):
            stream.fail(INVALID_ARGUMENT, "the content type is not gRPC's")
        elif isinstance(method, Raw):
            try:
                method.function(stream, Call(stream))
            except StatusError as error:
                stream.fail(error.code, str(error))
        else:
            self._submit(stream, method)

    def _submit(self, stream: Stream, method: Method) -> None:
        with self._changed:
            full = self._stopped or self._running >= self._calls
            self._running += not full
        if full:
            stream.fail(RESOURCE_EXHAUSTED, "too many calls at the same time")
            return
        try:
            self._pool.submit(self._serve, stream, method)
        except RuntimeError:
            self._ended()
            stream.fail(UNAVAILABLE, "the server stops")

    def _ended(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def idle(self, seconds: float) -> bool:
        """Wait until no call runs; False where some still do after so long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, seconds)

    def _serve(self, stream: Stream, method: Method) -> None:
        call = Call(stream)
        try:
            status = None
            try:
                method.run(stream, call)
            except Exception as error:
                if stream.over:
                    return
                status = self._describe(error)
            call.end(status)
        finally:
            self._ended()


def serve(connection: Connection, read: Callable[[], bytes], close: Callable[[], None]) -> None:
    """Read a connection to its end. `read` gives b"" at the end; `close` closes what is below."""
    try:
        while data := read():
            connection.feed(data)
        connection.lost("the connection was closed by the other side")
    except frames.ConnectionBroken:
        # All calls have failed already.
        return
    except OSError as error:
        connection.lost(f"the connection broke: {error}")
    finally:
        # Whatever ended it, nobody may go on waiting for it.
        connection.lost("the connection has ended")
        close()
