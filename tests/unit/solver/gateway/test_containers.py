"""Containers of frontends, with an executor that is made up."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from brickyard.llb.bridge import BridgeError, FrontendCall
from brickyard.llb.graph import Output, Vertex
from brickyard.llb.marshal import marshal
from brickyard.llb.ops import FileAction, FileOp, MkFile, NetMode
from brickyard.solver.base import Context, SolveError
from brickyard.solver.build import Shared, run
from brickyard.solver.executor.base import ExecError, Process
from brickyard.solver.gateway.bridge import Gateway
from brickyard.solver.scheduler.status import Reporter
from brickyard.wire.pb import control_pb2, gateway_pb2, ops_pb2


@dataclass
class MadeUpProcess:
    """A process that runs until it is told to end."""

    output: Callable[[int, bytes], None]
    ended: threading.Event = field(default_factory=threading.Event)
    code: int = 0
    said: list[Any] = field(default_factory=list)

    def wait(self) -> int:
        assert self.ended.wait(5)
        return self.code

    def write(self, data: bytes) -> None:
        self.said.append(data)
        self.output(1, data)

    def close_stdin(self) -> None:
        self.ended.set()

    def resize(self, rows: int, columns: int) -> None:
        self.said.append((rows, columns))

    def signal(self, number: int) -> None:
        self.said.append(number)

    def kill(self) -> None:
        self.code = 137
        self.ended.set()


@dataclass
class MadeUpExecutor:
    """Keeps what it was asked to run."""

    name: str = "made up"
    started: list[tuple[Process, bool, MadeUpProcess]] = field(default_factory=list)
    error: str = ""

    def start(self, process: Process, output: Callable[[int, bytes], None], *, stdin: bool = False) -> MadeUpProcess:
        if self.error:
            raise ExecError(self.error, 127)
        made = MadeUpProcess(output)
        self.started.append((process, stdin, made))
        return made

    def run(self, process: Process, output: Callable[[int, bytes], None], cancel: threading.Event) -> int:
        raise AssertionError


@dataclass
class Bench:
    """Runs a frontend with a bridge whose containers use the made-up executor."""

    context: Context
    executor: MadeUpExecutor

    def __call__(self, call: Callable[[Gateway], object], entitlements: tuple[str, ...] = ()) -> None:
        def frontend(bridge: Any, _: FrontendCall) -> gateway_pb2.Result:
            call(bridge)
            return gateway_pb2.Result()

        context = replace(self.context, entitlements=frozenset(entitlements))
        run(
            control_pb2.SolveRequest(Frontend="test.v0"),
            context,
            Reporter(lambda status: None),
            Shared({"test.v0": frontend}),
        )

    def mounts(self) -> str:
        """What is mounted below the state folder now."""
        table = Path("/proc/self/mountinfo").read_text()
        return "\n".join(line for line in table.splitlines() if f"{self.context.root}/mounts/" in line)


@pytest.fixture
def bench(yard: Any) -> Bench:
    executor = MadeUpExecutor()
    yard.client.secrets["key"] = b"s3cret"
    return Bench(replace(yard.context, executor=lambda: executor), executor)


def root_of(bridge: Gateway) -> ops_pb2.Mount:
    """A root with a file."""
    vertex = Vertex(FileOp((FileAction(MkFile("/file", 0o644, b"content"), -1, -1, 0),)))
    request = gateway_pb2.SolveRequest(
        Definition=marshal(Output(vertex)).to_pb(), allowResultReturn=True, allowResultArrayRef=True
    )
    return ops_pb2.Mount(dest="/", resultID=bridge.solve(request).result.ref.id)


def create(bridge: Gateway, *mounts: ops_pb2.Mount, id: str = "one", **options: Any) -> None:
    """A container with a root and mounts."""
    bridge.containers.create(
        gateway_pb2.NewContainerRequest(ContainerID=id, Mounts=[root_of(bridge), *mounts], **options)
    )


def start(bridge: Gateway, *, id: str = "one", **options: Any) -> list[tuple[int, bytes]]:
    """A process in the container; gives what it writes."""
    seen: list[tuple[int, bytes]] = []
    meta = options.pop("Meta", ops_pb2.Meta(args=["sh"], cwd="/work", user="nobody"))
    bridge.containers.start(
        gateway_pb2.InitMessage(ContainerID=id, Meta=meta, Fds=[0, 1, 2], **options),
        lambda stream, data: seen.append((stream, data)),
    )
    return seen


def test_a_process_runs_over_the_mounts(bench: Bench) -> None:
    def call(bridge: Gateway) -> None:
        create(
            bridge,
            ops_pb2.Mount(dest="/tmp", mountType=ops_pb2.TMPFS, TmpfsOpt=ops_pb2.TmpfsOpt(size=99)),
            ops_pb2.Mount(dest="/run/key", mountType=ops_pb2.SECRET, secretOpt=ops_pb2.SecretOpt(ID="key", mode=0o400)),
            hostname="box",
            extraHosts=[ops_pb2.HostIP(Host="a", IP="10.0.0.1")],
        )
        seen = start(bridge, Tty=True, secretenv=[ops_pb2.SecretEnv(ID="key", name="KEY")])
        process, stdin, running = bench.executor.started[0]
        assert (process.args, process.cwd, process.user, process.hostname) == (("sh",), "/work", "nobody", "box")
        assert {"TERM=xterm", "KEY=s3cret"} <= set(process.env)
        assert [(host.host, host.ip) for host in process.extra_hosts] == [("a", "10.0.0.1")]
        assert process.tty
        assert stdin
        shown = {mount.dest: mount for mount in process.mounts}
        assert (shown["tmp"].kind, shown["tmp"].size) == ("tmpfs", 99)
        assert shown["run/key"].source is not None
        assert shown["run/key"].source.read_bytes() == b"s3cret"
        assert (process.rootfs / "file").read_bytes() == b"content"
        running.write(b"hello")
        assert seen == [(1, b"hello")]
        running.close_stdin()

    bench(call)
    assert bench.mounts().count("overlay") == 0


def test_files_of_mounts_are_read_while_processes_change_them(bench: Bench) -> None:
    def call(bridge: Gateway) -> None:
        create(bridge, ops_pb2.Mount(dest="/tmp", mountType=ops_pb2.TMPFS))
        start(bridge)
        rootfs = bench.executor.started[0][0].rootfs
        (rootfs / "new").write_text("from the process")
        request = gateway_pb2.ReadFileRequest(Ref="one", FilePath="/new", MountIndex=0)
        assert bridge.containers.read_file(request).Data == b"from the process"
        listed = bridge.containers.read_dir(gateway_pb2.ReadDirRequest(Ref="one", DirPath="/")).entries
        assert {"file", "new"} <= {entry.path for entry in listed}
        assert bridge.containers.stat_file(gateway_pb2.StatFileRequest(Ref="one", Path="/new")).stat.size == 16
        for index, message in ((1, "no files to read"), (7, "has no mount 7"), (-1, "has no mount -1")):
            with pytest.raises(BridgeError, match=message):
                bridge.containers.read_file(gateway_pb2.ReadFileRequest(Ref="one", FilePath="/x", MountIndex=index))
        # What a container changed is not in the result that it was made of.
        again = gateway_pb2.ReadFileRequest(Ref=root_of(bridge).resultID, FilePath="/new")
        with pytest.raises(BridgeError, match="no such file"):
            bridge.read_file(again)

    bench(call)


def test_what_a_frontend_leaves_behind_is_ended(bench: Bench) -> None:
    def call(bridge: Gateway) -> None:
        create(bridge)
        start(bridge)
        create(bridge, id="two")
        bridge.containers.release(gateway_pb2.ReleaseContainerRequest(ContainerID="two"))

    before = set(bench.context.snapshots.ids())
    bench(call)
    assert bench.executor.started[0][2].code == 137
    assert bench.mounts().count("overlay") == 0
    after = set(bench.context.snapshots.ids())
    assert len(after - before) == 1


def test_a_released_container_is_gone(bench: Bench) -> None:
    def call(bridge: Gateway) -> None:
        create(bridge)
        start(bridge)
        bridge.containers.release(gateway_pb2.ReleaseContainerRequest(ContainerID="one"))
        assert bench.executor.started[0][2].code == 137
        with pytest.raises(BridgeError, match="previously released or not created") as caught:
            start(bridge)
        assert caught.value.code == 5
        with pytest.raises(BridgeError, match="previously released or not created"):
            bridge.containers.release(gateway_pb2.ReleaseContainerRequest(ContainerID="one"))

    bench(call)


def test_what_is_wrong_is_refused(bench: Bench) -> None:
    def call(bridge: Gateway) -> None:
        create(bridge)
        with pytest.raises(BridgeError, match="Container one already exists") as caught:
            create(bridge)
        assert caught.value.code == 6
        with pytest.raises(BridgeError, match="no root file system"):
            bridge.containers.create(gateway_pb2.NewContainerRequest(ContainerID="two"))
        with pytest.raises(BridgeError, match="no such ref"):
            create(bridge, ops_pb2.Mount(dest="/x", resultID="forged"), id="two")
        with pytest.raises(BridgeError, match=r"network\.host is not allowed"):
            create(bridge, id="two", Network=NetMode.HOST.value)
        with pytest.raises(BridgeError, match=r"security\.insecure is not allowed"):
            start(bridge, Security=1)
        with pytest.raises(BridgeError, match="no arguments"):
            start(bridge, Meta=ops_pb2.Meta())
        with pytest.raises(BridgeError, match="secret missing: not found"):
            start(bridge, secretenv=[ops_pb2.SecretEnv(ID="missing", name="X")])
        bench.executor.error = "sh: no such program"
        with pytest.raises(BridgeError, match="no such program"):
            start(bridge)

    bench(call)


def test_entitlements_let_processes_through(bench: Bench) -> None:
    def call(bridge: Gateway) -> None:
        create(bridge, Network=NetMode.HOST.value)
        start(bridge, Security=1)
        assert bench.executor.started[0][0].network is NetMode.HOST

    bench(call, ("network.host", "security.insecure"))


def test_not_without_end(bench: Bench) -> None:
    def call(bridge: Gateway) -> None:
        for number in range(64):
            create(bridge, id=str(number))
        create(bridge, id="one more")

    with pytest.raises(SolveError, match="more than 64 containers"):
        bench(call)
    assert bench.mounts().count("overlay") == 0
