"""Commands to stages that know what they depend on: args, platforms, named contexts, and the target."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from ...grammar.dockerfile.tree import Dockerfile, Instruction
from ...grammar.dockerfile.words import ExpansionError, Words
from ...grammar.errors import SourceError
from ...llb.bridge import BridgeError
from ...oci.platform import Platform, PlatformError, format_all
from ...oci.platform import parse as parse_platform
from ...oci.reference import InvalidReference
from ...oci.reference import parse as parse_reference
from ..lint.linter import Linter
from ..lint.rules import (
    from_platform_flag_const_disallowed,
    invalid_default_arg_in_from,
    redundant_target_platform,
    undefined_arg_in_from,
)
from .command import Command, From, InstructionModule, Planned, Stage
from .descriptions import doc_comment
from .errors import DockerfileError, did_you_mean, fail
from .instructions.arg import Arg
from .options import ConvertOptions, NamedContext, Resolver
from .outline import ArgInfo, Outline
from .reading import Parsed
from .suggest import nearest

_LAYERS = frozenset({"ADD", "COPY", "RUN", "WORKDIR"})


@dataclass(slots=True)
class Build:
    """What one conversion knows."""

    options: ConvertOptions
    resolver: Resolver
    file: Dockerfile
    lint: Linter
    target_platform: Platform
    implicit_platform: bool
    args: dict[str, str] = field(default_factory=dict)
    declared: set[str] = field(default_factory=set)
    build_args: dict[str, str] = field(default_factory=dict)
    epoch: int | None = None
    stages: list[Stage] = field(default_factory=list)
    by_name: dict[str, Stage] = field(default_factory=dict)
    unsettled: list[Callable[[], None]] = field(default_factory=list)
    outline: Outline = field(default_factory=Outline)

    @property
    def words(self) -> Words:
        return Words(self.file.escape)

    def add(self, stage: Stage) -> None:
        self.stages.append(stage)
        stage.base = self.by_name.get(stage.base_name)
        if stage.base is not None:
            stage.outline = stage.base.outline.copy()
        if stage.name:
            self.by_name[stage.name.lower()] = stage

    def names(self) -> list[str]:
        return [stage.label for stage in self.stages if stage.label]


def fail_at(stage: Stage, message: str, hint: str = "") -> DockerfileError:
    node = stage.node or stage.wanted_by
    return DockerfileError(message, None, hint) if node is None else fail(node, message, hint)


def predefined_args(build: Platform, target: Platform, given: Mapping[str, str], stage: str) -> dict[str, str]:
    """The automatic args of a build (Dockerfile reference, "Automatic platform ARGs in the global scope")."""
    values = {
        "BUILDPLATFORM": str(build),
        "BUILDOS": build.os,
        "BUILDOSVERSION": build.os_version,
        "BUILDARCH": build.architecture,
        "BUILDVARIANT": build.variant,
        "TARGETPLATFORM": format_all(target),
        "TARGETOS": target.os,
        "TARGETOSVERSION": target.os_version,
        "TARGETARCH": target.architecture,
        "TARGETVARIANT": target.variant,
        "TARGETSTAGE": stage or "default",
    }
    return {key: given.get(key, value) for key, value in values.items()}


def global_args(
    build: Build,
    start: Mapping[str, str],
    commands: Sequence[Arg],
    given: Mapping[str, str],
    outline: Outline | None = None,
) -> dict[str, str]:
    """The args before the first FROM, later ones seeing earlier ones; `outline` is told of them."""
    args = dict(start)
    for command in commands:
        for key, default in command.args:
            value = given.get(key)
            needs: set[str] = set()
            if value is None and default is not None:
                try:
                    expanded = build.words.expand(default, args)
                except ExpansionError as error:
                    raise fail(command.node, str(error)) from None
                value = expanded.result
                needs = set(expanded.matched)
            if outline is not None:
                if key in needs:
                    needs.remove(key)
                    needs |= outline.args[key].needs if key in outline.args else set()
                lines = (command.node.span.start.line, command.node.span.end.line)
                text = doc_comment(command.node.comments, key)
                outline.args[key] = ArgInfo(key, value or "", text, lines, frozenset(needs))
            if value is not None:
                args.pop(key, None)
                args[key] = value
    return args


def lint_default_bases(
    parsed: Sequence[Parsed], build: Build, predefined: Mapping[str, str], meta: Sequence[Arg]
) -> None:
    try:
        args = global_args(build, predefined, meta, {})
        for entry in parsed:
            command = cast(From, entry.command)
            name = build.words.expand(command.base, args).result
            try:
                parse_reference(name)
            except InvalidReference:
                rule = invalid_default_arg_in_from
                span = command.node.span
                build.lint.run(rule.RULE, rule.message(command.base), span.start.line, span.end.line)
    except (ExpansionError, SourceError):
        return


def add_stage(build: Build, number: int, entry: Parsed) -> None:
    command = cast(From, entry.command)
    node = command.node
    lint = build.lint.within(node.comments)
    known = build.declared | set(build.args)
    try:
        base = build.words.expand(command.base, build.args)
    except ExpansionError as error:
        raise fail(node, str(error)) from None
    _lint_from_args(base.unmatched, known, node, lint)
    if not base.result:
        hint = "declare the ARG before the first FROM, with a default" if base.unmatched else ""
        raise fail(node, f"base name ({command.base}) should not be blank", hint)
    stage = Stage(
        base.result,
        node,
        command.stage,
        command.stage,
        parsed=entry.commands,
        outline=build.outline.copy(),
    )
    used = set(base.matched)
    if command.platform:
        stage.platform = _stage_platform(build, command, known, lint, used)
    if stage.name:
        stage.context = named_context(build, stage, stage.name, stage.platform or build.target_platform)
        if stage.context is not None:
            build.add(stage)
            stage.base = None
            return
    stage.label = stage.name or f"stage-{number}"
    build.add(stage)
    stage.outline.used |= used
    stage.ignore_cache = build.options.no_cache(command.stage)
    first = stage.base_name != "scratch" and stage.base is None
    stage.total = first + sum(c.node.name in _LAYERS for c, _ in entry.commands)


def named_context(build: Build, stage: Stage, name: str, platform: Platform) -> NamedContext | None:
    def read() -> Sequence[str]:
        return followed(stage.paths)

    try:
        found = build.resolver.named_context(name, platform, read)
    except SourceError as error:
        raise fail_at(stage, error.message, error.hint) from error.__cause__
    except BridgeError as error:
        raise fail_at(stage, str(error)) from error
    if found is not None and found.settle is not None:
        build.unsettled.append(found.settle)
    return found


def followed(paths: Iterable[str]) -> list[str]:
    """The paths that a context is reduced to: none, which means everything, where the root is among them."""
    given = set(paths)
    return [] if "/" in given else sorted((path.lstrip("/") for path in given), key=str.encode)


def _lint_from_args(unmatched: Iterable[str], known: set[str], node: Instruction, lint: Linter) -> None:
    for name in sorted(set(unmatched) - known):
        rule = undefined_arg_in_from
        lint.run(rule.RULE, rule.message(name, nearest(name, sorted(known))), node.span.start.line, node.span.end.line)


def _stage_platform(build: Build, command: From, known: set[str], lint: Linter, used: set[str]) -> Platform:
    node, text = command.node, command.platform
    start, end = node.span.start.line, node.span.end.line
    try:
        found = build.words.expand(text, build.args)
    except ExpansionError as error:
        raise fail(node, f"failed to process arguments for platform {text}: {error}") from None
    _lint_from_args(found.unmatched, known, node, lint)
    only_target = found.matched == {"TARGETPLATFORM"} and not found.unmatched
    if only_target and found.result == build.args.get("TARGETPLATFORM"):
        lint.run(redundant_target_platform.RULE, redundant_target_platform.message(text), start, end)
    if not found.result:
        raise fail(node, f"empty platform value from expression {text}", _near(found.unmatched, build.args))
    try:
        platform = parse_platform(found.result)
    except PlatformError as error:
        raise fail(node, f"failed to parse platform {text}: {error}", _near(found.unmatched, build.args)) from None
    used |= found.matched
    constant = not found.matched and not found.unmatched
    if constant and platform.os not in command.stage and platform.architecture not in command.stage:
        rule = from_platform_flag_const_disallowed
        lint.run(rule.RULE, rule.message(found.result), start, end)
    return platform


def _near(names: Iterable[str], options: Iterable[str]) -> str:
    for name in sorted(names):
        near = nearest(name, options)
        if near:
            return f"did you mean {near}?"
    return ""


def find_target(build: Build) -> Stage:
    if not build.options.target:
        return build.stages[-1]
    found = build.by_name.get(build.options.target.lower())
    if found is None:
        raise DockerfileError(
            f"target stage {build.options.target!r} could not be found",
            None,
            did_you_mean(build.options.target, build.names()) or f"the stages are {', '.join(build.names())}",
        )
    return found


def plan(build: Build, stage: Stage, command: Command, module: InstructionModule, on_build: bool = False) -> Planned:
    sources = []
    for name in command.sources():
        found = build.by_name.get(name.lower())
        if command.node.name == "COPY":
            if _copy_origin(build, name) != name:
                raise fail(
                    command.node,
                    "variable expansion is not supported for --from",
                    "define a new stage with FROM using ARG from global scope as a workaround",
                )
            if re.fullmatch(r"[+-]?[0-9]+", name, re.ASCII):
                index = int(name)
                if not 0 <= index < len(build.stages):
                    raise fail(command.node, f"invalid stage index {index}")
                found = build.stages[index]
        if found is None:
            node = command.node if command.node.name == "COPY" else None
            found = Stage(name, node, registered=False, wanted_by=command.node)
            build.add(found)
        sources.append(found)
        stage.dependencies[found] = command
    return Planned(command, module, sources, on_build)


def _copy_origin(build: Build, name: str) -> str:
    try:
        return build.words.expand(name, {}).result
    except ExpansionError:
        return ""


def find_dependencies(build: Build) -> None:
    for stage in list(build.stages):
        stage.commands = [plan(build, stage, command, module) for command, module in stage.parsed]
    _refuse_circles(build.stages)
    if len(build.stages) == 1:
        build.stages[0].label = ""


def _refuse_circles(stages: Sequence[Stage]) -> None:
    done: set[Stage] = set()
    for first in stages:
        path: list[Stage] = []
        pending: list[tuple[Stage, Iterator[tuple[Stage, Command]]]] = []
        if first in done:
            continue
        done.add(first)
        path.append(first)
        pending.append((first, iter(first.dependencies.items())))
        while pending:
            stage, dependencies = pending[-1]
            step = next(dependencies, None)
            if step is None:
                pending.pop()
                path.pop()
                continue
            following, command = step
            if following in path:
                raise fail(command.node, f"circular dependency detected on stage: {stage.label}")
            if following not in done:
                done.add(following)
                path.append(following)
                pending.append((following, iter(following.dependencies.items())))


def reachable_from(target: Stage) -> set[Stage]:
    found: set[Stage] = set()
    pending = [target]
    while pending:
        stage = pending.pop()
        if stage in found:
            continue
        found.add(stage)
        if stage.base is not None:
            pending.append(stage.base)
        pending.extend(stage.dependencies)
    return found
