"""The sending end of a transfer, as a stream of packets that answers another one."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import SimpleQueue

from ..pb.wire_pb2 import Packet
from ..session import FileTree
from .errors import TransferError, describe, is_gone
from .modes import TYPE

CHUNK = 256 * 1024
"""The most bytes of one DATA packet."""

_FIN = -1


def send(
    tree: FileTree, incoming: Iterable[Packet], progress: Callable[[int], None] = lambda size: None
) -> Iterator[Packet]:
    """The packets that send a tree's entries and the content that the other side asks for in `incoming`.

    The next packet is only made when the carrier asks for it, so that nothing piles up before a slow one. `incoming`
    is read in a thread of its own, which ends with it. `progress` is told the bytes of content that each packet adds.

    Raises:
        TransferError: where the other side reports an error, asks for what it must not, or goes away.
        OSError: where a file or folder can't be read; the other side is told before.
    """
    asked: SimpleQueue[int | TransferError] = SimpleQueue()
    threading.Thread(target=_listen, args=(incoming, asked), name="fsutil-send", daemon=True).start()
    files: dict[int, str] = {}
    entries = enumerate(tree.entries())
    walking = True
    try:
        while True:
            if walking and asked.empty():
                number, entry = next(entries, (0, None))
                if entry is None:
                    walking = False
                    yield Packet(type=Packet.PACKET_STAT)
                    continue
                if not entry.mode & TYPE:
                    files[number] = entry.path
                yield Packet(type=Packet.PACKET_STAT, stat=entry)
                continue
            number_or_error = asked.get()
            if isinstance(number_or_error, TransferError):
                raise number_or_error
            if number_or_error == _FIN:
                if walking:
                    raise TransferError("the receiver ended the transfer before it had all entries")
                yield Packet(type=Packet.PACKET_FIN)
                return
            path = files.pop(number_or_error, None)
            if path is None:
                raise TransferError(f"the receiver asks for file {number_or_error}, which is none or was sent already")
            for data in _content(tree, path):
                progress(len(data))
                yield Packet(type=Packet.PACKET_DATA, ID=number_or_error, data=data)
            yield Packet(type=Packet.PACKET_DATA, ID=number_or_error)
    except (OSError, ValueError) as error:
        yield Packet(type=Packet.PACKET_ERR, data=describe(error).encode("utf-8", "replace"))
        raise


def _content(tree: FileTree, path: str) -> Iterator[bytes]:
    try:
        with tree.open(path) as file:
            while data := file.read(CHUNK):
                yield data
    except OSError as error:
        if not is_gone(error):
            raise


def _listen(incoming: Iterable[Packet], asked: "SimpleQueue[int | TransferError]") -> None:
    try:
        for packet in incoming:
            if packet.type == Packet.PACKET_REQ:
                asked.put(packet.ID)
            elif packet.type == Packet.PACKET_FIN:
                asked.put(_FIN)
                # The carrier is read to its end, which a client waits for.
                with suppress(Exception):
                    for _ in incoming:
                        return
                return
            elif packet.type == Packet.PACKET_ERR:
                asked.put(TransferError(f"error from the receiver: {packet.data.decode(errors='replace')}"))
                return
            else:
                asked.put(TransferError(f"the receiver sent a packet of type {packet.type}, which is not its to send"))
                return
        asked.put(TransferError("the receiver went away before it had all files"))
    except Exception as error:
        # Whatever the carrier raises is the end of it.
        asked.put(TransferError(f"the receiver went away: {error}"))
