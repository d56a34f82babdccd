"""The `config.json` of an OCI runtime (runtime-spec 1.0) for a process, equal in what it gives to BuildKit's."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...llb.ops import NetMode, SecurityMode
from .base import BindMount, Process, Resources
from .confinement import CAPABILITIES, MASKED, READONLY, all_capabilities
from .ids import Standing
from .users import User

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for when a process was not told."""

_NO_LIMIT = 1 << 64

_ALL_DEVICES = [
    {"allow": True, "type": "c", "access": "rwm"},
    {"allow": True, "type": "b", "access": "rwm"},
]

# Devices of this machine that an insecure process is given: path, type, major, minor.
INSECURE_DEVICES = (
    ("/dev/kmsg", "c", 1, 11),
    ("/dev/cuse", "c", 10, 203),
    ("/dev/fuse", "c", 10, 229),
    ("/dev/kvm", "c", 10, 232),
    ("/dev/net/tun", "c", 10, 200),
    ("/dev/loop-control", "c", 10, 237),
    *((f"/dev/loop{number}", "b", 7, number) for number in range(8)),
)


def environment(process: Process, user: User) -> list[str]:
    """The variables, the last one of a name; PATH and HOME, and TERM at a terminal, where they are not given."""
    found: dict[str, str] = {}
    for variable in process.env:
        name, _, value = variable.partition("=")
        if name:
            found[name] = value
    found.setdefault("PATH", PATH)
    found.setdefault("HOME", user.home)
    if process.tty:
        found.setdefault("TERM", "xterm")
    return [f"{name}={value}" for name, value in found.items()]


def config(
    process: Process,
    user: User,
    mounts: Sequence[tuple[BindMount, int]],
    rootfs: Path,
    standing: Standing,
    outer_ids: tuple[int, int],
    cgroup: str,
) -> dict[str, Any]:
    """The whole config.

    Args:
        mounts: all that is mounted beside what the system gives, later ones over earlier ones, and the mode that a
            tmpfs of them has.
        outer_ids: what the ids of a user namespace are to the one that the runtime is started in.
        cgroup: the path of the process's own control group; empty where it has none.
    """
    insecure = process.security is SecurityMode.INSECURE
    own_namespace = not standing.can_become(user.uid, user.gid)
    groups = [] if own_namespace else list(standing.groups(user.groups))
    capabilities = sorted(all_capabilities()) if insecure else list(CAPABILITIES)
    sets = ["bounding", "effective", "permitted", *(["inheritable", "ambient"] if insecure else [])]
    # Without a control group nothing else would keep a process from the machine's own devices.
    nodev = standing.real_root and not cgroup and not insecure
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
        "resources": {**_resources(process.resources), "devices": _devices(insecure)} if cgroup else {},
        "maskedPaths": [] if insecure else list(MASKED),
        "readonlyPaths": [] if insecure else list(READONLY),
    }
    if process.network is NetMode.NONE:
        linux["namespaces"].append({"type": "network"})
    if own_namespace:
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = [{"containerID": user.uid, "hostID": outer_ids[0], "size": 1}]
        linux["gidMappings"] = [{"containerID": user.gid, "hostID": outer_ids[1], "size": 1}]
    if cgroup:
        linux["cgroupsPath"] = cgroup
        if os.path.exists("/sys/fs/cgroup/cgroup.subtree_control"):
            linux["namespaces"].append({"type": "cgroup"})
    if insecure and standing.real_root:
        linux["devices"] = [
            {"path": path, "type": kind, "major": major, "minor": minor}
            for path, kind, major, minor in INSECURE_DEVICES
            if os.path.exists(path)
        ]
    annotations = {}
    if not insecure:
        from .seccomp import encoded_program, has_program, oci_profile

        linux["seccomp"] = oci_profile(frozenset(capabilities))
        if has_program():
            # Spares crun the making of the same program, most of what it does.
            annotations["run.oci.seccomp_bpf_data"] = encoded_program(frozenset(capabilities))
    system = _system_mounts(process, user, standing, own_namespace, bool(cgroup), insecure)
    taken = {_absolute(mount.dest) for mount, _ in mounts}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": process.tty,
            "user": {"uid": user.uid, "gid": user.gid, **({"additionalGids": groups} if groups else {})},
            "args": list(process.args),
            "env": environment(process, user),
            "cwd": _absolute(process.cwd),
            "capabilities": dict.fromkeys(sets, capabilities),
            "rlimits": [
                {"type": f"RLIMIT_{limit.name.upper()}", "soft": limit.soft % _NO_LIMIT, "hard": limit.hard % _NO_LIMIT}
                for limit in process.ulimit
            ],
            "noNewPrivileges": False,
        },
        "root": {"path": str(rootfs), "readonly": process.readonly_root},
        "hostname": process.hostname,
        "mounts": [mount for mount in system if mount["destination"] not in taken]
        + [_user_mount(mount, mode, nodev) for mount, mode in mounts],
        "linux": linux,
        "annotations": annotations,
    }


def _absolute(path: str) -> str:
    return os.path.normpath(f"/{path.lstrip('/')}")


def _devices(insecure: bool) -> list[dict[str, Any]]:
    """Rules of the device control group; the runtime adds the harmless devices that every container has."""
    return _ALL_DEVICES if insecure else [{"allow": False, "access": "rwm"}]


def _resources(limits: Resources) -> dict[str, Any]:
    memory: dict[str, int | str] = {"limit": limits.memory, "swap": limits.memory_swap}
    cpu: dict[str, int | str] = {
        "shares": limits.cpu_shares,
        "period": limits.cpu_period,
        "quota": limits.cpu_quota,
        "cpus": limits.cpuset_cpus,
        "mems": limits.cpuset_mems,
    }
    found = {"memory": memory, "cpu": cpu}
    return {
        name: {key: value for key, value in limit.items() if value}
        for name, limit in found.items()
        if any(limit.values())
    }


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _system_mounts(
    process: Process, user: User, standing: Standing, own_namespace: bool, has_cgroup: bool, insecure: bool
) -> list[dict[str, Any]]:
    # The terminals' group exists only where ids are mapped.
    group = ["gid=5"] if not own_namespace and standing.can_become(0, 5) else []
    writable = [] if insecure else ["ro"]
    found = [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *group),
        _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
    ]
    if standing.real_root or (process.network is NetMode.NONE and standing.privileged):
        found.append(_mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", *writable))
    else:
        # Only the owner of a network namespace may mount a sysfs of it.
        found.append(_mount("/sys", "bind", "/sys", "rbind", "rro", "nosuid", "noexec", "nodev"))
    if has_cgroup:
        found.append(_mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", *writable))
    return found


def _user_mount(mount: BindMount, mode: int, nodev: bool) -> dict[str, Any]:
    if mount.source is None:
        size = [f"size={mount.size}"] if mount.size else []
        readonly = ["ro"] if mount.readonly else []
        return _mount(_absolute(mount.dest), "tmpfs", "tmpfs", "nosuid", "nodev", f"mode={mode:o}", *size, *readonly)
    # What is mounted below a folder is to be read-only too, which the runtimes do for folders only.
    kind = "rro" if mount.source.is_dir() else "ro"
    options = ["rbind", kind, "nosuid", "nodev"] if mount.readonly else ["rbind", *(["nodev"] if nodev else [])]
    return _mount(_absolute(mount.dest), "bind", str(mount.source), *options)
