"""A Dockerfile to a State and an image config: stages, their dependencies, and the order they are converted in."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from ...grammar.dockerfile.words import ExpansionError
from ...llb.graph import Deferred, Output
from ...llb.marshal import Definition, SourceFile, marshal
from ...llb.ops import ProxyEnv
from ...llb.state import DEFAULT_PATH, State
from ...oci.platform import Platform, host
from ..lint.linter import Linter
from ..lint.rules import (
    no_empty_continuation,
)
from .bases import inherit, resolve_bases
from .command import Dispatch, From, Stage
from .epoch_arg import read_epoch
from .errors import DockerfileError, fail
from .expansion import NOT_IN_ENV, SCAN_CONTEXT, SCAN_STAGE
from .image import Image, normalized
from .instructions.workdir import change
from .mounts import boolean
from .options import ConvertOptions, Resolver
from .planning import (
    Build,
    add_stage,
    fail_at,
    find_dependencies,
    find_target,
    followed,
    global_args,
    lint_default_bases,
    predefined_args,
    reachable_from,
)
from .reading import last_line, lint_casing, lint_names, parse_file, read_checks, read_instructions


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


def convert(text: str, options: ConvertOptions, resolver: Resolver, source_file: SourceFile | None = None) -> Converted:
    """Convert a Dockerfile.

    Raises:
        SourceError: for everything that is wrong in the file, with its place.
    """
    if not text:
        raise DockerfileError("the Dockerfile cannot be empty")
    lint = Linter(options.checks if options.checks is not None else read_checks(text), options.warn)
    file = parse_file(text, options.lines)
    for node in file.instructions:
        if node.empty_continuation:
            last = last_line(node)
            lint.run(no_empty_continuation.RULE, no_empty_continuation.message(), last, last)
    parsed, meta = read_instructions(file, lint)
    if not parsed:
        raise DockerfileError("the Dockerfile contains no stages to build", None, "it needs a FROM instruction")
    lint_names(parsed, lint)
    lint_casing(parsed, lint)
    build_platforms = list(options.build_platforms) or [options.platform or host()]
    build = Build(
        options,
        resolver,
        file,
        lint,
        options.platform or build_platforms[0],
        options.platform is None,
        build_args=dict(options.build_args),
    )
    target_name = options.target or cast(From, parsed[-1].command).stage
    predefined = predefined_args(build_platforms[0], build.target_platform, options.build_args, target_name)
    lint_default_bases(parsed, build, predefined, meta)
    build.args = global_args(build, predefined, meta, build.build_args, build.outline)
    build.declared = {key for command in meta for key, _ in command.args}
    read_epoch(build, parsed)
    for number, entry in enumerate(parsed):
        add_stage(build, number, entry)
    target = find_target(build)
    find_dependencies(build)
    reachable = resolve_bases(build, target)
    return _finish(build, target, reachable, source_file)


def _proxy(args: Mapping[str, str]) -> ProxyEnv | None:
    names = {"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"}
    found = {key.lower(): args[key] for key in sorted(args) if key.lower() in names}
    return ProxyEnv(**found) if found else None


def _finish(build: Build, target: Stage, reachable: set[Stage], source_file: SourceFile | None) -> Converted:
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
        inherit(stage)
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
    reachable = reachable_from(target)
    needed = [stage for stage in build.stages if stage in reachable]
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


def _note_scans(build: Build, stage: Stage) -> None:
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
            raise fail_at(stage, str(error)) from None
    if config.user:
        stage.state = stage.state.with_user(config.user)
    stage.state = replace(stage.state, network=options.network)
