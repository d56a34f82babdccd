"""Paths whose links are followed: the patterns that stand for a path and for all that its links lead to."""

import os
import posixpath
import re

from ..patterns import PatternError, match

_ESCAPED = re.compile(r"\\.", re.DOTALL)
_LIMIT = 100_000


def follow(root: bytes, paths: tuple[str, ...]) -> list[str]:
    """The links on the way to each path, and where they lead, sorted; empty where that is the whole folder.

    Links are read as if `root` were the root of the file system. A path's parts may hold wildcards. Parts that
    are not there are kept, and so match nothing.
    """
    found: set[str] = set()
    pending = [_relative(path) for path in reversed(paths)]
    steps = 0
    while pending:
        steps += 1
        if steps > _LIMIT:
            raise OSError(f"the links of {paths[0]!r} lead to too many places")
        rest = pending.pop()
        current = ""
        while True:
            part, _, rest = rest.partition("/")
            current = posixpath.join(current, part)
            targets = _targets(root, current)
            if (targets or not rest) and current in found:
                break
            if targets:
                found.add(current)
                pending += [_relative(f"{target}/{rest}") for target in reversed(targets)]
                break
            if not rest:
                found.add(current)
                break
    return narrowed(sorted(found))


def narrowed(patterns: list[str]) -> list[str]:
    """Patterns without those that the one before covers; none where one of them is the whole folder."""
    out: list[str] = []
    for pattern in patterns:
        if pattern == ".":
            return []
        if not (out and pattern.startswith(out[-1] + "/")):
            out.append(pattern)
    return out


def _relative(path: str) -> str:
    """A path as one below the root, which `..` does not leave."""
    return posixpath.normpath("/" + path).lstrip("/") or "."


def _targets(root: bytes, path: str) -> list[str]:
    """Where a link leads, as paths below the root; those of every link that a wildcard in the last part matches."""
    folder, _, name = path.rpartition("/")
    if not re.search(r"[*?\[]", _ESCAPED.sub("", name)):
        target = _link(root, path)
        return [] if target is None else [target]
    try:
        names = sorted(os.fsdecode(entry) for entry in os.listdir(os.path.join(root, os.fsencode(folder))))
    except (FileNotFoundError, NotADirectoryError):
        return []
    out = []
    for entry in names:
        try:
            chosen = match(name, entry)
        except PatternError:
            return []
        target = _link(root, posixpath.join(folder, entry)) if chosen else None
        if target is not None:
            out.append(target)
    return out


def _link(root: bytes, path: str) -> str | None:
    try:
        target = os.fsdecode(os.readlink(os.path.join(root, os.fsencode(path))))
    except OSError:
        return None
    return target if target.startswith("/") else posixpath.join("/", posixpath.dirname(path), target)
