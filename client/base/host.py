"""A root file system of this machine's own shell and tools, with the libraries they load."""

import os
import shutil
from pathlib import Path

from ..errors import ClientError
from .elf import ElfError, is_elf, libraries
from .tree import Tree

_NAMES = """
[ awk b2sum base32 base64 basename bash cat chgrp chmod chown chroot cksum cmp comm cp csplit cut date dd df diff diff3
dirname du echo egrep env expand expr factor false fgrep find fmt fold grep groups gunzip gzip head hostid hostname id
install join kill link ln logname ls md5sum mkdir mkfifo mknod mktemp mv nice nl nohup nproc numfmt od paste pathchk
pinky pr printenv printf ps ptx pwd readlink realpath rm rmdir sed seq sh sha1sum sha224sum sha256sum sha384sum
sha512sum shred shuf sleep sort split stat stdbuf stty sum sync tac tail tar tee test timeout touch tr true truncate
tsort tty uname unexpand uniq unlink wc which who whoami xargs yes zcat
"""
TOOLS = tuple(_NAMES.split())
"""The commands that are taken where the machine has them; `NEEDED` must be there."""
NEEDED = ("sh", "cat", "cp", "echo", "ls", "mkdir", "mv", "rm", "sleep")
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def host_tree(path: str = _PATH) -> Tree:
    """The tree of the tools found on `path`.

    Raises:
        ClientError: one that nothing works without is not there.
    """
    tree = Tree()
    tree.folders |= {"usr/bin": 0o755}
    tree.add_link("bin", "usr/bin")
    tree.add_link("sbin", "usr/sbin")
    for name in TOOLS:
        found = shutil.which(name, path=path)
        added = found is not None and _add(tree, name, Path(os.path.realpath(found)))
        if not added and name in NEEDED:
            raise ClientError(f"this machine has no {name} that a base image could use", "install busybox-static")
    return tree


def _add(tree: Tree, name: str, program: Path) -> bool:
    if is_elf(program):
        try:
            loaded = libraries(program)
        except ElfError:
            return False
        for path, source in loaded.items():
            tree.add_file(path, source)
    elif not _is_script(program):
        return False
    tree.add_file(f"usr/bin/{name}", program)
    return True


def _is_script(program: Path) -> bool:
    with program.open("rb") as stream:
        return stream.readline(64).strip() in (b"#!/bin/sh", b"#! /bin/sh", b"#!/bin/bash", b"#!/usr/bin/sh")
