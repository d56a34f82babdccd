"""ExposeInvalidFormat."""

from ..rule import Rule

RULE = Rule(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction",
)


def message(port: str) -> str:
    """The text of one warning."""
    return f'EXPOSE names a port of the container alone: write it without the address or host port of "{port}"'
