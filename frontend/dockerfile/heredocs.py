"""Here-documents in the arguments of ADD, COPY and RUN."""

from ...grammar.dockerfile.heredoc import Marker, parse_marker
from ...grammar.dockerfile.words import ExpansionError


def marker_of(word: str) -> Marker | None:
    """The here-document that a word starts, or None."""
    if "<<" not in word:
        return None
    try:
        return parse_marker(word)
    except ExpansionError:
        return None


def summary(content: str) -> str:
    """The first line, for progress."""
    lines = content.strip().replace("\r\n", "\n").split("\n")
    return lines[0] + ("..." if len(lines) > 1 else "")
