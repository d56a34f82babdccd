"""`brickyard debug fsck`."""

import sys

from ..engine import ROOT, open_solver
from ..flags import Command, Flag, Parsed, UsageError
from . import COMMANDS

COMMAND = Command(
    "debug",
    COMMANDS["debug"],
    (Flag("repair", "Drop what is damaged: builds make again what they need", "switch"), ROOT),
    arguments="fsck",
    required=1,
    most=1,
    notes="""\
Looks at everything in the state folder: blobs against their digests, snapshots and cache records against what they
name, and the daemon's history. Each finding is one line; the exit code is 1 where there are any that stay.

What a process that was killed has left is no damage: opening the folder drops it. No daemon may use the folder.""",
)


def run(parsed: Parsed) -> int:
    """Look, name what is wrong, and drop it where that is asked for."""
    (action,) = parsed.arguments
    if action != "fsck":
        raise UsageError(f"brickyard debug: there is no {action!r}", "write brickyard debug fsck")
    repair = parsed.on("repair")
    with open_solver(parsed) as solver:
        found = 0
        for line in solver.fsck(repair=repair):
            print(line)
            found += 1
    if not found:
        print("everything is in order", file=sys.stderr)
    elif repair:
        print(f"{found} dropped", file=sys.stderr)
    else:
        print(f"{found} found; --repair drops them", file=sys.stderr)
    return 1 if found and not repair else 0
