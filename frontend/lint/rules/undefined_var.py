"""UndefinedVar."""

from ..rule import Rule

RULE = Rule(
    "UndefinedVar",
    "Variables should be defined before their use",
)


def message(name: str, suggestion: str) -> str:
    """The text of one warning."""
    return f"Usage of undefined variable '${name}'" + (f" (did you mean ${suggestion}?)" if suggestion else "")
