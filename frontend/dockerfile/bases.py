"""Base images: their configs, and the triggers in them, which may need more stages."""

from collections.abc import Sequence
from dataclasses import replace

from ...grammar.dockerfile.parser import parse_instruction
from ...grammar.errors import SourceError
from ...llb import caps
from ...llb.bridge import BridgeError
from ...llb.state import Notes, State, source
from ...oci.platform import Platform, format_all, normalize
from ...oci.reference import InvalidReference
from ...oci.reference import parse as parse_reference
from ..lint.rules import (
    invalid_base_image_platform,
)
from .command import Stage, line_ranges
from .errors import fail
from .expansion import numbered
from .image import Image, empty_image, load_image
from .instructions.onbuild import Onbuild
from .planning import Build, fail_at, named_context, plan, reachable_from
from .reading import parse_command
from .suggest import nearest

_COMMON_IMAGES = ("alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora")


def inherit(stage: Stage) -> None:
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


def resolve_bases(build: Build, target: Stage) -> set[Stage]:
    """Fetch the configs of the base images that are needed; their triggers may need more."""
    while True:
        reachable = reachable_from(target)
        if build.options.all_stages:
            reachable |= set(build.stages)
        build.resolver.prefetch(_wanted_images(build, reachable))
        for stage in list(build.stages):
            if stage.base is None and not stage.dispatched and not stage.resolved:
                stage.resolved = stage in reachable
                _resolve_base(build, stage, stage in reachable)
        more = False
        for stage in [s for s in build.stages if s in reachable]:
            inherit(stage)
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


def _wanted_images(build: Build, reachable: set[Stage]) -> list[tuple[str, Platform, str]]:
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


def _metadata_name(build: Build, name: str, platform: Platform) -> str:
    prefix = f"{format_all(platform)} internal" if build.options.multi_platform else "internal"
    return f"[{prefix}] load metadata for {name}"


def _add_triggers(build: Build, stage: Stage, triggers: Sequence[str]) -> bool:
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
        planned.append(plan(build, stage, command, module, on_build=True))
    stage.commands = [*planned, *stage.commands]
    stage.total += len(planned)
    return any(entry.sources for entry in planned)


def _resolve_base(build: Build, stage: Stage, reachable: bool) -> None:
    if stage.base_name == "scratch" and stage.context is None:
        stage.state = State(platform=build.target_platform)
        stage.image = empty_image(build.target_platform)
        stage.platform = build.target_platform
        stage.dispatched = stage.dispatched or not stage.registered
        return
    try:
        reference = parse_reference(stage.base_name)
    except InvalidReference as error:
        raise fail_at(stage, f"failed to parse stage name {stage.base_name!r}: {error}") from None
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
    context = named_context(build, stage, name, platform)
    if context is not None:
        stage.image = context.image.copy() if context.image is not None else empty_image(platform)
        stage.base_config = stage.image.to_json()
        stage.state = replace(context.state, platform=platform)
        stage.platform = platform
        return
    try:
        resolved = build.resolver.image(name, platform, _metadata_name(build, name, platform))
    except (SourceError, BridgeError) as error:
        near = nearest(original.lower(), [*build.names(), *build.options.context_names, *_COMMON_IMAGES])
        hint = getattr(error, "hint", "") or (f"did you mean {near}?" if near else "")
        said = str(error)
        raise fail_at(stage, said if said.startswith(f"{original}: ") else f"{original}: {said}", hint) from error
    try:
        stage.image = load_image(resolved.config)
    except ValueError as error:
        raise fail_at(stage, f"{original}: {error}") from None
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
