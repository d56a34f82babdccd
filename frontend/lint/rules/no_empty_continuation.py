"""NoEmptyContinuation."""

from ..rule import Rule

RULE = Rule(
    "NoEmptyContinuation",
    "Empty continuation lines will become errors in a future release",
)


def message() -> str:
    """The text of one warning."""
    return "Empty continuation line"
