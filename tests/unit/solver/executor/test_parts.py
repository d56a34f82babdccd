"""The small parts of the executors."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from brickyard.llb.ops import HostIP, Ulimit
from brickyard.solver.executor import cgroups, files, limits
from brickyard.solver.executor.base import ExecError, Resources
from brickyard.solver.executor.processes import children, command_name, end_sandbox, parent, recorded, send, started


def test_hosts(tmp_path: Path) -> None:
    path = files.write_hosts(tmp_path, "wall", (HostIP("brick", "10.0.0.1"),))
    assert path.read_text() == (
        "127.0.0.1\tlocalhost wall\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tbrick\n"
    )
    assert path.stat().st_mode & 0o777 == 0o644


def test_name_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "real"
    real.write_text("nameserver 10.0.0.1\n")
    (tmp_path / "link").symlink_to(real)
    monkeypatch.setattr(files, "_RESOLV_CONF", str(tmp_path / "link"))
    assert files.resolv_conf(tmp_path) == real
    real.unlink()
    empty = files.resolv_conf(tmp_path)
    assert empty.read_text() == ""


@pytest.mark.parametrize(
    ("parent", "path"),
    [
        ("", "/brickyard/id"),
        ("/", "/brickyard/id"),
        ("/a/b/", "/a/b/brickyard/id"),
        ("a//b", "/a/b/brickyard/id"),
        ("../../etc", "/etc/brickyard/id"),
        ("a/../../..", "/brickyard/id"),
    ],
)
def test_control_groups_stay_below_the_root(parent: str, path: str) -> None:
    assert cgroups.path_of(parent, "id") == path


def test_control_groups_of_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "hierarchies", lambda: {"": tmp_path})
    limit = Resources(memory=100, memory_swap=150, cpu_shares=1024, cpu_quota=5, cpuset_cpus="0", cpuset_mems="0")
    (tmp_path / "cgroup.subtree_control").touch()
    cgroups.make_cgroup("/a/id", limit)
    group = tmp_path / "a/id"
    assert {path.name: path.read_text() for path in group.iterdir()} == {
        "memory.max": "100",
        "memory.swap.max": "50",
        "cpu.weight": "39",
        "cpu.max": "5 100000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
    }
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +cpu +cpuset"
    cgroups.join("/a/id", 7)
    assert (group / "cgroup.procs").read_text() == "7"


def test_control_groups_of_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = {name: tmp_path / name for name in ("memory", "cpu", "cpuset")}
    monkeypatch.setattr(cgroups, "hierarchies", lambda: roots)
    for root in roots.values():
        root.mkdir()
    for name in ("cpus", "mems"):
        (tmp_path / f"cpuset/cpuset.{name}").write_text("0-3\n")
        for folder in ("a", "a/id"):
            (tmp_path / "cpuset" / folder).mkdir(exist_ok=True)
            (tmp_path / "cpuset" / folder / f"cpuset.{name}").touch()
    cgroups.make_cgroup("/a/id", Resources(memory=1, memory_swap=2, cpu_shares=3, cpu_period=4, cpu_quota=5))
    assert (tmp_path / "memory/a/id/memory.limit_in_bytes").read_text() == "1"
    assert (tmp_path / "memory/a/id/memory.memsw.limit_in_bytes").read_text() == "2"
    assert (tmp_path / "cpu/a/id/cpu.shares").read_text() == "3"
    assert (tmp_path / "cpuset/a/id/cpuset.cpus").read_text() == "0-3"


def test_control_groups_that_cannot_be_made_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "hierarchies", lambda: {"": tmp_path / "no", "memory": tmp_path / "no"})
    (tmp_path / "no").touch()
    cgroups.make_cgroup("/a", Resources(memory=1))
    cgroups.join("/a", 1)
    cgroups.remove_cgroups("/a")


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "can_raise", lambda: False)
    monkeypatch.setattr(limits.resource, "getrlimit", lambda which: (10, 20))
    limits.check_ulimits((Ulimit("nofile", 5, 20), Ulimit("core", 0, 0)))
    with pytest.raises(ExecError, match="ulimit nofile=5:21: this machine allows at most 20"):
        limits.check_ulimits((Ulimit("nofile", 5, 21),))
    with pytest.raises(ExecError, match="this machine allows at most 20"):
        limits.check_ulimits((Ulimit("nofile", 5, -1),))
    with pytest.raises(ExecError, match="the soft limit -1 is over the hard limit 3"):
        limits.check_ulimits((Ulimit("nofile", -1, 3),))
    with pytest.raises(ExecError, match="there is no ulimit 'infinity'"):
        limits.check_ulimits((Ulimit("infinity", 1, 1),))
    monkeypatch.setattr(limits, "can_raise", lambda: True)
    limits.check_ulimits((Ulimit("nofile", 5, -1),))
    assert limits.options((Ulimit("nofile", 5, -1), Ulimit("core", 0, 1))) == ["--nofile=5:unlimited", "--core=0:1"]


CHAIN = "import subprocess, sys; p = subprocess.Popen(['sleep', '1000']); print(p.pid, flush=True); p.wait()"


def test_processes() -> None:
    with subprocess.Popen([sys.executable, "-c", CHAIN], stdout=subprocess.PIPE, text=True) as chain:
        assert chain.stdout is not None
        below = int(chain.stdout.readline())
        assert children(chain.pid) == [below]
        assert parent(below) == chain.pid
        assert command_name(below) == "sleep"
        assert started(below) >= started(chain.pid) > 0
        end_sandbox(chain.pid)
        assert chain.wait() == 0
    assert children(chain.pid) == []
    assert (parent(chain.pid), started(chain.pid), command_name(chain.pid)) == (0, 0, "")
    send(chain.pid, signal.SIGKILL)


def test_a_monitor_without_children_is_ended_itself() -> None:
    with subprocess.Popen(["sleep", "1000"]) as monitor:
        end_sandbox(monitor.pid)
        assert monitor.wait() == -signal.SIGKILL


def test_recorded_processes(tmp_path: Path) -> None:
    status = tmp_path / "status"
    namespace = os.stat("/proc/self/ns/pid").st_ino
    assert recorded(status) is None
    status.touch()
    assert recorded(status) is None
    status.write_text(f'{{"child-pid": {os.getpid()}, "pid-namespace": {namespace + 1}}}\n')
    assert recorded(status) is None
    status.write_text(f'{{"child-pid": {os.getpid()}, "pid-namespace": {namespace}}}\n{{"exit-code": 0}}\n')
    assert recorded(status) == os.getpid()
