"""`brickyard du`."""

from ..engine import ROOT, open_solver
from ..flags import Command, Flag, Parsed
from . import COMMANDS

COMMAND = Command(
    "du",
    COMMANDS["du"],
    (
        Flag("filter", "Only records that match (type=…, id=…, until=24h, shared, inuse)", "list"),
        ROOT,
        Flag("verbose", "Show everything about each record", "switch"),
    ),
)


def run(parsed: Parsed) -> int:
    """List the records of the cache, and what they take together."""
    from ...wire.pb import control_pb2
    from ..table import human_size, table
    from ..usage_records import details, filters, listing

    terms, age = filters(parsed.texts("filter"))
    with open_solver(parsed) as solver:
        answer = solver.disk_usage(control_pb2.DiskUsageRequest(filter=terms, ageLimit=age))
    records = sorted(answer.record, key=lambda record: (-record.Size, record.ID))
    if parsed.on("verbose"):
        for record in records:
            print(details(record), end="\n\n")
    else:
        print(listing(records))
    if not parsed.texts("filter"):
        total = sum(record.Size for record in records)
        shared = sum(record.Size for record in records if record.Shared)
        rows = [("Shared:", human_size(shared)), ("Private:", human_size(total - shared))] if shared else []
        rows.append(("Reclaimable:", human_size(sum(record.Size for record in records if not record.InUse))))
        print(table([*rows, ("Total:", human_size(total))]))
    return 0
