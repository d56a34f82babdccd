"""Trees of files to be sent: of a folder, made up, below one another, and merged."""

import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from ..pb.stat_pb2 import Stat
from ..session import FileFilter, FileTree
from .modes import DIRECTORY, SYMLINK
from .opening import open_to_read
from .walk import EVERYTHING, Change, walk

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@runtime_checkable
class Placed(Protocol):
    """A tree whose files can be read without it."""

    def place(self, path: str) -> bytes | None:
        """Where a regular file among the entries is on this machine; None where it is nowhere."""


def place_in(files: FileTree, path: str) -> bytes | None:
    """Where a regular file of a tree is on this machine; None where that is not known."""
    return files.place(path) if isinstance(files, Placed) else None


def without_owners(entry: Stat) -> None:
    """A build context's files belong to root, whoever they belong to on the client."""
    entry.uid = entry.gid = 0


def folder(path: Path, wanted: FileFilter = EVERYTHING, change: Change | None = None) -> "Folder":
    """The files below a folder that a filter lets through. Links on the way to the folder itself are followed."""
    return Folder(os.fsencode(os.path.realpath(path)), wanted, change)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of this machine as a tree."""

    root: bytes
    wanted: FileFilter = EVERYTHING
    change: Change | None = None

    def entries(self) -> Iterator[Stat]:
        """What `walk` finds."""
        return walk(self.root, self.wanted, self.change)

    def open(self, path: str) -> BinaryIO:
        """A file's content; links that stand there by now are not followed. Raises OSError."""
        return open(open_to_read(self.place(path), _READ), "rb", buffering=0)

    def place(self, path: str) -> bytes:
        """Where an entry is on this machine."""
        return self.root + b"/" + path.encode()


@dataclass(frozen=True, slots=True)
class Made:
    """Files that are on no disk: entries with their content, in path order."""

    files: tuple[tuple[Stat, bytes], ...]

    def entries(self) -> Iterator[Stat]:
        """Copies of the entries."""
        for entry, content in self.files:
            out = Stat()
            out.CopyFrom(entry)
            out.size = len(content)
            yield out

    def open(self, path: str) -> BinaryIO:
        """A file's content. Raises FileNotFoundError."""
        for entry, content in self.files:
            if entry.path == path:
                return io.BytesIO(content)
        raise FileNotFoundError(path)


@dataclass(frozen=True, slots=True)
class Below:
    """Each tree in a folder of its own; the names have no slash."""

    trees: Mapping[str, FileTree]
    mtime: int = 0

    def entries(self) -> Iterator[Stat]:
        """The folders with what they hold; hard links and absolute links stay inside of their folder."""
        for name in sorted(self.trees):
            yield Stat(path=name, mode=DIRECTORY | 0o755, modTime=self.mtime)
            for entry in self.trees[name].entries():
                entry.path = f"{name}/{entry.path}"
                if entry.linkname and not entry.mode & SYMLINK:
                    entry.linkname = f"{name}/{entry.linkname}"
                elif entry.linkname.startswith("/"):
                    entry.linkname = f"/{name}{entry.linkname}"
                yield entry

    def open(self, path: str) -> BinaryIO:
        """A file's content. Raises OSError."""
        name, _, rest = path.partition("/")
        if name not in self.trees:
            raise FileNotFoundError(path)
        return self.trees[name].open(rest)

    def place(self, path: str) -> bytes | None:
        """Where a file is on this machine."""
        name, _, rest = path.partition("/")
        return place_in(self.trees[name], rest) if name in self.trees else None


class MergeError(ValueError):
    """Trees that don't go together."""


class Merged:
    """Trees laid over each other. A path of several is that of the last, but for folders, which are one."""

    def __init__(self, *trees: FileTree) -> None:
        self._trees = trees
        self._from: dict[str, FileTree] = {}

    def entries(self) -> Iterator[Stat]:
        """All entries in path order. Raises MergeError where a folder of one tree is something else in another."""
        last: tuple[Stat, FileTree] | None = None
        for _, _, entry, tree in merge(*(self._numbered(n, tree) for n, tree in enumerate(self._trees)), key=_order):
            if last is not None:
                if last[0].path != entry.path:
                    yield self._taken(*last)
                elif (last[0].mode ^ entry.mode) & DIRECTORY:
                    raise MergeError(f"{entry.path} is a folder in one part of the files and none in another")
            last = entry, tree
        if last is not None:
            yield self._taken(*last)

    @staticmethod
    def _numbered(number: int, tree: FileTree) -> Iterator[tuple[list[str], int, Stat, FileTree]]:
        for entry in tree.entries():
            yield entry.path.split("/"), number, entry, tree

    def _taken(self, entry: Stat, tree: FileTree) -> Stat:
        if not entry.mode & DIRECTORY:
            self._from[entry.path] = tree
        return entry

    def open(self, path: str) -> BinaryIO:
        """The content of a file that was among the entries. Raises OSError."""
        if path not in self._from:
            raise FileNotFoundError(path)
        return self._from[path].open(path)

    def place(self, path: str) -> bytes | None:
        """Where a file is on this machine."""
        return place_in(self._from[path], path) if path in self._from else None


def _order(item: tuple[list[str], int, Stat, FileTree]) -> tuple[list[str], int]:
    return item[0], item[1]
