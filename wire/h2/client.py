"""Calls on a connection, from the client's end."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from ..calls import CallError, Metadata
from ..errors import DEADLINE_EXCEEDED, INTERNAL
from .connection import Connection, Stream

M = TypeVar("M", bound=Message)


class Caller:
    """Makes calls on a connection."""

    def __init__(self, connection: Connection, authority: str = "localhost", scheme: str = "http") -> None:
        self.connection = connection
        self._head: tuple[tuple[str, str | bytes], ...] = (
            (":method", "POST"),
            (":scheme", scheme),
            (":authority", authority),
        )
        self._tail: tuple[tuple[str, str | bytes], ...] = (
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "grpc-brickyard"),
        )

    def stream(self, method: str, metadata: Metadata = ()) -> Stream:
        """Begin `/package.Service/Method`, with messages both ways. Raises CallError where the connection is gone."""
        return self.connection.open((*self._head, (":path", method), *self._tail, *metadata))

    def unary(
        self, method: str, request: Message, reply: type[M], metadata: Metadata = (), timeout: float | None = None
    ) -> M:
        """Call `/package.Service/Method` with one message for one.

        Raises:
            CallError: where it fails, or there is no answer in time.
        """
        extra: Metadata = () if timeout is None else (("grpc-timeout", f"{max(int(timeout * 1000), 1)}m"),)
        stream = self.stream(method, (*extra, *metadata))
        try:
            stream.send(request.SerializeToString(), flush=False)
            stream.close_send()
            answer = stream.receive_within(timeout)
            if answer is None:
                raise CallError(INTERNAL, f"{method}: the other side gave no answer")
            if stream.receive_within(timeout) is not None:
                raise CallError(INTERNAL, f"{method}: the other side gave more than one answer")
        except TimeoutError:
            raise CallError(DEADLINE_EXCEEDED, f"{method}: no answer within {timeout:g} seconds") from None
        finally:
            stream.cancel()
        try:
            return reply.FromString(answer)
        except DecodeError as error:
            raise CallError(INTERNAL, f"{method}: the answer can't be read: {error}") from None
