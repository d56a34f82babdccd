"""What a user may ask of one build, as values."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

STDIN = "-"
"""The context or Dockerfile that is read from standard input; as an output's destination, standard output."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret from a file or an environment variable; with neither, from the variable or file that its id names."""

    id: str
    path: Path | None = None
    env: str = ""


@dataclass(frozen=True, slots=True)
class Agent:
    """An SSH agent for a build: the socket of one, or files of private keys.

    A `raw` socket need be no agent's: its bytes are passed on as they are.
    """

    paths: tuple[Path, ...]
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """One exporter: its BuildKit name, where its files go (none for a registry), and its attributes.

    A docker archive with no destination is loaded into the local Docker Engine.
    """

    type: str
    dest: str = ""
    attrs: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_folder(self) -> bool:
        """Whether the exporter writes a folder."""
        return self.type == "local" or (self.type in ("oci", "docker") and self.attrs.get("tar") in FALSE)

    @property
    def is_file(self) -> bool:
        """Whether the exporter writes one archive."""
        return self.type == "tar" or (self.type in ("oci", "docker") and not self.is_folder)


FALSE = ("0", "f", "F", "false", "FALSE", "False")
"""The texts that mean no in an exporter's attributes."""


@dataclass(slots=True)
class BuildOptions:
    """One build, with the names of `docker buildx build`."""

    context: str = "."
    file: str = ""
    tags: list[str] = field(default_factory=list)
    target: str = ""
    build_args: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    platforms: list[str] = field(default_factory=list)
    named_contexts: dict[str, str] = field(default_factory=dict)
    secrets: list[Secret] = field(default_factory=list)
    ssh: dict[str, Agent] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    push: bool = False
    load: bool = False
    pull: bool = False
    no_cache: bool = False
    no_cache_filter: list[str] = field(default_factory=list)
    network: str = "default"
    add_hosts: list[str] = field(default_factory=list)
    ulimits: list[str] = field(default_factory=list)
    shm_size: int = 0
    cgroup_parent: str = ""
    allow: list[str] = field(default_factory=list)
    explain: bool = False
    attestations: dict[str, str] = field(default_factory=dict)
    cache_from: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    cache_to: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    stdin: BinaryIO = field(default_factory=lambda: sys.stdin.buffer)
    stdout: BinaryIO = field(default_factory=lambda: sys.stdout.buffer)
