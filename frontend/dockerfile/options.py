"""What a conversion is given from outside, and what it asks for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ...llb.graph import Output
from ...llb.ops import CDIDevice, HostIP, NetMode, Ulimit
from ...llb.state import State
from ...oci.platform import Platform
from ..lint.linter import Warning
from .image import Image


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """A base image: its reference as it is to be fetched, the manifest's digest and the config's bytes."""

    reference: str
    digest: str
    config: bytes


@dataclass(frozen=True, slots=True)
class NamedContext:
    """What a named context stands for: a file system, and the image that goes with it where there is one."""

    state: State
    image: Image | None = None


class Resolver(Protocol):
    """What the conversion asks of the build around it."""

    def image(self, reference: str, platform: Platform, log_name: str) -> ResolvedImage:
        """The config of an image; `reference` is normalised. Raises SourceError or OSError."""

    def named_context(self, name: str, platform: Platform) -> NamedContext | None:
        """The named context that replaces a stage or image, None where there is none of that name."""

    def main_context(self, follow_paths: Sequence[str]) -> Output | None:
        """The build context, reduced to the paths that are read; none means all of it."""


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """The settings of one conversion."""

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
    no_cache: Callable[[str], bool] = lambda stage: False
    warn: Callable[[Warning], None] = lambda warning: None
    filename: str = "Dockerfile"
