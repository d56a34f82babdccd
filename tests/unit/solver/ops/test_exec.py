"""Exec ops: what the process gets to see, what is kept of it, and what is refused, with an executor that pretends."""

import os
import socket
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from brickyard.llb.graph import LinuxResources, Metadata, Output, Vertex
from brickyard.llb.ops import (
    CacheSharing,
    CDIDevice,
    ExecOp,
    FileOpt,
    HostIP,
    Meta,
    Mount,
    MountType,
    NetMode,
    ProxyEnv,
    SecretEnv,
    SecurityMode,
    SourceOp,
)
from brickyard.solver.base import Cancelled, Result, Selection, SolveError
from brickyard.solver.executor.base import BindMount, ExecError, Process
from brickyard.solver.ops import content_op_key
from brickyard.solver.ops import exec as module
from brickyard.solver.ops.private_files import FOLDER

ROOT = Mount("/", input=0, output=0)


class Pretender:
    """An executor that calls a function of the test instead of a process."""

    name = "pretender"

    def __init__(self, act: Callable[[Process], int | None]) -> None:
        self._act = act
        self.seen: list[Process] = []

    def run(self, process: Process, output: Callable[[int, bytes], None], cancel: threading.Event) -> int:
        self.seen.append(process)
        output(1, b"said this\n")
        return self._act(process) or 0


class Lab:
    """Runs exec ops on inputs in a state folder."""

    def __init__(self, state: Any) -> None:
        self.state = state
        self.context = state.context

    def run(
        self,
        mounts: tuple[Mount, ...],
        inputs: list[str | None],
        act: Callable[[Process], int | None] = lambda process: None,
        **more: Any,
    ) -> list[str | None]:
        meta = more.pop("meta", Meta(("/bin/sh", "-c", "true")))
        metadata = more.pop("metadata", None)
        executor = Pretender(act)
        context = replace(self.context, executor=lambda: executor)
        vertex = Vertex(ExecOp(meta, mounts, **more), sources(len(inputs)), metadata=metadata)
        results = module.run(vertex, [Result(snapshot) for snapshot in inputs], context)
        self.process = executor.seen[0]
        return [result.snapshot for result in results]


def sources(count: int) -> list[Output]:
    return [Output(Vertex(SourceOp(f"local://{number}")), 0) for number in range(count)]


@pytest.fixture
def lab(state: Any) -> Lab:
    return Lab(state)


def bind(process: Process, dest: str) -> BindMount:
    return next(mount for mount in process.mounts if mount.dest == dest)


def text(process: Process, dest: str) -> str:
    source = bind(process, dest).source
    assert source is not None
    return source.read_text()


def test_the_root_is_kept_and_its_parent_left_alone(lab: Lab) -> None:
    base = lab.state.snapshot({"a": b"1"})

    def act(process: Process) -> None:
        (process.rootfs / "a").write_bytes(b"2")
        (process.rootfs / "b").write_bytes(b"new")

    (made,) = lab.run((ROOT,), [base], act)
    assert lab.state.files(made) == {"a": b"2", "b": b"new"}
    assert lab.state.files(base) == {"a": b"1"}
    assert lab.context.snapshots.check() == []


def test_what_the_process_is_started_with(lab: Lab) -> None:
    meta = Meta(
        ("make", "all"),
        env=("A=1",),
        cwd="/src",
        user="me",
        proxy_env=ProxyEnv(http_proxy="p", all_proxy="q"),
        extra_hosts=(HostIP("h", "10.0.0.1"),),
        hostname="box",
        cgroup_parent="cg",
        remove_mount_stubs_recursive=True,
    )
    lab.state.session.secrets["s"] = b"sesame"
    lab.run(
        (ROOT,),
        [lab.state.snapshot({})],
        meta=meta,
        secretenv=(SecretEnv("s", "TOKEN"), SecretEnv("none", "EMPTY", optional=True)),
        metadata=Metadata(resources=LinuxResources(memory=5)),
    )
    process = lab.process
    assert process.env == (
        "A=1",
        "HTTP_PROXY=p",
        "http_proxy=p",
        "ALL_PROXY=q",
        "all_proxy=q",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TOKEN=sesame",
        "EMPTY=",
    )
    assert (process.args, process.cwd, process.user, process.hostname) == (("make", "all"), "/src", "me", "box")
    assert (process.cgroup_parent, process.remove_mount_stubs, process.resources.memory) == ("cg", True, 5)
    assert process.extra_hosts == (HostIP("h", "10.0.0.1"),)


