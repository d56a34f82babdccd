"""How crun and runc can be called on this machine: with control groups where they can be made, without where not."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from .base import ExecError, Process
from .ids import standing
from .oci import OCIExecutor, Runtime

_NOT_THERE = "/brickyard-is-there"

# crun refuses to start where control groups of both versions are mounted and the second has controllers.
_HIDE_SECOND = 'umount /sys/fs/cgroup/unified && exec "$0" "$@"'
_HIDE_BOTH = 'mount -t tmpfs none /sys/fs/cgroup && exec "$0" "$@"'


def choose(kind: str, program: str, folder: Path) -> Runtime:
    """The first way of calling a runtime that works. Raises ExecError with the reason of the last."""
    reason = ExecError("it can't be called")
    for runtime in _ways(kind, program):
        try:
            check(OCIExecutor(runtime, folder))
        except ExecError as error:
            reason = error
            continue
        return runtime
    raise reason


def check(executor: OCIExecutor) -> None:
    """Start a program that is not there: whatever else goes wrong is raised as ExecError."""
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        process = Process(args=(_NOT_THERE,), env=(), cwd="/", user="0", rootfs=Path(folder))
        try:
            code = executor.run(process, lambda stream, data: None, threading.Event())
        except ExecError as error:
            if error.exit_code == 127:
                return
            raise
    raise ExecError(f"a program that is not there ended with exit code {code}")


def _ways(kind: str, program: str) -> Iterator[Runtime]:
    here = standing()
    ids = (os.geteuid(), os.getegid())
    if kind == "runc":
        yield Runtime(kind, program, outer_ids=ids, cgroups=here.real_root)
        return
    off = ("--cgroup-manager=disabled",)
    if not _mixed():
        if here.real_root:
            yield Runtime(kind, program, cgroups=True)
        yield Runtime(kind, program, options=off, outer_ids=ids)
        return
    unshare, shell = shutil.which("unshare"), shutil.which("sh")
    if unshare is None or shell is None:
        raise ExecError("control groups of both versions are in use")
    if here.privileged:
        if here.real_root:
            yield Runtime(kind, program, (unshare, "--mount", shell, "-c", _HIDE_SECOND), cgroups=True)
        yield Runtime(kind, program, (unshare, "--mount", shell, "-c", _HIDE_BOTH), off)
        return
    yield Runtime(kind, program, (unshare, "--user", "--map-root-user", "--mount", shell, "-c", _HIDE_BOTH), off)


def _mixed() -> bool:
    try:
        with open("/sys/fs/cgroup/unified/cgroup.controllers", encoding="ascii") as listed:
            return bool(listed.read().strip())
    except OSError:
        return False
