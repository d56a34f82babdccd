"""LegacyKeyValueFormat."""

from ..rule import Rule

RULE = Rule(
    "LegacyKeyValueFormat",
    "Legacy key/value format with whitespace separator should not be used",
)


def message(name: str) -> str:
    """The text of one warning."""
    return f'"{name} key=value" should be used instead of legacy "{name} key value" format'
