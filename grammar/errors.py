"""What is wrong in a user's file, and where."""

from dataclasses import dataclass

# A file may come from anyone, and a terminal obeys control characters: they are shown as pictures.
_SHOWN = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)} | {0x7F: "\u2421"}
_SHOWN |= dict.fromkeys(range(128, 160), "�")


_WIDEST = 300
"""The most characters that are shown of a line."""
_BEFORE = 60


@dataclass(frozen=True, slots=True)
class Location:
    """Lines `start` to `end` of a file, from 1; `column` (from 0) and `width` in characters where they are known."""

    start: int
    end: int
    column: int | None = None
    width: int = 1


class SourceError(Exception):
    """An error in a user's file; `hint` says what to do about it, where that is known."""

    def __init__(self, message: str, location: Location | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.location = location
        self.hint = hint


def not_utf8(name: str, error: UnicodeDecodeError) -> str:
    """What to say of a file that is no text."""
    line = error.object.count(b"\n", 0, error.start) + 1
    return f"{name} is not UTF-8 text: line {line} has the byte 0x{error.object[error.start]:02x}"


def shortened(text: str, column: int = 0) -> tuple[str, int]:
    """A line as far as a person can look at it, around a column, and where the column is in it."""
    if len(text) <= _WIDEST:
        return text, column
    start = column - _BEFORE if column > _WIDEST - _BEFORE else 0
    lead = "…" if start else ""
    end = start + _WIDEST - len(lead)
    return lead + text[start:end] + ("…" if end < len(text) else ""), column - start + len(lead)


def excerpt(error: SourceError, source: str, filename: str, context: int = 2) -> str:
    """The error as text: `file:line: message`, the lines around it, a caret under the place, and the hint."""
    location = error.location
    if location is None or location.start < 1:
        head = f"{filename}: {error.message}"
        return (f"{head}\nhint: {error.hint}" if error.hint else head).translate(_SHOWN)
    lines = [line.rstrip("\r") for line in source.removeprefix("\ufeff").split("\n")]
    first, last = max(1, location.start - context), min(len(lines), max(location.start, location.end) + context)
    width = len(str(last))
    out = [f"{filename}:{location.start}: {error.message}"]
    for number in range(first, last + 1):
        inside, text = location.start <= number <= location.end, lines[number - 1]
        column = len(text) - len(text.lstrip()) if location.column is None else min(location.column, len(text))
        length = location.width if location.column is not None else max(1, len(text.strip()))
        text, column = shortened(text, column if number == location.start else 0)
        out.append(f" {'>' if inside else ' '} {number:>{width}} | {text}")
        if number == location.start:
            lead = "".join("\t" if char == "\t" else " " for char in text[:column])
            out.append(f"   {'':>{width}} | {lead}{'^' * max(1, min(length, max(1, len(text) - column)))}")
    if error.hint:
        out.append(f"hint: {error.hint}")
    return "\n".join(out).translate(_SHOWN)
