"""A Dockerfile's text to the commands of its stages, with the checks that need no more than that."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from ...grammar.dockerfile.parser import parse
from ...grammar.dockerfile.tree import Dockerfile, Instruction, Span
from ...grammar.errors import SourceError
from ..lint.linter import Checks, Linter, parse_checks
from ..lint.rules import (
    consistent_instruction_casing,
    duplicate_stage_name,
    from_as_casing,
    invalid_definition_description,
    reserved_stage_name,
    stage_name_casing,
)
from .command import Command, From, InstructionModule
from .descriptions import described
from .errors import DockerfileError, did_you_mean, fail
from .flags import Flags, Kind
from .instructions import TABLE
from .instructions.arg import Arg

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_RESERVED = frozenset({"context", "scratch"})


@dataclass(slots=True)
class Parsed:
    """A stage: its FROM, and the instructions that follow with their modules."""

    command: Command
    commands: list[tuple[Command, InstructionModule]]


def parse_file(text: str, lines: Callable[[int], int] | None) -> Dockerfile:
    """The tree of a text, whose places are those of the file that `lines` leads to."""
    if lines is None:
        return parse(text)
    try:
        file = parse(text)
    except SourceError as error:
        if error.location is not None:
            first, last = lines(error.location.start), lines(error.location.end)
            error.location = replace(error.location, start=first, end=last)
        raise
    return replace(file, instructions=tuple(_moved(node, lines) for node in file.instructions))


def _moved(node: Instruction, lines: Callable[[int], int]) -> Instruction:
    def moved(span: Span) -> Span:
        start, end = span.start, span.end
        return Span(replace(start, line=lines(start.line)), replace(end, line=lines(end.line)))

    return replace(
        node,
        span=moved(node.span),
        flags=tuple(replace(flag, span=moved(flag.span)) for flag in node.flags),
        heredocs=tuple(replace(heredoc, span=moved(heredoc.span)) for heredoc in node.heredocs),
        trigger=None if node.trigger is None else _moved(node.trigger, lines),
    )


def read_stages(text: str, lines: Callable[[int], int] | None = None) -> list[From]:
    """The FROM of every stage, in order, of a file that is right as far as it can be told without building it.

    Raises:
        SourceError: as `convert` does.
    """
    if not text:
        raise DockerfileError("the Dockerfile cannot be empty")
    parsed, _ = read_instructions(parse_file(text, lines), Linter(Checks(), lambda warning: None))
    return [cast(From, entry.command) for entry in parsed]


def read_checks(text: str) -> Checks:
    from ...grammar.dockerfile.directives import parse_directives

    directive = parse_directives(text).get("check")
    if directive is None:
        return Checks()
    try:
        return parse_checks(directive.value.partition(" ")[0])
    except ValueError as error:
        from ...grammar.errors import Location

        line = directive.span.start.line
        raise DockerfileError(f"failed to parse check options: {error}", Location(line, line)) from None


def last_line(node: Instruction) -> int:
    return node.heredocs[0].span.start.line - 1 if node.heredocs else node.span.end.line


def read_instructions(file: Dockerfile, lint: Linter) -> tuple[list[Parsed], list[Arg]]:
    """The stages with their commands, and the ARGs before the first."""
    stages: list[Parsed] = []
    meta: list[Arg] = []
    for node in file.instructions:
        command, module = parse_command(node, lint.within(node.comments))
        if isinstance(command, From):
            stages.append(Parsed(command, []))
        elif stages and module is not None:
            stages[-1].commands.append((command, module))
        elif isinstance(command, Arg):
            meta.append(command)
        else:
            raise fail(node, "no build stage in current context", "begin with FROM; only ARG may come before it")
    return stages, meta


def parse_command(node: Instruction, lint: Linter) -> tuple[Command, InstructionModule | None]:
    """One instruction by its module. Raises DockerfileError, also for an instruction that is none."""
    if node.name == "FROM":
        return _from(node, lint), None
    module = TABLE.get(node.name)
    if module is None:
        hint = did_you_mean(node.keyword, [name.lower() for name in (*TABLE, "FROM")]).upper()
        raise fail(node, f"unknown instruction: {node.keyword}", hint.replace("DID YOU MEAN", "did you mean"))
    known = cast(InstructionModule, module)
    return known.parse(node, lint), known


def _from(node: Instruction, lint: Linter) -> From:
    words = node.words
    start, end = node.span.start.line, node.span.end.line
    if len(words) == 3 and words[2] != words[2].lower():
        lint.run(stage_name_casing.RULE, stage_name_casing.message(words[2]), start, end)
    if len(words) >= 3 and node.keyword in (node.keyword.lower(), node.keyword.upper()):
        lower = node.keyword == node.keyword.lower()
        if words[1] != (words[1].lower() if lower else words[1].upper()):
            lint.run(from_as_casing.RULE, from_as_casing.message(node.keyword, words[1]), start, end)
    stage = ""
    if len(words) == 3 and words[1].lower() == "as":
        stage = words[2].lower()
        if not _STAGE_NAME.match(stage):
            raise fail(
                node, f"invalid name for build stage: {words[2]!r}", "a name can't start with a number or have symbols"
            )
    elif len(words) != 1:
        raise fail(node, "FROM requires either one or three arguments", "write FROM image, or FROM image AS name")
    flags = Flags(node, {"platform": Kind.STRING})
    if stage and not described(node, [stage]):
        rule = invalid_definition_description
        lint.run(rule.RULE, rule.message("FROM", stage), start, end)
    return From(node, words[0], stage, flags.get("platform"))


def lint_names(parsed: Sequence[Parsed], lint: Linter) -> None:
    seen: set[str] = set()
    for entry in parsed:
        command = cast(From, entry.command)
        name, start, end = command.stage, command.node.span.start.line, command.node.span.end.line
        if name in _RESERVED:
            lint.run(reserved_stage_name.RULE, reserved_stage_name.message(name), start, end)
        if name and name in seen:
            lint.run(duplicate_stage_name.RULE, duplicate_stage_name.message(name), start, end)
        seen.add(name)


def lint_casing(parsed: Sequence[Parsed], lint: Linter) -> None:
    nodes = [node for entry in parsed for node in (entry.command.node, *(c.node for c, _ in entry.commands))]
    lower = sum(node.keyword == node.keyword.lower() for node in nodes)
    upper = sum(node.keyword == node.name for node in nodes)
    casing = "lowercase" if lower > upper else "uppercase"
    for node in nodes:
        wanted = node.keyword.lower() if lower > upper else node.name
        if node.keyword != wanted:
            rule = consistent_instruction_casing
            lint.run(rule.RULE, rule.message(node.keyword, casing), node.span.start.line, node.span.end.line)
