"""The tokens of a Dockerfile.

Physical lines are joined to logical ones here, since continuation characters, the comments between them, the escape
directive and the bodies of here-documents depend on what came before, which no regular expression can see.
"""

import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import Location
from .directives import parse_directive
from .errors import DockerfileSyntaxError, at
from .heredoc import Marker, markers
from .space import BLANKS, SPACES
from .tree import Directive, Flag, Heredoc, Position, Span
from .words import ExpansionError

FORMS = {
    "FROM": "WORDS",
    "EXPOSE": "WORDS",
    "ARG": "WORDS",
    "ADD": "LIST",
    "COPY": "LIST",
    "VOLUME": "LIST",
    "RUN": "SHELL",
    "CMD": "SHELL",
    "ENTRYPOINT": "SHELL",
    "SHELL": "SHELL",
    "USER": "TEXTUAL",
    "WORKDIR": "TEXTUAL",
    "STOPSIGNAL": "TEXTUAL",
    "MAINTAINER": "TEXTUAL",
    "ENV": "PAIRS",
    "LABEL": "PAIRS",
    "HEALTHCHECK": "HEALTH",
    "ONBUILD": "ONBUILD",
}
_HEREDOC_KEYWORDS = frozenset({"ADD", "COPY", "RUN"})
DEEPEST_TRIGGER = 8
"""How many ONBUILD are read after each other; that more than one isn't allowed is for the frontend to say."""
LONGEST_LINE = 65536
"""The longest physical line, in bytes with its end, that BuildKit reads."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the escape character decides."""

    escape: str
    continuation: re.Pattern[str]
    word: re.Pattern[str]
    flag: re.Pattern[str]


def _dialect(escape: str) -> Dialect:
    e = re.escape(escape)
    return Dialect(
        escape,
        re.compile(rf"(?:(?<=[^{e}])|^){e}[ \t]*$"),
        re.compile(rf"(?:{e}(?:.|$)|\"(?:{e}(?:.|$)|[^\"{e}])*(?:\"|$)|'[^']*(?:'|$)|[^{SPACES}\"'{e}])+", re.DOTALL),
        re.compile(
            rf"(?:{e}(?:.|$)|\"(?:{e}(?:.|$)|[^\"{e}])*(?:\"|$)|'(?:{e}(?:.|$)|[^'{e}])*(?:'|$)"
            rf"|[^\t\n\v\f\r \x85\xa0\"'{e}])+",
            re.DOTALL,
        ),
    )


DIALECTS = {escape: _dialect(escape) for escape in ("\\", "`")}


def _begin(piece: tuple[int, int, int]) -> int:
    return piece[0]


@dataclass(slots=True)
class Line:
    """One logical line: its first and last physical line, and the column where the last one ends.

    `pieces` say where its parts stand: offset in `text`, line, column.
    """

    text: str
    start: int
    end: int
    end_column: int
    comments: tuple[str, ...]
    empty_continuation: bool
    pieces: list[tuple[int, int, int]]

    def position(self, offset: int) -> Position:
        """The place in the source of a place in the logical line."""
        begin, line, column = self.pieces[max(0, bisect_right(self.pieces, offset, key=_begin) - 1)]
        return Position(line, column + offset - begin)

    def span(self, start: int, end: int) -> Span:
        """The part of the source from one place in the logical line up to another, which is after it."""
        last = self.position(end - 1)
        return Span(self.position(start), Position(last.line, last.column + 1))


@dataclass(slots=True)
class Source:
    """A file as it is read: its lines, how far reading has come, and what the directives said."""

    lines: list[str]
    at: int = 0
    dialect: Dialect = DIALECTS["\\"]
    directives: dict[str, Directive] = field(default_factory=dict)


def split_lines(text: str) -> list[str]:
    """The physical lines with their ends; a byte order mark is dropped."""
    lines = text.removeprefix("\ufeff").split("\n")
    out = [line + "\n" for line in lines[:-1]]
    if lines[-1]:
        out.append(lines[-1])
    return out


def _check_length(lines: list[str]) -> None:
    for number, line in enumerate(lines, 1):
        if len(line) * 4 > LONGEST_LINE and len(line.encode("utf-8", "surrogatepass")) > LONGEST_LINE:
            raise at(
                f"the line is longer than {LONGEST_LINE - 1} bytes",
                number,
                hint="split it with continuation characters, or use a here-document",
            )


