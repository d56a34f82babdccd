"""Changes to a source file: places in physical lines and what stands there instead."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...grammar.dockerfile.lexer import split_lines
from ...grammar.dockerfile.tree import Dockerfile, Instruction


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """Replace `width` characters of line `line` (from 1) at `column` (from 0); a whole line where `text` is None."""

    line: int
    column: int
    width: int
    text: str | None


def at(file: Dockerfile, start: int) -> Iterable[Instruction]:
    """The instructions that begin in a line, the ones of their triggers too."""
    for node in file.instructions:
        if node.span.start.line == start:
            inner: Instruction | None = node
            while inner is not None:
                yield inner
                inner = inner.trigger


def replace_word(file: Dockerfile, node: Instruction, old: str, new: str, last: bool = False) -> list[Edit]:
    """Put a word of an instruction in the place of another; nothing where it stands in more than one place."""
    lines = split_lines(file.source)
    found = []
    for number in range(node.span.start.line, node.span.end.line + 1):
        words = lines[number - 1].replace("\t", " ").rstrip("\r\n").split(" ")
        column = 0
        for word in words:
            if word == old:
                found.append(Edit(number, column, len(old), new))
            column += len(word) + 1
    return found[-1:] if last or len(found) == 1 else []


def apply(source: str, edits: Sequence[Edit]) -> str:
    """The text with edits made, the first of those that overlap."""
    lines = split_lines(source)
    done: set[tuple[int, int]] = set()
    for edit in sorted(set(edits), reverse=True):
        raw = lines[edit.line - 1]
        if edit.text is None:
            lines[edit.line - 1] = ""
            continue
        if any(line == edit.line and edit.column + edit.width > column for line, column in done):
            continue
        done.add((edit.line, edit.column))
        lines[edit.line - 1] = raw[: edit.column] + edit.text + raw[edit.column + edit.width :]
    mark = "\ufeff" if source.startswith("\ufeff") else ""
    return mark + "".join(lines)
