"""UndefinedArgInFrom."""

from ..rule import Rule

RULE = Rule(
    "UndefinedArgInFrom",
    "FROM command must use declared ARGs",
)


def message(name: str, suggestion: str) -> str:
    """The text of one warning."""
    return f"FROM argument '{name}' is not declared" + (f" (did you mean {suggestion}?)" if suggestion else "")
