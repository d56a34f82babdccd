"""Errors as text."""

from brickyard.grammar.errors import Location, SourceError, excerpt, not_utf8, shortened


def test_long_lines_are_cut() -> None:
    shown = excerpt(SourceError("m", Location(1, 1, 1000, 3)), "x" * 1000 + "bad" + "y" * 1000, "D")
    _, line, caret = shown.split("\n")
    assert len(line) < 310
    assert line[caret.index("^") : caret.rindex("^") + 1] == "bad"
    whole = excerpt(SourceError("m", Location(1, 1)), "x" * 100_000, "D")
    assert len(whole) < 700
    assert shortened("short", 3) == ("short", 3)


def test_bytes_that_are_no_text() -> None:
    try:
        b"FROM a\nRUN \xff".decode()
    except UnicodeDecodeError as error:
        said = not_utf8("D", error)
    assert said == "D is not UTF-8 text: line 2 has the byte 0xff"
