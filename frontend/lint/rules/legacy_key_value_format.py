"""LegacyKeyValueFormat."""

from ....grammar.dockerfile.lexer import split_lines
from ....grammar.dockerfile.tree import Dockerfile
from ..edit import Edit, at
from ..linter import Warning
from ..rule import Rule

RULE = Rule(
    "LegacyKeyValueFormat",
    "Legacy key/value format with whitespace separator should not be used",
)


def message(name: str) -> str:
    """The text of one warning."""
    return f'"{name} key=value" should be used instead of legacy "{name} key value" format'


def fix(file: Dockerfile, warning: Warning) -> list[Edit]:
    """Write key="value", where the value has neither quotes nor escapes and stands in one line."""
    edits = []
    for node in at(file, warning.start):
        for pair in node.pairs:
            line = split_lines(file.source)[node.span.start.line - 1].rstrip("\r\n")
            plain = not any(char in pair.value for char in "\"'\\`")
            if pair.delimiter or not plain or node.span.start.line != node.span.end.line:
                continue
            old = line[line.index(pair.key, node.span.start.column + len(node.keyword)) :]
            quoted = (
                pair.value if pair.value and " " not in pair.value and "\t" not in pair.value else f'"{pair.value}"'
            )
            edits.append(Edit(node.span.start.line, len(line) - len(old), len(old), f"{pair.key}={quoted}"))
    return edits
