"""InvalidDefaultArgInFrom."""

from ..rule import Rule

RULE = Rule(
    "InvalidDefaultArgInFrom",
    "Default value for global ARG results in an empty or invalid base image name",
)


def message(name: str) -> str:
    """The text of one warning."""
    return f"Default value for ARG {name} results in empty or invalid base image name"
