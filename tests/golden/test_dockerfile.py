"""Every golden case: op digests in order, image config, lint, error or not, descriptions and capabilities."""

import json
from functools import cache
from pathlib import Path

import adapter
import check
import pytest

HERE = Path(__file__).parent
CASES = [json.loads(line) for line in (HERE / "cases.jsonl").read_text().splitlines()]


@cache
def expected():
    lines = (HERE / "expected.jsonl").read_text().splitlines()
    return {answer["name"]: answer for answer in map(json.loads, lines)}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(case):
    want, got = expected()[case["name"]], adapter.answer(case)
    parts = check.compare(want, got, with_meta=True)
    if parts:
        check.show(want, got, parts, 2, True)
    assert parts == []


def test_the_set_is_whole():
    assert len(CASES) == len(expected()) == 498
