"""The paths of a file system that a pattern matches (Go's filepath.Match on every name of the path)."""

import os
import stat
from collections.abc import Iterator

from ...grammar.dockerignore import PatternError, match
from ...oci.rootfs import Root, open_below


def has_wildcards(path: str) -> bool:
    """Whether a path holds `*`, `?` or `[` that no backslash takes its meaning from."""
    position = 0
    while position < len(path):
        if path[position] == "\\":
            position += 1
        elif path[position] in "*?[":
            return True
        position += 1
    return False


def expand(root: Root, pattern: str, *, follow: bool) -> list[str]:
    """The paths, absolute and sorted, that a cleaned absolute pattern matches; without wildcards it is itself.

    Links are followed up to the first name with a wildcard, never below it; `follow` also follows a link that is
    the last name before it.

    Raises:
        OSError: where the directory before the first wildcard can't be read.
        UnsafePath: where links lead in circles.
    """
    names = [name for name in pattern.split("/") if name not in ("", ".")]
    first = next((position for position, name in enumerate(names) if has_wildcards(name)), None)
    if first is None:
        return ["/" + "/".join(names)]
    base = root.locate("/".join(names[:first]), follow=follow)
    return [f"/{base}/{found}" if base else f"/{found}" for found in _below(root, base, names[first:])]


def _below(root: Root, folder: str, patterns: list[str]) -> Iterator[str]:
    fd = open_below(root.fileno(), folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        names = sorted((name for name in os.listdir(fd) if _matches(patterns[0], name)), key=os.fsencode)
        more = patterns[1:]
        if more:
            names = [n for n in names if stat.S_ISDIR(os.stat(n, dir_fd=fd, follow_symlinks=False).st_mode)]
    finally:
        os.close(fd)
    for name in names:
        if not more:
            yield name
            continue
        for found in _below(root, f"{folder}/{name}" if folder else name, more):
            yield f"{name}/{found}"


def _matches(pattern: str, name: str) -> bool:
    try:
        return match(pattern, name)
    except PatternError:
        return False
