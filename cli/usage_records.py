"""What a cache holds, as `du` and `prune` list it, and the filters that choose from it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import specs
from .flags import UsageError
from .table import ago, human_size, table

if TYPE_CHECKING:
    from ..wire.pb import control_pb2

HEADER = ("ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED")


def listing(records: Sequence["control_pb2.UsageRecord"]) -> str:
    """The records as a table. `*` marks a record that can change, and a size that is shared."""
    return table([HEADER, *(_row(record) for record in records)])


def _row(record: "control_pb2.UsageRecord") -> tuple[str, str, str, str]:
    used = ago(record.LastUsedAt.seconds) if record.HasField("LastUsedAt") else ""
    name = record.ID + ("*" if record.Mutable else "")
    size = human_size(record.Size) + ("*" if record.Shared else "")
    return name, str(not record.InUse).lower(), size, used


def details(record: "control_pb2.UsageRecord") -> str:
    """Everything about one record."""
    rows = [("ID:", record.ID)]
    if record.Parents:
        rows.append(("Parents:", ", ".join(record.Parents)))
    rows += [
        ("Created at:", record.CreatedAt.ToJsonString()),
        ("Mutable:", str(record.Mutable).lower()),
        ("Reclaimable:", str(not record.InUse).lower()),
        ("Shared:", str(record.Shared).lower()),
        ("Size:", human_size(record.Size)),
    ]
    if record.Description:
        rows.append(("Description:", record.Description))
    rows.append(("Usage count:", str(record.UsageCount)))
    if record.HasField("LastUsedAt"):
        rows.append(("Last used:", ago(record.LastUsedAt.seconds)))
    if record.RecordType:
        rows.append(("Type:", record.RecordType))
    return table(rows)


def filters(values: list[str]) -> tuple[list[str], int]:
    """`--filter` values as the protocol has them: one expression, and the age of `until` in nanoseconds."""
    terms, age = [], 0
    for text in values:
        key, equals, value = text.partition("=")
        if key in ("until", "unused-for"):
            if age:
                raise UsageError("--filter: until is given twice")
            age = specs.duration(value, "filter until")
        elif not equals:
            terms.append(key)
        elif key == "id":
            terms.append(f"id~={value}")
        else:
            terms.append(f"{key}={value}" if key.endswith(("!", "~")) else f"{key}=={value}")
    return ([",".join(terms)] if terms else []), age
