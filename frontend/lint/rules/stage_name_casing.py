"""StageNameCasing."""

from ..rule import Rule

RULE = Rule(
    "StageNameCasing",
    "Stage names should be lowercase",
)


def message(name: str) -> str:
    """The text of one warning."""
    return f"Stage name '{name}' should be lowercase"
