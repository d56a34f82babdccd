"""CopyIgnoredFile."""

from ..rule import Rule

RULE = Rule(
    "CopyIgnoredFile",
    "Attempting to Copy file that is excluded by .dockerignore",
)


def message(command: str, path: str) -> str:
    """The text of one warning."""
    return f'Attempting to {command} file "{path}" that is excluded by .dockerignore'
