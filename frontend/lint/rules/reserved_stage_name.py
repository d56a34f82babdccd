"""ReservedStageName."""

from ..rule import Rule

RULE = Rule(
    "ReservedStageName",
    "Reserved words should not be used as stage names",
)


def message(name: str) -> str:
    """The text of one warning."""
    return f'Stage name should not use the same name as reserved stage "{name}"'
