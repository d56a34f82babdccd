"""What every executor does before it starts a process: its folder, its user, and the places of its mounts."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from .base import BindMount, ExecError, Process
from .files import HOSTNAME, resolv_conf, write_hosts
from .limits import check_ulimits
from .mountpoints import NEW_TMPFS_MODE, Mountpoints
from .users import User, find_user

_SYSTEM = ("proc", "dev", "sys")

active: set[Path] = set()
"""The folders of this process's own runs."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A process that can be started.

    Attributes:
        process: with its hostname.
        rootfs: its root file system, without symbolic links in its name.
        tree: to be closed when the process has ended.
        mounts: the hosts file, the name servers, and the process's own, each with its place's resolved path as `dest`
            and the mode that a tmpfs there has.
        made_cwd: the path of the working folder if it is still to be made, as it is in a tmpfs; else empty.
    """

    process: Process
    rootfs: Path
    user: User
    tree: Mountpoints
    mounts: tuple[tuple[BindMount, int], ...]
    made_cwd: str


def prepare(process: Process, folder: Path) -> Prepared:
    """Get everything ready for a process, with its own files in a new folder.

    Raises:
        ExecError: for what can't be given to a process, with the reason.
    """
    _check(process)
    active.add(folder)
    try:
        folder.mkdir(parents=True, mode=0o711)
    except OSError as error:
        raise ExecError(f"cannot make {folder}: {error.strerror}") from None
    rootfs = Path(os.path.realpath(process.rootfs))
    user = find_user(rootfs, process.user)
    hostname = process.hostname or HOSTNAME
    tree = Mountpoints(rootfs, recursive=process.remove_mount_stubs)
    try:
        for name in _SYSTEM:
            tree.system(name)
        mounts = [
            BindMount("etc/resolv.conf", resolv_conf(folder), readonly=True),
            BindMount("etc/hosts", write_hosts(folder, hostname, process.extra_hosts), readonly=True),
            *process.mounts,
        ]
        placed = []
        for mount in mounts:
            path = tree.add(mount)
            placed.append((replace(mount, dest=path), tree.modes.get(path, NEW_TMPFS_MODE)))
        cwd = tree.folder(process.cwd, (user.uid, user.gid))
        made_cwd = cwd if tree.is_temporary(cwd) else ""
    except OSError as error:
        tree.close()
        raise ExecError(f"cannot prepare the process: {error.strerror}") from None
    except BaseException:
        tree.close()
        raise
    return Prepared(replace(process, hostname=hostname), rootfs, user, tree, tuple(placed), made_cwd)


def remove(folder: Path) -> None:
    """Remove the folder of a process that has ended."""
    shutil.rmtree(folder, ignore_errors=True)
    active.discard(folder)


def _check(process: Process) -> None:
    """No word of a process may end before its end, or be missing. Raises ExecError."""
    if not process.args or not process.args[0]:
        raise ExecError("the process has no program")
    words = {
        "argument": process.args,
        "variable": process.env,
        "path": (process.cwd, *(mount.dest for mount in process.mounts)),
        "name": (process.user, process.hostname, process.cgroup_parent),
        "host": tuple(word for entry in process.extra_hosts for word in (entry.host, entry.ip)),
    }
    for kind, found in words.items():
        for word in found:
            if "\0" in word:
                raise ExecError(f"a NUL character in the {kind} {word[:80]!r} of the process")
            if kind == "host" and "\n" in word:
                raise ExecError(f"a line break in the {kind} {word[:80]!r} of the process")
    check_ulimits(process.ulimit)
