"""SecretsUsedInArgOrEnv."""

from ..rule import Rule

RULE = Rule(
    "SecretsUsedInArgOrEnv",
    "Sensitive data should not be used in the ARG or ENV commands",
)


def message(instruction: str, name: str) -> str:
    """The text of one warning."""
    return f'Do not use ARG or ENV instructions for sensitive data ({instruction} "{name}")'
