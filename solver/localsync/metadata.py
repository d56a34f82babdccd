"""Transfers of metadata only: one file that lists all entries, and the few files whose content is wanted after all.

Source: fsutil's metadata-only receiver. The list is `.fsutil-metadata`: for each entry the length of its encoded Stat
(4 bytes, little endian) and the Stat.
"""

import struct

from ...wire.fsutil.modes import DIRECTORY
from ...wire.patterns import Matcher
from ...wire.pb.stat_pb2 import Stat
from .receiver import FolderReceiver

LIST = ".fsutil-metadata"
_LENGTH = struct.Struct("<I")


class MetadataReceiver:
    """Lets only entries through that `wanted` matches, with their folders, and keeps the list of all."""

    def __init__(self, inner: FolderReceiver, wanted: Matcher) -> None:
        self._inner = inner
        self._wanted = wanted
        self._list: list[bytes] = []
        self._held: list[Stat] = []

    def entry(self, stat: Stat) -> bool:
        """One more entry."""
        path = stat.path
        if path == LIST:
            return False
        encoded = stat.SerializeToString(deterministic=True)
        self._list += (_LENGTH.pack(len(encoded)), encoded)
        while self._held and not path.startswith(self._held[-1].path + "/"):
            self._held.pop()
        if self._wanted.matches(path):
            for folder in self._held:
                self._inner.entry(folder)
            self._held.clear()
            return self._inner.entry(stat)
        if stat.mode & DIRECTORY:
            held = Stat()
            held.CopyFrom(stat)
            self._held.append(held)
        return False

    def data(self, path: str, data: bytes) -> None:
        """A piece of a wanted file."""
        self._inner.data(path, data)

    def end(self, path: str) -> None:
        """All of a wanted file has come."""
        self._inner.end(path)

    def finish(self) -> None:
        """Add the list."""
        data = b"".join(self._list)
        if self._inner.entry(Stat(path=LIST, mode=0o644, size=len(data))):
            self._inner.data(LIST, data)
            self._inner.end(LIST)
