"""User namespaces in which every id is itself, for a process of another user to be made in by that user.

There are two for each user, one in the other. The outer one belongs to root. The inner one belongs to the user, who as
its owner may enter it from the outer one and there alone: to any other process of that user on this machine, which is
in neither, it gives nothing.
"""

import ctypes
import functools
import json
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .base import ExecError
from .ids import Range, standing

_CLONE_NEWUSER = 0x10000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two open user namespaces."""

    outer: int
    inner: int


class UserNamespaces:
    """A pair for each user that asked, kept open."""

    def __init__(self) -> None:
        self._outer = -1
        self._inner: dict[int, int] = {}
        self._lock = threading.Lock()

    def get(self, program: str, uid: int) -> Pair:
        """The pair of a user, made by bubblewrap, whose `program` that user can start. Raises ExecError."""
        with self._lock:
            try:
                if self._outer < 0:
                    self._outer = _make(program, None, _write_maps)
                if uid not in self._inner:
                    enter = entrance(uid, 0, (), self._outer)
                    self._inner[uid] = _make(program, enter, functools.partial(_write_maps_inside, self._outer))
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                raise ExecError(f"cannot make a user namespace for uid {uid}: {error}") from None
            return Pair(self._outer, self._inner[uid])


def entrance(uid: int, gid: int, groups: Sequence[int] | None, namespace: int = -1) -> Callable[[], None]:
    """What makes a new process another user's, between fork and exec; `groups` None leaves those that it has.

    It is called where other threads' locks may be held for ever, so it makes nothing but system calls.
    """

    def enter() -> None:
        if namespace >= 0 and _libc.setns(namespace, _CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        if groups is not None:
            os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)

    return enter


def _make(program: str, enter: Callable[[], None] | None, write_maps: Callable[[int], None]) -> int:
    """An open namespace below the one that `enter` enters."""
    blocked, release = os.pipe2(os.O_CLOEXEC)
    told, tell = os.pipe2(os.O_CLOEXEC)
    command = [program, "--unshare-user", "--userns-block-fd", str(blocked), "--info-fd", str(tell)]
    try:
        with subprocess.Popen(
            [*command, "--bind", "/", "/", "/nothing"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[blocked, tell],
            preexec_fn=enter,
        ):
            try:
                os.close(tell)
                tell = -1
                with open(os.dup(told), encoding="ascii") as answer:
                    pid = int(json.load(answer)["child-pid"])
                write_maps(pid)
                return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                # Let go on, it ends by itself: there is no such program.
                os.close(release)
                release = -1
    finally:
        for end in (blocked, release, told, tell):
            if end >= 0:
                os.close(end)


def _write_maps(pid: int) -> None:
    here = standing()
    for name, ranges in (("uid_map", here.uids), ("gid_map", here.gids)):
        handle = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(handle, _identity(ranges))
        finally:
            os.close(handle)


def _write_maps_inside(outer: int, pid: int) -> None:
    """The same from a process in the namespace above, which is the only one that may."""
    standing()
    enter = entrance(0, 0, None, outer)

    def write() -> None:
        enter()
        _write_maps(pid)

    subprocess.run(["/bin/sh", "-c", ":"], preexec_fn=write, check=True)


def _identity(ranges: tuple[Range, ...]) -> bytes:
    return b"".join(b"%d %d %d\n" % (first, first, count) for first, _, count in ranges)
