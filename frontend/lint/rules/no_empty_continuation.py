"""NoEmptyContinuation."""

from ....grammar.dockerfile.lexer import split_lines
from ....grammar.dockerfile.space import SPACES
from ....grammar.dockerfile.tree import Dockerfile
from ..edit import Edit
from ..linter import Warning
from ..rule import Rule

RULE = Rule(
    "NoEmptyContinuation",
    "Empty continuation lines will become errors in a future release",
)


def message() -> str:
    """The text of one warning."""
    return "Empty continuation line"


def fix(file: Dockerfile, warning: Warning) -> list[Edit]:
    """Leave the empty lines out."""
    lines = split_lines(file.source)
    edits = []
    for node in file.instructions:
        if node.span.end.line == warning.end or node.span.start.line <= warning.start <= node.span.end.line:
            last = node.heredocs[0].span.start.line - 1 if node.heredocs else node.span.end.line
            for number in range(node.span.start.line, last + 1):
                if not lines[number - 1].strip(SPACES):
                    edits.append(Edit(number, 0, 0, None))
    return edits
