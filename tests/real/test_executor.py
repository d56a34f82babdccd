"""Executors run real processes: crun, runc and bubblewrap, as root and as a plain user, over a busybox file system."""

import codecs
import ctypes
import importlib
import os
import pickle
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from brickyard.llb.ops import HostIP, NetMode, SecurityMode, Ulimit
from brickyard.solver.executor.base import BindMount, ExecError, Executor, Process, Resources
from brickyard.solver.executor.confinement import all_capabilities, own_capabilities
from brickyard.solver.executor.find import find_executor
from brickyard.solver.executor.ids import standing

pytestmark = pytest.mark.real

NOBODY = 65534
COMMANDS = (
    "sh cat chown dd df echo env false grep head hostname id ifconfig ls mkdir mknod mount ping ps readlink rm sleep "
    "stat stty su touch true unshare wc whoami"
).split()
# What the executors import only when they need it, and what a user who can't read our interpreter needs by then.
LATER = "oci runtimes bubblewrap namespaces seccomp bpf syscalls leftovers cgroups ids".split()
SECONDS = 20.0


@dataclass
class Done:
    """What came of a process."""

    code: int
    out: str = ""
    err: str = ""
    seconds: float = 0.0


Body = Callable[[Executor, "Yard"], Any]


@dataclass
class Yard:
    """A file system, an executor's folder, and who uses them."""

    name: str
    uid: int
    folder: Path
    rootfs: Path
    state: Path
    extra: Path
    process: Process = field(init=False)

    def __post_init__(self) -> None:
        self.process = Process(args=("true",), env=(), cwd="/", user="", rootfs=self.rootfs)

    @property
    def is_root(self) -> bool:
        return self.uid == 0

    def call(self, body: Body) -> Any:
        """Call something with the executor, as this yard's user."""
        if self.is_root:
            return body(find_executor(self.name, self.state), self)
        return in_child(
            lambda: become(self.uid), lambda: body(find_executor(self.name, self.state), self), lambda child: None
        )

    def run(self, *args: str, **fields: Any) -> Done:
        """Run a process to its end."""
        process = replace(self.process, **({"args": args} | fields))
        return self.call(lambda executor, yard: run(executor, process))

    def sh(self, script: str, **fields: Any) -> Done:
        """Run a script to its end."""
        return self.run("sh", "-c", script, **fields)

    def write(self, path: str, text: str = "", mode: int = 0o644) -> Path:
        """A file of the root file system."""
        file = self.rootfs / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        self.give(self.rootfs)
        return file

    def give(self, path: Path) -> None:
        """Let this yard's user own a tree."""
        for name in (path, *path.rglob("*")):
            os.chown(name, self.uid, self.uid, follow_symlinks=False)

    def nothing_is_left(self) -> bool:
        """Whether no process, mount, folder or control group of a run is there any more."""
        runs, kept = self.state / "runs", self.state / "state"
        folders = [*(runs.iterdir() if runs.is_dir() else []), *(kept.iterdir() if kept.is_dir() else [])]
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.folder) in line]
        return not folders and not mounts and not self.processes()

    def processes(self) -> list[int]:
        """The monitors, and what runs in this yard's file system."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes()
                roots = (entry / "mountinfo").read_text().splitlines()[:1]
            except (OSError, ValueError):
                continue
            if str(self.state).encode() in words or any(str(self.rootfs) in line.split(" ")[3] for line in roots):
                found.append(int(entry.name))
        return [pid for pid in found if pid != os.getpid()]


def program(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (tests/real/components.py install)")
    return found


def run(executor: Executor, process: Process, cancel: threading.Event | None = None) -> Done:
    out: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
    begin = time.monotonic()
    code = executor.run(process, lambda stream, data: out[stream].extend(data), cancel or threading.Event())
    return Done(code, out[1].decode(), out[2].decode(), time.monotonic() - begin)


def become(uid: int) -> None:
    """Be a plain user from now on."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    forget_who_we_are()


def forget_who_we_are() -> None:
    for known in (standing, own_capabilities, all_capabilities):
        known.cache_clear()


