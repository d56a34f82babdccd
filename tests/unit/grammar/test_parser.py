"""The tree of a Dockerfile: what its parts are, and where they stand."""

from textwrap import dedent

import pytest

from brickyard.grammar.dockerfile.errors import DockerfileSyntaxError
from brickyard.grammar.dockerfile.parser import parse, parse_instruction
from brickyard.grammar.dockerfile.tree import Instruction, Pair, Position, Span
from brickyard.grammar.errors import excerpt


def one(text: str) -> Instruction:
    (node,) = parse(text).instructions
    return node


def span(*places: int) -> Span:
    line, column, end_line, end_column = places
    return Span(Position(line, column), Position(end_line, end_column))


@pytest.mark.parametrize(
    ("text", "words", "json"),
    [
        ("FROM a AS b", ("a", "AS", "b"), False),
        ("FROM\ta  AS   b  ", ("a", "AS", "b"), False),
        ("RUN echo  a   b", ("echo  a   b",), False),
        ('RUN ["a", "b c"]', ("a", "b c"), True),
        ("RUN ['a']", ("['a']",), False),
        ('RUN ["a", 1]', None, False),
        ('CMD ["\\u00e9", "\\ud800"]', ("é", "\ufffd"), True),
        ("RUN [1e999]", ("[1e999]",), False),
        ("CMD []", (), True),
        ("COPY a b /c/", ("a", "b", "/c/"), False),
        ('COPY ["a b", "/c/"]', ("a b", "/c/"), True),
        ("ARG A B='x y' C", ("A", "B='x y'", "C"), False),
        ("WORKDIR /a b", ("/a b",), False),
        ("HEALTHCHECK NONE", ("NONE",), False),
        ('HEALTHCHECK --interval=1s CMD ["a"]', ("CMD", "a"), True),
        ("HEALTHCHECK CMD a b", ("CMD", "a b"), False),
        ("bogus a b", ("a b",), False),
    ],
)
def test_words(text: str, words: tuple[str, ...] | None, json: bool) -> None:
    if words is None:
        with pytest.raises(DockerfileSyntaxError, match="only string type"):
            parse(text)
        return
    node = one(text)
    assert (node.words, node.json, node.original) == (words, json, text)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("ENV a=b", [Pair("a", "b", True)]),
        ("ENV a=b c='d e' f=\"g h\"", [Pair("a", "b", True), Pair("c", "'d e'", True), Pair("f", '"g h"', True)]),
        ("ENV a=", [Pair("a", "", True)]),
        ("ENV a b c", [Pair("a", "b c", False)]),
        ("ENV a=b\\ c", [Pair("a", "b\\ c", True)]),
        ("LABEL a.b=c=d", [Pair("a.b", "c=d", True)]),
    ],
)
def test_pairs(text: str, pairs: list[Pair]) -> None:
    assert list(one(text).pairs) == pairs


def test_flags_keep_their_places() -> None:
    node = one("COPY  --from=a --chown='x y' --link --empty= src dst")
    assert [(flag.name, flag.value) for flag in node.flags] == [
        ("from", "a"), ("chown", "x y"), ("link", None), ("empty", ""),
    ]  # fmt: skip
    assert [flag.span for flag in node.flags] == [
        span(1, 6, 1, 14), span(1, 15, 1, 28), span(1, 29, 1, 35), span(1, 36, 1, 44),
    ]  # fmt: skip
    assert node.words == ("src", "dst")


def test_flags_end_at_two_dashes() -> None:
    node = one("RUN --network=none -- --mount=x")
    assert [flag.name for flag in node.flags] == ["network"]
    assert node.words == ("--mount=x",)


def test_continued_lines() -> None:
    node = one("  RUN --a=b\\\n --c \\\n# comment\n\n  echo x\\\n y  \n")
    assert node.original == "RUN --a=b --c   echo x y  "
    assert [flag.span for flag in node.flags] == [span(1, 6, 1, 11), span(2, 1, 2, 4)]
    assert node.span == span(1, 2, 6, 4)
    assert node.empty_continuation


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("RUN a", span(1, 0, 1, 5)),
        ("\n\n  RUN a  \n", span(3, 2, 3, 9)),
        ("RUN a\r\n", span(1, 0, 1, 5)),
        ("RUN a \\\n  b\n", span(1, 0, 2, 3)),
        ("RUN a \\\n# c\n\n", span(1, 0, 3, 0)),
        ("RUN a \\", span(1, 0, 1, 7)),
        ("\\\nRUN a", span(1, 0, 2, 5)),
        ("R\\\nUN a", span(1, 0, 2, 4)),
        ("RUN <<E\na\nE\nignored", span(1, 0, 3, 1)),
    ],
)
def test_spans(text: str, wanted: Span) -> None:
    assert parse(text).instructions[0].span == wanted


