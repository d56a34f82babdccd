"""Tables and sizes as docker prints them."""

import time
from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """The rows with their columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ("   ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in padded)


def human_size(count: float) -> str:
    """A number of bytes with four digits and a decimal unit: `1.234MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if count < 1000 or unit == "PB":
            break
        count /= 1000
    return f"{count:.4g}{unit}"


_SPANS = (
    (365 * 86400 * 2, 365 * 86400, "years"),
    (86400 * 60, 86400 * 30, "months"),
    (86400 * 14, 86400 * 7, "weeks"),
    (86400 * 2, 86400, "days"),
    (3600 * 2, 3600, "hours"),
    (120, 60, "minutes"),
    (2, 1, "seconds"),
)


def ago(then: float, now: float | None = None) -> str:
    """How long ago a time (seconds since 1970) was: `3 hours ago`."""
    seconds = (time.time() if now is None else now) - then
    for least, unit, name in _SPANS:
        if seconds >= least:
            return f"{int(seconds // unit)} {name} ago"
    return "a moment ago"
