"""Python as this machine has it: the interpreter, the standard library, and the libraries that they load."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from ..errors import ClientError
from .elf import ElfError, find_library, is_elf, libraries
from .tree import Tree

_ASK = """
import json, sys, sysconfig
paths = sysconfig.get_paths()
shared = sysconfig.get_config_var("DESTSHARED")
print(json.dumps([sys.executable, paths["stdlib"], paths["platstdlib"], shared, list(sys.version_info[:2])]))
"""
_LEFT_OUT = frozenset(
    {"__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tests"}
    | {"tkinter", "turtledemo"}
)
_RUNTIME = ("libstdc++.so.6", "libgcc_s.so.1")
"""What compiled packages expect of a system, beside the libraries of Python itself."""
_PATH = "/usr/bin:/usr/local/bin:/bin"


def add_python(tree: Tree, interpreter: Path | None = None) -> str:
    """Add an interpreter of this machine to a tree, at the paths that it has here; returns its version.

    Without a name it is the system's own, or the one that runs this. What it has for tests and graphical programs is
    left out, and so are packages that were installed.

    Raises:
        ClientError: it can't be run, or a library of its is missing.
    """
    chosen = str(interpreter or shutil.which("python3", path=_PATH) or os.path.realpath("/proc/self/exe"))
    done = subprocess.run([chosen, "-I", "-S", "-c", _ASK], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClientError(f"{chosen} is no Python that a base image could use: {done.stderr.strip()[-200:]}")
    executable, *folders, version = json.loads(done.stdout)
    program = Path(os.path.realpath(executable))
    try:
        tree.add_file(str(program), program)
        _add_libraries(tree, program)
        for folder in dict.fromkeys(folders):
            if folder and os.path.isdir(folder):
                _add_folder(tree, Path(folder))
        for name in _RUNTIME:
            library = find_library(name, program)
            if library is not None:
                tree.add_file(str(library), library)
    except ElfError as error:
        raise ClientError(f"{chosen}: {error}") from error
    for link in {f"/usr/bin/{name}" for name in ("python3", f"python{version[0]}.{version[1]}")} - {str(program)}:
        tree.add_link(link, str(program))
    return f"{version[0]}.{version[1]}"


def _add_libraries(tree: Tree, program: Path) -> None:
    for path, source in libraries(program).items():
        tree.add_file(path, source)


def _add_folder(tree: Tree, folder: Path) -> None:
    for current, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and not name.startswith("config-"))
        for name in sorted(names):
            path = Path(current, name)
            if name.endswith(".a") or not path.is_file():
                continue
            if ".so" in name and is_elf(path):
                try:
                    _add_libraries(tree, path)
                except ElfError:
                    # An extension whose library isn't installed doesn't work here either.
                    continue
            tree.add_file(str(path), path)
