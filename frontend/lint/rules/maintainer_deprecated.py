"""MaintainerDeprecated."""

from ..rule import Rule

RULE = Rule(
    "MaintainerDeprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
)


def message() -> str:
    """The text of one warning."""
    return "Maintainer instruction is deprecated in favor of using label"
