"""A transfer inside one process: no packets, no second thread."""

from typing import Protocol, runtime_checkable

from ..pb.stat_pb2 import Stat
from ..session import FileReceiver, FileTree
from .errors import is_gone
from .modes import TYPE
from .tree import Placed
from .walk import Walk

_CHUNK = 1 << 20


@runtime_checkable
class PlaceReceiver(Protocol):
    """A receiver that would rather read a wanted file itself."""

    def take(self, entry: Stat, place: bytes) -> None:
        """The file whose entry was wanted is at `place`; called instead of `data` and `end`. Raises OSError."""


@runtime_checkable
class MarkReceiver(Protocol):
    """A receiver that tells changes of files by more than their entries."""

    def marked(self, stat: Stat, mark: bytes) -> bool:
        """As `entry`, with the mark that `walk.Walk` gives a regular file, else an empty one."""


def transfer(tree: FileTree, receiver: FileReceiver) -> None:
    """Tell a receiver of every entry, and hand over what it wants.

    Raises:
        OSError: where a file can't be read.
    """
    take = receiver.take if isinstance(receiver, PlaceReceiver) else None
    find = tree.place if take is not None and isinstance(tree, Placed) else None
    entry = receiver.entry
    entries = tree.entries()
    marks = entries if isinstance(entries, Walk) and isinstance(receiver, MarkReceiver) else None
    marked = receiver.marked if isinstance(receiver, MarkReceiver) else None
    for stat in entries:
        wanted = entry(stat) if marks is None or marked is None else marked(stat, marks.mark)
        if not wanted or stat.mode & TYPE or stat.linkname:
            continue
        path = stat.path
        place = find(path) if find is not None else None
        if take is not None and place is not None:
            take(stat, place)
            continue
        try:
            with tree.open(path) as file:
                while data := file.read(_CHUNK):
                    receiver.data(path, data)
        except OSError as error:
            if not is_gone(error):
                raise
        receiver.end(path)
