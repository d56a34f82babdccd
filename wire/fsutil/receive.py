"""The receiving end of a transfer, as a stream of packets that answers another one."""

from collections import deque
from collections.abc import Iterable, Iterator

from ..pb.wire_pb2 import Packet
from ..session import FileReceiver
from .check import EntryCheck
from .errors import TransferError, describe
from .modes import TYPE

WINDOW = 256
"""The most files that are asked for and not there yet."""


def receive(incoming: Iterable[Packet], receiver: FileReceiver) -> Iterator[Packet]:
    """The packets to answer `incoming` with, while what comes in is handed to a receiver; it ends with the transfer.

    Everything is checked before the receiver sees it: `EntryCheck` says what an entry must be, and content comes only
    for files that were asked for.

    Raises:
        TransferError: where the other side reports an error, breaks these rules, or goes away early. Also what the
            receiver raises goes through; in both cases the other side is told first.
    """
    try:
        yield from _received(incoming, receiver)
    except GeneratorExit:
        raise
    except Exception as error:
        yield Packet(type=Packet.PACKET_ERR, data=describe(error).encode("utf-8", "replace"))
        raise


def _received(incoming: Iterable[Packet], receiver: FileReceiver) -> Iterator[Packet]:
    check = EntryCheck()
    number = 0
    walking = True
    finished = False
    waiting: deque[tuple[int, str]] = deque()
    coming: dict[int, str] = {}
    for packet in incoming:
        kind = packet.type
        if finished and kind != Packet.PACKET_ERR:
            if kind != Packet.PACKET_FIN:
                raise TransferError(f"the sender sent a packet of type {kind} after the end")
            for _ in incoming:
                raise TransferError("the sender sent something after its last packet")
            return
        if kind == Packet.PACKET_STAT:
            if not walking:
                raise TransferError("the sender sent an entry after the last one")
            if packet.HasField("stat"):
                entry = packet.stat
                check.add(entry)
                if receiver.entry(entry) and not entry.mode & TYPE and not entry.linkname:
                    if len(coming) < WINDOW:
                        coming[number] = entry.path
                        yield Packet(type=Packet.PACKET_REQ, ID=number)
                    else:
                        waiting.append((number, entry.path))
                number += 1
                continue
            walking = False
        elif kind == Packet.PACKET_DATA:
            path = coming.get(packet.ID)
            if path is None:
                raise TransferError(f"the sender sent content of file {packet.ID}, which was not asked for")
            if packet.data:
                receiver.data(path, packet.data)
                continue
            del coming[packet.ID]
            receiver.end(path)
            if waiting:
                following, path = waiting.popleft()
                coming[following] = path
                yield Packet(type=Packet.PACKET_REQ, ID=following)
        elif kind == Packet.PACKET_ERR:
            raise TransferError(f"error from the sender: {packet.data.decode(errors='replace')}")
        else:
            raise TransferError(f"the sender sent a packet of type {kind}, which is not its to send")
        if not walking and not coming and not waiting and not finished:
            finished = True
            yield Packet(type=Packet.PACKET_FIN)
    raise TransferError("the sender went away before the transfer had ended")
