"""Processes run by bubblewrap, which needs nothing but user namespaces, and not even those as root.

What differs from an OCI runtime: a process never gains privileges by a set-user-id program or by capabilities of a
file, because bubblewrap always sets `no_new_privs`; device files are only names; without root every id is the caller's
own.

As root, a user other than root gets a user namespace in which every id is itself and which bubblewrap enters as that
user (see namespaces.py): so it can mount, and the process is that user's from its start.
"""

import json
import os
import shutil
import stat
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...llb.ops import NetMode, SecurityMode
from . import seccomp
from .base import BindMount, ExecError, Process, Resources, Running
from .cgroups import join, make_cgroup, path_of, remove_cgroups
from .confinement import CAPABILITIES, MASKED, READONLY, own_capabilities
from .explain import explain
from .ids import standing
from .limits import can_raise, options, set_ulimits
from .namespaces import UserNamespaces, entrance
from .prepared import Prepared, prepare, remove
from .processes import end_recorded
from .running import Child
from .spec import INSECURE_DEVICES, environment
from .streams import Streams
from .users import User

_NOT_THERE = "/brickyard-is-there"
_SHM_SIZE = 64 << 20


class BubblewrapExecutor:
    """The executor over bubblewrap; `folder` holds a folder for each running process."""

    name = "bwrap"

    def __init__(self, program: str, folder: Path) -> None:
        if not seccomp.has_program():
            raise ExecError("there is no seccomp program for this machine's architecture")
        self._program = program
        self._folder = folder
        self._namespaces = UserNamespaces()
        self._lock = threading.Lock()
        self._shared_copy: str | None = None

    def check(self) -> None:
        """Start a program that is not there. Raises ExecError where anything else goes wrong."""
        import tempfile

        with tempfile.TemporaryDirectory(prefix="probe-") as folder:
            process = Process(args=(_NOT_THERE,), env=(), cwd="/", user="0", rootfs=Path(folder))
            try:
                code = self.run(process, lambda stream, data: None, threading.Event())
            except ExecError as error:
                if error.exit_code == 127:
                    return
                raise
        raise ExecError(f"a program that is not there ended with exit code {code}")

    def start(self, process: Process, output: Callable[[int, bytes], None], *, stdin: bool = False) -> Running:
        """See Executor."""
        child = self._start(process, output, stdin)
        child.begin()
        return child

    def run(self, process: Process, output: Callable[[int, bytes], None], cancel: threading.Event) -> int:
        """See Executor."""
        return self._start(process, output, False).pump(cancel)

    def _start(self, process: Process, output: Callable[[int, bytes], None], stdin: bool) -> Child:
        sandbox = _Sandbox(self._folder / "runs" / os.urandom(8).hex())
        with ExitStack() as unless_started, ExitStack() as opened:
            unless_started.callback(sandbox.remove)
            user, arguments = sandbox.prepare(process)
            identity = self._become(user)
            arguments = [*identity.arguments, *_capabilities(process, user, identity), *arguments]
            status = os.open(sandbox.status, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            opened.callback(os.close, status)
            passed = [status, *identity.passed]
            if process.security is not SecurityMode.INSECURE:
                filters = opened.enter_context(_memory(seccomp.program(frozenset(CAPABILITIES))))
                arguments += ["--seccomp", str(filters)]
                passed.append(filters)
            gate = opened.enter_context(_Gate()) if sandbox.cgroup or (process.ulimit and can_raise()) else None
            if gate is not None:
                arguments += ["--block-fd", str(gate.wait), "--info-fd", str(gate.tell)]
                passed += [gate.wait, gate.tell]
            told = opened.enter_context(_memory(b"".join(os.fsencode(word) + b"\0" for word in arguments)))
            # The folder's name in the command line is how the sandbox is found again when we are killed. All else,
            # above all the environment, is nobody's business.
            mark = ["--ro-bind-try", str(sandbox.path / "none"), "/none", "--json-status-fd", str(status)]
            streams = Streams(tty=process.tty, stdin=stdin)
            if identity.enter is not None:
                streams.give(user.uid, user.gid)
            child = Child(
                [
                    *_with_terminal(streams.terminal_name),
                    *_lowered(process),
                    *(identity.program, *mark, "--args", str(told), "--", *process.args),
                ],
                streams,
                output,
                sandbox.ended,
                runtime="bwrap",
                environment={"PATH": os.environ.get("PATH", os.defpath)},
                pass_fds=[*passed, told],
                enter=identity.enter,
            )
            unless_started.pop_all()
            if gate is not None:
                _let_through(gate, child, process, sandbox.cgroup)
        return child

    def _become(self, user: User) -> "_Identity":
        here = standing()
        if not here.can_become(user.uid, user.gid):
            arguments = ("--unshare-user", "--uid", str(user.uid), "--gid", str(user.gid))
            return _Identity(self._program, arguments)
        groups = here.groups(user.groups)
        if user.uid != 0:
            pair = self._namespaces.get(self._for_others(), user.uid)
            enter = entrance(user.uid, user.gid, groups, pair.outer)
            return _Identity(self._for_others(), ("--userns", str(pair.inner)), (pair.inner,), enter)
        if user.gid == os.getegid() and {*groups} == {*os.getgroups(), user.gid}:
            return _Identity(self._program)
        return _Identity(self._program, enter=entrance(0, user.gid, groups if here.sets_groups else None))

    def _for_others(self) -> str:
        """The program where every user can start it: a copy, if it is in somebody's private folder."""
        with self._lock:
            if self._shared_copy is None:
                self._shared_copy = self._program if _is_open(Path(self._program)) else self._copy()
            return self._shared_copy

    def _copy(self) -> str:
        import tempfile

        folder = Path(tempfile.mkdtemp(prefix="brickyard-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        package = Path(self._program).parent.parent
        copy = folder / package.name / "_bin" / "bwrap"
        copy.parent.mkdir(parents=True)
        shutil.copy(self._program, copy)
        # The Python package has the one library that is not on every machine beside it.
        libraries = package.parent / f"{package.name}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, folder / libraries.name)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        return str(copy)


def _is_open(program: Path) -> bool:
    """Whether every user can reach and start a program."""
    with suppress(OSError):
        return all(path.stat().st_mode & stat.S_IXOTH for path in (program, *program.parents))
    return False


@dataclass(frozen=True, slots=True)
class _Identity:
    """How bubblewrap is started for a user: its arguments and open files for that, and what comes before it."""

    program: str
    arguments: tuple[str, ...] = ()
    passed: tuple[int, ...] = ()
    enter: Callable[[], None] | None = None


def _capabilities(process: Process, user: User, identity: _Identity) -> list[str]:
    new_namespace = bool(identity.arguments)
    if process.security is SecurityMode.INSECURE:
        return ["--cap-add", "ALL"] if new_namespace else []
    if user.uid != 0:
        return ["--cap-drop", "ALL"]
    kept = CAPABILITIES if new_namespace else [name for name in CAPABILITIES if name in own_capabilities()]
    return ["--cap-drop", "ALL", *(word for name in kept for word in ("--cap-add", name))]


def _with_terminal(name: str) -> list[str]:
    """The start of a command line that makes a terminal the one of the session.

    A shell that opens it as the leader of a session that has none yet does that.
    """
    return ["/bin/sh", "-c", ': 0<>"$0"; exec "$@"', name] if name else []


def _lowered(process: Process) -> list[str]:
    """The start of a command line that lowers limits, where we may not change those of another user's process."""
    if not process.ulimit or can_raise():
        return []
    found = shutil.which("prlimit")
    if found is None:
        raise ExecError("ulimits need the program prlimit here, which is not installed")
    return [found, *options(process.ulimit)]


class _Sandbox:
    """The folder of one process, its arguments, and what is to be taken away after it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.status = path / "status"
        self.cgroup = ""
        self._prepared: Prepared | None = None

    def prepare(self, process: Process) -> tuple[User, list[str]]:
        """Make the places of the mounts; gives the user and bubblewrap's arguments. Raises ExecError."""
        self._prepared = ready = prepare(process, self.path)
        process = ready.process
        if standing().real_root and (process.cgroup_parent or process.resources != Resources()):
            self.cgroup = path_of(process.cgroup_parent, self.path.name)
            (self.path / "cgroup").write_text(self.cgroup)
            make_cgroup(self.cgroup, process.resources)
        return ready.user, _arguments(ready)

    def ended(self, code: int, said: bytes) -> int:
        """Take everything away; gives the exit code, or raises ExecError where there was no process."""
        try:
            exit_code = _exit_code(self.status)
            if exit_code is not None:
                return exit_code
            # Bubblewrap was ended, by a key at the terminal for instance, and what it watched may go on.
            end_recorded(self.status)
            message = said.decode("utf-8", "replace").strip()
            if message.startswith("bwrap: ") and self._prepared is not None:
                message = message.removeprefix("bwrap: ")
                raise explain(message, self._prepared.process.args, "bwrap", self._prepared.rootfs)
            return code
        finally:
            self.remove()

    def remove(self) -> None:
        """Take everything away."""
        if self._prepared is not None:
            self._prepared.tree.close()
        if self.cgroup:
            remove_cgroups(self.cgroup)
        remove(self.path)


def _arguments(ready: Prepared) -> list[str]:
    process = ready.process
    insecure = process.security is SecurityMode.INSECURE
    bind = "--dev-bind" if insecure else "--bind"
    found = ["--unshare-pid", "--as-pid-1", "--unshare-ipc", "--unshare-uts", "--hostname", process.hostname]
    if process.network is NetMode.NONE:
        found.append("--unshare-net")
    if not process.tty:
        found.append("--new-session")
    found += ["--ro-bind" if process.readonly_root else bind, str(ready.rootfs), "/", *_system(insecure)]
    for mount, mode in ready.mounts:
        found += _mount(mount, mode, bind)
    if ready.made_cwd:
        found += ["--dir", f"/{ready.made_cwd}"]
    found += ["--chdir", os.path.normpath(f"/{process.cwd.lstrip('/')}"), "--clearenv"]
    for variable in environment(process, ready.user):
        name, _, value = variable.partition("=")
        found += ["--setenv", name, value]
    return found


def _system(insecure: bool) -> list[str]:
    """The file systems that every process has, and what of them it does not see or can't change."""
    found = ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", str(_SHM_SIZE), "--tmpfs", "/dev/shm"]
    found += ["--perms", "1777", "--dir", "/dev/mqueue", "--mqueue", "/dev/mqueue"]
    if insecure:
        found += ["--dev-bind", "/sys", "/sys"]
        return found + [word for path, *_ in INSECURE_DEVICES for word in ("--dev-bind-try", path, path)]
    found += ["--ro-bind", "/sys", "/sys"]
    for path in MASKED:
        if os.path.isdir(path):
            found += ["--tmpfs", path, "--remount-ro", path]
        elif os.path.exists(path):
            found += ["--dev-bind", "/dev/null", path]
    # Bubblewrap has some of these of its own, but leaves out what only root may write.
    for path in READONLY:
        if os.path.exists(path):
            found += ["--ro-bind", path, path]
    return found


def _mount(mount: BindMount, mode: int, bind: str) -> list[str]:
    place = f"/{mount.dest}"
    if mount.source is not None:
        return ["--ro-bind" if mount.readonly else bind, str(mount.source), place]
    size = ["--size", str(mount.size)] if mount.size else []
    return ["--perms", f"{mode:o}", *size, "--tmpfs", place, *(["--remount-ro", place] if mount.readonly else [])]


def _exit_code(status: Path) -> int | None:
    """The exit code that bubblewrap has written, None where it had no process or was ended itself."""
    for entry in _entries(status):
        if isinstance(code := entry.get("exit-code"), int):
            return code
    return None


def _entries(status: Path) -> list[dict[str, Any]]:
    with suppress(OSError, ValueError):
        return [json.loads(line) for line in status.read_text().splitlines()]
    return []


@contextmanager
def _memory(data: bytes) -> Iterator[int]:
    """An open file in memory, at its start."""
    handle = os.memfd_create("bwrap", os.MFD_CLOEXEC)
    try:
        os.write(handle, data)
        os.lseek(handle, 0, os.SEEK_SET)
        yield handle
    finally:
        os.close(handle)


class _Gate:
    """Two pipes: the process waits at one until it is let through, the other tells its process id."""

    def __init__(self) -> None:
        self.wait, self._open = os.pipe2(os.O_CLOEXEC)
        self._told, self.tell = os.pipe2(os.O_CLOEXEC)

    def __enter__(self) -> "_Gate":
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self.wait, self._open, self._told, self.tell):
            if end >= 0:
                os.close(end)

    def pid(self) -> int | None:
        """The id of the process that waits, None where there is none."""
        os.close(self.tell)
        self.tell = -1
        with suppress(ValueError, KeyError, TypeError), open(os.dup(self._told), encoding="ascii") as answer:
            return int(json.load(answer)["child-pid"])
        return None

    def open(self) -> None:
        """Let it go on."""
        os.write(self._open, b"\0")


def _let_through(gate: _Gate, child: Child, process: Process, cgroup: str) -> None:
    """Limit the process that waits, then let it go on. Raises ExecError."""
    pid = gate.pid()
    if pid is None:
        return
    try:
        set_ulimits(pid, process.ulimit if can_raise() else ())
        if cgroup:
            join(cgroup, pid)
        gate.open()
    except OSError as error:
        child.end()
        with suppress(ExecError):
            child.pump(None)
        raise ExecError(f"cannot limit the process: {error.strerror}") from None
