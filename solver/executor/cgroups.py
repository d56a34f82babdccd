"""Control groups by their paths, in whichever hierarchies this machine has mounted (version 1, 2 or both)."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .base import Resources

_REMOVE_SECONDS = 1.0
_REMOVE_PAUSE = 0.005
_V2 = ""


def hierarchies() -> dict[str, Path]:
    """Where each hierarchy is mounted, by controller (`memory`, `name=systemd`); version 2 is `""`."""
    found: dict[str, Path] = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            left, _, right = line.partition(" - ")
            kind = right.split(" ")[0]
            point = Path(left.split(" ")[4])
            if kind == "cgroup2":
                found.setdefault(_V2, point)
            elif kind == "cgroup":
                for option in right.split(" ")[2].strip().split(","):
                    if option not in ("rw", "ro", "xattr"):
                        found.setdefault(option, point)
    return found


def path_of(parent: str, name: str) -> str:
    """The path of a process's own control group below a parent; nothing leads out of the hierarchy."""
    return os.path.normpath(f"/{parent.lstrip('/')}").rstrip("/") + f"/brickyard/{name}"


def make_cgroup(path: str, limits: Resources) -> None:
    """Make a control group with these limits wherever that is possible; where it is not there is no limit."""
    for controller, root in hierarchies().items():
        group = root / path.lstrip("/")
        with suppress(OSError):
            if controller == _V2:
                _make_v2(root, group)
            else:
                group.mkdir(parents=True, exist_ok=True)
            if controller == "cpuset":
                _inherit_cpuset(root, group)
        for name, value in _v2_values(limits) if controller == _V2 else _v1_values(controller, limits):
            _write(group / name, value)


def join(path: str, pid: int) -> None:
    """Put a process into a control group, wherever there is one."""
    for root in {*hierarchies().values()}:
        _write(root / path.lstrip("/") / "cgroup.procs", str(pid))


def _make_v2(root: Path, group: Path) -> None:
    folder = root
    for part in group.relative_to(root).parts:
        _write(folder / "cgroup.subtree_control", "+memory +cpu +cpuset")
        folder /= part
        folder.mkdir(exist_ok=True)


def _inherit_cpuset(root: Path, group: Path) -> None:
    """A version 1 group takes no process before it has processors and memory nodes."""
    folder = root
    for part in group.relative_to(root).parts:
        above, folder = folder, folder / part
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not (folder / name).read_text().strip():
                _write(folder / name, (above / name).read_text().strip())


def _v1_values(controller: str, limits: Resources) -> Iterator[tuple[str, str]]:
    values: dict[str, tuple[tuple[str, int | str], ...]] = {
        "memory": (
            ("memory.limit_in_bytes", limits.memory),
            ("memory.memsw.limit_in_bytes", limits.memory_swap),
        ),
        "cpu": (
            ("cpu.shares", limits.cpu_shares),
            ("cpu.cfs_period_us", limits.cpu_period),
            ("cpu.cfs_quota_us", limits.cpu_quota),
        ),
        "cpuset": (("cpuset.cpus", limits.cpuset_cpus), ("cpuset.mems", limits.cpuset_mems)),
    }
    return ((name, str(value)) for name, value in values.get(controller, ()) if value)


def _v2_values(limits: Resources) -> Iterator[tuple[str, str]]:
    if limits.memory:
        yield "memory.max", str(limits.memory) if limits.memory > 0 else "max"
    if limits.memory_swap:
        # Version 2 counts swap alone.
        more = limits.memory_swap - max(limits.memory, 0)
        yield "memory.swap.max", str(max(more, 0)) if limits.memory_swap > 0 else "max"
    if limits.cpu_shares:
        # From 2…262144 to 1…10000.
        yield "cpu.weight", str(1 + (min(max(limits.cpu_shares, 2), 262144) - 2) * 9999 // 262142)
    if limits.cpu_quota or limits.cpu_period:
        quota = str(limits.cpu_quota) if limits.cpu_quota > 0 else "max"
        yield "cpu.max", f"{quota} {limits.cpu_period or 100000}"
    if limits.cpuset_cpus:
        yield "cpuset.cpus", limits.cpuset_cpus
    if limits.cpuset_mems:
        yield "cpuset.mems", limits.cpuset_mems


def _write(path: Path, value: str) -> None:
    with suppress(OSError):
        path.write_text(value)


def remove_cgroups(path: str) -> None:
    """Remove a control group from every hierarchy, as soon as its processes are gone."""
    end = time.monotonic() + _REMOVE_SECONDS
    for root in {*hierarchies().values()}:
        for folder, _, _ in os.walk(root / path.lstrip("/"), topdown=False):
            _remove(folder, end)


def _remove(folder: str, end: float) -> None:
    while True:
        try:
            os.rmdir(folder)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                return
            time.sleep(_REMOVE_PAUSE)
        else:
            return