def test_a_path_that_is_given_stays(lab: Lab) -> None:
    lab.run((ROOT,), [lab.state.snapshot({})], meta=Meta(("x",), env=("PATH=/mine",)))
    assert lab.process.env == ("PATH=/mine",)


def test_binds_of_inputs(lab: Lab) -> None:
    base, other = lab.state.snapshot({}), lab.state.snapshot({"d/f": b"F", "l": "/d", "out": "../../etc"})

    def act(process: Process) -> None:
        assert text(process, "in/f") == "F"
        assert not bind(process, "rel").readonly
        source = bind(process, "rel").source
        assert source is not None
        (source / "f").write_text("changed, and dropped")
        empty = bind(process, "empty").source
        assert empty is not None
        assert os.listdir(empty) == []

    before = lab.context.snapshots.ids()
    lab.run(
        (
            ROOT,
            Mount("/in/f", input=1, selector="/l/f", readonly=True),
            Mount("rel", input=1, selector="d"),
            Mount("/empty", readonly=True),
        ),
        [base, other],
        act,
        meta=Meta(("x",), cwd="/"),
    )
    assert [mount.dest for mount in lab.process.mounts] == ["empty", "in/f", "rel"]
    assert bind(lab.process, "in/f").readonly
    assert lab.state.files(other)["d/f"] == b"F"
    assert len(lab.context.snapshots.ids()) == len(before) + 1


def test_a_relative_place_is_below_the_working_directory(lab: Lab) -> None:
    lab.run((ROOT, Mount("x/../y", readonly=True)), [lab.state.snapshot({})], meta=Meta(("x",), cwd="/w"))
    assert [mount.dest for mount in lab.process.mounts] == ["w/y"]


def test_outputs_of_several_mounts(lab: Lab) -> None:
    base, other = lab.state.snapshot({"a": b""}), lab.state.snapshot({"o": b""})

    def act(process: Process) -> None:
        source = bind(process, "w").source
        assert source is not None
        (source / "w").write_bytes(b"W")

    made = lab.run(
        (
            Mount("/", input=0, output=2),
            Mount("/w", input=1, output=0),
            Mount("/r", input=1, output=1, readonly=True),
        ),
        [base, other],
        act,
    )
    assert [lab.state.files(snapshot) for snapshot in made] == [{"o": b"", "w": b"W"}, {"o": b""}, {"a": b""}]
    assert made[1] == other


def test_a_read_only_root(lab: Lab) -> None:
    base = lab.state.snapshot({"a": b""})
    assert lab.run((Mount("/", input=0, readonly=True),), [base]) == []
    assert lab.process.readonly_root
    assert lab.context.snapshots.ids() == [base]


