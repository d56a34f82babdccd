"""The seam to what runs processes: an OCI runtime, or bubblewrap."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...llb.ops import HostIP, NetMode, SecurityMode, Ulimit


class ExecError(Exception):
    """A process that could not be started, or ended by what is no exit code of its own.

    `exit_code` is the shell's for it where it has one: 127 for a program that is not there, 126 for one that can't run.
    """

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class BindMount:
    """Something mounted into a process's file system; `dest` is relative to its root, without `..`.

    `source` is a file or folder of this machine, None for a `tmpfs` of `size` bytes (0: no limit).
    """

    dest: str
    source: Path | None
    readonly: bool = False
    kind: str = "bind"
    size: int = 0


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits of all processes of a sandbox together, as `pb.LinuxResources` has them; 0 and "" are no limit.

    `memory` and `memory_swap` (memory and swap together) are bytes, `cpu_period` and `cpu_quota` microseconds.
    """

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""


@dataclass(frozen=True, slots=True)
class Process:
    """A process and the file system that it sees. `user` is as in a Dockerfile's USER: names are of the rootfs.

    A `cwd` that is not there is made, with the user as its owner. `remove_mount_stubs` also removes the new folders
    above the places of mounts; those places themselves are always removed.
    """

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    rootfs: Path
    mounts: tuple[BindMount, ...] = ()
    hostname: str = ""
    network: NetMode = NetMode.SANDBOX
    security: SecurityMode = SecurityMode.SANDBOX
    extra_hosts: tuple[HostIP, ...] = ()
    ulimit: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    resources: Resources = Resources()
    readonly_root: bool = False
    remove_mount_stubs: bool = False
    tty: bool = False


class Running(Protocol):
    """A process that was started. Calls may come from any thread."""

    def wait(self) -> int:
        """The exit code, 128 + N after signal N, once everything that it wrote was handed on.

        Raises:
            ExecError: where it turns out only now that it could not be started.
        """

    def write(self, data: bytes) -> None:
        """Bytes for standard input."""

    def close_stdin(self) -> None:
        """The end of standard input."""

    def resize(self, rows: int, columns: int) -> None:
        """A new size of the terminal, where it has one."""

    def signal(self, number: int) -> None:
        """Send a signal to the first process."""

    def kill(self) -> None:
        """End every process of the sandbox; what is gone already is no error."""


class Executor(Protocol):
    """Runs processes in a sandbox over a root file system that is mounted already."""

    name: str

    def start(self, process: Process, output: Callable[[int, bytes], None], *, stdin: bool = False) -> Running:
        """Start a process. `output` takes the stream (1 stdout, 2 stderr; a terminal has only 1) and bytes.

        Raises:
            ExecError: where it can't be started, with the reason.
        """

    def run(self, process: Process, output: Callable[[int, bytes], None], cancel: threading.Event) -> int:
        """Start a process, wait for it, and give its exit code; ends it when `cancel` is set.

        Raises:
            ExecError: where it can't be started.
        """
