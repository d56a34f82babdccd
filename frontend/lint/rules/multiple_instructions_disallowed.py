"""MultipleInstructionsDisallowed."""

from ..rule import Rule

RULE = Rule(
    "MultipleInstructionsDisallowed",
    "Multiple instructions of the same type should not be used in the same stage",
)


def message(name: str) -> str:
    """The text of one warning."""
    return f"Multiple {name} instructions should not be used in the same stage because only the last one will be used"
