"""The syntax tree of a Dockerfile: instructions with their source spans, nothing expanded."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the source: `line` from 1, `column` from 0 (characters)."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` up to, not including, `end`."""

    start: Position
    end: Position


@dataclass(frozen=True, slots=True)
class Flag:
    """`--name=value`; `value` is None where there is no `=`. Quotes and escapes are resolved."""

    name: str
    value: str | None
    span: Span


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A here-document: `expand` unless its word is quoted, `chomp` for `<<-`; `content` is raw."""

    name: str
    expand: bool
    chomp: bool
    content: str
    file_descriptor: int
    span: Span


@dataclass(frozen=True, slots=True)
class Pair:
    """`key=value`, or with `delimiter` false the old form `key value`; quotes are kept."""

    key: str
    value: str
    delimiter: bool


@dataclass(frozen=True, slots=True)
class Directive:
    """A parser directive: `# name=value`; `name` in lower case."""

    name: str
    value: str
    span: Span


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    `keyword` is as written and `name` in upper case. `words` holds the arguments in the instruction's own form:
    the strings of a JSON array (`json` true); white-space separated words (FROM, EXPOSE, ADD, COPY, VOLUME); words
    with quotes kept (ARG); the whole rest as one word (RUN, CMD, ENTRYPOINT, SHELL, USER, WORKDIR, STOPSIGNAL,
    MAINTAINER); for HEALTHCHECK the type first and the command after it. ENV and LABEL have `pairs`, ONBUILD a
    `trigger`. `original` is the logical line: continuations joined, comments and here-documents out. `comments` are
    the comment lines right before it, without `#`. `empty_continuation` is set where an empty line follows a
    continuation.
    """

    keyword: str
    name: str
    flags: tuple[Flag, ...]
    words: tuple[str, ...]
    json: bool
    pairs: tuple[Pair, ...]
    heredocs: tuple[Heredoc, ...]
    trigger: "Instruction | None"
    original: str
    comments: tuple[str, ...]
    empty_continuation: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A whole file."""

    source: str
    escape: str
    directives: Mapping[str, Directive]
    instructions: tuple[Instruction, ...]
