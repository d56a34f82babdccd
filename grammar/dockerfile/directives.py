"""Parser directives: `# syntax=…`, `# escape=…`, `# check=…` on the first lines, and the detection of the frontend.

Source: Dockerfile reference, "Parser directives"; the facts of BuildKit's gateway about other comment forms.
"""

import json
import re
from collections.abc import Iterator

from ..errors import Location
from .errors import at
from .space import SPACES
from .tree import Directive, Position, Span

KNOWN = frozenset({"syntax", "escape", "check"})
_FORM = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*(.+?)[\t\n\f\r ]*$")


def parse_directive(line: str, number: int, comment: str = "#") -> Directive | None:
    """The directive that a line is, or None. `number` is the line's, from 1."""
    if not line.startswith(comment):
        return None
    match = _FORM.match(line[len(comment) :].lstrip(SPACES))
    if match is None or match[1].lower() not in KNOWN:
        return None
    return Directive(match[1].lower(), match[2], Span(Position(number, 0), Position(number, len(line))))


def leading(lines: Iterator[str], comment: str, first: int) -> Iterator[Directive]:
    """The directives that lines begin with.

    Raises:
        DockerfileSyntaxError: where one is given twice.
    """
    seen: set[str] = set()
    for number, line in enumerate(lines, first):
        found = parse_directive(line, number, comment)
        if found is None:
            return
        if found.name in seen:
            raise at(f"only one {found.name} parser directive can be used", number, hint="remove one of the two lines")
        seen.add(found.name)
        yield found


def parse_directives(source: str, comment: str = "#") -> dict[str, Directive]:
    """The directives at the start of a text by name; what comes after a directive given twice is ignored."""
    out: dict[str, Directive] = {}
    lines = (line.rstrip("\r") for line in source.removeprefix("\ufeff").split("\n"))
    for number, line in enumerate(lines, 1):
        found = parse_directive(line, number, comment)
        if found is None or found.name in out:
            break
        out[found.name] = found
    return out


def detect_syntax(source: str) -> tuple[str, str, Location] | None:
    """The frontend image that a file asks for: image, whole value, and place; None where it asks for none.

    A byte order mark and a `#!` line are passed over; the directive may stand behind `#` or `//`, or be the key
    "syntax" of a JSON object.
    """
    text = source.removeprefix("\ufeff")
    offset = 0
    if text.startswith("#!"):
        text = text.partition("\n")[2]
        offset = 1
    for comment in ("#", "//"):
        found = parse_directives(text, comment).get("syntax")
        if found is not None:
            line = found.span.start.line + offset
            return found.value.partition(" ")[0], found.value, Location(line, line)
    if text.lstrip()[:1] != "{":
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    value = document.get("syntax")
    return (value, value, Location(offset + 1, offset + 1)) if isinstance(value, str) else None
