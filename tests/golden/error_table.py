"""The table of docs/errors.md: what BuildKit and Brickyard say to the Dockerfiles that are wrong.

`python error_table.py` writes the column of Brickyard anew; the other one was measured once, with Docker Engine 28.5.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import adapter

from brickyard.frontend.dockerfile.convert import convert
from brickyard.frontend.dockerfile.options import ConvertOptions
from brickyard.grammar.errors import SourceError
from brickyard.oci.platform import parse

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs/errors.md"


def message(case: dict[str, object]) -> str:
    """What Brickyard says to a case, with the line and the hint."""
    options = ConvertOptions(
        target=case.get("target", ""),
        platform=parse(case.get("platform", "linux/amd64")),
        build_platforms=[adapter.AMD64],
        build_args=case.get("args") or {},
        labels=case.get("labels") or {},
    )
    try:
        convert(case["dockerfile"], options, adapter.Offline()).definition()
    except SourceError as error:
        place = f"{error.location.start}: " if error.location else ""
        return f"{place}{error.message}" + (f" · *{error.hint}*" if error.hint else "")
    raise AssertionError(f"{case['name']} is no error")


def wrong_cases() -> Iterator[dict[str, object]]:
    """The golden cases that must be refused."""
    expected = {
        answer["name"]: answer for answer in map(json.loads, (HERE / "expected.jsonl").read_text().splitlines())
    }
    for case in map(json.loads, (HERE / "cases.jsonl").read_text().splitlines()):
        if expected[case["name"]]["error"]:
            yield case


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def rows(page: str) -> dict[str, tuple[str, str, str]]:
    """The rows of the page by the case's name: line, BuildKit's words, Brickyard's words."""
    found = re.findall(r"^\| ([\w-]+) \| (.*?) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    return {name: (line, theirs, ours) for name, line, theirs, ours in found if name not in ("case",)}


def renewed(page: str) -> str:
    """The page with Brickyard's column as it is now."""
    out = []
    cases = {str(case["name"]): case for case in wrong_cases()}
    for line in page.splitlines():
        name = line.split(" | ")[0].removeprefix("| ")
        if name in cases:
            line = f"{line.rsplit(' | ', 1)[0]} | {cell(message(cases[name]))} |"
        out.append(line)
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
