"""`python -m brickyard`."""

import sys


def main() -> int:
    """The command line's entry point."""
    from .cli.main import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
