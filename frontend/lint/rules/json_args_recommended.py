"""JSONArgsRecommended."""

from ..rule import Rule

RULE = Rule(
    "JSONArgsRecommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
)


def message(name: str) -> str:
    """The text of one warning."""
    return f"JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
