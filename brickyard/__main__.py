"""`python -m brickyard`."""

import os
import sys


def main() -> int:
    """The command line's entry point."""
    _standard_streams()
    if sys.getfilesystemencoding() != "utf-8":
        _in_utf8()
    from .cli.main import run

    return run(sys.argv[1:])


def _standard_streams() -> None:
    """Give streams that whoever started us has closed a place: a file opened later must not take their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def _in_utf8() -> None:
    """Start anew with UTF-8 for the names of files and for output: the locale says something else, images don't."""
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
