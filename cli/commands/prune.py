"""`brickyard prune`."""

import sys

from ...client.errors import ClientError
from ..engine import ROOT, open_solver
from ..flags import Command, Flag, Parsed
from . import COMMANDS

COMMAND = Command(
    "prune",
    COMMANDS["prune"],
    (
        Flag("all", "Also remove what later builds are likely to need", "switch", "a"),
        Flag("filter", "Only records that match (type=…, id=…, until=24h)", "list"),
        Flag("force", "Do not ask", "switch", "f"),
        Flag("keep-storage", "Old name of --reserved-space", metavar="bytes"),
        Flag("max-used-space", "The most that the cache may take", metavar="bytes"),
        Flag("min-free-space", "How much of the disk should be free afterwards", metavar="bytes"),
        Flag("reserved-space", "How much cache is always kept", metavar="bytes"),
        ROOT,
        Flag("verbose", "Show everything about each record that is removed", "switch"),
    ),
)


def run(parsed: Parsed) -> int:
    """Ask, remove, and list what was removed."""
    from .. import specs
    from ..usage_records import filters

    terms, age = filters(parsed.texts("filter"))
    limits = {
        flag: specs.size(parsed.text(flag), flag) if parsed.given(flag) else 0
        for flag in ("keep-storage", "reserved-space", "max-used-space", "min-free-space")
    }
    if not parsed.on("force") and not _agreed(parsed.on("all")):
        return 0
    from ...wire.pb import control_pb2
    from ..table import human_size, table
    from ..usage_records import details, listing

    request = control_pb2.PruneRequest(
        filter=terms,
        all=parsed.on("all"),
        keepDuration=age,
        reservedSpace=limits["reserved-space"] or limits["keep-storage"],
        maxUsedSpace=limits["max-used-space"],
        minFreeSpace=limits["min-free-space"],
    )
    with open_solver(parsed) as solver:
        removed = list(solver.prune(request))
    if parsed.on("verbose"):
        for record in removed:
            print(details(record), end="\n\n")
    elif removed:
        print(listing(removed))
    print(table([("Total:", human_size(sum(record.Size for record in removed)))]))
    return 0


def _agreed(everything: bool) -> bool:
    what = "all build cache" if everything else "all dangling build cache"
    print(f"WARNING! This will remove {what}. Are you sure you want to continue? [y/N] ", end="", flush=True)
    line = sys.stdin.readline()
    if not line:
        print()
        raise ClientError("not confirmed: nothing was removed", "--force does not ask")
    return line.strip().lower() in ("y", "yes")