def in_child(prepare: Callable[[], None], body: Callable[[], Any], meanwhile: Callable[[int], None]) -> Any:
    """Call something in a child process; what it gives or raises comes back.

    `meanwhile` is called with the child's id in this process, before the child begins.
    """
    read, write = os.pipe()
    waits, starts = os.pipe()
    ready, tells = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            prepare()
            os.write(tells, b"x")
            os.read(waits, 1)
            forget_who_we_are()
            try:
                answer = pickle.dumps((True, body()))
            except (ExecError, AssertionError) as error:
                answer = pickle.dumps((False, error))
            except BaseException as error:
                answer = pickle.dumps((False, AssertionError(f"{type(error).__name__}: {error}")))
            with open(write, "wb") as file:
                file.write(answer)
        finally:
            os._exit(0)
    os.close(write)
    os.read(ready, 1)
    meanwhile(child)
    os.write(starts, b"x")
    for end in (waits, starts, ready, tells):
        os.close(end)
    with open(read, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    good, answer = pickle.loads(data)
    if not good:
        raise answer
    return answer


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can run these as every user")
    busybox = program("busybox")
    for name in LATER:
        importlib.import_module(f"brickyard.solver.executor.{name}")
    for name in ("ascii", "utf-8", "latin-1", "unicode_escape", "idna"):
        codecs.lookup(name)
    pwd.getpwuid(0)
    # Not pytest's own folder, which only its owner can enter.
    folder = Path(tempfile.mkdtemp(prefix="brickyard-test-"))
    folder.chmod(0o755)
    shutil.copy(busybox, folder / "busybox")
    yield folder
    shutil.rmtree(folder)


def make_yard(base: Path, name: str, uid: int) -> Yard:
    if name != "bwrap":
        program(name)
    folder = Path(tempfile.mkdtemp(dir=base))
    folder.chmod(0o755)
    yard = Yard(name, uid, folder, folder / "rootfs", folder / "state", folder / "extra")
    (yard.rootfs / "bin").mkdir(parents=True)
    os.link(base / "busybox", yard.rootfs / "bin" / "busybox")
    for command in COMMANDS:
        (yard.rootfs / "bin" / command).symlink_to("busybox")
    for path in (yard.state, yard.extra):
        path.mkdir()
    for path in (folder, yard.rootfs, yard.state, yard.extra):
        yard.give(path)
    return yard


@pytest.fixture(params=["crun-root", "runc-root", "bwrap-root", "crun-user", "runc-user", "bwrap-user"])
def yard(request: pytest.FixtureRequest, base: Path) -> Iterator[Yard]:
    name, who = request.param.split("-")
    made = make_yard(base, name, 0 if who == "root" else NOBODY)
    yield made
    assert made.nothing_is_left()
    shutil.rmtree(made.folder)


@pytest.fixture(params=["crun", "runc", "bwrap"])
def root_yard(request: pytest.FixtureRequest, base: Path) -> Iterator[Yard]:
    made = make_yard(base, request.param, 0)
    yield made
    assert made.nothing_is_left()
    shutil.rmtree(made.folder)


def test_output_and_exit_code(yard: Yard) -> None:
    done = yard.sh("echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")
    assert yard.run("true").code == 0


def test_nothing_written_is_lost(yard: Yard) -> None:
    def body(executor: Executor, yard: Yard) -> tuple[int, int, int]:
        counts = {1: 0, 2: 0}

        def output(stream: int, data: bytes) -> None:
            counts[stream] += len(data)

        script = "head -c 9000000 /dev/zero; head -c 3000000 /dev/zero >&2; echo end"
        code = executor.run(replace(yard.process, args=("sh", "-c", script)), output, threading.Event())
        return code, counts[1], counts[2]

    assert yard.call(body) == (0, 9000004, 3000000)


def test_what_runs_in_the_background_ends_with_the_process(yard: Yard) -> None:
    done = yard.sh("sleep 1000 & echo up")
    assert (done.code, done.out) == (0, "up\n")
    assert done.seconds < SECONDS / 2


@pytest.mark.parametrize(
    ("command", "message", "code"),
    [
        (["no-such"], 'exec: "no-such": executable file not found in $PATH', 127),
        (["/no/such"], 'exec: "/no/such": no such file or directory', 127),
        (["/plain"], 'exec: "/plain": permission denied', 126),
        (["/bin"], 'exec: "/bin": permission denied', 126),
        (["/script"], 'exec: "/script": its interpreter or dynamic loader is not in the root file system', 127),
    ],
)
def test_a_program_that_cannot_be_started(yard: Yard, command: list[str], message: str, code: int) -> None:
    yard.write("plain", "text")
    yard.write("script", "#!/no/interpreter\n", 0o755)

    def body(executor: Executor, yard: Yard) -> tuple[str, int | None, list[bytes]]:
        said: list[bytes] = []
        process = replace(yard.process, args=tuple(command))
        with pytest.raises(ExecError) as caught:
            executor.run(process, lambda stream, data: said.append(data), threading.Event())
        return str(caught.value), caught.value.exit_code, said

    assert yard.call(body) == (message, code, [])


def test_the_first_words_of_a_process_are_its_own(yard: Yard) -> None:
    done = yard.sh("echo 'bwrap: execvp x: No such file or directory' >&2; exit 1")
    assert (done.code, done.err) == (1, "bwrap: execvp x: No such file or directory\n")


def test_cancel_ends_everything_at_once(yard: Yard) -> None:
    def body(executor: Executor, yard: Yard) -> Done:
        cancel = threading.Event()
        process = replace(yard.process, args=("sh", "-c", "trap '' TERM INT; sleep 1000 & echo up; sleep 1000"))
        begin: list[float] = []

        def output(stream: int, data: bytes) -> None:
            begin.append(time.monotonic())
            cancel.set()

        code = executor.run(process, output, cancel)
        return Done(code, seconds=time.monotonic() - begin[0])

    done = yard.call(body)
    assert done.code == 128 + signal.SIGKILL
    assert done.seconds < 1


def test_kill_at_any_moment_leaves_nothing(yard: Yard) -> None:
    def body(executor: Executor, yard: Yard) -> list[float]:
        taken = []
        for wait in (0, 0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032):
            running = executor.start(replace(yard.process, args=("sleep", "1000")), lambda stream, data: None)
            threading.Event().wait(wait)
            begin = time.monotonic()
            running.kill()
            running.kill()
            assert running.wait() == 128 + signal.SIGKILL
            taken.append(time.monotonic() - begin)
        return taken

    assert max(yard.call(body)) < SECONDS / 2


def test_signals_reach_the_process(yard: Yard) -> None:
    def body(executor: Executor, yard: Yard) -> tuple[int, bytes]:
        said = bytearray()
        ready = threading.Event()

        def output(stream: int, data: bytes) -> None:
            said.extend(data)
            ready.set()

        script = "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
        running = executor.start(replace(yard.process, args=("sh", "-c", script)), output)
        assert ready.wait(SECONDS)
        running.signal(signal.SIGTERM)
        code = running.wait()
        running.signal(signal.SIGTERM)
        running.kill()
        return code, bytes(said)

    assert yard.call(body) == (5, b"ready\ngot\n")


def test_standard_input(yard: Yard) -> None:
    def body(executor: Executor, yard: Yard) -> tuple[int, bytes]:
        said = bytearray()
        running = executor.start(
            replace(yard.process, args=("cat",)), lambda stream, data: said.extend(data), stdin=True
        )
        running.write(b"one ")
        running.write(b"two " * 50_000)
        running.close_stdin()
        running.close_stdin()
        code = running.wait()
        running.write(b"too late")
        return code, bytes(said)

    assert yard.call(body) == (0, b"one " + b"two " * 50_000)
    assert yard.run("cat").out == ""


def test_a_process_that_does_not_read_does_not_keep_its_writer(yard: Yard) -> None:
    def body(executor: Executor, yard: Yard) -> int:
        process = replace(yard.process, args=("sh", "-c", "exec <&-; echo up; exit 4"))
        running = executor.start(process, lambda stream, data: None, stdin=True)
        running.write(b"x" * 1_000_000)
        return running.wait()

    assert yard.call(body) == 4


class Terminal:
    """A process at a terminal; it is ended with the block."""

    def __init__(self, executor: Executor, process: Process) -> None:
        self.said = bytearray()
        self.streams: set[int] = set()
        self._heard = threading.Condition()
        self.running = executor.start(replace(process, tty=True), self._output, stdin=True)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.running.kill()

    def _output(self, stream: int, data: bytes) -> None:
        with self._heard:
            self.streams.add(stream)
            self.said.extend(data)
            self._heard.notify_all()

    def heard(self, condition: Callable[[], bool], seconds: float) -> bool:
        with self._heard:
            return self._heard.wait_for(condition, seconds)

    def expect(self, words: bytes) -> None:
        assert self.heard(lambda: words in self.said, SECONDS), bytes(self.said)

    def type(self, words: bytes) -> None:
        self.running.write(words)


def test_terminal(yard: Yard) -> None:
    script = (
        "test -t 0 && test -t 1 && test -t 2 && echo tty $TERM;"
        'until test "$(stty size 2>/dev/null)" = "33 99"; do sleep 0.02; done; echo sized; read a; echo got $a; cat'
    )

    def body(executor: Executor, yard: Yard) -> tuple[int, bytes, set[int]]:
        with Terminal(executor, replace(yard.process, args=("sh", "-c", script))) as terminal:
            terminal.expect(b"tty xterm\r\n")
            terminal.running.resize(33, 99)
            terminal.expect(b"sized\r\n")
            terminal.type(b"word\n")
            terminal.expect(b"got word\r\n")
            terminal.running.close_stdin()
            return terminal.running.wait(), bytes(terminal.said), terminal.streams

    assert yard.call(body) == (0, b"tty xterm\r\nsized\r\nword\r\ngot word\r\n", {1})


def test_a_shell_at_a_terminal_has_its_keys(yard: Yard) -> None:
    def body(executor: Executor, yard: Yard) -> tuple[int, bytes]:
        with Terminal(executor, replace(yard.process, args=("sh", "-i"), env=("PS1=prompt ",))) as terminal:
            terminal.expect(b"prompt ")
            terminal.type(b"echo u''p; sleep 1000\n")
            terminal.expect(b"up\r\n")
            prompts = terminal.said.count(b"prompt ")
            for _ in range(100):
                # The shell may not have started the command yet.
                terminal.type(b"\x03")
                if terminal.heard(lambda: terminal.said.count(b"prompt ") > prompts, 0.1):
                    break
            terminal.type(b"echo st''ill\n")
            terminal.expect(b"still\r\n")
            terminal.type(b"exit 7\n")
            return terminal.running.wait(), bytes(terminal.said)

    code, said = yard.call(body)
    assert code == 7
    assert b"job control" not in said


def test_a_listener_that_fails_ends_the_process(yard: Yard) -> None:
    def body(executor: Executor, yard: Yard) -> float:
        begin = time.monotonic()

        def output(stream: int, data: bytes) -> None:
            raise ConnectionError("gone")

        with pytest.raises(ConnectionError):
            executor.run(replace(yard.process, args=("sh", "-c", "echo; sleep 1000")), output, threading.Event())
        return time.monotonic() - begin

    assert yard.call(body) < SECONDS / 2


PASSWD = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001:Bob:/home/bob:/bin/sh\n"
GROUP = "root:x:0:\nbob:x:1001:\naudio:x:29:bob,root\nvideo:x:44:bob\n"


@pytest.mark.parametrize(
    ("user", "ids", "home"),
    [
        ("", "0 0 0 29", "/root"),
        ("root", "0 0 0 29", "/root"),
        ("bob", "1000 1001 29 44 1001", "/home/bob"),
        ("1000", "1000 1001 29 44 1001", "/home/bob"),
        ("bob:video", "1000 44 44", "/home/bob"),
        ("1000:77", "1000 77 77", "/home/bob"),
        ("4321", "4321 0 0", "/"),
        ("4321:4321", "4321 4321 4321", "/"),
    ],
)
def test_users(root_yard: Yard, user: str, ids: str, home: str) -> None:
    root_yard.write("etc/passwd", PASSWD)
    root_yard.write("etc/group", GROUP)
    done = root_yard.sh("echo $(id -u) $(id -g) $(grep ^Groups: /proc/self/status | cut -f2); echo $HOME", user=user)
    groups = ids.split()
    found, where = done.out.splitlines()
    assert found.split()[:2] == groups[:2]
    assert sorted(found.split()[2:]) == sorted(groups[2:])
    assert where == home


def test_a_plain_user_can_be_any_one_user(yard: Yard) -> None:
    yard.write("etc/passwd", PASSWD)
    if yard.name == "runc" and not yard.is_root:
        with pytest.raises(ExecError, match="runc cannot become uid 1000 without root; crun and bwrap can"):
            yard.run("id", user="bob")
        return
    done = yard.sh("whoami; echo $HOME; touch /new/f && stat -c %U /new /new/f", user="bob", cwd="/new")
    assert done.out == "bob\n/home/bob\nbob\nbob\n"
    owner = (yard.rootfs / "new/f").stat().st_uid
    assert owner == (1000 if yard.is_root else NOBODY)


def test_an_unknown_user_is_refused(yard: Yard) -> None:
    with pytest.raises(ExecError, match="unable to find user eve: no matching entries in passwd file"):
        yard.run("true", user="eve")


def test_a_folder_that_is_not_there_is_made_for_the_user(root_yard: Yard) -> None:
    root_yard.write("etc/passwd", PASSWD)
    (root_yard.rootfs / "link").symlink_to("/far/away")
    done = root_yard.sh("pwd -P; stat -c '%u %g %a' . .. /far", user="bob", cwd="/link/here")
    assert done.out == "/far/away/here\n" + "1000 0 755\n" * 3 or done.out == "/far/away/here\n" + "1000 1001 755\n" * 3


def test_outputs_can_be_opened_again_by_every_user(yard: Yard) -> None:
    if yard.name == "runc" and not yard.is_root:
        return
    done = yard.sh("echo out > /dev/stdout; echo err > /proc/self/fd/2", user="1000:1000")
    assert (done.code, done.out, done.err) == (0, "out\n", "err\n")


def test_a_process_has_no_open_files_but_its_own(yard: Yard) -> None:
    user = "" if yard.name == "runc" and not yard.is_root else "1000:1000"
    for who in {user, ""}:
        done = yard.sh("cd /proc/self/fd; for f in *; do readlink $f; done", user=who, ulimit=(Ulimit("core", 0, 0),))
        # Bubblewrap leaves the user namespace open that the process is in, which is of no use to it.
        known = ("pipe:", "/dev/null", "/proc/", *(["user:"] if yard.name == "bwrap" else []))
        assert [name for name in done.out.splitlines() if not name.startswith(known)] == []


def test_other_processes_of_a_user_cannot_enter(root_yard: Yard) -> None:
    """A user of this machine with the number of a USER gains nothing by it."""
    ready = threading.Event()
    executor = find_executor(root_yard.name, root_yard.state)
    process = replace(root_yard.process, args=("sh", "-c", "echo up; cat"), user="1000:1000")
    running = executor.start(process, lambda stream, data: ready.set(), stdin=True)
    assert ready.wait(SECONDS)
    libc = ctypes.CDLL(None, use_errno=True)
    processes = root_yard.processes()
    own = os.stat("/proc/self/ns/user").st_ino

    def enter() -> list[str]:
        entered = []
        for pid in processes:
            try:
                handle = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
            except OSError:
                continue
            if os.fstat(handle).st_ino != own and libc.setns(handle, 0x10000000) == 0:
                entered.append(os.readlink(f"/proc/{pid}/exe"))
        return entered

    try:
        assert processes
        assert in_child(lambda: become(1000), enter, lambda child: None) == []
    finally:
        running.close_stdin()
        running.wait()


def test_environment(yard: Yard) -> None:
    done = yard.run("env", env=("A=1", "B=two words\nand a line", "A=3"))
    found = set(done.out.replace("PWD=/\n", "").splitlines())
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert found == {"A=3", "B=two words", "and a line", "HOME=/", path}
    done = yard.sh("echo $PATH $HOME", env=("PATH=/bin", "HOME=/h"))
    assert done.out == "/bin /h\n"


def test_the_environment_is_not_in_a_command_line(yard: Yard) -> None:
    def body(executor: Executor, yard: Yard) -> list[bytes]:
        seen: list[bytes] = []

        def output(stream: int, data: bytes) -> None:
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.append(entry.read_bytes())
                except OSError:
                    continue

        process = replace(yard.process, args=("sh", "-c", "echo"), env=("TOKEN=hush-hush",))
        executor.run(process, output, threading.Event())
        return [words for words in seen if b"hush-hush" in words]

    assert yard.call(body) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"env": ("A=1\0--bind\0/\0/host",)}, "a NUL character in the variable 'A=1"),
        ({"args": ("echo", "a\0b")}, "a NUL character in the argument"),
        ({"cwd": "/a\0b"}, "a NUL character in the path"),
        ({"hostname": "a\0b"}, "a NUL character in the name"),
        ({"extra_hosts": (HostIP("a\nb", "1.2.3.4"),)}, "a line break in the host"),
        ({"args": ()}, "the process has no program"),
        ({"rootfs": Path("/no/such/folder")}, "cannot use the root file system: No such file or directory"),
    ],
)
def test_words_that_are_refused(root_yard: Yard, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ExecError, match=message):
        root_yard.run("true", **fields)


