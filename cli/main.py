"""The command line: finds the command's module and runs it."""

import sys


def run(argv: list[str]) -> int:
    """Run one command; `argv` is without the program's name. Returns the exit code."""
    from .. import __version__

    if argv == ["--version"]:
        print(f"brickyard {__version__}")
        return 0
    print("usage: brickyard --version", file=sys.stderr)
    return 0 if argv in (["--help"], ["-h"]) else 2
