"""FromPlatformFlagConstDisallowed."""

from ..rule import Rule

RULE = Rule(
    "FromPlatformFlagConstDisallowed",
    "FROM --platform flag should not use a constant value",
)


def message(platform: str) -> str:
    """The text of one warning."""
    return f'FROM --platform flag should not use constant value "{platform}"'
