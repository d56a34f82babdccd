"""Variables in an instruction: expanded with the stage's environment, and reported where they are not set."""

from collections.abc import Mapping

from ...grammar.dockerfile.words import ExpansionError, Words
from ...oci.platform import Platform, PlatformError, format_all, normalize, parse
from ..lint.rules import undefined_var
from .command import Dispatch, Stage
from .suggest import nearest

SCAN_CONTEXT = "BUILDKIT_SBOM_SCAN_CONTEXT"
SCAN_STAGE = "BUILDKIT_SBOM_SCAN_STAGE"
NOT_IN_ENV = frozenset({SCAN_CONTEXT, SCAN_STAGE})
"""Build args that configure the build and are no variables of a stage."""


def expand(dispatch: Dispatch, word: str, words: Words | None = None) -> str:
    """A word with its variables expanded; unset ones are reported. Raises ExpansionError."""
    if "$" not in word and words is None and not any(char in word for char in ("'", '"', dispatch.escape)):
        return word
    try:
        found = (words or Words(dispatch.escape)).expand(word, dispatch.stage.state.env)
    except ExpansionError as error:
        report(dispatch, set(error.unmatched))
        raise
    report(dispatch, found.unmatched)
    return found.result


def report(dispatch: Dispatch, unmatched: set[str]) -> None:
    """Warn of variables that are neither set nor declared."""
    names = unmatched - {key for key, _ in dispatch.stage.build_args} - NOT_IN_ENV
    for name in sorted(names):
        dispatch.warn(undefined_var.RULE, undefined_var.message(name, nearest(name, dispatch.stage.state.env)))


def command_name(dispatch: Dispatch, text: str, words: Words, env: Mapping[str, str]) -> str:
    """The instruction as progress names it: variables filled in, its keyword in upper case."""
    try:
        text = words.expand(text, env).result
    except ExpansionError:
        pass
    keyword, space, rest = text.partition(" ")
    return keyword.upper() + space + rest


def numbered(
    stage: Stage,
    text: str,
    platform: Platform | None,
    env: Mapping[str, str],
    *,
    multi_platform: bool,
    on_build: bool = False,
    again: bool = False,
) -> str:
    """`[stage 2/3] text`; `again` repeats the number of the step before."""
    if stage.total == 0:
        return text
    if not again:
        stage.index += 1
    parts = []
    if multi_platform and platform is not None:
        parts.append(format_all(platform) + _cross(platform, env))
    if stage.label:
        parts.append(stage.label)
    parts.append(f"{stage.index:>{len(str(stage.total))}}/{stage.total}")
    return f"[{' '.join(parts)}] " + ("ONBUILD " if on_build else "") + text


def _cross(base: Platform, env: Mapping[str, str]) -> str:
    """`->arch` where the stage's TARGET variables name another platform than it runs on."""
    target: Platform | None = None
    for key, value in env.items():
        if key == "TARGETPLATFORM":
            try:
                target = parse(value)
                break
            except PlatformError:
                continue
        known = target or Platform()
        if key == "TARGETOS":
            target = Platform(value, known.architecture, known.variant)
        elif key == "TARGETARCH":
            target = Platform(known.os, value, known.variant)
        elif key == "TARGETVARIANT":
            target = Platform(known.os, known.architecture, value)
    if target is None:
        return ""
    found = normalize(Platform(target.os or base.os, target.architecture or base.architecture, target.variant))
    if found.os != base.os:
        return "->" + format_all(found)
    if found.architecture != base.architecture:
        return "->" + "/".join(part for part in (found.architecture, found.variant) if part)
    return ""
