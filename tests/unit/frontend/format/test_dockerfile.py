"""The formatter: what it changes, and that a build never sees it."""

import json
from pathlib import Path

import adapter
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.frontend.format.dockerfile import format_dockerfile
from brickyard.grammar.errors import SourceError

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[3] / "golden" / "cases.jsonl").read_text(encoding="utf-8").splitlines()
]


def answer(case: dict[str, object], text: str) -> dict[str, object]:
    found = dict(adapter.answer({**case, "dockerfile": text}))
    return {"ops": [op["digest"] for op in found["ops"] or ()], "image": found["image"], "error": bool(found["error"])}


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_a_build_is_the_same(case: dict[str, object]) -> None:
    text = str(case["dockerfile"])
    try:
        laid_out = format_dockerfile(text)
    except SourceError:
        return
    assert format_dockerfile(laid_out) == laid_out
    assert answer(case, laid_out) == answer(case, text)


def test_layout() -> None:
    text = (
        "#syntax = docker/dockerfile:1\n\n\n#  the base\nfrom   alpine as  base\n"
        "  run  --network=none   echo a \\\n\n     # why\n  && echo b   \n"
        "copy a   \\\n b  /c/\nenv A=1    B='x  y'\nfrom base\n\n\ncmd [ \"sh\" ]"
    )
    assert format_dockerfile(text) == (
        "# syntax=docker/dockerfile:1\n\n#  the base\nFROM alpine AS base\n"
        "RUN --network=none echo a \\\n    # why\n  && echo b\n"
        "COPY a \\\n    b /c/\nENV A=1 B='x  y'\n\nFROM base\n\nCMD [ \"sh\" ]\n"
    )


def test_a_word_that_goes_over_the_line_end_is_kept() -> None:
    assert format_dockerfile("FROM scratch\nCOPY ab\\\ncd   /x\n") == "FROM scratch\nCOPY ab\\\ncd /x\n"


def test_here_documents_are_data() -> None:
    text = "FROM a\nRUN <<EOF\r\n  x  \r\n\r\n\r\n  y\r\nEOF\r\n"
    assert format_dockerfile(text) == "FROM a\nRUN <<EOF\n  x  \r\n\r\n\r\n  y\r\nEOF\r\n"


def test_an_empty_line_that_hides_a_directive_stays() -> None:
    assert format_dockerfile("\n\n# escape=`\nFROM a\nRUN b \\\n c\n").startswith("\n# escape=`\n")


WORDS = st.sampled_from(
    [
        *"FROM from RUN copy ARG ENV LABEL as AS a b=c --x --link --network=none # ' = [ ] , 80 $a <<E E".split(),
        *('"', "`", "\\", '"a"', " ", "  ", "\t", "\n", "\\\n", "\\  \n", "\r\n", "# escape=`"),
        *"ONBUILD HEALTHCHECK CMD EXPOSE".split(),
    ]
)


@given(st.lists(WORDS, max_size=20).map("".join))
def test_any_text_that_is_a_dockerfile_stays_the_same_one(tail: str) -> None:
    text = f"FROM a\n{tail}"
    try:
        laid_out = format_dockerfile(text)
    except SourceError:
        return
    assert format_dockerfile(laid_out) == laid_out
    case: dict[str, object] = {"name": "x"}
    assert answer(case, laid_out) == answer(case, text)
