"""What holds for every text, whatever is in it."""

import re

from grammar_strategies import anything, dockerfiles
from hypothesis import given
from hypothesis import strategies as st

from brickyard.grammar.dockerfile.directives import detect_syntax, parse_directives
from brickyard.grammar.dockerfile.errors import DockerfileSyntaxError
from brickyard.grammar.dockerfile.heredoc import parse_marker
from brickyard.grammar.dockerfile.lexer import split_lines
from brickyard.grammar.dockerfile.parser import parse, parse_instruction
from brickyard.grammar.dockerfile.tree import Dockerfile, Instruction, Position
from brickyard.grammar.dockerfile.words import ExpansionError, Words
from brickyard.grammar.errors import SourceError, excerpt


def tried(text: str) -> Dockerfile | DockerfileSyntaxError:
    """The tree or the error; any other exception fails the test."""
    try:
        return parse(text)
    except DockerfileSyntaxError as error:
        return error


@given(anything)
def test_parse_gives_a_tree_or_its_own_error_with_a_place(text: str) -> None:
    found = tried(text)
    if isinstance(found, Dockerfile):
        assert found.instructions
        return
    assert found.message
    assert found.location is not None
    lines = len(split_lines(text))
    assert 1 <= found.location.start <= found.location.end <= max(1, lines)
    assert excerpt(found, text, "Dockerfile").startswith(f"Dockerfile:{found.location.start}: ")


@given(anything)
def test_one_instruction_is_read_or_refused(text: str) -> None:
    found: object
    try:
        found = parse_instruction(text)
    except DockerfileSyntaxError as error:
        found = error.message
    assert isinstance(found, Instruction) or found


@given(anything)
def test_directives_never_fail(text: str) -> None:
    assert set(parse_directives(text)) <= {"syntax", "escape", "check"}
    found = detect_syntax(text)
    assert found is None or (found[1] in text or text.lstrip("\ufeff#!\n")[:1] != "#")


@given(dockerfiles)
def test_spans_are_in_order_and_begin_with_the_keyword(text: str) -> None:
    found = tried(text)
    if not isinstance(found, Dockerfile):
        return
    lines = [line.rstrip("\r\n") for line in split_lines(text)]
    before = Position(1, 0)
    for node in found.instructions:
        start, end = node.span.start, node.span.end
        assert (before.line, before.column) <= (start.line, start.column) <= (end.line, end.column)
        shown = lines[start.line - 1][start.column :]
        # The keyword itself may go on in the next line.
        assert shown.startswith(node.keyword) or node.keyword.startswith(shown.rstrip(" \t")[:-1])
        assert end.column == len(lines[end.line - 1])
        before = end


@given(dockerfiles)
def test_flags_are_where_their_spans_say(text: str) -> None:
    found = tried(text)
    if not isinstance(found, Dockerfile):
        return
    lines = [line.rstrip("\r\n") for line in split_lines(text)]
    for node in found.instructions:
        for flag in node.flags:
            start, end = flag.span.start, flag.span.end
            assert node.span.start.line <= start.line <= end.line <= node.span.end.line
            assert lines[start.line - 1][start.column] == "-"
            assert 0 < end.column <= len(lines[end.line - 1])
            if start.line == end.line:
                assert re.match(r"--\S", lines[start.line - 1][start.column : end.column])


@given(dockerfiles)
def test_a_blank_line_in_front_moves_everything_by_one(text: str) -> None:
    if text.startswith(("#", "\ufeff")) or text.lstrip().startswith("#"):
        return
    first, second = tried(text), tried("\n" + text)
    if isinstance(first, DockerfileSyntaxError):
        assert isinstance(second, DockerfileSyntaxError)
        return
    assert isinstance(second, Dockerfile)
    for one, other in zip(first.instructions, second.instructions, strict=True):
        assert (one.original, one.words, one.pairs) == (other.original, other.words, other.pairs)
        assert other.span.start == Position(one.span.start.line + 1, one.span.start.column)
        assert other.span.end == Position(one.span.end.line + 1, one.span.end.column)


OPTIONS = st.builds(
    Words,
    escape=st.sampled_from("\\`"),
    raw_quotes=st.booleans(),
    raw_escapes=st.booleans(),
    skip_unset=st.booleans(),
    skip_quotes=st.booleans(),
)
VALUES = st.text(alphabet="ab/*?\\ \n", max_size=8)
VARIABLES = st.dictionaries(st.sampled_from(["A", "B", "a", "é"]), VALUES | dockerfiles, max_size=3)


@given(OPTIONS, anything, VARIABLES)
def test_expansion_gives_text_or_its_own_error(options: Words, text: str, env: dict[str, str]) -> None:
    try:
        expansion = options.expand(text, env)
    except ExpansionError:
        return
    assert expansion.matched <= set(env)
    assert not expansion.unmatched & set(env)
    # Words are in the text, in their order.
    at = 0
    for word in expansion.words:
        assert word
        at = expansion.result.index(word, at) + len(word)


@given(st.text(alphabet="abc-_.,:; é\t"))
def test_plain_text_stays_what_it_is(text: str) -> None:
    expansion = Words().expand(text, {})
    assert expansion.result == text
    assert expansion.words == text.split()


@given(anything)
def test_a_marker_is_read_or_refused(word: str) -> None:
    try:
        marker = parse_marker(word)
    except ExpansionError:
        return
    assert marker is None or "<<" in word


@given(st.text(), st.integers(-2, 9), st.integers(0, 9))
def test_an_excerpt_is_made_of_any_text(text: str, line: int, column: int) -> None:
    from brickyard.grammar.errors import Location

    shown = excerpt(SourceError("wrong", Location(line, line + 1, column, 3), "do this"), text, "f")
    assert shown.startswith("f")
    assert shown.endswith("hint: do this")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)
