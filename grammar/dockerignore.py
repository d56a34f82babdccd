"""Ignore files: `.dockerignore`, and the patterns in them.

Source: Docker's build context documentation, ".dockerignore files".
"""

from ..wire.patterns import Matcher, PatternError, clean, match, translate

__all__ = ["Matcher", "PatternError", "match", "read_ignore", "translate"]


def read_ignore(text: str) -> list[str]:
    """The patterns of an ignore file: cleaned, without comments, relative, `!` kept."""
    out = []
    for line in text.removeprefix("\ufeff").split("\n"):
        line = line.removesuffix("\r")
        if line.startswith("#"):
            continue
        pattern = line.strip()
        if not pattern:
            continue
        negated = pattern.startswith("!")
        if negated:
            pattern = pattern[1:].strip()
        if pattern:
            pattern = clean(pattern)
            if len(pattern) > 1:
                pattern = pattern.removeprefix("/")
        out.append("!" + pattern if negated else pattern)
    return out