def listing(root: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in (root, *sorted(root.rglob("*"))):
        there = path.lstat()
        found[str(path.relative_to(root))] = (there.st_mode, there.st_mtime_ns)
    return found


def test_hosts_and_name_servers_leave_no_trace(yard: Yard) -> None:
    yard.write("etc/passwd", PASSWD)
    for name in ("proc", "dev", "sys"):
        (yard.rootfs / name).mkdir()
    yard.give(yard.rootfs)
    for path in (yard.rootfs / "etc", yard.rootfs):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    before = listing(yard.rootfs)
    script = "hostname; cat /etc/hosts; test -e /etc/resolv.conf; echo x > /etc/hosts || echo kept"
    done = yard.sh(script, hostname="wall", extra_hosts=(HostIP("brick", "10.1.2.3"), HostIP("six", "fe80::1")))
    assert done.out == (
        "wall\n127.0.0.1\tlocalhost wall\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        "10.1.2.3\tbrick\nfe80::1\tsix\nkept\n"
    )
    assert listing(yard.rootfs) == before
    assert yard.run("hostname").out == "buildkitsandbox\n"


def test_places_of_mounts_leave_no_trace(yard: Yard) -> None:
    (yard.extra / "file").write_text("hello")
    yard.give(yard.extra)
    mounts = (
        BindMount("a/b/c", yard.extra),
        BindMount("a/b/d", yard.extra / "file", readonly=True),
        BindMount("a/t", None),
    )
    done = yard.sh("cat /a/b/c/file /a/b/d; echo made > /a/b/c/made; echo also > /a/made", mounts=mounts)
    assert (done.code, done.out) == (0, "hellohello")
    assert sorted(os.listdir(yard.rootfs / "a")) == ["b", "made"]
    assert os.listdir(yard.rootfs / "a/b") == []
    assert (yard.extra / "made").read_text() == "made\n"
    mounts = (BindMount("x/y/z", yard.extra), BindMount("x/t", None), BindMount("dev/shm", None, size=4096 * 4))
    assert yard.sh("df -k /dev/shm | grep -q ' 16 '", mounts=mounts, remove_mount_stubs=True).code == 0
    assert not (yard.rootfs / "x").exists()


def test_read_only_mounts(yard: Yard) -> None:
    (yard.extra / "below").mkdir()
    (yard.extra / "file").write_text("hello")
    yard.give(yard.extra)
    mounts = (BindMount("m", yard.extra, readonly=True), BindMount("f", yard.extra / "file", readonly=True))
    done = yard.sh(
        "for f in /m/x /m/below/x /f; do (echo x > $f) 2>/dev/null && echo bad; done; grep -E ' /(m|f) ' /proc/mounts",
        mounts=mounts,
    )
    lines = done.out.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert {"ro", "nosuid", "nodev"} <= {*line.split(" ")[3].split(",")}


def test_read_only_mounts_are_so_all_the_way_down(root_yard: Yard) -> None:
    below = root_yard.extra / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", below], check=True)
    try:
        done = root_yard.sh(
            "(echo x > /m/below/x) 2>/dev/null; echo $?", mounts=(BindMount("m", root_yard.extra, readonly=True),)
        )
    finally:
        subprocess.run(["umount", below], check=True)
    assert done.out == "1\n"


def test_tmpfs(yard: Yard) -> None:
    (yard.rootfs / "there").mkdir(mode=0o750)
    yard.give(yard.rootfs)
    mounts = (BindMount("t", None, size=1 << 20), BindMount("there", None), BindMount("ro", None, readonly=True))
    done = yard.sh(
        "stat -c %a /t /there; df -k /t | grep -o '  1024  ' | head -1; dd if=/dev/zero of=/t/x bs=1k count=2000 2>&1 |"
        " grep -o 'No space'; (touch /ro/x) 2>/dev/null || echo ro",
        mounts=mounts,
    )
    assert [line.strip() for line in done.out.splitlines()] == ["1777", "750", "1024", "No space", "ro"]


def test_mounts_over_and_in_mounts(yard: Yard) -> None:
    (yard.extra / "one/inner").mkdir(parents=True)
    (yard.extra / "two").mkdir()
    (yard.extra / "one/inner/name").write_text("one")
    (yard.extra / "two/name").write_text("two")
    yard.give(yard.extra)
    mounts = (
        BindMount("m", yard.extra / "one"),
        BindMount("m/inner", yard.extra / "two"),
        BindMount("m/new/deep", yard.extra / "two"),
        BindMount("t", None),
        BindMount("t/a/b", yard.extra / "two"),
        BindMount("etc/hosts", yard.extra / "two/name"),
    )
    done = yard.sh("cat /m/inner/name /m/new/deep/name /t/a/b/name /etc/hosts", mounts=mounts, cwd="/t/work/here")
    assert (done.code, done.out) == (0, "twotwotwotwo")


def test_a_mount_never_leaves_the_root_file_system(yard: Yard) -> None:
    outside = yard.folder / "outside"
    outside.mkdir()
    yard.give(outside)
    (yard.rootfs / "etc").symlink_to(outside)
    (yard.rootfs / "up").symlink_to("../../../../../../" + str(outside).lstrip("/"))
    (yard.rootfs / "sly").symlink_to("/oldroot" + str(outside))
    yard.give(yard.rootfs)
    mounts = (BindMount("up/m", yard.extra), BindMount("sly/m", yard.extra), BindMount("up/f", Path("/etc/passwd")))
    done = yard.sh("ls -d /up/m /sly/m", mounts=mounts, cwd="/up/work")
    assert done.code == 0
    assert os.listdir(outside) == []
    assert (yard.rootfs / str(outside).lstrip("/") / "work").is_dir()


@pytest.mark.parametrize("name", ["proc", "dev", "sys"])
def test_system_folders_must_be_folders(yard: Yard, name: str) -> None:
    (yard.rootfs / name).symlink_to("/tmp")
    with pytest.raises(ExecError, match=f"/{name} of the root file system is a symbolic link"):
        yard.run("true")


def test_a_source_that_is_not_there(yard: Yard) -> None:
    with pytest.raises(ExecError, match="cannot mount at /m: No such file or directory"):
        yard.run("true", mounts=(BindMount("m", yard.extra / "nothing"),))


def test_a_folder_over_a_file_is_refused(yard: Yard) -> None:
    yard.write("file")
    with pytest.raises(ExecError, match="cannot make /file in the container"):
        yard.run("true", mounts=(BindMount("file", yard.extra),))


def test_read_only_root(yard: Yard) -> None:
    done = yard.sh(
        "(touch /x) 2>/dev/null || echo no; touch /m/x /tmp/x && echo yes",
        readonly_root=True,
        mounts=(BindMount("m", yard.extra), BindMount("tmp", None)),
        cwd="/made",
    )
    assert done.out == "no\nyes\n"


def test_networks(yard: Yard) -> None:
    ours = {line.split(":")[0].strip() for line in Path("/proc/self/net/dev").read_text().splitlines()[2:]}
    script = "cat /proc/net/dev; ping -c 1 -W 5 127.0.0.1 > /dev/null && echo pong"
    if not yard.is_root:
        script = "cat /proc/net/dev; ifconfig lo | grep -o UP"
    done = yard.sh(script, network=NetMode.NONE)
    assert [line.split(":")[0].strip() for line in done.out.splitlines()[2:]] == [
        "lo",
        "pong" if yard.is_root else "UP",
    ]
    for mode in (NetMode.SANDBOX, NetMode.HOST):
        done = yard.run("cat", "/proc/net/dev", network=mode)
        assert {line.split(":")[0].strip() for line in done.out.splitlines()[2:]} == ours


CONFINED = """
grep -E '^(CapEff|CapPrm|Seccomp):' /proc/self/status
(unshare -U true) 2>/dev/null || echo no namespaces
(mkdir -p /q && mount -t tmpfs none /q) 2>/dev/null || echo no mounts
(echo x > /proc/sys/kernel/core_pattern) 2>/dev/null || echo no settings
test -s /proc/keys || echo no keys
test -z "$(ls -A /sys/firmware)" && echo no firmware
ps | wc -l
for kind in ipc pid mnt uts; do readlink /proc/self/ns/$kind; done
"""


WELL_CONFINED = [
    "CapPrm:\t00000000a80425fb",
    "CapEff:\t00000000a80425fb",
    "Seccomp:\t2",
    "no namespaces",
    "no mounts",
    "no settings",
    "no keys",
    "no firmware",
]


def test_confinement(yard: Yard) -> None:
    done = yard.sh(CONFINED)
    lines = done.out.splitlines()
    assert lines[:8] == WELL_CONFINED
    assert int(lines[8]) <= 5
    for kind, namespace in zip(("ipc", "pid", "mnt", "uts"), lines[9:], strict=True):
        assert namespace != os.readlink(f"/proc/self/ns/{kind}")


def test_a_plain_user_has_no_capabilities(yard: Yard) -> None:
    if yard.name == "runc" and not yard.is_root:
        return
    done = yard.sh(
        "grep -E '^(CapEff|CapPrm|CapInh|CapAmb):' /proc/self/status; (touch /proc/x) 2>&1", user="1000:1000"
    )
    assert done.out.splitlines()[:4] == [f"Cap{name}:\t{0:016x}" for name in ("Inh", "Prm", "Eff", "Amb")]


def test_devices(root_yard: Yard) -> None:
    """A process can make device files, as in BuildKit, but not use those of the machine."""
    os.mknod(root_yard.rootfs / "disk", stat.S_IFCHR | 0o666, os.makedev(1, 11))
    done = root_yard.sh(
        "echo x > /dev/null && head -c 4 /dev/zero | wc -c; mknod /made b 254 0 && echo made;"
        "for f in /made /disk; do (: < $f) 2>/dev/null || echo no; done"
    )
    assert done.out == "4\nmade\nno\nno\n"


def test_insecure(yard: Yard) -> None:
    done = yard.sh(CONFINED, security=SecurityMode.INSECURE)
    assert "Seccomp:\t0" in done.out
    assert "no namespaces" not in done.out
    assert "no mounts" not in done.out
    if yard.is_root:
        ours = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
        assert ours in done.out
        done = yard.sh(
            "(: < /proc/sys/kernel/hostname) && test -e /dev/kmsg && echo yes", security=SecurityMode.INSECURE
        )
        assert done.out == "yes\n"


def test_ulimits(yard: Yard) -> None:
    limits = (Ulimit("nofile", 100, 200), Ulimit("core", 0, 0))
    assert yard.sh("ulimit -n; ulimit -Hn; ulimit -c", ulimit=limits).out == "100\n200\n0\n"
    if not (yard.name == "runc" and not yard.is_root):
        assert yard.sh("ulimit -n", ulimit=limits, user="1000:1000").out == "100\n"
    with pytest.raises(ExecError, match="there is no ulimit 'bricks'"):
        yard.run("true", ulimit=(Ulimit("bricks", 1, 1),))
    with pytest.raises(ExecError, match="the soft limit 2 is over the hard limit 1"):
        yard.run("true", ulimit=(Ulimit("nofile", 2, 1),))


def counts_memory() -> bool:
    """Whether this machine has control groups that can limit memory."""
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    return Path("/sys/fs/cgroup/memory").is_dir() or (controllers.exists() and "memory" in controllers.read_text())


def test_control_groups(root_yard: Yard) -> None:
    top = root_yard.folder.name
    done = root_yard.run("cat", "/proc/self/cgroup", cgroup_parent=f"/../{top}/./deep")
    paths = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in done.out.splitlines()}
    path = paths.get("memory", paths.get("", ""))
    assert path.startswith(f"/{top}/deep/brickyard/") is counts_memory()
    for folder in [*Path("/sys/fs/cgroup").glob(f"*/{top}"), *Path("/sys/fs/cgroup").glob(top)]:
        assert [*folder.glob("deep/brickyard/*/")] == []
        for empty in (folder / "deep/brickyard", folder / "deep", folder):
            with suppress(OSError):
                empty.rmdir()


