"""A Dockerfile to a State and an image config: stages, their dependencies, and the order they are converted in."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from ...grammar.dockerfile.parser import parse, parse_instruction
from ...grammar.dockerfile.tree import Dockerfile, Instruction, Span
from ...grammar.dockerfile.words import ExpansionError, Words
from ...grammar.errors import SourceError
from ...llb import caps
from ...llb.bridge import BridgeError
from ...llb.graph import Deferred, Output
from ...llb.marshal import Definition, SourceFile, marshal
from ...llb.ops import ProxyEnv
from ...llb.state import DEFAULT_PATH, Notes, State, source
from ...oci.platform import Platform, PlatformError, format_all, host, normalize
from ...oci.platform import parse as parse_platform
from ...oci.reference import InvalidReference
from ...oci.reference import parse as parse_reference
from ..lint.linter import Checks, Linter, parse_checks
from ..lint.rules import (
    consistent_instruction_casing,
    duplicate_stage_name,
    from_as_casing,
    from_platform_flag_const_disallowed,
    invalid_base_image_platform,
    invalid_default_arg_in_from,
    invalid_definition_description,
    no_empty_continuation,
    redundant_target_platform,
    reserved_stage_name,
    stage_name_casing,
    undefined_arg_in_from,
)
from .command import Command, Dispatch, From, InstructionModule, Planned, Stage, line_ranges
from .descriptions import described
from .errors import DockerfileError, did_you_mean, fail
from .expansion import NOT_IN_ENV, SCAN_CONTEXT, SCAN_STAGE, numbered
from .flags import Flags, Kind
from .gitref import GitRefError, parse_git_ref
from .image import Image, empty_image, load_image, normalized
from .instructions import TABLE
from .instructions.arg import Arg
from .instructions.copy import FileCopy
from .instructions.onbuild import Onbuild
from .instructions.workdir import change
from .mounts import boolean
from .options import ConvertOptions, NamedContext, Resolver
from .outline import ArgInfo, Outline
from .outline import described as described_as
from .remote import git, http, is_url
from .suggest import nearest

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_RESERVED = frozenset({"context", "scratch"})
_LAYERS = frozenset({"ADD", "COPY", "RUN", "WORKDIR"})
_EPOCH = re.compile(r"[+-]?[0-9]+\Z", re.ASCII)
_COMMON_IMAGES = ("alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora")
EPOCH = "SOURCE_DATE_EPOCH"


@dataclass(frozen=True, slots=True)
class Converted:
    """The result: the file system as a graph, the image config, and whether the target was built without cache.

    `base_config` is the config of the base image as it was; `extras` are the context and the stages that a scanner for
    a bill of materials is to look at too.
    """

    output: Output | None
    image: Image
    source: SourceFile
    epoch: int | None = None
    ignore_cache: bool = False
    base_config: bytes = b""
    target: Stage | None = None
    extras: Mapping[str, Output | None] = field(default_factory=dict)

    def definition(self) -> Definition:
        """The marshalled graph. Raises DockerfileError where it can't be marshalled."""
        try:
            return marshal(self.output, self.source)
        except ValueError as error:
            raise DockerfileError(str(error)) from None


@dataclass(slots=True)
class _Build:
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


