"""What a conversion is given from outside, and what it asks for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ...llb.caps import ALL, CapSet
from ...llb.graph import LinuxResources, Output
from ...llb.ops import CDIDevice, HostIP, NetMode, Ulimit
from ...llb.state import State
from ...oci.platform import Platform
from ..lint.linter import Checks, Warning
from .image import Image


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """A base image: its reference as it is to be fetched, the manifest's digest and the config's bytes."""

    reference: str
    digest: str
    config: bytes


@dataclass(frozen=True, slots=True)
class NamedContext:
    """What a named context stands for: a file system, and the image that goes with it where there is one.

    `settle`, where there is one, is to be called when it is known what is read of it.
    """

    state: State
    image: Image | None = None
    settle: Callable[[], None] | None = None


class Resolver(Protocol):
    """What the conversion asks of the build around it. All raise SourceError and BridgeError."""

    def image(self, reference: str, platform: Platform, log_name: str) -> ResolvedImage:
        """The config of an image; `reference` is normalised."""

    def prefetch(self, images: Sequence[tuple[str, Platform, str]]) -> None:
        """Told which images will be asked for one by one, so that they can be looked up at once."""

    def named_context(self, name: str, platform: Platform, paths: Callable[[], Sequence[str]]) -> NamedContext | None:
        """The named context that replaces a stage or image, None where there is none of that name.

        `paths` tells, once the file is converted, what is read of it; none means all.
        """

    def main_context(self, follow_paths: Sequence[str]) -> Output | None:
        """The build context, reduced to the paths that are read; none means all of it."""

    def ignored(self) -> Sequence[str]:
        """The patterns of what the build context leaves out."""

    def epoch(self, source: Output | None, log_name: str) -> int | None:
        """The time in seconds of the commit or download that a file system is, where it is one that has a time."""


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """The settings of one conversion.

    `all_stages` converts those too that the target doesn't need, `labs` allows what is experimental in the language.
    `lines` tells which line of the file a line of the text comes from, where that is not the file itself.
    `context_names` are those of the named contexts, for hints.
    """

    target: str = ""
    platform: Platform | None = None
    build_platforms: Sequence[Platform] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    multi_platform: bool = False
    cache_id_namespace: str = ""
    network: NetMode = NetMode.SANDBOX
    hostname: str = ""
    extra_hosts: Sequence[HostIP] = ()
    ulimits: Sequence[Ulimit] = ()
    devices: Sequence[CDIDevice] = ()
    shm_size: int = 0
    cgroup_parent: str = ""
    resources: LinuxResources | None = None
    resolve_mode: str = "default"
    no_cache: Callable[[str], bool] = lambda stage: False
    warn: Callable[[Warning], None] = lambda warning: None
    checks: Checks | None = None
    caps: CapSet = ALL
    all_stages: bool = False
    labs: bool = False
    lines: Callable[[int], int] | None = None
    filename: str = "Dockerfile"
    context_names: Sequence[str] = ()
