"""How many arguments an instruction takes."""

from ...grammar.dockerfile.tree import Instruction
from .errors import fail


def exactly_one(node: Instruction) -> str:
    """The one argument. Raises DockerfileError for none."""
    if len(node.words) != 1:
        raise fail(node, f"{node.name} requires exactly one argument")
    return node.words[0]


def at_least_one(node: Instruction) -> tuple[str, ...]:
    """The arguments. Raises DockerfileError for none."""
    if not node.words:
        raise fail(node, f"{node.name} requires at least one argument")
    return node.words
