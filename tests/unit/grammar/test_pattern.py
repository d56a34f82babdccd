"""Patterns match what the regular expressions that they stand for match."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.grammar.dockerfile.pattern import PatternError, compile_pattern, reversed_pattern
from brickyard.grammar.dockerfile.words import ExpansionError, Words

patterns = st.text(alphabet="aab*?\n", max_size=8)
texts = st.text(alphabet="aab\n", max_size=14)


def regex(pattern: str, star: str) -> str:
    return "".join({"*": star, "?": "."}.get(char, re.escape(char)) for char in pattern)


@given(patterns, texts)
def test_shortest_and_longest_match_at_the_start(pattern: str, text: str) -> None:
    compiled = compile_pattern(pattern)
    lazy, greedy = re.match(regex(pattern, ".*?"), text), re.match(regex(pattern, ".*"), text)
    assert compiled.shortest(text) == (lazy.end() if lazy else -1)
    assert compiled.longest(text) == (greedy.end() if greedy else -1)


@given(patterns, texts)
def test_first_match_is_replaced(pattern: str, text: str) -> None:
    wanted = re.sub(regex(pattern, ".*"), "X", text, count=1)
    assert compile_pattern(pattern).replaced(text, "X", False, 1000) == wanted


@given(patterns, texts)
def test_every_match_is_replaced_but_empty_ones_right_after_another(pattern: str, text: str) -> None:
    expression = regex(pattern, ".*")
    out, at, copied = "", 0, 0
    while at <= len(text) and (match := re.compile(expression).search(text, at)):
        out += text[copied : match.start()]
        if match.end() > copied or match.start() == 0:
            out += "X"
        copied = match.end()
        at = max(match.end(), at + 1)
    assert compile_pattern(pattern).replaced(text, "X", True, 1000) == out + text[copied:]


@given(patterns)
def test_reading_backwards_twice_changes_nothing(pattern: str) -> None:
    assert reversed_pattern(reversed_pattern(pattern)) == pattern


@pytest.mark.parametrize(
    ("text", "value", "wanted"),
    [
        ("${A#*/}", "a/b/c", "b/c"),
        ("${A##*/}", "a/b/c", "c"),
        ("${A%/*}", "a/b/c", "a/b"),
        ("${A%%/*}", "a/b/c", "a"),
        ("${A#x}", "abc", "abc"),
        ("${A/b/x}", "abab", "axab"),
        ("${A//b/x}", "abab", "axax"),
        ("${A//b}", "abab", None),
        (r"${A//\//-}", "a/b/c", "a-b-c"),
        (r"${A#\*}", "*a", "a"),
        (r"${A#\a}", "a", None),
        ("${A//[ab]/x}", "a[ab]", "ax"),
        ("${A//*/x}", "abc", "x"),
        ("${A//?/x}", "abc", "xxx"),
        ("${A//./x}", "a.c", "axc"),
        ("${A%.tar.*}", "x.tar.gz", "x"),
    ],
)
def test_substitutions(text: str, value: str, wanted: str | None) -> None:
    if wanted is None:
        with pytest.raises(ExpansionError):
            Words().expand(text, {"A": value})
    else:
        assert Words().expand(text, {"A": value}).result == wanted


def test_an_escape_of_nothing_is_refused() -> None:
    with pytest.raises(PatternError, match=r"invalid escape '\\a'"):
        compile_pattern(r"x\a")


@pytest.mark.parametrize("text", ["$A" * 100, "${A//x/" + "y" * 1000 + "}", '"$A$A$A"' * 30])
def test_values_have_a_bound(text: str) -> None:
    with pytest.raises(ExpansionError, match="longer than 1048576 characters"):
        Words().expand(text, {"A": "x" * 20_000})
