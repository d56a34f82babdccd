"""Eight times the text takes about eight times as long, for texts that repeat anything."""

import time
from collections.abc import Callable

import pytest
from grammar_strategies import FRAGMENTS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from brickyard.grammar.dockerfile.errors import DockerfileSyntaxError
from brickyard.grammar.dockerfile.parser import parse
from brickyard.grammar.dockerfile.words import ExpansionError, Words

TIMES = 8
# What is quadratic takes 64 times as long. Below the floor, in seconds, the clock says nothing.
BOUND = 24
FLOOR = 0.004
# Large texts: fewer of them than of other examples.
FEWER = settings(max_examples=settings().max_examples // 3)


def seconds(work: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    try:
        work(text)
    except (DockerfileSyntaxError, ExpansionError):
        pass
    return time.process_time() - start


def assert_linear(work: Callable[[str], object], short: str, long: str) -> None:
    # The machine may hiccup: the best of some tries counts.
    for _ in range(4):
        small, large = seconds(work, short), seconds(work, long)
        if large <= BOUND * max(small, FLOOR):
            return
    pytest.fail(f"{len(short)} characters take {small:.4f} s, {len(long)} take {large:.4f} s")


units = st.lists(st.sampled_from([fragment for fragment in FRAGMENTS if fragment]), min_size=1, max_size=5).map("".join)
edges = st.sampled_from(
    ["", "RUN ", "FROM a\n", "COPY <<E ", "ENV a=", "# escape=`\n", "${", "'", '"', "\nE\n", "}", "\\\n"]
)


@FEWER
@given(edges, units, edges)
@example("", "# x\n", "FROM a")
@example("RUN ", "--x \\\n", "y")
@example("", "ONBUILD \\\n", "RUN a")
@example("RUN ", "\\\n# c\n", "a")
@example("RUN a \\\n", "\n", "")
@example("", "COPY <<E /x\nE\n", "")
@example("COPY ", "<<E ", "\n")
@example("ENV ", "a='", "")
@example("CMD ", "[", "")
@example("CMD [", '"a",\\\n', '"b"]')
@example("RUN ", "\\ ", "")
@example("", " ", "FROM a")
@example("RUN ", "${a:-\\\n", "")
def test_parsing_is_linear(before: str, unit: str, after: str) -> None:
    count = 1 + 6000 // len(unit)
    assert_linear(parse, before + unit * count + after, before + unit * (count * TIMES) + after)


@FEWER
@given(edges, units, edges, st.sampled_from(["a", "ab", "\n", "/", "*"]))
@example("${A#", "*a", "b}", "a")
@example("${A##", "*a", "b}", "a")
@example("${A%", "a*", "b}", "a")
@example("${A//", "*a*", "b/c}", "a")
@example("", "${A/*a*b*a*b/c}", "", "ab")
@example("", "${A:-", "", "a")
@example("'", '"', "", "a")
@example("", "$", "", "a")
def test_expansion_is_linear(before: str, unit: str, after: str, value: str) -> None:
    def work(text: str) -> object:
        return Words(skip_unset=False).expand(text, {"A": value * 40})

    count = 1 + 3000 // len(unit)
    assert_linear(work, before + unit * count + after, before + unit * (count * TIMES) + after)


@pytest.mark.parametrize("pattern", ["a*b", "*a*a*a*a*a*b", "a*a*a*a*a*b", "?*?*?*?*b", "*", "b", "a", "*b*", "**"])
@pytest.mark.parametrize("form", ["${A#%s}", "${A##%s}", "${A%%%s}", "${A%%%%%s}", "${A/%s/x}", "${A//%s/x}"])
@pytest.mark.parametrize("value", ["a", "ab", "a\n", "\n"])
def test_patterns_are_linear_in_the_value(pattern: str, form: str, value: str) -> None:
    text = form % pattern

    def work(value: str) -> object:
        return Words().expand(text, {"A": value})

    assert_linear(work, value * 4000, value * (4000 * TIMES))
