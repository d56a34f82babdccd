"""DuplicateStageName."""

from ..rule import Rule

RULE = Rule(
    "DuplicateStageName",
    "Stage names should be unique",
)


def message(name: str) -> str:
    """The text of one warning."""
    return f'Duplicate stage name "{name}", stage names should be unique'
