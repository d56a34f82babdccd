"""InvalidDefinitionDescription."""

from ..rule import Rule

RULE = Rule(
    "InvalidDefinitionDescription",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> "
    "<description>`. If this is not intended to be a description comment, add an empty line or "
    "comment between the instruction and the comment.",
    experimental=True,
)


def message(instruction: str, name: str) -> str:
    """The text of one warning."""
    return f"Comment for {instruction} should follow the format: `# {name} <description>`"