@pytest.mark.parametrize(
    ("mounts", "more", "message"),
    [
        ((), {}, "no root file system"),
        ((ROOT,), {"meta": Meta(())}, "no arguments"),
        ((Mount("/", input=0, output=1),), {}, "not numbered from 0"),
        ((ROOT, Mount("/x", input=0, output=0)), {}, "not numbered from 0"),
        ((ROOT, Mount("/x", input=7)), {}, "missing input 7"),
        ((ROOT, Mount("/x", input=0, selector="/nope")), {}, "'/nope': not found"),
        ((ROOT, Mount("/", type=MountType.TMPFS)), {}, "invalid mount type TMPFS for /"),
        ((ROOT, Mount("/x/..", type=MountType.TMPFS)), {}, "invalid mount target '/x/..'"),
        ((ROOT,), {"cdi_devices": (CDIDevice("v/c=d"),)}, "devices are not supported by this solver: v/c=d"),
        ((ROOT,), {"network": NetMode.HOST}, "network.host is not allowed"),
        ((ROOT,), {"security": SecurityMode.INSECURE}, "security.insecure is not allowed"),
        ((ROOT,), {"secretenv": (SecretEnv("no", "X"),)}, "secret no: not found"),
        ((ROOT,), {"secretenv": (SecretEnv("binary", "X"),)}, "secret binary is not text"),
        ((ROOT,), {"secretenv": (SecretEnv("", "X"),)}, "secret ID missing for 'X'"),
        ((ROOT, Mount("/s", type=MountType.SECRET, file=FileOpt("no"))), {}, "secret no: not found"),
        ((ROOT, Mount("/s", type=MountType.SECRET)), {}, "secret ID missing"),
        ((ROOT, Mount("/s", type=MountType.SSH)), {}, 'no SSH key "default" forwarded from the client'),
        ((ROOT, Mount("/s", type=MountType.SSH, file=FileOpt("x"))), {}, 'no SSH key "x" forwarded'),
    ],
)
def test_what_is_refused(lab: Lab, mounts: tuple[Mount, ...], more: dict[str, Any], message: str) -> None:
    base = lab.state.snapshot({})
    lab.state.session.secrets["binary"] = b"\xff"
    with pytest.raises(SolveError) as caught:
        lab.run(mounts, [base], **more)
    assert message in str(caught.value)
    assert lab.context.snapshots.ids() == [base]
    assert lab.context.snapshots.check() == []


def test_optional_devices_are_left_out(lab: Lab) -> None:
    lab.run((ROOT,), [lab.state.snapshot({})], cdi_devices=(CDIDevice("v/c=d", optional=True),))


def test_entitlements_that_were_granted(lab: Lab) -> None:
    lab.context = replace(lab.context, entitlements=frozenset({"network.host", "security.insecure"}))
    lab.run((ROOT,), [lab.state.snapshot({})], network=NetMode.HOST, security=SecurityMode.INSECURE)
    assert (lab.process.network, lab.process.security) == (NetMode.HOST, SecurityMode.INSECURE)


@pytest.mark.parametrize(
    ("code", "valid", "fails"), [(0, (), False), (3, (3, 4), False), (0, (3,), True), (1, (), True)]
)
def test_exit_codes(lab: Lab, code: int, valid: tuple[int, ...], fails: bool) -> None:
    base = lab.state.snapshot({})
    meta = Meta(("/bin/sh", "-c", 'echo "x"'), valid_exit_codes=valid)
    if not fails:
        lab.run((ROOT,), [base], lambda process: code, meta=meta)
        return
    with pytest.raises(SolveError) as caught:
        lab.run((ROOT,), [base], lambda process: code, meta=meta)
    shown = r'process "/bin/sh -c echo \"x\"" did not complete successfully: exit code: '
    assert str(caught.value) == shown + str(code)
    assert (caught.value.exit_code, caught.value.log) == (code, b"said this\n")
    assert lab.context.snapshots.ids() == [base]


def test_a_process_that_cannot_start(lab: Lab) -> None:
    def act(process: Process) -> None:
        raise ExecError("no such program", exit_code=127)

    with pytest.raises(SolveError, match="did not complete successfully: no such program") as caught:
        lab.run((ROOT,), [lab.state.snapshot({})], act)
    assert caught.value.exit_code == 127


def test_a_build_that_was_stopped(lab: Lab) -> None:
    base = lab.state.snapshot({})

    def act(process: Process) -> int:
        lab.context.cancel.set()
        return 137

    with pytest.raises(Cancelled):
        lab.run((ROOT,), [base], act)
    assert lab.context.snapshots.ids() == [base]


def test_secret_files(lab: Lab) -> None:
    lab.state.session.secrets["s"] = b"sesame"
    places: list[Path] = []

    def act(process: Process) -> None:
        source = bind(process, "run/secrets/s").source
        assert source is not None
        places.append(source)
        found = source.stat()
        assert source.read_bytes() == b"sesame"
        assert stat.S_IMODE(found.st_mode) == 0o440
        if os.geteuid() == 0:
            assert (found.st_uid, found.st_gid) == (7, 8)
            assert os.path.ismount(lab.context.root / FOLDER)

    secret = Mount("/run/secrets/s", type=MountType.SECRET, file=FileOpt("s", 7, 8, 0o440))
    unknown = Mount("/u", type=MountType.SECRET, file=FileOpt("u", optional=True))
    lab.run((ROOT, secret, unknown), [lab.state.snapshot({})], act)
    assert [mount.dest for mount in lab.process.mounts] == ["run/secrets/s"]
    assert bind(lab.process, "run/secrets/s").readonly
    assert not places[0].exists()


