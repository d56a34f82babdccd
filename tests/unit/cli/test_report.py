"""Errors and warnings as the user reads them."""

import io
from typing import Any

from brickyard.cli.report import excerpt, message, print_error, print_explanations, print_warnings, source_excerpt
from brickyard.client.errors import ClientError
from brickyard.grammar.errors import Location, SourceError
from brickyard.wire.pb import control_pb2, errdefs_pb2

DOCKERFILE = "FROM base\nRUN one\nRUN two && \\\n  three\n\nRUN four\n"


def source(first: int, last: int) -> Any:
    """A place in the Dockerfile."""
    found = errdefs_pb2.Source()
    found.info.filename, found.info.data = "Dockerfile", DOCKERFILE.encode()
    one = found.ranges.add()
    one.start.line, one.end.line = first, last
    return found


def test_one_line() -> None:
    assert source_excerpt(source(2, 2)) == (
        "Dockerfile:2\n"
        "--------------------\n"
        "   1 |     FROM base\n"
        "   2 | >>> RUN one\n"
        "   3 |     RUN two && \\\n"
        "   4 |       three\n"
        "--------------------\n"
    )


def test_several_lines() -> None:
    text = source_excerpt(source(3, 4))
    assert "   3 | >>> RUN two && \\\n   4 | >>>   three\n   5 |\n" in text
    assert text.startswith("Dockerfile:3\n")


def test_nothing_to_show() -> None:
    assert excerpt("Dockerfile", "a", []) == ""
    assert source_excerpt(source(99, 99)) == ""


def test_an_error_with_its_place_and_hint() -> None:
    class StepError(Exception):
        sources = (source(2, 2),)

    out = io.StringIO()
    print_error(StepError("process failed: exit code: 1"), out)
    assert out.getvalue().startswith("Dockerfile:2\n")
    assert out.getvalue().endswith("ERROR: process failed: exit code: 1\n")
    out = io.StringIO()
    print_error(ClientError("no folder", "make one"), out)
    assert out.getvalue() == "ERROR: no folder\nhint: make one\n"


def test_messages() -> None:
    assert message(FileNotFoundError(2, "No such file or directory", "x")) == "x: No such file or directory"
    assert message(OSError(28, "No space left on device")) == "No space left on device"
    assert message(SourceError("unknown instruction: FORM")) == "unknown instruction: FORM"
    assert message(KeyError("a")) == "KeyError: 'a'"
    assert message(TimeoutError()) == "TimeoutError"


def test_warnings() -> None:
    warning = control_pb2.VertexWarning(level=1, url="https://example.com")
    warning.short, warning.info.filename, warning.info.data = b"Rule: text", "Dockerfile", DOCKERFILE.encode()
    warning.detail.append(b"why")
    warning.ranges.add().start.line = 2
    out = io.StringIO()
    print_warnings([warning], out, details=False)
    assert out.getvalue() == "\n 1 warning found (--debug shows where and why):\n - Rule: text\n"
    out = io.StringIO()
    print_warnings([warning, warning], out, details=True)
    assert out.getvalue().startswith("\n 2 warnings found:\n - Rule: text\nwhy\nMore info: https://example.com\n")
    assert "   2 | >>> RUN one" in out.getvalue()


def test_explanations() -> None:
    class One:
        def __init__(self, name: str, outcome: str, reason: str = "") -> None:
            self.name, self.outcome, self.reason = name, outcome, reason

    out = io.StringIO()
    found = [One("FROM a", "hit"), One("COPY b c", "content"), One("RUN d", "miss", "the command changed")]
    print_explanations(found, out)
    assert out.getvalue() == (
        "\nCache:\n  cached  FROM a\n  cached  COPY b c\n          the same content\n"
        "  run     RUN d\n          the command changed\n"
    )


def test_an_error_in_a_file_shows_the_place() -> None:
    class InFile(SourceError):
        filename, source = "Dockerfile", b"FROM a\nCOPPY b c"

    error = InFile("unknown instruction: COPPY", Location(2, 2, 0, 5), "did you mean COPY?")
    out = io.StringIO()
    print_error(error, out)
    assert out.getvalue() == (
        "Dockerfile:2\n   1 | FROM a\n > 2 | COPPY b c\n     | ^^^^^\n"
        "ERROR: unknown instruction: COPPY\nhint: did you mean COPY?\n"
    )
