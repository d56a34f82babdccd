"""Dockerfile text to tree, by the LALR grammar in dockerfile.lark."""

import gc
from typing import Any

from .errors import DockerfileSyntaxError, at
from .lexer import Line, Source, split_lines, tokens
from .tables import UnexpectedSymbol, load, run
from .tree import Dockerfile, Flag, Heredoc, Instruction, Pair, Position, Span


class _Array(tuple[str, ...]):
    __slots__ = ()


class _Build:
    """Makes the nodes while the parser reduces."""

    def start(self, children: list[Any]) -> tuple[Instruction, ...]:
        return tuple(children)

    def array(self, children: list[Any]) -> _Array:
        return _Array(token.value for token in children[1:-1])

    def pair(self, children: list[Any]) -> Pair:
        return Pair(children[0].value, children[2].value, True)

    def old_pair(self, children: list[Any]) -> Pair:
        return Pair(children[0].value, children[1].value, False)

    def trigger(self, children: list[Any]) -> list[Any]:
        return children

    def instruction(self, children: list[Any]) -> Instruction:
        line: Line = children[-1].value
        return _node(children[:-1], line, Position(line.start, line.pieces[0][2]))


def _node(children: list[Any], line: Line, begin: Position | None = None) -> Instruction:
    """The instruction of a line, or its trigger, which begins at its keyword."""
    keyword, original, place = children[0].value
    flags: list[Flag] = []
    words: list[str] = []
    pairs: list[Pair] = []
    heredocs: list[Heredoc] = []
    trigger = None
    json = False
    for child in children[1:]:
        if isinstance(child, _Array):
            words.extend(child)
            json = True
        elif isinstance(child, Pair):
            pairs.append(child)
        elif isinstance(child, list):
            trigger = _node(child, line)
        elif child.type == "FLAG":
            flags.append(child.value)
        elif child.type == "HEREDOC":
            heredocs.append(child.value)
        else:
            words.append(child.value)
    return Instruction(
        keyword=keyword,
        name=keyword.upper(),
        flags=tuple(flags),
        words=tuple(words),
        json=json,
        pairs=tuple(pairs),
        heredocs=tuple(heredocs),
        trigger=trigger,
        original=original,
        comments=line.comments,
        empty_continuation=line.empty_continuation,
        span=Span(begin or place, Position(line.end, line.end_column)),
    )


_BUILD = _Build()


def parse(text: str) -> Dockerfile:
    """The tree of a Dockerfile.

    Raises:
        DockerfileSyntaxError: with the place and, where there is one, the fix.
    """
    source = Source(split_lines(text))
    # Every node that is made stays: in a long file the collector would look at all of them over and over.
    collecting = gc.isenabled()
    gc.disable()
    try:
        instructions: tuple[Instruction, ...] = run(load(), tokens(source), _BUILD)
    except UnexpectedSymbol as error:
        raise at(f"unexpected {error}", max(1, source.at)) from None
    finally:
        if collecting:
            gc.enable()
    return Dockerfile(text, source.dialect.escape, source.directives, instructions)


def parse_instruction(text: str) -> Instruction:
    """The one instruction that an ONBUILD trigger is.

    Raises:
        DockerfileSyntaxError: where the text is none, or more than one.
    """
    instructions = parse(text).instructions
    if len(instructions) != 1:
        raise DockerfileSyntaxError("an ONBUILD trigger must be a single instruction")
    return instructions[0]