def test_memory_is_limited(root_yard: Yard) -> None:
    script = "dd if=/dev/zero bs=60000000 count=1 2>/dev/null | wc -c"
    assert root_yard.sh(script).out == "60000000\n"
    limited = root_yard.sh(script, resources=Resources(memory=16 << 20, memory_swap=16 << 20))
    assert (limited.out != "60000000\n") is counts_memory()


def test_what_a_killed_process_leaves_is_cleaned_at_the_next_start(yard: Yard) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if not yard.is_root:
                become(yard.uid)
            executor = find_executor(yard.name, yard.state)
            process = replace(
                yard.process, args=("sh", "-c", "echo up; sleep 1000"), mounts=(BindMount("m", yard.extra),)
            )
            executor.run(process, lambda stream, data: os.write(write, data) and None, threading.Event())
        finally:
            os._exit(1)
    assert os.read(read, 10) == b"up\n"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    left = yard.processes()
    assert left
    assert not yard.nothing_is_left()
    yard.call(lambda executor, yard: None)
    end = time.monotonic() + SECONDS
    while yard.processes() and time.monotonic() < end:
        threading.Event().wait(0.01)
    assert yard.nothing_is_left()


def test_a_second_start_in_this_process_leaves_the_first_alone(root_yard: Yard) -> None:
    executor = find_executor(root_yard.name, root_yard.state)
    running = executor.start(replace(root_yard.process, args=("cat",)), lambda stream, data: None, stdin=True)
    find_executor(root_yard.name, root_yard.state)
    running.close_stdin()
    assert running.wait() == 0