def logical_lines(source: Source) -> Iterator[Line]:
    """Join the lines of `source` that belong together; directives are collected on the way.

    Raises:
        DockerfileSyntaxError: for a directive that is given twice or an escape that is no escape character.
    """
    lines = source.lines
    comments: list[str] = []
    in_directives = True
    while source.at < len(lines):
        raw = lines[source.at]
        source.at += 1
        start = source.at
        stripped = raw.rstrip("\r\n")
        text = stripped.lstrip(SPACES)
        if text.startswith("#"):
            comment = raw[1:].strip(SPACES)
            if in_directives and (found := parse_directive(text, start)) is not None:
                _direct(source, found)
            else:
                in_directives = False
                if comment:
                    comments.append(comment)
                else:
                    comments.clear()
            continue
        in_directives = False
        continuation = source.dialect.continuation
        match = continuation.search(text)
        if match is None:
            if text:
                column = len(stripped) - len(text)
                yield Line(text, start, start, len(stripped), tuple(comments), False, [(0, start, column)])
                comments.clear()
            continue
        line = _continued(source, text[: match.start()], start, len(stripped) - len(text))
        line.comments = tuple(comments)
        yield line
        comments.clear()


def _continued(source: Source, text: str, start: int, column: int) -> Line:
    """The rest of a line that goes on."""
    parts, pieces, length = [text], [(0, start, column)], len(text)
    empty = False
    following = source.lines[start - 1].rstrip("\r\n")
    while source.at < len(source.lines):
        following = source.lines[source.at].rstrip("\r\n")
        source.at += 1
        bare = following.lstrip(SPACES)
        if bare.startswith("#"):
            continue
        if not bare:
            empty = True
            continue
        match = source.dialect.continuation.search(following)
        part = following if match is None else following[: match.start()]
        pieces.append((length, source.at, 0))
        parts.append(part)
        length += len(part)
        if match is None:
            break
    return Line("".join(parts), start, source.at, len(following), (), empty, pieces)


def _direct(source: Source, directive: Directive) -> None:
    line = directive.span.start.line
    if directive.name in source.directives:
        raise at(f"only one {directive.name} parser directive can be used", line, hint="remove one of the two lines")
    source.directives[directive.name] = directive
    if directive.name == "escape":
        if directive.value not in DIALECTS:
            raise at(f"invalid escape character {directive.value!r}", line, hint="only \\ and ` can be used")
        source.dialect = DIALECTS[directive.value]


class Token:
    """A terminal of the grammar, and any value."""

    __slots__ = ("type", "value")

    def __init__(self, kind: str, value: Any) -> None:
        self.type = kind
        self.value = value

    def __str__(self) -> str:
        return str(self.value)


def tokens(source: Source) -> Iterator[Token]:
    """All tokens of a file."""
    _check_length(source.lines)
    any_line = False
    for line in logical_lines(source):
        any_line = True
        keyword, can_have_heredoc, out = _instruction(line, 0, line.text, source.dialect)
        yield keyword
        yield from out
        if can_have_heredoc and "<<" in line.text:
            yield from _heredocs(source, line)
        yield Token("END", line)
    if not any_line:
        raise at(
            "the file has no instructions", max(1, len(source.lines)), hint="a Dockerfile begins with FROM, or ARG"
        )


def _instruction(
    line: Line, offset: int, text: str, dialect: Dialect, depth: int = 0
) -> tuple[Token, bool, list[Token]]:
    """The keyword, whether here-documents may follow, and the other tokens of an instruction."""
    lead = len(text) - len(text.lstrip(SPACES))
    parts = BLANKS.split(text.strip(SPACES), maxsplit=1)
    keyword = parts[0]
    name = keyword.upper()
    form = FORMS.get(name, "TEXTUAL")
    place = line.position(offset + lead)
    out: list[Token] = []
    rest = ""
    if len(parts) == 2:
        begin = text.index(parts[1], lead + len(keyword)) if parts[1] else len(text)
        rest, used = _flags(line, offset + begin, parts[1], dialect, out)
        offset += begin + used
    token = Token(form, (keyword, text, place))
    if form == "ONBUILD":
        if not rest:
            return token, False, out
        if depth == DEEPEST_TRIGGER:
            raise at("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", line.start, line.end)
        inner, heredoc, tail = _instruction(line, offset, rest, dialect, depth + 1)
        out.append(inner)
        out.extend(tail)
        return token, heredoc, out
    body = _body(form, name, rest, line, dialect)
    out.extend(body)
    is_array = any(t.type == "OPEN" for t in body)
    return token, name in _HEREDOC_KEYWORDS and not is_array, out


def _flags(line: Line, offset: int, text: str, dialect: Dialect, out: list[Token]) -> tuple[str, int]:
    """Read the flags that `text` begins with; returns what comes after them and where it begins."""
    position = 0
    while True:
        while position < len(text) and text[position] in SPACES:
            position += 1
        if not text.startswith("--", position):
            break
        match = dialect.flag.match(text, position)
        if match is None:
            break
        # The flag reader of BuildKit goes by bytes, so characters outside ASCII become several.
        word = _unquoted(match[0], dialect.escape).encode("utf-8", "surrogatepass").decode("latin-1")
        position = match.end()
        if word == "--":
            break
        name, equals, value = word.partition("=")
        span = line.span(offset + match.start(), offset + match.end())
        out.append(Token("FLAG", Flag(name[2:], value if equals else None, span)))
    rest = text[position:]
    stripped = rest.strip(SPACES)
    return stripped, position + len(rest) - len(rest.lstrip(SPACES))


