"""RedundantTargetPlatform."""

from ....grammar.dockerfile.tree import Dockerfile
from ..edit import Edit, at
from ..linter import Warning
from ..rule import Rule

RULE = Rule(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
)


def message(variable: str) -> str:
    """The text of one warning."""
    return f"Setting platform to predefined {variable} in FROM is redundant as this is the default behavior"


def fix(file: Dockerfile, warning: Warning) -> list[Edit]:
    """Leave the flag out."""
    return [
        Edit(flag.span.start.line, flag.span.start.column, flag.span.end.column - flag.span.start.column + 1, "")
        for node in at(file, warning.start)
        for flag in node.flags
        if flag.name == "platform" and flag.span.start.line == flag.span.end.line
    ]
