"""WorkdirRelativePath."""

from ..rule import Rule

RULE = Rule(
    "WorkdirRelativePath",
    "Relative workdir without an absolute workdir declared within the build can have unexpected "
    "results if the base image changes",
)


def message(path: str) -> str:
    """The text of one warning."""
    return f'Relative workdir "{path}" can have unexpected results if the base image changes'
