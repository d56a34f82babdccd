"""What a killed process left behind: its sandboxes are ended, and their mounts, control groups and folders removed."""

import json
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

from ..snapshots.mounts import mounted_below
from .cgroups import remove_cgroups
from .mounts import unmount
from .prepared import active
from .processes import all_processes, children, recorded, send, started

_ROUNDS = 200
_PAUSE = 0.005


def clean(folder: Path) -> None:
    """Leave nothing of earlier runs in an executor's folder, which no other process uses."""
    runs = folder / "runs"
    names = [name for name in os.listdir(runs) if runs / name not in active] if runs.is_dir() else []
    if not names:
        return
    # A runtime that is just starting may have one more process than was seen.
    for _ in range(_ROUNDS):
        found = _sandboxes(folder, names)
        for pid in found:
            send(pid, signal.SIGKILL)
        if not found:
            break
        time.sleep(_PAUSE)
    for name in names:
        for mounted in mounted_below(runs / name):
            unmount(mounted)
    for name in names:
        with suppress(OSError):
            remove_cgroups((runs / name / "cgroup").read_text())
        shutil.rmtree(folder / "state" / name, ignore_errors=True)
        shutil.rmtree(runs / name, ignore_errors=True)


def _sandboxes(folder: Path, names: list[str]) -> list[int]:
    """The monitors, known by a run's folder in their command lines, and the first processes of the sandboxes."""
    marks = [os.fsencode(folder / "runs" / name) + b"/" for name in names]
    commands = {pid: _command(pid) for pid in all_processes() if pid != os.getpid()}
    monitors = [pid for pid, command in commands.items() if any(mark in command for mark in marks)]
    first = [child for pid in monitors for child in children(pid)]
    return [*first, *[child for pid in first for child in children(pid)], *_recorded(folder, names), *monitors]


def _command(pid: int) -> bytes:
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()
    return b""


def _recorded(folder: Path, names: list[str]) -> list[int]:
    """First processes whose monitor is gone: from crun's and runc's own state, and from bubblewrap's words."""
    found = [pid for name in names if (pid := recorded(folder / "runs" / name / "status")) is not None]
    for path in [folder / "state" / name / file for name in names for file in ("status", "state.json")]:
        with suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads(path.read_text())
            pid = int(state.get("pid") or state["init_process_pid"])
            since = int(state.get("process-start-time") or state["init_process_start"])
            if pid > 1 and started(pid) == since:
                found.append(pid)
    return found
