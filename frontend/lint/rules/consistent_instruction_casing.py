"""ConsistentInstructionCasing."""

from ....grammar.dockerfile.tree import Dockerfile
from ..edit import Edit, at
from ..linter import Warning
from ..rule import Rule

RULE = Rule(
    "ConsistentInstructionCasing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
)


def message(name: str, casing: str) -> str:
    """The text of one warning."""
    return f"Command '{name}' should match the case of the command majority ({casing})"


def fix(file: Dockerfile, warning: Warning) -> list[Edit]:
    """Write the keyword as most of them are written."""
    lower = warning.message == message(_keyword(file, warning), "lowercase")
    return [
        Edit(node.span.start.line, node.span.start.column, len(node.keyword), new)
        for node in at(file, warning.start)
        if (new := node.keyword.lower() if lower else node.name) != node.keyword
    ][:1]


def _keyword(file: Dockerfile, warning: Warning) -> str:
    return next((node.keyword for node in at(file, warning.start)), "")
