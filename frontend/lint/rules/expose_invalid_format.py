"""ExposeInvalidFormat."""

from ..rule import Rule

RULE = Rule(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future "
    "release",
)


def message(port: str) -> str:
    """The text of one warning."""
    return f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