RANGE = "0 0 1\n1 100000 65536\n"


def test_root_of_a_user_namespace_with_a_range_of_ids(root_yard: Yard) -> None:
    """As under rootlesskit: root is a plain user outside, and there are more ids for the others."""
    root_yard.write("etc/passwd", PASSWD)
    root_yard.write("etc/group", GROUP)
    libc = ctypes.CDLL(None, use_errno=True)

    def unshare() -> None:
        assert libc.unshare(0x10000000 | 0x00020000) == 0

    def give_ids(child: int) -> None:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{name}").write_text(RANGE)

    def body() -> list[Done]:
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        assert libc.mount(None, b"/", None, 0x40000 | 0x4000, None) == 0
        executor = find_executor(root_yard.name, root_yard.state)
        confined = run(executor, replace(root_yard.process, args=("sh", "-c", CONFINED)))
        script = "echo $(id -u) $(id -g); grep ^Groups: /proc/self/status; touch /new/f; stat -c '%u %g' /new /new/f"
        process = replace(root_yard.process, args=("sh", "-c", script), user="bob", cwd="/new")
        with pytest.raises(ExecError, match="this machine allows at most"):
            run(executor, replace(process, ulimit=(Ulimit("nofile", 1, 1 << 40),)))
        return [confined, run(executor, process)]

    confined, done = in_child(unshare, body, give_ids)
    assert confined.out.splitlines()[:8] == WELL_CONFINED
    assert done.out.split() == "1000 1001 Groups: 29 44 1001 1000 1001 1000 1001".split()
    made = (root_yard.rootfs / "new/f").stat()
    assert (made.st_uid, made.st_gid) == (100999, 101000)


