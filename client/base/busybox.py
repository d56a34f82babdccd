"""A root file system of busybox: one program, and a link to it for each of its commands."""

import subprocess
from pathlib import Path

from ..errors import ClientError
from .elf import libraries
from .tree import Tree


def busybox_tree(program: Path) -> Tree:
    """The tree of a busybox on this machine.

    Raises:
        ClientError: it does not tell its commands, or has no shell.
    """
    done = subprocess.run([program, "--list-full"], capture_output=True, text=True, check=False)
    commands = done.stdout.split()
    if done.returncode != 0 or not any(path.endswith("/sh") for path in commands):
        raise ClientError(f"{program} does not list its commands, a shell among them", "use --from host")
    tree = Tree()
    tree.add_file("bin/busybox", program)
    for path, source in libraries(program).items():
        tree.add_file(path, source)
    for path in commands:
        tree.add_link(path, "/bin/busybox")
    return tree
