"""Processes of this machine by their ids: what is below one, and the end of all that is."""

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

_ENDED = ("Z", "X")


def children(pid: int) -> list[int]:
    """The processes that a process has started and that are still there."""
    found: list[int] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as listed:
                    found += [int(child) for child in listed.read().split()]
            except FileNotFoundError:
                # A kernel without that file, unless the task has ended meanwhile.
                if os.path.exists(f"/proc/{pid}/task/{task}"):
                    return [number for number in all_processes() if parent(number) == pid]
    return found


def all_processes() -> list[int]:
    """The ids of all processes that can be seen."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def parent(pid: int) -> int:
    """The id of the process above, 0 where there is none."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def command_name(pid: int) -> str:
    """The short name of what a process runs, empty where there is no such process."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def started(pid: int) -> int:
    """When a process started, in clock ticks since the machine did; 0 where it has ended."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in _ENDED else 0


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: what stands before may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().decode("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return []


def send(pid: int, number: int) -> None:
    """Send a signal; no error where the process is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def end_sandbox(monitor: int) -> None:
    """End the processes below one of our own children, that one too where it has none yet.

    It is stopped meanwhile, so that it can't start one unseen; then it goes on, to clean up after them.
    """
    send(monitor, signal.SIGSTOP)
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, monitor, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    below = children(monitor)
    for pid in [*below, *(grandchild for child in below for grandchild in children(child))]:
        send(pid, signal.SIGKILL)
    send(monitor, signal.SIGCONT if below else signal.SIGKILL)


def recorded(status: Path) -> int | None:
    """The first process that bubblewrap has written into a status file, if it is still there."""
    with suppress(OSError, ValueError, KeyError, TypeError, IndexError):
        first = json.loads(status.read_text().splitlines()[0])
        pid = int(first["child-pid"])
        # Its number alone could be another process's by now.
        if started(pid) and os.stat(f"/proc/{pid}/ns/pid").st_ino == first["pid-namespace"]:
            return pid
    return None


def end_recorded(status: Path) -> None:
    """End the sandbox whose first process bubblewrap has written into a status file."""
    pid = recorded(status)
    if pid is not None:
        send(pid, signal.SIGKILL)
