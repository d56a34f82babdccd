"""The command line: finds the command's module, runs it, and turns what went wrong into one line and an exit code."""

import os
import sys
from importlib import import_module

from .commands import ALIASES, COMMANDS
from .flags import UsageError, closest, parse, usage
from .interrupts import Terminated

INTERRUPTED = 130
"""The exit code after Ctrl-C, as a shell gives it to a process that SIGINT ended."""
SIGNALLED = 128
"""What a signal's number is added to for the exit code."""


def run(argv: list[str]) -> int:
    """Run one command; `argv` is without the program's name. Returns the exit code."""
    try:
        return _dispatch(argv)
    except UsageError as error:
        print(f"ERROR: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        name = ALIASES.get(argv[0], argv[0]) if argv else ""
        print(f"Run 'brickyard {f'{name} ' if name in COMMANDS else ''}--help' for what there is.", file=sys.stderr)
        return 2
    except Terminated as error:
        print("ERROR: terminated", file=sys.stderr)
        return SIGNALLED + error.number
    except KeyboardInterrupt:
        print("ERROR: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("BRICKYARD_DEBUG", "") not in ("", "0"):
            raise
        from .report import print_error

        print_error(error, sys.stderr)
        return 1


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("--help", "-h", "help"):
        return _help(argv[1:] if argv[:1] == ["help"] else [])
    if argv[0] in ("--version", "-v"):
        return _dispatch(["version"])
    name = ALIASES.get(argv[0], argv[0])
    if name not in COMMANDS:
        if name.startswith("-"):
            raise UsageError(f"unknown flag before the command: {name}")
        near = closest(name, [*COMMANDS, *ALIASES])
        raise UsageError(f"unknown command: {name}", f"did you mean 'brickyard {near}'?" if near else "")
    module = import_module(f".commands.{name}", __package__)
    parsed = parse(module.COMMAND, argv[1:])
    if parsed.on("help"):
        print(usage(module.COMMAND))
        return 0
    code: int = module.run(parsed)
    return code


def _help(words: list[str]) -> int:
    if words:
        return _dispatch([words[0], "--help"])
    width = max(map(len, COMMANDS))
    print("Usage:  brickyard COMMAND [OPTIONS]\n\nBuild container images from Dockerfiles, with a bundled solver")
    print("\nCommands:")
    for name, summary in COMMANDS.items():
        print(f"  {name:<{width}}   {summary}")
    print("\nOptions:\n  -h, --help      Show this help\n  -v, --version   Show the version")
    print("\nRun 'brickyard COMMAND --help' for the options of a command.")
    return 0