def convert(text: str, options: ConvertOptions, resolver: Resolver, source_file: SourceFile | None = None) -> Converted:
    """Convert a Dockerfile.

    Raises:
        SourceError: for everything that is wrong in the file, with its place.
    """
    if not text:
        raise DockerfileError("the Dockerfile cannot be empty")
    lint = Linter(options.checks if options.checks is not None else _checks(text), options.warn)
    file = _parsed_file(text, options.lines)
    for node in file.instructions:
        if node.empty_continuation:
            last = _last_line(node)
            lint.run(no_empty_continuation.RULE, no_empty_continuation.message(), last, last)
    parsed, meta = _instructions(file, lint)
    if not parsed:
        raise DockerfileError("the Dockerfile contains no stages to build", None, "it needs a FROM instruction")
    _lint_names(parsed, lint)
    _lint_casing(parsed, lint)
    build_platforms = list(options.build_platforms) or [options.platform or host()]
    build = _Build(
        options,
        resolver,
        file,
        lint,
        options.platform or build_platforms[0],
        options.platform is None,
        build_args=dict(options.build_args),
    )
    target_name = options.target or cast(From, parsed[-1].command).stage
    predefined = _predefined(build_platforms[0], build.target_platform, options.build_args, target_name)
    _lint_default_bases(parsed, build, predefined, meta)
    build.args = _global_args(build, predefined, meta, build.build_args, build.outline)
    build.declared = {key for command in meta for key, _ in command.args}
    _read_epoch(build, parsed)
    for number, entry in enumerate(parsed):
        _add_stage(build, number, entry)
    target = _target(build)
    _dependencies(build)
    reachable = _resolve(build, target)
    return _finish(build, target, reachable, source_file)


def _parsed_file(text: str, lines: Callable[[int], int] | None) -> Dockerfile:
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
    parsed, _ = _instructions(_parsed_file(text, lines), Linter(Checks(), lambda warning: None))
    return [cast(From, entry.command) for entry in parsed]


@dataclass(slots=True)
class _Parsed:
    command: Command
    commands: list[tuple[Command, InstructionModule]]


def _checks(text: str) -> Checks:
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


def _last_line(node: Instruction) -> int:
    return node.heredocs[0].span.start.line - 1 if node.heredocs else node.span.end.line


def _instructions(file: Dockerfile, lint: Linter) -> tuple[list[_Parsed], list[Arg]]:
    """The stages with their commands, and the ARGs before the first."""
    stages: list[_Parsed] = []
    meta: list[Arg] = []
    for node in file.instructions:
        command, module = parse_command(node, lint.within(node.comments))
        if isinstance(command, From):
            stages.append(_Parsed(command, []))
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


def _lint_names(parsed: Sequence[_Parsed], lint: Linter) -> None:
    seen: set[str] = set()
    for entry in parsed:
        command = cast(From, entry.command)
        name, start, end = command.stage, command.node.span.start.line, command.node.span.end.line
        if name in _RESERVED:
            lint.run(reserved_stage_name.RULE, reserved_stage_name.message(name), start, end)
        if name and name in seen:
            lint.run(duplicate_stage_name.RULE, duplicate_stage_name.message(name), start, end)
        seen.add(name)


def _lint_casing(parsed: Sequence[_Parsed], lint: Linter) -> None:
    nodes = [node for entry in parsed for node in (entry.command.node, *(c.node for c, _ in entry.commands))]
    lower = sum(node.keyword == node.keyword.lower() for node in nodes)
    upper = sum(node.keyword == node.name for node in nodes)
    casing = "lowercase" if lower > upper else "uppercase"
    for node in nodes:
        wanted = node.keyword.lower() if lower > upper else node.name
        if node.keyword != wanted:
            rule = consistent_instruction_casing
            lint.run(rule.RULE, rule.message(node.keyword, casing), node.span.start.line, node.span.end.line)


def _predefined(build: Platform, target: Platform, given: Mapping[str, str], stage: str) -> dict[str, str]:
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


