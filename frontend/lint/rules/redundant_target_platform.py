"""RedundantTargetPlatform."""

from ..rule import Rule

RULE = Rule(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
)


def message(variable: str) -> str:
    """The text of one warning."""
    return f"Setting platform to predefined {variable} in FROM is redundant as this is the default behavior"
