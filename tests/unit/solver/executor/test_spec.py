"""The config of an OCI runtime."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from brickyard.llb.ops import NetMode, SecurityMode, Ulimit
from brickyard.solver.executor.base import BindMount, Process, Resources
from brickyard.solver.executor.confinement import CAPABILITIES
from brickyard.solver.executor.ids import Standing
from brickyard.solver.executor.spec import config, environment
from brickyard.solver.executor.users import User

ALL = ((0, 0, 0xFFFFFFFF),)
ROOT = Standing(True, ALL, ALL)
PLAIN = Standing(False, ALL, ALL)
INNER = Standing(True, ((0, 1000, 1), (1, 100000, 65536)), ((0, 1000, 1), (1, 100000, 65536)))
PROCESS = Process(args=("sh", "-c", "x"), env=("A=1",), cwd="w", user="", rootfs=Path("/r"), hostname="h")


def made(
    process: Process = PROCESS,
    user: User = User(),  # noqa: B008
    mounts: tuple[tuple[BindMount, int], ...] = (),
    standing: Standing = ROOT,
    cgroup: str = "/brickyard/x",
) -> dict[str, Any]:
    return config(process, user, mounts, Path("/r"), standing, (1000, 1001), cgroup)


def kinds(form: dict[str, Any]) -> set[str]:
    return {namespace["type"] for namespace in form["linux"]["namespaces"]}


def test_root() -> None:
    form = made(user=User(5, 6, (6, 7)))
    assert form["process"]["user"] == {"uid": 5, "gid": 6, "additionalGids": [6, 7]}
    assert form["process"]["cwd"] == "/w"
    assert form["process"]["noNewPrivileges"] is False
    assert form["process"]["capabilities"] == {
        name: list(CAPABILITIES) for name in ("bounding", "effective", "permitted")
    }
    assert form["root"] == {"path": "/r", "readonly": False}
    assert {"pid", "ipc", "uts", "mount"} <= kinds(form) <= {"pid", "ipc", "uts", "mount", "cgroup"}
    assert form["linux"]["cgroupsPath"] == "/brickyard/x"
    assert form["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert form["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "/proc/kcore" in form["linux"]["maskedPaths"]
    assert "/proc/sys" in form["linux"]["readonlyPaths"]


def test_a_plain_user() -> None:
    form = made(user=User(5, 6, (6, 7)), standing=PLAIN, cgroup="")
    assert "user" in kinds(form)
    assert form["linux"]["uidMappings"] == [{"containerID": 5, "hostID": 1000, "size": 1}]
    assert form["linux"]["gidMappings"] == [{"containerID": 6, "hostID": 1001, "size": 1}]
    assert form["process"]["user"] == {"uid": 5, "gid": 6}
    assert form["linux"]["resources"] == {}
    assert "cgroupsPath" not in form["linux"]
    assert not any("gid=5" in mount["options"] for mount in form["mounts"])
    assert next(mount for mount in form["mounts"] if mount["destination"] == "/sys")["type"] == "bind"


def test_root_of_a_user_namespace() -> None:
    assert "user" not in kinds(made(user=User(5, 6), standing=INNER, cgroup=""))
    assert "user" in kinds(made(user=User(70000, 6), standing=INNER, cgroup=""))


def test_insecure() -> None:
    form = made(replace(PROCESS, security=SecurityMode.INSECURE))
    assert "seccomp" not in form["linux"]
    assert form["annotations"] == {}
    assert form["linux"]["maskedPaths"] == form["linux"]["readonlyPaths"] == []
    assert set(form["process"]["capabilities"]) == {"bounding", "effective", "permitted", "inheritable", "ambient"}
    assert all(rule["allow"] for rule in form["linux"]["resources"]["devices"])
    assert not any("ro" in mount["options"] for mount in form["mounts"])


@pytest.mark.parametrize(("mode", "own"), [(NetMode.SANDBOX, False), (NetMode.HOST, False), (NetMode.NONE, True)])
def test_networks(mode: NetMode, own: bool) -> None:
    assert ("network" in kinds(made(replace(PROCESS, network=mode)))) is own


def test_mounts(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    mounts = (
        (BindMount("a", tmp_path, readonly=True), 0o755),
        (BindMount("f", file, readonly=True), 0o755),
        (BindMount("b", tmp_path), 0o755),
        (BindMount("t", None, size=5), 0o1777),
        (BindMount("dev/shm", None), 0o750),
    )
    form = made(mounts=mounts)
    assert form["mounts"][-5:] == [
        {"destination": "/a", "type": "bind", "source": str(tmp_path), "options": ["rbind", "rro", "nosuid", "nodev"]},
        {"destination": "/f", "type": "bind", "source": str(file), "options": ["rbind", "ro", "nosuid", "nodev"]},
        {"destination": "/b", "type": "bind", "source": str(tmp_path), "options": ["rbind"]},
        {
            "destination": "/t",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=1777", "size=5"],
        },
        {"destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=750"]},
    ]
    assert [mount["destination"] for mount in form["mounts"]].count("/dev/shm") == 1


def test_devices_are_only_names_where_no_control_group_guards_them(tmp_path: Path) -> None:
    form = made(mounts=((BindMount("b", tmp_path), 0),), cgroup="")
    assert form["mounts"][-1]["options"] == ["rbind", "nodev"]


def test_limits() -> None:
    process = replace(
        PROCESS,
        ulimit=(Ulimit("nofile", 1, 2), Ulimit("core", -1, -1)),
        resources=Resources(memory=7, cpu_quota=8, cpuset_cpus="0-1"),
    )
    form = made(process)
    assert form["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2},
        {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1},
    ]
    resources = form["linux"]["resources"]
    assert (resources["memory"], resources["cpu"]) == ({"limit": 7}, {"quota": 8, "cpus": "0-1"})


def test_environment() -> None:
    process = replace(PROCESS, env=("A=1", "B=x=y", "A=2", "C="))
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert environment(process, User(home="/h")) == ["A=2", "B=x=y", "C=", path, "HOME=/h"]
    process = replace(process, env=("PATH=/p", "HOME=", "TERM=t"), tty=True)
    assert environment(process, User(home="/h")) == ["PATH=/p", "HOME=", "TERM=t"]
    assert "TERM=xterm" in environment(replace(process, env=()), User())
