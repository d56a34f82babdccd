"""Processes run by an OCI runtime, crun or runc, from a bundle that is made for each."""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...llb.ops import SecurityMode
from .base import ExecError, Process, Running
from .cgroups import path_of, remove_cgroups
from .explain import explain
from .ids import standing
from .mounts import bind_nodev, unmount
from .prepared import Prepared, prepare, remove
from .running import Child
from .spec import config
from .streams import Streams

if TYPE_CHECKING:
    import socket

_EXEC_FAILURE = re.compile(r"exec (container process .*`.+`|/.+|failed): .+")


@dataclass(frozen=True, slots=True)
class Runtime:
    """How a runtime is called here.

    `prefix` goes before the program, `options` before its command; `outer_ids` are the ids that a user namespace's
    are mapped to; `cgroups` says whether it can make control groups.
    """

    name: str
    program: str
    prefix: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    outer_ids: tuple[int, int] = (0, 0)
    cgroups: bool = False

    @property
    def root_only(self) -> bool:
        """Whether root is the only user that it makes a user namespace for."""
        return self.name == "runc"

    @property
    def sends_terminal(self) -> bool:
        """Whether it hands a terminal over while it stays in the foreground."""
        return self.name == "crun"


class OCIExecutor:
    """The executor over an OCI runtime; `folder` holds a folder for each running process, and the runtime's state."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self.name = runtime.name
        self._runtime = runtime
        self._folder = folder
        self._state = folder / "state"
        self._state.mkdir(parents=True, exist_ok=True)

    def start(self, process: Process, output: Callable[[int, bytes], None], *, stdin: bool = False) -> Running:
        """See Executor."""
        child = self._start(process, output, stdin)
        child.begin()
        return child

    def run(self, process: Process, output: Callable[[int, bytes], None], cancel: threading.Event) -> int:
        """See Executor."""
        return self._start(process, output, False).pump(cancel)

    def _start(self, process: Process, output: Callable[[int, bytes], None], stdin: bool) -> Child:
        bundle = _Bundle(self._runtime, self._folder / "runs" / os.urandom(8).hex(), self._state)
        try:
            bundle.prepare(process)
            # Crun hands the terminal over; runc keeps it, and copies between it and one of ours.
            console = bundle.console() if process.tty and self._runtime.sends_terminal else None
            return Child(
                bundle.command(),
                Streams(tty=process.tty, stdin=stdin, console=console),
                output,
                bundle.ended,
                runtime=self.name,
                environment=_environment(),
                resized=console is None,
            )
        except BaseException:
            bundle.remove()
            raise


def _environment() -> Mapping[str, str]:
    """The runtime's own: none of ours, which could tell it about sockets and files that are not meant for it."""
    return {"PATH": os.environ.get("PATH", os.defpath)}


class _Bundle:
    """The folder of one process: its config and log, and what is mounted into it."""

    def __init__(self, runtime: Runtime, path: Path, state: Path) -> None:
        self._runtime = runtime
        self._path = path
        self._state = state
        self._log = path / "log"
        self._cgroup = ""
        self._bound: Path | None = None
        self._console: Path | None = None
        self._prepared: Prepared | None = None

    def prepare(self, process: Process) -> None:
        """Write the config, and make the places of the mounts. Raises ExecError."""
        here = standing()
        self._prepared = ready = prepare(process, self._path)
        user, rootfs = ready.user, ready.rootfs
        if self._runtime.root_only and user.uid != 0 and not here.can_become(user.uid, user.gid):
            raise ExecError(f"{self._runtime.name} cannot become uid {user.uid} without root; crun and bwrap can")
        try:
            if self._runtime.cgroups:
                self._cgroup = path_of(process.cgroup_parent, self._path.name)
                (self._path / "cgroup").write_text(self._cgroup)
            elif here.real_root and process.security is not SecurityMode.INSECURE:
                self._bound = self._path / "rootfs"
                self._bound.mkdir()
                bind_nodev(rootfs, self._bound)
                rootfs = self._bound
            form = config(ready.process, user, ready.mounts, rootfs, here, self._runtime.outer_ids, self._cgroup)
            (self._path / "config.json").write_text(json.dumps(form, separators=(",", ":")))
        except OSError as error:
            raise ExecError(f"cannot prepare the process: {error.strerror}") from None

    def console(self) -> "socket.socket":
        """A socket that the runtime sends the terminal to. Raises ExecError."""
        import socket

        self._console = self._path / "console"
        folder = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # The name of a socket has at most 107 characters.
            listener.bind(f"/proc/self/fd/{folder}/{self._console.name}")
            listener.listen(1)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            raise ExecError(f"cannot make a socket for the terminal: {error.strerror}") from None
        finally:
            os.close(folder)
        return listener

    def command(self) -> list[str]:
        """The runtime's command line."""
        runtime = self._runtime
        return [
            *runtime.prefix,
            runtime.program,
            f"--root={self._state}",
            f"--log={self._log}",
            "--log-format=json",
            *runtime.options,
            "run",
            f"--bundle={self._path}",
            *([f"--console-socket={self._console}"] if self._console else []),
            self._path.name,
        ]

    def ended(self, code: int, said: bytes) -> int:
        """Take everything away; gives the exit code, or raises ExecError with what the runtime says of a failure."""
        try:
            failure = _failure(self._log) or (_last_words(said) if code else "")
            if failure and self._prepared is not None:
                raise explain(failure, self._prepared.process.args, self._runtime.name, self._prepared.rootfs)
            return code
        finally:
            self.remove()

    def remove(self) -> None:
        """Take everything away."""
        if self._prepared is not None:
            self._prepared.tree.close()
        if self._bound is not None:
            unmount(self._bound)
            self._bound = None
        # There only where the runtime was killed.
        left = self._state / self._path.name
        if left.exists():
            shutil.rmtree(left, ignore_errors=True)
            if self._cgroup:
                remove_cgroups(self._cgroup)
        remove(self._path)


def _last_words(said: bytes) -> str:
    """What the runtime's half of the new process says itself, when the program is there but can't be started."""
    text = said.decode("utf-8", "replace").strip()
    text = _last_error([text]) or text
    return text if _EXEC_FAILURE.fullmatch(text) else ""


def _failure(log: Path) -> str:
    """The last error of a runtime's log, empty where there is none."""
    with suppress(OSError), open(log, encoding="utf-8", errors="replace") as lines:
        return _last_error(lines)
    return ""


def _last_error(lines: Iterable[str]) -> str:
    failure = ""
    for line in lines:
        with suppress(ValueError, AttributeError):
            entry = json.loads(line)
            if entry.get("level") in ("error", "fatal"):
                failure = str(entry.get("msg", "")) or failure
    return failure
