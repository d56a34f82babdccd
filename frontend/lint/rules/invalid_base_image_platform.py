"""InvalidBaseImagePlatform."""

from ..rule import Rule

RULE = Rule(
    "InvalidBaseImagePlatform",
    "Base image platform does not match expected target platform",
    documented=False,
)


def message(image: str, wanted: str, found: str) -> str:
    """The text of one warning."""
    return f'Base image {image} was pulled with platform "{found}", expected "{wanted}" for current build'
