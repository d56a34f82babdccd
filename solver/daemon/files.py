"""File transfers of a session: fsutil's packets over a call."""

import threading
from collections.abc import Iterator

from google.protobuf.message import DecodeError

from ...wire.calls import CallError, Stream
from ...wire.fsutil import receive as receiving
from ...wire.fsutil import send as sending
from ...wire.fsutil.errors import TransferError
from ...wire.pb.wire_pb2 import Packet
from ...wire.session import FileReceiver, FileTree

_END_SECONDS = 60.0
"""How long the client may take to finish after it has everything."""


def receive(stream: Stream, receiver: FileReceiver) -> None:
    """Receive a folder from the client. Raises OSError, and what the receiver raises."""
    try:
        for packet in receiving.receive(_packets(stream), receiver):
            stream.send(packet.SerializeToString(), flush=False)
            if packet.type == Packet.PACKET_FIN:
                stream.close_send()
    except BaseException:
        stream.cancel()
        raise


def send(stream: Stream, tree: FileTree) -> None:
    """Send a tree to the client; returns when the client has it. Raises OSError."""
    ended = threading.Event()
    failures: list[OSError] = []

    def incoming() -> Iterator[Packet]:
        try:
            yield from _packets(stream)
        except OSError as error:
            failures.append(error)
            raise
        finally:
            ended.set()

    try:
        for packet in sending.send(tree, incoming()):
            # Entries go together; only what may be waited for goes at once.
            stream.send(packet.SerializeToString(), flush=packet.type != Packet.PACKET_STAT or not packet.stat.path)
        stream.close_send()
        if not ended.wait(_END_SECONDS):
            raise CallError(4, "the client did not finish an export that it has all files of")
    except BaseException as error:
        stream.cancel()
        if failures and isinstance(error, OSError):
            # What the client said is more than that it is gone.
            raise failures[0] from error
        raise
    if failures:
        raise failures[0]


def _packets(stream: Stream) -> Iterator[Packet]:
    parse, next_message = Packet.FromString, stream.receive
    while (message := next_message()) is not None:
        try:
            packet = parse(message)
        except DecodeError:
            raise TransferError("the client sent a packet that can't be read: file names must be UTF-8") from None
        yield packet
