"""Who a process runs as: the words of USER, looked up in the root file system's own /etc/passwd and /etc/group."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...oci.rootfs import UnsafePath
from .base import ExecError
from .inside import open_inside

_MAX_FILE = 10 << 20
_MAX_ID = 0x7FFFFFFF
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class User:
    """The ids of a process. `groups` are the supplementary ones, the first group among them; `home` is its folder."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = (0,)
    home: str = "/"


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def find_user(rootfs: Path, text: str) -> User:
    """The user of `name`, `uid`, `name:group`, `uid:gid` …; empty is root.

    As BuildKit reads it: two numbers are taken as they are, without supplementary groups; a single name or number has
    the groups that list the user, unless a group is named; a number without an entry is in group 0.

    Raises:
        ExecError: for a user or group that has no entry, or a number out of range.
    """
    name, colon, group = text.partition(":")
    uid, gid = _number(name), _number(group)
    accounts = _entries(rootfs, "etc/passwd", _account)
    if colon and (uid is not None or name == "root") and (gid is not None or group == "root"):
        return _user(uid or 0, gid or 0, (), accounts)
    wanted = name or "0"
    uid = _number(wanted)
    account = next((one for one in accounts if (one.uid == uid if uid is not None else one.name == wanted)), None)
    if account is None and uid is None:
        raise ExecError(f"unable to find user {name}: no matching entries in passwd file")
    own_gid = account.gid if account else 0
    more: tuple[int, ...] = ()
    if group:
        found = [
            entry.gid
            for entry in _entries(rootfs, "etc/group", _group)
            if (entry.gid == gid if gid is not None else entry.name == group)
        ]
        if not found and gid is None:
            raise ExecError(f"unable to find group {group}: no matching entries in group file")
        own_gid = found[0] if found else gid or 0
    elif account:
        more = tuple(entry.gid for entry in _entries(rootfs, "etc/group", _group) if account.name in entry.members)
    return _user(account.uid if account else uid or 0, own_gid, more, accounts)


def _user(uid: int, gid: int, groups: tuple[int, ...], accounts: list[_Account]) -> User:
    for number in (uid, gid):
        if not 0 <= number <= _MAX_ID:
            raise ExecError(f"uids and gids must be in range 0-{_MAX_ID}: {number}")
    home = next((one.home for one in accounts if one.uid == uid), "") or "/"
    return User(uid, gid, groups if gid in groups else (gid, *groups), home)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _account(fields: list[str]) -> _Account | None:
    if len(fields) < 4 or (uid := _number(fields[2])) is None:
        return None
    return _Account(fields[0], uid, _number(fields[3]) or 0, fields[5] if len(fields) > 5 else "")


def _group(fields: list[str]) -> _Group | None:
    if len(fields) < 3 or (gid := _number(fields[2])) is None:
        return None
    return _Group(fields[0], gid, tuple(fields[3].split(",")) if len(fields) > 3 else ())


def _entries(rootfs: Path, name: str, parse: Callable[[list[str]], _T | None]) -> list[_T]:
    found = []
    for line in _read(rootfs, name).decode("utf-8", "surrogateescape").split("\n"):
        text = line.strip()
        if text and not text.startswith("#") and (entry := parse([field.strip() for field in text.split(":")])):
            found.append(entry)
    return found


def _read(rootfs: Path, name: str) -> bytes:
    """A file of a root file system; empty where there is no ordinary file."""
    with suppress(OSError, UnsafePath):
        handle = open_inside(rootfs, name)
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return b""
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise ExecError(f"/{name} of the root file system is larger than {_MAX_FILE} bytes")
        return data
    return b""
