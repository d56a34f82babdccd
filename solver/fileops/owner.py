"""The owner of what a file operation makes, by number or by a name of a file system's passwd and group files."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from ...llb.ops import ChownOpt, UserName
from ...oci.rootfs import Root, UnsafePath
from .errors import FileOpError

_LARGEST = 10 << 20


def find_owner(owner: ChownOpt | None, roots: Callable[[int], Path | None]) -> tuple[int, int] | None:
    """User and group number; None where no owner is given.

    A user's name brings the group of its line, a number is its own group's too; a name that nobody has is 0, as in
    BuildKit.

    Args:
        owner: what the action says.
        roots: the file system of an input.

    Raises:
        FileOpError: where the files can't be read or name an input that is not there.
    """
    if owner is None:
        return None
    uid = gid = 0
    if isinstance(owner.user, UserName):
        found = _line(owner.user, "/etc/passwd", 3, roots)
        if found is not None:
            uid, gid = found[0], found[1]
    elif owner.user is not None:
        uid = gid = owner.user
    if isinstance(owner.group, UserName):
        found = _line(owner.group, "/etc/group", 2, roots)
        if found is not None:
            gid = found[0]
    elif owner.group is not None:
        gid = owner.group
    return uid, gid


def _line(name: UserName, path: str, end: int, roots: Callable[[int], Path | None]) -> list[int] | None:
    """The numbers of the first line with a name, from its third field to the one before `end` + 1."""
    if name.input < 0:
        raise FileOpError(f"invalid user index: {name.input}")
    folder = roots(name.input)
    if folder is None:
        return None
    for line in _read(folder, path).split(b"\n"):
        fields = line.strip().split(b":")
        if fields[0] == os.fsencode(name.name) and len(fields) > end:
            return [_number(field) for field in fields[2 : end + 1]]
    return None


def _number(field: bytes) -> int:
    try:
        return int(field)
    except ValueError:
        return 0


def _read(folder: Path, path: str) -> bytes:
    with Root(folder) as root:
        try:
            fd = root.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return b""
        except (OSError, UnsafePath) as error:
            raise FileOpError(f"open {path}: {error}") from error
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FileOpError(f"{path} is not a regular file")
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise FileOpError(f"{path!r} exceeds {_LARGEST} bytes")
    return data
