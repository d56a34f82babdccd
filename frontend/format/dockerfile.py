"""A Dockerfile laid out anew: the same instructions and comments, so the same graph and image.

White space that a shell would see stays as it is: the continuation lines of a RUN are part of its command. Everywhere
else words are set apart by one space, keywords are upper case, and continuation lines are indented by four.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...grammar.dockerfile.directives import parse_directive
from ...grammar.dockerfile.errors import at
from ...grammar.dockerfile.lexer import DIALECTS, FORMS, Dialect, split_lines
from ...grammar.dockerfile.parser import parse
from ...grammar.dockerfile.space import BLANKS, SPACES
from ...grammar.dockerfile.tree import Instruction

_INDENT = "    "


def format_dockerfile(text: str) -> str:
    """The file laid out; formatting it again changes nothing.

    Raises:
        DockerfileSyntaxError: where the text is no Dockerfile.
    """
    file = parse(text)
    dialect = DIALECTS[file.escape]
    lines = split_lines(text)
    # What stands behind a here-document is data up to its end, which may lack the line feed.
    out: list[str] = []
    done = 0
    for node in file.instructions:
        if node.name not in FORMS:
            raise at(f"unknown instruction: {node.keyword}", node.span.start.line, node.span.end.line)
        start = node.span.start.line - 1
        _between(out, lines[done:start], node.name == "FROM")
        body = node.heredocs[0].span.start.line - 1 if node.heredocs else node.span.end.line
        out += _instruction(node, lines[start:body], dialect)
        out += (line.removesuffix("\n") for line in lines[body : node.span.end.line])
        done = node.span.end.line
    _between(out, lines[done:], False)
    while out and not out[-1]:
        out.pop()
    return "\n".join(out) + "\n"


def _between(out: list[str], lines: Sequence[str], from_follows: bool) -> None:
    """Comments and empty lines before an instruction: no two empty lines in a row, and one before a stage."""
    gap = [line.strip(SPACES) for line in lines]
    if from_follows and out:
        # The comment right above a FROM belongs to it.
        place = len(gap)
        while place > 0 and gap[place - 1].startswith("#"):
            place -= 1
        gap.insert(place, "")
    directives = not out
    for line in gap:
        if not line:
            directives = False
        if directives and line:
            found = parse_directive(line, 1)
            directives = found is not None
            if found is not None:
                line = f"# {found.name}={found.value}"
        if line or (out and out[-1]) or (not out and _hides_directive(gap)):
            out.append(line)


def _hides_directive(gap: Sequence[str]) -> bool:
    """Whether the empty line at the top of a file keeps the comment after it from being a directive."""
    first = next(filter(None, gap), "")
    return parse_directive(first, 1) is not None


@dataclass(slots=True)
class _Layout:
    """What may change in a logical line: words that become upper case, and white space that has no meaning."""

    upper: list[tuple[int, int]] = field(default_factory=list)
    blank: list[tuple[int, int]] = field(default_factory=list)

    def loose(self, place: int) -> bool:
        """Whether white space may be added or removed there."""
        return any(start <= place <= end for start, end in self.blank)


def _instruction(node: Instruction, lines: Sequence[str], dialect: Dialect) -> Iterator[str]:
    parts, comments, open_end = _parts(lines, dialect)
    text = "".join(parts)
    layout = _Layout()
    _lay_out(node, text, 0, dialect, layout)
    for start, end in layout.upper:
        text = text[:start] + text[start:end].upper() + text[end:]
    begin = 0
    for number, part in enumerate(parts):
        yield from (_INDENT + comment for comment in comments[number])
        end = begin + len(part)
        last = number == len(parts) - 1
        shown = _part(text, begin, end, layout)
        if number and layout.loose(begin):
            shown = _INDENT + shown.lstrip(SPACES)
        if last:
            yield shown.rstrip(SPACES)
        else:
            yield (shown.rstrip(SPACES) + " " if layout.loose(end) else shown) + dialect.escape
        begin = end
    yield from (comment if open_end else _INDENT + comment for comment in comments[len(parts)])


def _parts(lines: Sequence[str], dialect: Dialect) -> tuple[list[str], list[list[str]], bool]:
    """A logical line's parts, the comments before each and after the last, and whether it never ended."""
    parts: list[str] = []
    comments: list[list[str]] = [[]]
    going_on = True
    for number, raw in enumerate(lines):
        line = raw.rstrip("\r\n")
        bare = line.strip(SPACES)
        if number and bare.startswith("#"):
            comments[-1].append(bare)
            continue
        if not bare:
            continue
        if number == 0:
            line = line.lstrip(SPACES)
        match = dialect.continuation.search(line)
        going_on = match is not None
        parts.append(line if match is None else line[: match.start()])
        comments.append([])
    while len(parts) > 1 and not parts[-1].strip(SPACES):
        # A line that goes on to nothing ends where its text does.
        parts.pop()
        last = comments.pop()
        comments[-1] += last
    return parts, comments, going_on


def _part(text: str, begin: int, end: int, layout: _Layout) -> str:
    """One physical line of a logical one, with single spaces where white space has no meaning."""
    out: list[str] = []
    place = begin
    for start, stop in layout.blank:
        start, stop = max(start, begin), min(stop, end)
        if start < stop:
            out += (text[place:start], " ")
            place = stop
    out.append(text[place:end])
    return "".join(out)


def _lay_out(node: Instruction, text: str, offset: int, dialect: Dialect, layout: _Layout) -> None:
    place = _skip(text, offset, layout)
    keyword = BLANKS.split(text[place:].strip(SPACES), maxsplit=1)[0]
    layout.upper.append((place, place + len(keyword)))
    place = _skip(text, place + len(keyword), layout)
    place = _flags(text, place, dialect, layout)
    end = len(text.rstrip(SPACES))
    form = FORMS.get(node.name, "TEXTUAL")
    # The image's config holds the text of an ONBUILD trigger as it is written.
    if place < end and not node.json and not node.heredocs and node.trigger is None:
        _body(form, node, text, place, end, dialect, layout)
    if end < len(text):
        layout.blank.append((end, len(text)))


def _body(form: str, node: Instruction, text: str, place: int, end: int, dialect: Dialect, layout: _Layout) -> None:
    if form == "HEALTH":
        while place < end and text[place] not in SPACES:
            place += 1
        _skip(text, place, layout)
    elif form == "LIST" or (form == "WORDS" and node.name != "ARG"):
        spaces = [(place + match.start(), place + match.end()) for match in BLANKS.finditer(text[place:end])]
        layout.blank += spaces
        if node.name == "FROM" and len(node.words) == 3 and node.words[1].lower() == "as":
            layout.upper.append((spaces[0][1], spaces[1][0]))
    elif node.name == "ARG" or (form == "PAIRS" and all(pair.delimiter for pair in node.pairs)):
        before = place
        for match in dialect.word.finditer(text[place:end]):
            if place + match.start() > before:
                layout.blank.append((before, place + match.start()))
            before = place + match.end()


def _skip(text: str, place: int, layout: _Layout) -> int:
    """Pass over white space that has no meaning."""
    start = place
    while place < len(text) and text[place] in SPACES:
        place += 1
    if start < place:
        layout.blank.append((start, place))
    return place


def _flags(text: str, place: int, dialect: Dialect, layout: _Layout) -> int:
    """Pass over the flags, as the lexer reads them."""
    while text.startswith("--", place):
        match = dialect.flag.match(text, place)
        if match is None:
            break
        place = _skip(text, match.end(), layout)
        if match[0] == "--":
            break
    return place
