"""A folder's entries as the sending side tells of them: filtered, in path order, parents first."""

import os
import stat
import struct
from collections.abc import Callable, Iterator

from ..patterns import Matcher, PatternError
from ..pb.stat_pb2 import Stat
from ..session import FileFilter
from .errors import shown
from .follow import follow, narrowed
from .modes import SOCKET, to_go

_MARK = struct.Struct("<qQ").pack
MARK_SIZE = 16
"""Bytes of a mark. The first eight are a time in nanoseconds, little endian."""

Change = Callable[[Stat], None]
"""Changes an entry before it is sent, its owner or time for instance."""

EVERYTHING = FileFilter()


class WalkError(OSError):
    """A folder that cannot be sent as it is: the path and the reason."""


def walk(root: bytes, wanted: FileFilter = EVERYTHING, change: Change | None = None) -> "Walk":
    """The entries below `root` that a filter lets through, with the folders that they are in.

    A second name of a file is an entry whose `linkname` is the first one's path. What is removed meanwhile is left
    out. Folders of which nothing can be wanted are not looked into.

    Raises:
        WalkError: for a folder that can't be read, or a name that is not UTF-8 (the protocol has no others).
        PatternError: for a pattern that is none.
    """
    include = _matcher("include", _includes(root, wanted))
    exclude = _matcher("exclude", list(wanted.exclude))
    return Walk(root, include, exclude, change)


def _includes(root: bytes, wanted: FileFilter) -> list[str]:
    if not wanted.follow:
        return list(wanted.include)
    targets = follow(root, wanted.follow)
    return narrowed([*wanted.include, *targets]) if targets else list(wanted.include)


def _matcher(kind: str, patterns: list[str]) -> Matcher | None:
    try:
        return Matcher(patterns) or None
    except PatternError as error:
        raise PatternError(f"invalid {kind} patterns: {error}") from None


_Listing = Iterator[tuple[bytes, "os.DirEntry[bytes]"]]


class Walk:
    """The entries of a folder, one after the other.

    `mark` is of the entry that came last: empty, or for a regular file what changes with every write to it, even one
    that keeps size and time. It means something on this machine only.
    """

    def __init__(self, root: bytes, include: Matcher | None, exclude: Matcher | None, change: Change | None) -> None:
        self._root = root
        self._include = include
        self._exclude = exclude
        self._change = change
        self._first_names: dict[tuple[int, int], str] = {}
        self.mark = b""
        self._entries = self._walked()

    def __iter__(self) -> Iterator[Stat]:
        return self

    def __next__(self) -> Stat:
        return next(self._entries)

    def _walked(self) -> Iterator[Stat]:
        include, exclude = self._include, self._exclude
        # Folders on the way down that were not sent, because nothing in them was so far.
        held: list[tuple[str, os.DirEntry[bytes]]] = []
        # The folders on the way down: what is left of each, its path, and what the filters hand on to what is in it.
        stack: list[tuple[_Listing, str, int, int]] = [(self._list(self._root, "", needed=True), "", 0, 0)]
        while stack:
            listing, prefix, included, excluded = stack[-1]
            for raw, entry in listing:
                name = raw.decode("utf-8", "surrogateescape")
                path = prefix + name
                is_folder = entry.is_dir(follow_symlinks=False)
                skip, below, above = False, included, excluded
                if include is not None:
                    found, below = include.step(path, name, included)
                    if not found:
                        if is_folder and not include.may_include_below(path):
                            continue
                        skip = True
                if exclude is not None:
                    found, above = exclude.step(path, name, excluded)
                    if found:
                        if is_folder and not exclude.may_match_below(path):
                            continue
                        skip = True
                if skip:
                    if not is_folder:
                        continue
                    held.append((path + "/", entry))
                else:
                    try:
                        sent = self._stat(path, entry)
                    except FileNotFoundError:
                        continue
                    if held:
                        mark = self.mark
                        for parent, parent_entry in held:
                            yield self._stat(parent[:-1], parent_entry)
                        held.clear()
                        self.mark = mark
                    yield sent
                if is_folder:
                    stack.append((self._list(entry.path, path, needed=not skip), path + "/", below, above))
                    break
            else:
                stack.pop()
                if held and held[-1][0] == prefix:
                    held.pop()

    @staticmethod
    def _list(place: bytes, path: str, *, needed: bool) -> _Listing:
        """A folder's entries in order of their names; a folder that was not asked for may be unreadable."""
        try:
            with os.scandir(place) as entries:
                found = [(entry.name, entry) for entry in entries]
        except (FileNotFoundError, NotADirectoryError) as error:
            if not path:
                raise WalkError(f"{os.fsdecode(place)}: {error.strerror}") from error
            return iter(())
        except OSError as error:
            if not needed and isinstance(error, PermissionError):
                return iter(())
            raise WalkError(f"cannot read the folder {os.fsdecode(place)}: {error.strerror}") from error
        found.sort(key=_first)
        return iter(found)

    def _stat(self, path: str, entry: "os.DirEntry[bytes]") -> Stat:
        status = entry.stat(follow_symlinks=False)
        mode = status.st_mode
        kind = stat.S_IFMT(mode)
        self.mark = _MARK(status.st_ctime_ns, status.st_ino) if kind == stat.S_IFREG else b""
        try:
            out = Stat(
                path=path,
                mode=to_go(mode) & ~SOCKET,
                uid=status.st_uid,
                gid=status.st_gid,
                size=0 if kind == stat.S_IFDIR else status.st_size,
                modTime=status.st_mtime_ns,
            )
        except UnicodeEncodeError:
            raise WalkError(f"{shown(entry.path)}: the name is not UTF-8") from None
        if kind != stat.S_IFDIR:
            if kind in (stat.S_IFCHR, stat.S_IFBLK):
                out.devmajor, out.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
            if status.st_nlink > 1:
                first = self._first_names.setdefault((status.st_dev, status.st_ino), path)
                if first != path:
                    out.linkname = first
            if kind == stat.S_IFLNK:
                try:
                    out.linkname = os.readlink(entry.path).decode()
                except UnicodeDecodeError:
                    raise WalkError(f"{shown(entry.path)}: the link's target is not UTF-8") from None
        _xattrs(entry.path, out)
        if self._change is not None:
            self._change(out)
        return out


def _first(pair: tuple[bytes, object]) -> bytes:
    return pair[0]


def _xattrs(place: bytes, out: Stat) -> None:
    try:
        names = os.listxattr(place, follow_symlinks=False)
    except OSError:
        return
    for name in names:
        if name.startswith("com.apple."):
            continue
        try:
            out.xattrs[name] = os.getxattr(place, name, follow_symlinks=False)
        except OSError:
            continue
