"""The grammar's tables: where they are kept, and what running them makes of symbols."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from brickyard.grammar.dockerfile import tables
from brickyard.grammar.dockerfile.parser import parse


@dataclass
class Symbol:
    type: str


class Shown:
    """Makes nested tuples of the grammar's rules."""

    def __getattr__(self, name: str) -> Any:
        return lambda children: (name, *(c.type if isinstance(c, Symbol) else c for c in children))


def run(*kinds: str) -> Any:
    return tables.run(tables.make(), map(Symbol, kinds), Shown())


def test_rules_with_an_underscore_go_into_the_rule_around_them() -> None:
    assert run("SHELL", "FLAG", "FLAG", "TEXT", "END", "PAIRS", "KEY", "EQUALS", "VALUE", "END") == (
        "start",
        ("instruction", "SHELL", "FLAG", "FLAG", "TEXT", "END"),
        ("instruction", "PAIRS", ("pair", "KEY", "EQUALS", "VALUE"), "END"),
    )
    assert run("ONBUILD", "LIST", "OPEN", "STRING", "STRING", "CLOSE", "END") == (
        "start",
        ("instruction", "ONBUILD", ("trigger", "LIST", ("array", "OPEN", "STRING", "STRING", "CLOSE")), "END"),
    )
    assert run() == ("start",)


@pytest.mark.parametrize("kinds", [("TEXT",), ("SHELL", "TEXT"), ("SHELL", "KEY", "END"), ("LIST", "OPEN", "END")])
def test_symbols_that_may_not_stand_there(kinds: tuple[str, ...]) -> None:
    with pytest.raises(tables.UnexpectedSymbol):
        run(*kinds)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tables.load.cache_clear()
    yield tmp_path / "brickyard" / "grammar"
    tables.load.cache_clear()


def test_they_are_kept_and_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tables.load()
    (kept,) = folder.iterdir()
    tables.load.cache_clear()

    def refuse() -> tables.Tables:
        raise AssertionError("they were to be read")

    monkeypatch.setattr(tables, "make", refuse)
    assert tables.load() == first
    assert parse("FROM a\nRUN b\n").instructions[1].words == ("b",)
    assert kept.stat().st_mode & 0o022 == 0


@pytest.mark.parametrize("content", [b"", b"{}", b"[1,2]", b"\xff", json.dumps([0, 0, [], [[1]]]).encode()])
def test_a_damaged_file_is_made_anew(folder: Path, content: bytes) -> None:
    whole = tables.load()
    (kept,) = folder.iterdir()
    kept.write_bytes(content)
    tables.load.cache_clear()
    assert tables.load() == whole
    tables.load.cache_clear()
    assert tables.load() == whole


def test_a_file_that_others_can_write_is_not_read(folder: Path) -> None:
    whole = tables.load()
    (kept,) = folder.iterdir()
    kept.write_text(json.dumps([0, 0, [{}], []]))
    kept.chmod(0o666)
    tables.load.cache_clear()
    assert tables.load() == whole


def test_no_place_to_keep_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    tables.load.cache_clear()
    assert tables.load().rules
    tables.load.cache_clear()