def test_ssh_sockets(lab: Lab) -> None:
    lab.state.session.agents.add("default")

    def act(process: Process) -> None:
        source = bind(process, "run/agent").source
        assert source is not None
        found = source.stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o660
        if os.geteuid() == 0:
            assert (found.st_uid, found.st_gid) == (7, 8)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(source))
            assert client.recv(100).startswith(b"agent ")

    lab.run(
        (
            ROOT,
            Mount("/run/agent", type=MountType.SSH, file=FileOpt("", 7, 8, 0o660)),
            Mount("/other", type=MountType.SSH, file=FileOpt("other", optional=True)),
        ),
        [lab.state.snapshot({})],
        act,
    )
    assert [mount.dest for mount in lab.process.mounts] == ["run/agent"]


def test_memory_mounts(lab: Lab) -> None:
    lab.run((ROOT, Mount("/t", type=MountType.TMPFS, tmpfs_size=4096)), [lab.state.snapshot({})])
    assert lab.process.mounts == (BindMount("t", None, kind="tmpfs", size=4096),)


def cache(dest: str = "/c", id: str = "", sharing: CacheSharing = CacheSharing.SHARED, **more: Any) -> Mount:
    return Mount(dest, type=MountType.CACHE, cache_id=id or dest, cache_sharing=sharing, **more)


def test_cache_mounts_outlive_processes(lab: Lab) -> None:
    base = lab.state.snapshot({})

    def grow(process: Process) -> None:
        source = bind(process, "c").source
        assert source is not None
        with (source / "log").open("a") as file:
            file.write("x")

    for _ in range(3):
        lab.run((ROOT, cache()), [base], grow)
    assert (bind(lab.process, "c").source or Path()).joinpath("log").read_text() == "xxx"


def test_cache_mounts_begin_with_an_input(lab: Lab) -> None:
    base = lab.state.snapshot({})
    first, again = (lab.state.snapshot({"s/f": b"F", "x": b""}) for _ in range(2))
    other = lab.state.snapshot({"s/f": b"G"})
    places = []
    for snapshot in (first, again, other):
        lab.run((ROOT, cache(input=1, selector="/s")), [base, snapshot])
        places.append(bind(lab.process, "c").source)
    assert [place and (place / "f").read_bytes() for place in places] == [b"F", b"F", b"G"]
    assert places[0] == places[1] != places[2]
    with pytest.raises(SolveError, match="not a directory"):
        lab.run((ROOT, cache(input=1, selector="/s/f", id="z")), [base, first])


def test_mounts_of_one_cache_are_one_for_a_process(lab: Lab) -> None:
    for sharing in CacheSharing:
        lab.run((ROOT, cache("/c", "i", sharing), cache("/d", "i", sharing)), [lab.state.snapshot({})])
        assert bind(lab.process, "c").source == bind(lab.process, "d").source


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        (CacheSharing.SHARED, CacheSharing.SHARED, "same"),
        (CacheSharing.PRIVATE, CacheSharing.PRIVATE, "another"),
        (CacheSharing.PRIVATE, CacheSharing.SHARED, "another"),
        (CacheSharing.SHARED, CacheSharing.PRIVATE, "another"),
        (CacheSharing.LOCKED, CacheSharing.LOCKED, "waits"),
        (CacheSharing.SHARED, CacheSharing.LOCKED, "waits"),
    ],
)
def test_sharing(lab: Lab, first: CacheSharing, second: CacheSharing, outcome: str) -> None:
    base = lab.state.snapshot({})
    inside, leave = threading.Event(), threading.Event()
    places: list[Path | None] = []

    def stay(process: Process) -> None:
        places.append(bind(process, "c").source)
        inside.set()
        leave.wait(10)

    def look(process: Process) -> None:
        places.append(bind(process, "c").source)

    holder = threading.Thread(target=Lab(lab.state).run, args=((ROOT, cache(sharing=first)), [base], stay))
    comer = threading.Thread(target=Lab(lab.state).run, args=((ROOT, cache(sharing=second)), [base], look))
    holder.start()
    assert inside.wait(10)
    comer.start()
    comer.join(0.15 if outcome == "waits" else 10)
    assert comer.is_alive() == (outcome == "waits")
    leave.set()
    holder.join()
    comer.join()
    assert (places[0] == places[1]) == (outcome != "another")


