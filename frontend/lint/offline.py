"""Build checks of a file on its own: nothing is fetched, and every stage is looked at."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from ...grammar.dockerfile.parser import parse
from ...llb import caps
from ...llb.graph import Output
from ...llb.marshal import digest_of
from ...llb.state import Notes, source
from ...oci.platform import Platform, host
from ..dockerfile.convert import convert
from ..dockerfile.options import ConvertOptions, NamedContext, ResolvedImage
from .linter import Warning


class OfflineResolver:
    """Stands in for a build: every image is there, with a shell and a PATH, and its digest follows from its name."""

    def image(self, reference: str, platform: Platform, log_name: str) -> ResolvedImage:
        """An image that nobody was asked for."""
        config = {
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": []},
        }
        return ResolvedImage(reference, "sha256:" + sha256(reference.encode()).hexdigest(), json.dumps(config).encode())

    def prefetch(self, images: Sequence[tuple[str, Platform, str]]) -> None:
        """Every image is there already."""

    def named_context(self, name: str, platform: Platform, paths: Callable[[], Sequence[str]]) -> NamedContext | None:
        """No stage is replaced."""
        return None

    def main_context(self, follow_paths: Sequence[str]) -> Output | None:
        """The context as a whole, or the paths that are read."""
        attrs = {"local.followpaths": json.dumps(list(follow_paths))}
        return source("local://context", attrs, wanted=[caps.SOURCE_LOCAL], notes=Notes("context")).output

    def ignored(self) -> Sequence[str]:
        """Nothing is left out."""
        return []

    def epoch(self, source: Output | None, log_name: str) -> int | None:
        """No source has a time."""
        return None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a conversion makes, as far as it counts for a build, and what the checks found."""

    ops: tuple[str, ...]
    image: bytes
    warnings: tuple[Warning, ...]

    def same(self, other: "Outcome") -> bool:
        """Whether both build the same."""
        return (self.ops, self.image) == (other.ops, other.image)


def outcome(text: str, target: str) -> Outcome:
    """Convert one target of a file. Raises SourceError."""
    warnings: list[Warning] = []
    options = ConvertOptions(target=target, platform=host(), build_platforms=[host()], warn=warnings.append)
    converted = convert(text, options, OfflineResolver())
    return Outcome(
        tuple(digest_of(op) for op in converted.definition().ops), converted.image.to_json(), tuple(warnings)
    )


def stages(text: str) -> list[str]:
    """What can be built of a file: its stages' names, and the last one."""
    words = (node.words for node in parse(text).instructions if node.name == "FROM")
    return ["", *(found[2] for found in words if len(found) == 3)]


def lint(text: str) -> list[Warning]:
    """What the checks find in all stages of a file, by line.

    A variable that is not known counts only where one of a near name is: the base image, which is not looked at, may
    set it.

    Raises:
        SourceError: where the file can't be converted.
    """
    found = {warning for target in stages(text) for warning in outcome(text, target).warnings}
    kept = (w for w in found if w.rule.name != "UndefinedVar" or "did you mean" in w.message)
    return sorted(kept, key=lambda warning: (warning.start, warning.rule.name, warning.message))
