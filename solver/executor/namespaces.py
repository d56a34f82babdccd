"""User namespaces that belong to another user, in which every id is itself."""

import json
import os
import subprocess
import threading

from .base import ExecError
from .ids import Range, standing


class UserNamespaces:
    """One for each user that asked, kept open; made by bubblewrap, whose program is given to `get`."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()

    def get(self, program: str, uid: int) -> int:
        """An open namespace whose owner is `uid`. Raises ExecError."""
        with self._lock:
            if uid not in self._open:
                try:
                    self._open[uid] = _make(program, uid)
                except (OSError, ValueError) as error:
                    raise ExecError(f"cannot make a user namespace for uid {uid}: {error}") from None
            return self._open[uid]

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            for handle in self._open.values():
                os.close(handle)
            self._open.clear()


def _make(program: str, uid: int) -> int:
    here = standing()
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
            user=uid,
            extra_groups=[],
        ):
            try:
                os.close(tell)
                tell = -1
                with open(os.dup(told), encoding="ascii") as answer:
                    pid = int(json.load(answer)["child-pid"])
                for name, ranges in (("uid_map", here.uids), ("gid_map", here.gids)):
                    with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as table:
                        table.write(_identity(ranges))
                return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                # Let go on, it ends by itself: there is no such program.
                os.close(release)
                release = -1
    finally:
        for end in (blocked, release, told, tell):
            if end >= 0:
                os.close(end)


def _identity(ranges: tuple[Range, ...]) -> str:
    return "".join(f"{first} {first} {count}\n" for first, _, count in ranges)
