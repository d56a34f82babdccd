"""What a killed process left behind: its sandboxes are ended, and their mounts, control groups and folders removed."""

import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from ..snapshots.mounts import mounted_below
from .cgroups import remove_cgroups
from .mounts import unmount
from .processes import all_processes, children, recorded, send, started


def clean(folder: Path) -> None:
    """Leave nothing of earlier runs in an executor's folder, which no other process uses."""
    runs = folder / "runs"
    names = os.listdir(runs) if runs.is_dir() else []
    if not names:
        return
    for pid in _sandboxes(folder):
        send(pid, signal.SIGKILL)
    for mounted in mounted_below(folder):
        unmount(mounted)
    for name in names:
        with suppress(OSError):
            remove_cgroups((runs / name / "cgroup").read_text())
        shutil.rmtree(folder / "state" / name, ignore_errors=True)
        shutil.rmtree(runs / name, ignore_errors=True)


def _sandboxes(folder: Path) -> list[int]:
    """The monitors, known by the folder in their command lines, and the first processes of the sandboxes."""
    mark = os.fsencode(folder) + b"/"
    monitors = [pid for pid in all_processes() if mark in _command(pid) and pid != os.getpid()]
    first = [child for pid in monitors for child in children(pid)]
    return [*first, *[child for pid in first for child in children(pid)], *_recorded(folder), *monitors]


def _command(pid: int) -> bytes:
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()
    return b""


def _recorded(folder: Path) -> list[int]:
    """First processes whose monitor is gone, from the runtimes' own state: crun's, runc's and ours for bubblewrap."""
    found = [pid for path in folder.glob("runs/*/status") if (pid := recorded(path)) is not None]
    for path in [*folder.glob("state/*/status"), *folder.glob("state/*/state.json")]:
        with suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads(path.read_text())
            pid = int(state.get("pid") or state["init_process_pid"])
            since = int(state.get("process-start-time") or state["init_process_start"])
            if pid > 1 and started(pid) == since:
                found.append(pid)
    return found