def test_waiting_for_a_locked_cache_ends_with_the_build(lab: Lab) -> None:
    base = lab.state.snapshot({})

    def nested(process: Process) -> None:
        lab.context.cancel.set()
        with pytest.raises(Cancelled):
            Lab(lab.state).run((ROOT, cache(sharing=CacheSharing.LOCKED)), [base])
        lab.context.cancel.clear()

    lab.run((ROOT, cache(sharing=CacheSharing.LOCKED)), [base], nested)


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ((ROOT,), [None, None]),
        ((ROOT, Mount("/x", input=1, readonly=True)), [None, Selection()]),
        ((ROOT, Mount("/x", input=1, selector="/a")), [None, Selection(("/a",), follow=True)]),
        ((ROOT, Mount("/x", input=1, selector="/a", output=1)), [None, None]),
        ((ROOT, Mount("/x", input=1, output=1)), [None, Selection()]),
        ((ROOT, Mount("/x", input=1, selector="/a", output=1, readonly=True)), [None, Selection(("/a",), follow=True)]),
        (
            (ROOT, Mount("/x", input=1, selector="b"), Mount("/y", input=1, selector="a/")),
            [None, Selection(("/a", "/b"), follow=True)],
        ),
        ((ROOT, Mount("/x", input=0, selector="/a")), [None, None]),
        ((ROOT, Mount("/x", input=1, content_cache=2)), [None, None]),
        ((Mount("/", input=0, output=0, content_cache=1),), [Selection(), None]),
        ((ROOT, cache(input=1, selector="/cache")), [None, Selection(("/cache",), follow=True)]),
        ((ROOT, Mount("/x", input=1, type=MountType.TMPFS)), [None, None]),
    ],
)  # fmt: skip
def test_what_counts_by_its_content(mounts: tuple[Mount, ...], expected: list[Selection | None]) -> None:
    assert module.selections(Vertex(ExecOp(Meta(("x",)), mounts), sources(2))) == expected


def test_a_part_with_an_output_cannot_count_by_its_content() -> None:
    op = ExecOp(Meta(("x",)), (ROOT, Mount("/x", input=1, selector="/a", output=1, content_cache=1)))
    with pytest.raises(SolveError, match="can't be cached by its content"):
        module.selections(Vertex(op, sources(2)))


def test_keys(lab: Lab) -> None:
    def key(*mounts: Mount, **meta: Any) -> str:
        op = ExecOp(Meta(("x",), **meta), (ROOT, *mounts))
        return module.cache_key(Vertex(op, sources(2)), lab.context)

    assert key(proxy_env=ProxyEnv("p")) == key()
    assert key(extra_hosts=(HostIP("h", "1"),)) == key(extra_hosts=(HostIP("h", "2"),)) != key()
    assert key(cache(id="a")) == key(cache(id="b", sharing=CacheSharing.LOCKED)) != key()
    assert key(env=("A=1",)) != key()

    def by_content(*mounts: Mount) -> str:
        return content_op_key(Vertex(ExecOp(Meta(("x",)), (ROOT, *mounts)), sources(2)), "never")

    first, second = Mount("/m", input=1, selector="/a"), Mount("/m", input=1, selector="/b")
    assert key(first) != key(second)
    assert by_content(first) == by_content(second)
    # With two parts of one input it matters which is where.
    assert by_content(first, replace(second, dest="/n")) != by_content(second, replace(first, dest="/n"))
