"""Errors in a Dockerfile that parses but cannot be built."""

from collections.abc import Iterable

from ...grammar.dockerfile.tree import Flag, Instruction
from ...grammar.errors import Location, SourceError
from .suggest import nearest


class DockerfileError(SourceError):
    """What is wrong with an instruction, and where. `__cause__` is the failed call that it comes from, if any."""


def fail(node: Instruction, message: str, hint: str = "", flag: Flag | None = None) -> DockerfileError:
    """An error on an instruction, or on one of its flags."""
    if flag is not None:
        start, end = flag.span.start, flag.span.end
        width = end.column - start.column if end.line == start.line else 1
        return DockerfileError(message, Location(start.line, start.line, start.column, max(1, width)), hint)
    return DockerfileError(message, Location(node.span.start.line, node.span.end.line), hint)


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """A hint that names the option nearest to a word, empty where none is near or it is one of them."""
    options = list(options)
    if word.lower() in options:
        return ""
    letters = sorted(word.lower())
    # Letters in another order are the likelier slip than others in their place.
    near = next((one for one in options if sorted(one) == letters), "") or nearest(word.lower(), options)
    if not near:
        # Farther than BuildKit looks: a word that has most in common.
        import difflib

        near = next(iter(difflib.get_close_matches(word.lower(), options, n=1, cutoff=0.6)), "")
    return f"did you mean {near}?" if near else ""