def _unquoted(word: str, escape: str) -> str:
    """A flag without its quotes and escape characters."""
    if escape not in word and "'" not in word and '"' not in word:
        return word
    out: list[str] = []
    quote = ""
    position = 0
    while position < len(word):
        char = word[position]
        position += 1
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif char == escape:
            out.append(word[position : position + 1])
            position += 1
        else:
            out.append(char)
    return "".join(out)


def _body(form: str, name: str, rest: str, line: Line, dialect: Dialect) -> list[Token]:
    if form == "TEXTUAL":
        return [Token("TEXT", rest)] if rest else []
    if form == "PAIRS":
        return _pairs(name, rest, line, dialect)
    if form == "WORDS":
        if name == "ARG":
            return [Token("WORD", word) for word in quoted_words(rest, dialect)]
        return [Token("WORD", word) for word in BLANKS.split(rest)] if rest else []
    if form == "HEALTH":
        kind = rest.split(None, 1)
        if not kind:
            return []
        return [Token("WORD", kind[0]), *_shell(kind[1] if len(kind) == 2 else "", line)]
    if form == "LIST":
        array = _array(rest, line)
        if array is not None:
            return array
        return [Token("WORD", word) for word in BLANKS.split(rest)] if rest else []
    return _shell(rest, line)


def _shell(rest: str, line: Line) -> list[Token]:
    array = _array(rest, line)
    if array is not None:
        return array
    return [Token("TEXT", rest)] if rest else []


def _number(text: str) -> float:
    """A number, which no argument may be; BuildKit takes one that is too large for no JSON at all, and so do we."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _array(rest: str, line: Line) -> list[Token] | None:
    """A JSON array of strings; None where the text is not JSON, and so the shell form."""
    if not rest.startswith("["):
        return None
    try:
        items = json.loads(rest.strip(SPACES), parse_constant=_number, parse_float=_number, parse_int=_number)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(item, str) for item in items):
        raise at("only string type is supported in JSON form", line.start, line.end, "put every argument in quotes")
    strings = (item.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for item in items)
    return [Token("OPEN", ""), *(Token("STRING", text) for text in strings), Token("CLOSE", "")]


def quoted_words(rest: str, dialect: Dialect) -> list[str]:
    """Words at white space outside quotes; quotes and escapes are kept."""
    out = []
    for match in dialect.word.finditer(rest):
        word = match[0]
        if match.end() == len(rest) and _open_escape(word, dialect.escape):
            word = word[:-1]
        if word:
            out.append(word)
    return out


def _open_escape(word: str, escape: str) -> bool:
    """Whether a word at the end of its line ends in an escape character that escapes nothing."""
    if not word.endswith(escape):
        return False
    position, quote = 0, ""
    while position < len(word):
        char = word[position]
        if char == escape and quote != "'":
            if position + 1 == len(word):
                return True
            position += 1
        elif quote and char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        position += 1
    return False


def _pairs(name: str, rest: str, line: Line, dialect: Dialect) -> list[Token]:
    words = quoted_words(rest, dialect)
    if not words:
        return []
    if "=" not in words[0]:
        parts = BLANKS.split(rest, maxsplit=1)
        if len(parts) < 2:
            raise at(f"{name} must have two arguments", line.start, line.end, f"write {name} {parts[0]}=VALUE")
        return [Token("KEY", parts[0]), Token("VALUE", parts[1])]
    out = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise at(
                f"can't find = in {word!r}: it must be of the form name=value",
                line.start,
                line.end,
                "put quotes around a value that has spaces",
            )
        out += [Token("KEY", key), Token("EQUALS", "="), Token("VALUE", value)]
    return out


def _heredocs(source: Source, line: Line) -> Iterator[Token]:
    try:
        found = markers(line.text)
    except ExpansionError as error:
        raise at(str(error), line.start, line.end) from None
    for marker in found:
        yield Token("HEREDOC", _heredoc(source, line, marker))


def _heredoc(source: Source, line: Line, marker: Marker) -> Heredoc:
    begin = source.at
    content: list[str] = []
    while source.at < len(source.lines):
        raw = source.lines[source.at]
        source.at += 1
        end = raw.rstrip("\r\n")
        if (end.lstrip("\t") if marker.chomp else end) == marker.name:
            line.end, line.end_column = source.at, len(end)
            span = Span(Position(begin + 1, 0), Position(source.at, len(end)))
            return Heredoc(marker.name, marker.expand, marker.chomp, "".join(content), marker.file_descriptor, span)
        content.append(raw)
    raise DockerfileSyntaxError(
        "unterminated heredoc",
        Location(line.start, line.start),
        f"a line with {marker.name} and nothing else must end it",
    )
