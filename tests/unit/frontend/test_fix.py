"""Repairs of build checks: what they write, and that nothing else changes."""

import json
from pathlib import Path

import pytest

from brickyard.frontend.lint.fix import FIXABLE, fix
from brickyard.grammar.errors import SourceError

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = [json.loads(line) for line in (GOLDEN / "cases.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("FROM a\nrun b\nCOPY c d\n", "FROM a\nRUN b\nCOPY c d\n"),
        ("from a\nRUN b\nrun c\n", "from a\nrun b\nrun c\n"),
        ("from a as b\nRUN c\nRUN d\n", "FROM a AS b\nRUN c\nRUN d\n"),
        ("FROM a as b\nFROM b\n", "FROM a AS b\nFROM b\n"),
        ("FROM a AS Build\nFROM b\nCOPY --from=Build /x /y\n", "FROM a AS build\nFROM b\nCOPY --from=Build /x /y\n"),
        ("FROM a\nRUN b \\\n\n\n  c\n", "FROM a\nRUN b \\\n  c\n"),
        ("FROM a\nENV k v w\nLABEL x y\n", 'FROM a\nENV k="v w"\nLABEL x=y\n'),
        ("FROM --platform=$TARGETPLATFORM a\n", "FROM a\n"),
        ("FROM a\nEXPOSE 80/TCP 81\n", "FROM a\nEXPOSE 80/tcp 81\n"),
    ],
)
def test_what_is_written(text: str, fixed: str) -> None:
    done = fix(text)
    assert done.text == fixed
    assert done.warnings
    assert not fix(fixed).warnings


def test_what_would_change_the_build_is_left() -> None:
    text = "FROM a\nENV k a\\ b\nONBUILD run b\n"
    assert fix(text).text == text


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_findings_go_or_stay(case: dict[str, str]) -> None:
    try:
        done = fix(case["dockerfile"])
    except SourceError:
        return
    assert all(warning.rule.name in FIXABLE for warning in done.warnings)
    assert (done.text == case["dockerfile"]) == (not done.warnings)
