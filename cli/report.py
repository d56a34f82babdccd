"""What a user reads after a build: the error with the place in the Dockerfile, the warnings, the image."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from ..grammar.errors import SourceError, shortened
from ..grammar.errors import excerpt as excerpt_of

if TYPE_CHECKING:
    from ..client.solver import Explanation
    from ..wire.pb import control_pb2, errdefs_pb2, ops_pb2

_RULE = "-" * 20


def print_error(error: Exception, stream: TextIO) -> None:
    """Print the error: the lines of the user's file it comes from, `ERROR: …`, and a hint where there is one."""
    sources = _sources(error)
    for source in sources:
        print(source_excerpt(source), end="", file=stream)
    if not sources and (place := next(filter(None, map(_place, _chain(error))), "")):
        print(place, file=stream)
    print(f"ERROR: {message(error)}", file=stream)
    hint = next((text for one in _chain(error) if (text := getattr(one, "hint", ""))), "")
    if hint:
        print(f"hint: {hint}", file=stream)


def message(error: BaseException) -> str:
    """One line (or the error's own few) that says what is wrong, never empty."""
    if isinstance(error, OSError) and error.strerror:
        from ..wire.fsutil.errors import describe

        return describe(error)
    if isinstance(error, SourceError):
        return error.message
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!r} is not UTF-8"
    text = str(error) or type(error).__name__
    return f"{type(error).__name__}: {text}" if isinstance(error, _BUGS) else text


_BUGS = (AssertionError, AttributeError, LookupError, NameError, NotImplementedError, TypeError)
"""Errors whose text alone says nothing: they are faults of the program, and their kind helps to report them."""


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _sources(error: Exception) -> Sequence["errdefs_pb2.Source"]:
    return next((found for one in _chain(error) if (found := getattr(one, "sources", ()))), ())


def print_explanations(explained: Sequence["Explanation"], stream: TextIO) -> None:
    """A line for each step that the user knows: cached, cached by content, or run, and why."""
    words = {"hit": "cached", "content": "cached", "miss": "run"}
    print("\nCache:", file=stream)
    for one in explained:
        reason = one.reason or ("the same content" if one.outcome == "content" else "")
        print(f"  {words[one.outcome]:<7} {one.name}" + (f"\n          {reason}" if reason else ""), file=stream)


def _place(error: BaseException) -> str:
    """For an error that a frontend found in a file: the file's name and line, the lines around it, and a caret."""
    filename, data = getattr(error, "filename", ""), getattr(error, "source", None)
    if not isinstance(error, SourceError) or error.location is None or not isinstance(data, bytes):
        return ""
    shown = excerpt_of(SourceError("", error.location), data.decode(errors="replace"), filename).split("\n")
    return "\n".join([shown[0].rstrip(": "), *shown[1:]])


def source_excerpt(source: "errdefs_pb2.Source") -> str:
    """The lines around a place in a file, with `>>>` at those it spans (as BuildKit prints them)."""
    return excerpt(source.info.filename, source.info.data.decode(errors="replace"), source.ranges)


def excerpt(filename: str, text: str, ranges: Sequence["ops_pb2.Range"]) -> str:
    """The same for a text and the ranges in it; empty where they lie outside of it."""
    lines = text.split("\n")
    spans = [(one.start.line, max(one.start.line, one.end.line)) for one in ranges]
    if not spans:
        return ""
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    if not 1 <= first <= len(lines):
        return ""
    last = min(last, len(lines))
    start, end, wanted = first, last, 4 if first == last else 2
    padded = 0
    while padded < wanted:
        if start > 1:
            start, padded = start - 1, padded + 1
        if end < len(lines):
            end, padded = end + 1, padded + 1
        padded += 1
    out = [f"{filename}:{first}", _RULE]
    for number in range(start, end + 1):
        mark = ">>>" if any(low <= number <= high for low, high in spans) else "   "
        out.append(f" {number:>3} | {mark} {shortened(lines[number - 1])[0]}".rstrip())
    return "\n".join([*out, _RULE, ""])


def print_warnings(warnings: Sequence["control_pb2.VertexWarning"], stream: TextIO, details: bool) -> None:
    """List the warnings of a build, with their explanation and place where `details` are wanted."""
    if not warnings:
        return
    count = "1 warning found" if len(warnings) == 1 else f"{len(warnings)} warnings found"
    print(f"\n {count}{'' if details else ' (--debug shows where and why)'}:", file=stream)
    for warning in warnings:
        print(f" - {warning.short.decode(errors='replace')}", file=stream)
        if not details:
            continue
        for line in warning.detail:
            print(line.decode(errors="replace"), file=stream)
        if warning.url:
            print(f"More info: {warning.url}", file=stream)
        text = warning.info.data.decode(errors="replace")
        print(excerpt(warning.info.filename, text, warning.ranges), file=stream)
