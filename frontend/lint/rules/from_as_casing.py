"""FromAsCasing."""

from ..rule import Rule

RULE = Rule(
    "FromAsCasing",
    "The 'as' keyword should match the case of the 'from' keyword",
)


def message(from_word: str, as_word: str) -> str:
    """The text of one warning."""
    return f"'{as_word}' and '{from_word}' keywords' casing do not match"
