"""The errors of this room."""

from ..errors import Location, SourceError


class DockerfileSyntaxError(SourceError):
    """A Dockerfile that does not parse."""


def at(message: str, start: int, end: int | None = None, hint: str = "") -> DockerfileSyntaxError:
    """An error on whole lines, counted from 1."""
    return DockerfileSyntaxError(message, Location(start, start if end is None else end), hint)
