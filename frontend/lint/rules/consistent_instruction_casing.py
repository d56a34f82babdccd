"""ConsistentInstructionCasing."""

from ..rule import Rule

RULE = Rule(
    "ConsistentInstructionCasing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
)


def message(name: str, casing: str) -> str:
    """The text of one warning."""
    return f"Command '{name}' should match the case of the command majority ({casing})"