def test_a_trigger_has_its_own_span() -> None:
    node = one("ONBUILD \\\n  RUN --network=none a")
    assert node.trigger is not None
    assert (node.trigger.name, node.trigger.words) == ("RUN", ("a",))
    assert node.trigger.span == span(2, 2, 2, 22)
    assert node.trigger.flags[0].span == span(2, 6, 2, 20)


def test_chained_triggers_have_a_bound() -> None:
    with pytest.raises(DockerfileSyntaxError, match="chaining ONBUILD"):
        parse("ONBUILD \\\n" * 5000 + "RUN a")


def test_comments_belong_to_what_follows_them() -> None:
    first, second = parse("# one\n#two\nFROM a\n# three\n#\n# four\nRUN b").instructions
    assert first.comments == ("one", "two")
    assert second.comments == ("four",)


def test_heredocs() -> None:
    node = one(
        dedent("""\
        COPY <<A <<-"B" 3<<C /x/
        a $V
        A
        \tb
        \tB
        C
        """)
    )
    assert [(doc.name, doc.expand, doc.chomp, doc.content, doc.file_descriptor) for doc in node.heredocs] == [
        ("A", True, False, "a $V\n", 0), ("B", False, True, "\tb\n", 0), ("C", True, False, "", 3),
    ]  # fmt: skip
    assert [doc.span for doc in node.heredocs] == [span(2, 0, 3, 1), span(4, 0, 5, 2), span(6, 0, 6, 1)]
    assert node.words == ("<<A", '<<-"B"', "3<<C", "/x/")


@pytest.mark.parametrize(
    "text", ['RUN ["<<E"]', "ENV a=<<E", "RUN echo '<<E'", "RUN a <\\<E", "# <<E\nRUN a", 'COPY ["<<E", "/"]']
)
def test_what_is_no_heredoc(text: str) -> None:
    assert one(text).heredocs == ()


def test_heredocs_keep_continuations_comments_and_directives() -> None:
    node = one("RUN <<E\na \\\n# b\n\nFROM c\nE")
    assert node.heredocs[0].content == "a \\\n# b\n\nFROM c\n"


def test_directives() -> None:
    tree = parse("# syntax = a/b:1 x \n#escape=`\n# check=skip=all\nFROM a\nRUN b `\n c \\\n")
    assert {name: found.value for name, found in tree.directives.items()} == {
        "syntax": "a/b:1 x", "escape": "`", "check": "skip=all",
    }  # fmt: skip
    assert tree.directives["escape"].span == span(2, 0, 2, 9)
    assert tree.escape == "`"
    assert tree.instructions[1].words == ("b  c \\",)


@pytest.mark.parametrize("text", ["# comment\n# escape=`\nFROM a", "\n# escape=`\nFROM a", "# Escape x=`\nFROM a"])
def test_what_is_no_directive(text: str) -> None:
    tree = parse(text)
    assert (tree.directives, tree.escape) == ({}, "\\")


@pytest.mark.parametrize(
    ("text", "message", "lines"),
    [
        ("", "no instructions", (1, 1)),
        ("# only\n# comments\n", "no instructions", (2, 2)),
        ("# escape=x\nFROM a", "invalid escape character 'x'", (1, 1)),
        ("# syntax=a\n# syntax=b\nFROM a", "only one syntax parser directive", (2, 2)),
        ("FROM a\nRUN <<E\nb\n", "unterminated heredoc", (2, 2)),
        ("FROM a\nENV b\\\n\n", "ENV must have two arguments", (2, 3)),
        ("FROM a\nENV b=c d", "can't find = in 'd'", (2, 2)),
        ("FROM a\nRUN " + "x" * 65536, "longer than 65535 bytes", (2, 2)),
    ],
)
def test_errors_have_a_place(text: str, message: str, lines: tuple[int, int]) -> None:
    with pytest.raises(DockerfileSyntaxError, match=message) as caught:
        parse(text)
    assert caught.value.location is not None
    assert (caught.value.location.start, caught.value.location.end) == lines


def test_a_byte_order_mark_is_passed_over() -> None:
    assert one("\ufeffFROM a").span == span(1, 0, 1, 6)


def test_one_instruction() -> None:
    assert parse_instruction("RUN a\n").words == ("a",)
    with pytest.raises(DockerfileSyntaxError, match="single instruction"):
        parse_instruction("RUN a\nRUN b")


def test_excerpt_shows_the_lines_and_a_caret() -> None:
    text = "FROM a\x0cb\nRUN c\nENV \x1b[31mx\nRUN d"
    with pytest.raises(DockerfileSyntaxError) as caught:
        parse(text)
    assert excerpt(caught.value, text, "Dockerfile", context=1) == (
        "Dockerfile:3: ENV must have two arguments\n"
        "   2 | RUN c\n"
        " > 3 | ENV \u241b[31mx\n"
        "     | ^^^^^^^^^^\n"
        "   4 | RUN d\n"
        "hint: write ENV \u241b[31mx=VALUE"
    )
