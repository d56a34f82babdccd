"""`brickyard version`."""

from ... import __version__
from ..flags import Command, Parsed
from . import COMMANDS

COMMAND = Command("version", COMMANDS["version"])


def run(parsed: Parsed) -> int:
    """Print the version."""
    print(f"brickyard {__version__}")
    return 0