def test_many_at_once(yard: Yard) -> None:
    def body(executor: Executor, yard: Yard) -> list[int]:
        codes = [0] * 12

        def one(number: int) -> None:
            process = replace(yard.process, args=("sh", "-c", f"exit {number}"))
            codes[number] = executor.run(process, lambda stream, data: None, threading.Event())

        threads = [threading.Thread(target=one, args=(number,)) for number in range(len(codes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return codes

    assert yard.call(body) == list(range(12))


def test_no_open_file_or_thread_is_left(yard: Yard) -> None:
    def body(executor: Executor, yard: Yard) -> list[tuple[int, int]]:
        counts = []
        for _ in range(3):
            run(executor, replace(yard.process, args=("echo", "x"), user="1000:1000" if yard.name != "runc" else ""))
            with pytest.raises(ExecError):
                run(executor, replace(yard.process, args=("no-such",)))
            executor.start(replace(yard.process, args=("cat",), tty=True), lambda stream, data: None).kill()
            counts.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
        return counts

    counts = yard.call(body)
    assert counts[0] == counts[1] == counts[2]


def test_the_executor_is_chosen_by_name_and_environment(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yard = make_yard(base, "bwrap", 0)
    assert find_executor("runc", yard.state).name == "runc"
    monkeypatch.setenv("BRICKYARD_EXECUTOR", "bwrap")
    assert find_executor(None, yard.state).name == "bwrap"
    assert find_executor("crun", yard.state).name == "crun"
    monkeypatch.delenv("BRICKYARD_EXECUTOR")
    assert find_executor(None, yard.state).name == "crun"
    with pytest.raises(ExecError, match="there is no executor 'docker': choose one of crun, runc, bwrap"):
        find_executor("docker", yard.state)
    monkeypatch.setenv("PATH", str(yard.extra))
    monkeypatch.setattr("brickyard.solver.executor.find._SYSTEM", "")
    assert find_executor(None, yard.state).name == "bwrap"
    with pytest.raises(ExecError, match="no executor works here: crun is not installed"):
        find_executor("crun", yard.state)


def test_a_runtime_that_does_not_work_is_passed_over(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yard = make_yard(base, "bwrap", 0)
    broken = yard.extra / "crun"
    broken.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{yard.extra}:{os.environ['PATH']}")
    assert find_executor(None, yard.state).name == "runc"
    with pytest.raises(ExecError, match="no executor works here: crun: "):
        find_executor("crun", yard.state)
