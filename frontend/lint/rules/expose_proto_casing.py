"""ExposeProtoCasing."""

from ..rule import Rule

RULE = Rule(
    "ExposeProtoCasing",
    "Protocol in EXPOSE instruction should be lowercase",
)


def message(port: str) -> str:
    """The text of one warning."""
    return f'The protocol of "{port}" should be in lower case'