def _global_args(
    build: _Build,
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
                text = described_as(command.node.comments, key)
                outline.args[key] = ArgInfo(key, value or "", text, lines, frozenset(needs))
            if value is not None:
                args.pop(key, None)
                args[key] = value
    return args


def _lint_default_bases(
    parsed: Sequence[_Parsed], build: _Build, predefined: Mapping[str, str], meta: Sequence[Arg]
) -> None:
    try:
        args = _global_args(build, predefined, meta, {})
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


def _read_epoch(build: _Build, parsed: Sequence[_Parsed]) -> None:
    value = build.build_args.get(EPOCH)
    if value is None:
        value = build.args.get(EPOCH) or None
    if value is None:
        return
    build.epoch = _epoch(build, parsed, value)
    for known in (build.build_args, build.args):
        if EPOCH in known:
            if build.epoch is not None:
                known[EPOCH] = str(build.epoch)
            else:
                del known[EPOCH]


def _epoch(build: _Build, parsed: Sequence[_Parsed], value: str) -> int | None:
    """The time that a value of SOURCE_DATE_EPOCH means: seconds, or the name of what has a time."""
    if not value:
        return None
    if _EPOCH.match(value) and -(2**63) <= int(value) < 2**63:
        return int(value)
    log_name = "[internal] resolve SOURCE_DATE_EPOCH "
    if value == "context":
        main = build.resolver.main_context([])
        return build.resolver.epoch(main, "[internal] resolve main build context metadata")
    try:
        context = build.resolver.named_context(value, build.target_platform, list)
    except SourceError:
        context = None
    if context is not None:
        if context.settle is not None:
            context.settle()
        return build.resolver.epoch(context.state.output, f"{log_name}named context {value}")
    for entry in parsed:
        if cast(From, entry.command).stage == value.lower():
            return build.resolver.epoch(_epoch_stage(build, entry), f"{log_name}source stage {value.lower()}")
    raise DockerfileError(
        f"invalid {EPOCH}: {value}",
        None,
        "give it as seconds since 1970, as `context`, or as the name of a stage with one ADD of a remote source",
    )


def _epoch_stage(build: _Build, entry: _Parsed) -> Output | None:
    """The remote source that a stage adds to an empty file system, and which is all that it does."""
    args = {key: value for key, value in build.args.items() if key != EPOCH}
    found: Output | None = None
    node = entry.command.node
    try:
        if build.words.expand(cast(From, entry.command).base, args).result != "scratch":
            raise fail(node, f"{EPOCH} stage must use FROM scratch")
        for command, _ in entry.commands:
            if isinstance(command, Arg):
                _stage_args(build, command, args)
            elif not isinstance(command, FileCopy) or not command.is_add:
                name = command.node.name.lower()
                message = f"{EPOCH} stage does not meet source-only requirements: unsupported {name} instruction"
                raise fail(node, message)
            elif found is not None:
                raise fail(node, f"{EPOCH} stage must contain exactly one remote ADD")
            else:
                found = _epoch_source(build, command, args, node)
    except (ExpansionError, GitRefError) as error:
        raise fail(node, str(error)) from None
    if found is None:
        raise fail(node, f"{EPOCH} stage must contain exactly one remote ADD")
    return found


def _stage_args(build: _Build, command: Arg, args: dict[str, str]) -> None:
    for key, default in command.args:
        if key in build.build_args:
            args[key] = build.build_args[key]
        elif default is not None:
            args[key] = build.words.expand(default, args).result


def _epoch_source(build: _Build, command: FileCopy, args: Mapping[str, str], node: Instruction) -> Output | None:
    if command.documents or len(command.paths) != 1:
        raise fail(node, f"{EPOCH} stage must contain exactly one remote ADD source")
    path = build.words.expand(command.paths[0], args).result
    checksum = build.words.expand(command.checksum, args).result
    ref = parse_git_ref(path)
    if ref is not None:
        keep = command.keep_git_dir is True or ref.keep_git_dir is True
        return git(ref, keep, checksum or ref.checksum, Notes()).output
    if is_url(path):
        return http(path, checksum, Notes()).output
    raise fail(node, f"{EPOCH} stage source must be a single HTTP(S) or Git ADD")


def _add_stage(build: _Build, number: int, entry: _Parsed) -> None:
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
        stage.context = _named_context(build, stage, stage.name, stage.platform or build.target_platform)
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


def _named_context(build: _Build, stage: Stage, name: str, platform: Platform) -> NamedContext | None:
    def read() -> Sequence[str]:
        return followed(stage.paths)

    try:
        found = build.resolver.named_context(name, platform, read)
    except SourceError as error:
        raise _at(stage, error.message, error.hint) from error.__cause__
    except BridgeError as error:
        raise _at(stage, str(error)) from error
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


def _stage_platform(build: _Build, command: From, known: set[str], lint: Linter, used: set[str]) -> Platform:
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


def _target(build: _Build) -> Stage:
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


def _plan(build: _Build, stage: Stage, command: Command, module: InstructionModule, on_build: bool = False) -> Planned:
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
            found = Stage(name, node, registered=False)
            build.add(found)
        sources.append(found)
        stage.dependencies[found] = command
    return Planned(command, module, sources, on_build)


def _copy_origin(build: _Build, name: str) -> str:
    try:
        return build.words.expand(name, {}).result
    except ExpansionError:
        return ""


def _dependencies(build: _Build) -> None:
    for stage in list(build.stages):
        stage.commands = [_plan(build, stage, command, module) for command, module in stage.parsed]
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


def _reachable(target: Stage) -> set[Stage]:
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


def _inherit(stage: Stage) -> None:
    """Take over what the base stage has come to."""
    base = stage.base
    if base is None:
        return
    stage.state = base.state
    stage.platform = base.platform
    stage.image = base.image.copy()
    stage.image.config.on_build = []
    stage.base_config = base.base_config
    stage.paths = base.paths
    stage.workdir_set = base.workdir_set
    stage.build_args = [*stage.build_args[: stage.inherited_args], *base.build_args]
    stage.inherited_args = 0


def _resolve(build: _Build, target: Stage) -> set[Stage]:
    """Fetch the configs of the base images that are needed; their triggers may need more."""
    while True:
        reachable = _reachable(target)
        if build.options.all_stages:
            reachable |= set(build.stages)
        build.resolver.prefetch(_wanted_images(build, reachable))
        for stage in list(build.stages):
            if stage.base is None and not stage.dispatched and not stage.resolved:
                stage.resolved = stage in reachable
                _resolve_base(build, stage, stage in reachable)
        more = False
        for stage in [s for s in build.stages if s in reachable]:
            _inherit(stage)
            triggers = [] if stage.base is not None else list(stage.image.config.on_build)
            if stage.base is not None and not stage.on_build_read:
                triggers += [
                    planned.command.trigger for planned in stage.base.commands if isinstance(planned.command, Onbuild)
                ]
                stage.on_build_read = True
            if triggers:
                more = _add_triggers(build, stage, triggers) or more
                stage.image.config.on_build = []
        if not more:
            return reachable


def _wanted_images(build: _Build, reachable: set[Stage]) -> list[tuple[str, Platform, str]]:
    """The images that are to be resolved, each once."""
    found: dict[tuple[str, Platform, str], None] = {}
    for stage in build.stages:
        if stage not in reachable or stage.base is not None or stage.resolved or stage.dispatched:
            continue
        if stage.context is None and stage.base_name != "scratch":
            try:
                name = str(parse_reference(stage.base_name).tag_name_only())
            except InvalidReference:
                # What is wrong with it is told where it is resolved.
                continue
            platform = stage.platform or build.target_platform
            found[(name, platform, _metadata_name(build, name, platform))] = None
    return list(found)


def _metadata_name(build: _Build, name: str, platform: Platform) -> str:
    prefix = f"{format_all(platform)} internal" if build.options.multi_platform else "internal"
    return f"[{prefix}] load metadata for {name}"


def _add_triggers(build: _Build, stage: Stage, triggers: Sequence[str]) -> bool:
    planned = []
    for trigger in triggers:
        try:
            node = parse_instruction(trigger)
        except SourceError as error:
            assert stage.node is not None
            raise fail(stage.node, f"in the trigger ONBUILD {trigger}: {error.message}", error.hint) from None
        if stage.node is not None:
            node = replace(node, span=stage.node.span)
        command, module = parse_command(node, replace(build.lint, warn=lambda warning: None))
        if module is None:
            raise fail(node, "FROM isn't allowed as an ONBUILD trigger")
        planned.append(_plan(build, stage, command, module, on_build=True))
    stage.commands = [*planned, *stage.commands]
    stage.total += len(planned)
    return any(entry.sources for entry in planned)


def _resolve_base(build: _Build, stage: Stage, reachable: bool) -> None:
    if stage.base_name == "scratch" and stage.context is None:
        stage.state = State(platform=build.target_platform)
        stage.image = empty_image(build.target_platform)
        stage.platform = build.target_platform
        stage.dispatched = stage.dispatched or not stage.registered
        return
    try:
        reference = parse_reference(stage.base_name)
    except InvalidReference as error:
        raise _at(stage, f"failed to parse stage name {stage.base_name!r}: {error}") from None
    platform = stage.platform or build.target_platform
    original = stage.base_name
    name = str(reference.tag_name_only())
    if not stage.registered:
        stage.dispatched = True
    if not reachable:
        # BuildKit numbers the FROM of a stage that is not needed yet, and again once a trigger needs it.
        stage.index += stage.total > 0
        return
    context = stage.context
    if context is not None:
        stage.dispatched = True
        stage.state = context.state
        if context.image is not None:
            stage.image = context.image.copy()
            if stage.image.platform.os and stage.image.platform.architecture:
                stage.platform = context.image.platform
        return
    context = _named_context(build, stage, name, platform)
    if context is not None:
        stage.image = context.image.copy() if context.image is not None else empty_image(platform)
        stage.base_config = stage.image.to_json()
        stage.state = replace(context.state, platform=platform)
        stage.platform = platform
        return
    try:
        resolved = build.resolver.image(name, platform, _metadata_name(build, name, platform))
    except (SourceError, BridgeError) as error:
        hint = getattr(error, "hint", "") or did_you_mean(original, [*build.names(), *_COMMON_IMAGES])
        raise _at(stage, f"{original}: {error}", hint) from error
    try:
        stage.image = load_image(resolved.config)
    except ValueError as error:
        raise _at(stage, f"{original}: {error}") from None
    stage.base_config = stage.image.to_json(created=True)
    if stage.platform is None and build.implicit_platform:
        platform = _detected(stage.image, platform, build.options.build_platforms)
    pinned = parse_reference(resolved.reference)
    if resolved.digest:
        pinned = pinned.with_digest(resolved.digest)
    stage.platform = platform
    if not stage.image.rootfs.get("diff_ids") and all(e.get("empty_layer") for e in stage.image.history):
        stage.state = State(platform=platform)
        return
    text = f"FROM {pinned}"
    shown = numbered(stage, text, platform, {}, multi_platform=build.options.multi_platform)
    command = stage.node.original.strip() if stage.node is not None and stage.registered else ""
    locations = () if stage.node is None else line_ranges(stage.node)
    notes = Notes(shown, {"com.docker.dockerfile.v1.command": command}, locations=locations)
    mode = build.options.resolve_mode
    wanted = [caps.SOURCE_IMAGE] + ([caps.SOURCE_IMAGE_RESOLVE_MODE] if mode == "pull" else [])
    attrs = {} if mode == "default" else {"image.resolvemode": mode}
    stage.state = source(f"docker-image://{pinned}", attrs, platform=platform, wanted=wanted, notes=notes)
    found = stage.image.platform
    if (platform.os, platform.architecture) != (found.os, found.architecture):
        rule = invalid_base_image_platform
        message = rule.message(original, format_all(normalize(platform)), format_all(normalize(found)))
        build.lint.run(rule.RULE, message, *stage.lines)


def _detected(image: Image, wanted: Platform, supported: Sequence[Platform]) -> Platform:
    found = (image.platform.os, image.platform.architecture)
    if (wanted.os, wanted.architecture) == found:
        return wanted
    return next((p for p in supported if (p.os, p.architecture) == found), wanted)


def _at(stage: Stage, message: str, hint: str = "") -> DockerfileError:
    return DockerfileError(message, None, hint) if stage.node is None else fail(stage.node, message, hint)


def _proxy(args: Mapping[str, str]) -> ProxyEnv | None:
    names = {"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"}
    found = {key.lower(): args[key] for key in sorted(args) if key.lower() in names}
    return ProxyEnv(**found) if found else None


def _finish(build: _Build, target: Stage, reachable: set[Stage], source_file: SourceFile | None) -> Converted:
    options = replace(build.options, build_args=build.build_args)
    deferred = Deferred()
    context = State(output=Output(deferred))
    proxy = _proxy(build.build_args)
    paths: set[str] = set()
    matcher = None
    if patterns := build.resolver.ignored():
        from ...grammar.dockerignore import Matcher, PatternError

        try:
            matcher = Matcher(patterns)
        except PatternError as error:
            raise DockerfileError(f"failed to read the ignore file: {error}") from None
    for stage in build.stages:
        if stage not in reachable or stage.dispatched:
            continue
        _inherit(stage)
        stage.dispatched = True
        if stage.platform is None:
            stage.platform = build.target_platform
        _begin(stage, options)
        for planned in stage.commands:
            lint = build.lint.within(planned.command.node.comments)
            dispatch = Dispatch(
                options,
                stage,
                planned,
                lint,
                build.file.escape,
                build.args,
                context,
                proxy,
                build.target_platform,
                build.epoch,
                matcher,
            )
            try:
                planned.module.apply(planned.command, dispatch)
            except (ExpansionError, ValueError) as error:
                raise fail(planned.command.node, str(error)) from None
        paths |= stage.context_paths
        _note_scans(build, stage)
    image = target.image
    if options.labels:
        image.config.labels.update(options.labels)
    if build.lint.checks.error and build.lint.called:
        raise DockerfileError(f"lint violation found for rules: {', '.join(sorted(build.lint.called))}")
    target.paths.add("/")
    main = build.resolver.main_context(followed(paths))
    if main is not None:
        deferred.resolve(main)
    if not build.implicit_platform:
        image.platform = _target_platform(image.platform, build.target_platform)
    normalized(image)
    for settle in build.unsettled:
        settle()
    if source_file is None:
        source_file = SourceFile(options.filename, build.file.source.encode())
    needed = [stage for stage in build.stages if stage in _reachable(target)]
    scanned = [stage for stage in needed if stage.scan_stage and stage is not target]
    extras = {stage.label: stage.state.output for stage in scanned}
    return Converted(
        target.state.output,
        image,
        source_file,
        build.epoch,
        target.ignore_cache or any(stage.ignore_cache for stage in scanned),
        target.base_config,
        target,
        ({"context": main} if target.scan_context else {}) | extras,
    )


def _note_scans(build: _Build, stage: Stage) -> None:
    """What the args say that a scanner for a bill of materials is to be given; the stage's own win."""
    values = {name: build.args[name] for name in (SCAN_CONTEXT, SCAN_STAGE) if name in build.args}
    values |= {key: value for key, value in stage.build_args if key in NOT_IN_ENV and value is not None}

    def wanted(name: str) -> bool:
        text = values.get(name, "")
        found = boolean(text)
        return stage.label in text.split(",") if found is None else found

    stage.scan_context = wanted(SCAN_CONTEXT)
    stage.scan_stage = wanted(SCAN_STAGE)


def _target_platform(found: Platform, target: Platform) -> Platform:
    same = (found.os, found.architecture) == (target.os, target.architecture)
    return Platform(
        target.os,
        target.architecture,
        target.variant if target.variant or not same else found.variant,
        target.os_version if target.os_version or not same else found.os_version,
        target.os_features or found.os_features,
    )


def _begin(stage: Stage, options: ConvertOptions) -> None:
    """Give the stage's processes what the image config says."""
    config = stage.image.config
    assert stage.platform is not None
    if not any(entry.partition("=")[0] == "PATH" for entry in config.env) and stage.platform.os != "windows":
        config.env.append(f"PATH={DEFAULT_PATH}")
    for entry in config.env:
        key, _, value = entry.partition("=")
        stage.state = stage.state.with_env(key, value)
    if options.hostname:
        stage.state = replace(stage.state, hostname=options.hostname)
    if config.working_dir:
        try:
            change(stage, config.working_dir, stage.platform.os)
        except ValueError as error:
            raise _at(stage, str(error)) from None
    if config.user:
        stage.state = stage.state.with_user(config.user)
    stage.state = replace(stage.state, network=options.network)
