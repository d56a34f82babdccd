"""What the runtimes say of a process that they can't start, in one form for all of them."""

import re
from pathlib import Path

from .base import ExecError
from .inside import is_inside

_NOT_FOUND = re.compile(r"not found in \$PATH|no such file or directory|ENOENT", re.IGNORECASE)
_DENIED = re.compile(r"permission denied|operation not permitted|is a directory", re.IGNORECASE)
_FORMAT = re.compile(r"exec format error", re.IGNORECASE)
_OF_THE_PROGRAM = re.compile(r"^(?:executable file|open executable|exec|execvp)\b|: exec:? ")


def explain(message: str, args: tuple[str, ...], name: str, rootfs: Path) -> ExecError:
    """The error for a runtime's message about the program `args[0]` of a root file system."""
    program = args[0] if args else ""
    text = message.strip()
    if not _OF_THE_PROGRAM.search(text.removeprefix("bwrap: ")):
        return ExecError(f"{name} cannot start the process: {text}")
    if _NOT_FOUND.search(text) and "/" in program and is_inside(rootfs, program):
        return ExecError(f'exec: "{program}": its interpreter or dynamic loader is not in the root file system', 127)
    if _FORMAT.search(text):
        return ExecError(f'exec: "{program}": exec format error: it is no program of this machine\'s architecture', 126)
    if _NOT_FOUND.search(text):
        reason = "no such file or directory" if "/" in program else "executable file not found in $PATH"
        return ExecError(f'exec: "{program}": {reason}', 127)
    if _DENIED.search(text):
        return ExecError(f'exec: "{program}": permission denied', 126)
    return ExecError(f'exec: "{program}": {text}', 126)
