"""Here-documents: which words of a line start one, and what their name says."""

import re
from dataclasses import dataclass

from .words import ExpansionError, Words

_FORM = re.compile(r"^(\d*)<<(-?)[\t\n\f\r ]*([^<]*)$")
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)
_LINE = Words(raw_quotes=True, raw_escapes=True, skip_unset=True)
_NAME = Words(skip_unset=True)
_RAW_NAME = Words(raw_quotes=True, skip_unset=True)


@dataclass(frozen=True, slots=True)
class Marker:
    """`[fd]<<[-]NAME`: `expand` unless a part of the name is quoted, `chomp` for `<<-`."""

    name: str
    expand: bool
    chomp: bool
    file_descriptor: int


def parse_marker(word: str) -> Marker | None:
    """The marker that a whole word is, or None.

    Raises:
        ExpansionError: where the quotes of its name are broken.
    """
    match = _FORM.match(word)
    if match is None or not match[3]:
        return None
    names = _NAME.expand(match[3], {}).words
    if len(names) != 1:
        return None
    raw = _RAW_NAME.expand(match[3], {}).words[0]
    quotes = raw.count("'") + raw.count('"')
    expand = quotes == names[0].count("'") + names[0].count('"')
    return Marker(names[0], expand, match[2] == "-", int(match[1] or 0))


def markers(line: str) -> list[Marker]:
    """The markers of a logical line. Raises ExpansionError as `parse_marker` does."""
    try:
        words = _LINE.expand(line, {}).words
    except ExpansionError:
        return []
    return [marker for marker in map(parse_marker, words) if marker is not None]


def chomp(content: str) -> str:
    """The content without the tabs that its lines begin with."""
    return _LEADING_TABS.sub("", content)
