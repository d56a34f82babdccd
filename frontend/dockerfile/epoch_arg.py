"""The build arg SOURCE_DATE_EPOCH: seconds, the build context, a named context, or a stage that adds one source."""

import re
from collections.abc import Mapping, Sequence
from typing import cast

from ...grammar.dockerfile.tree import Instruction
from ...grammar.dockerfile.words import ExpansionError
from ...grammar.errors import SourceError
from ...llb.graph import Output
from ...llb.state import Notes
from .command import From
from .errors import DockerfileError, fail
from .gitref import GitRefError, parse_git_ref
from .instructions.arg import Arg
from .instructions.copy import FileCopy
from .planning import Build
from .reading import Parsed
from .remote import git, http, is_url

_EPOCH = re.compile(r"[+-]?[0-9]+\Z", re.ASCII)
EPOCH = "SOURCE_DATE_EPOCH"


def read_epoch(build: Build, parsed: Sequence[Parsed]) -> None:
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


def _epoch(build: Build, parsed: Sequence[Parsed], value: str) -> int | None:
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


def _epoch_stage(build: Build, entry: Parsed) -> Output | None:
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


def _stage_args(build: Build, command: Arg, args: dict[str, str]) -> None:
    for key, default in command.args:
        if key in build.build_args:
            args[key] = build.build_args[key]
        elif default is not None:
            args[key] = build.words.expand(default, args).result


def _epoch_source(build: Build, command: FileCopy, args: Mapping[str, str], node: Instruction) -> Output | None:
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
