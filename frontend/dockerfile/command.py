"""What every instruction's module offers, and what its `apply` may use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ...grammar.dockerfile.tree import Instruction
from ...llb.graph import SourceRange
from ...llb.ops import ProxyEnv
from ...llb.state import State
from ...oci.platform import Platform
from ..lint.linter import Linter
from ..lint.rule import Rule
from .image import Image
from .options import ConvertOptions, NamedContext
from .outline import Outline

if TYPE_CHECKING:
    from ...wire.patterns import Matcher


@dataclass(frozen=True, slots=True)
class Command:
    """A parsed instruction; each module has its own with what it found."""

    node: Instruction

    @property
    def text(self) -> str:
        """The instruction as one line, as progress shows it."""
        return self.node.original.strip()

    def sources(self) -> list[str]:
        """The names of stages and images that it reads, in order."""
        return []


@dataclass(frozen=True, slots=True)
class From(Command):
    """FROM."""

    base: str
    stage: str
    platform: str


@dataclass(slots=True)
class Planned:
    """A command of a stage, with the stages it reads."""

    command: Command
    module: "InstructionModule"
    sources: list["Stage"]
    on_build: bool = False


@dataclass(slots=True, eq=False)
class Stage:
    """One build stage while it is converted.

    `registered` is false for an image that a COPY or a mount (`wanted_by`) names without a stage of its own. `paths`
    are what is read of its file system, in one set with the stage that it is based on; `context_paths` what it reads of
    the build context. `base_config` is the config of the image that it is based on, as it was. `scan_stage` and
    `scan_context` say what of it a scanner for a bill of materials is given.
    """

    base_name: str
    node: Instruction | None = None
    name: str = ""
    label: str = ""
    base: "Stage | None" = None
    registered: bool = True
    wanted_by: Instruction | None = None
    context: NamedContext | None = None
    platform: Platform | None = None
    dependencies: dict["Stage", Command] = field(default_factory=dict)
    commands: list[Planned] = field(default_factory=list)
    parsed: list[tuple[Command, "InstructionModule"]] = field(default_factory=list)
    resolved: bool = False
    dispatched: bool = False
    on_build_read: bool = False
    ignore_cache: bool = False
    state: State = field(default_factory=State)
    image: Image = field(default_factory=lambda: Image(Platform()))
    build_args: list[tuple[str, str | None]] = field(default_factory=list)
    inherited_args: int = 0
    workdir_set: bool = False
    total: int = 0
    index: int = 0
    used: dict[str, tuple[int, int]] = field(default_factory=dict)
    context_paths: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)
    base_config: bytes = b""
    outline: Outline = field(default_factory=Outline)
    scan_stage: bool = False
    scan_context: bool = False

    @property
    def lines(self) -> tuple[int, int]:
        """The lines of its FROM; zeros for an image that has none."""
        return (self.node.span.start.line, self.node.span.end.line) if self.node is not None else (0, 0)


@dataclass(slots=True)
class Dispatch:
    """What an instruction is applied with."""

    options: ConvertOptions
    stage: Stage
    planned: Planned
    lint: Linter
    escape: str
    global_args: Mapping[str, str]
    context: State
    proxy: ProxyEnv | None
    target_platform: Platform
    epoch: int | None
    ignored: "Matcher | None" = None

    @property
    def node(self) -> Instruction:
        """The instruction."""
        return self.planned.command.node

    @property
    def os(self) -> str:
        """The operating system that the stage's image is for."""
        return self.stage.platform.os if self.stage.platform is not None else self.target_platform.os

    @property
    def lines(self) -> tuple[int, int]:
        """The instruction's first and last line."""
        span = self.node.span
        return span.start.line, span.end.line

    @property
    def locations(self) -> tuple[SourceRange, ...]:
        """The instruction's place, for the ops that it makes."""
        return line_ranges(self.node)

    @property
    def created(self) -> str | None:
        """The time of history entries, where SOURCE_DATE_EPOCH sets it."""
        if self.epoch is None:
            return None
        from datetime import UTC, datetime

        return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def warn(self, rule: Rule, message: str) -> None:
        """Report a finding on the instruction."""
        span = self.node.span
        self.lint.run(rule, message, span.start.line, span.end.line)

    def commit(self, created_by: str, *, layer: bool = False) -> None:
        """Add the instruction to the image's history."""
        self.stage.image.commit(created_by, layer=layer, created=self.created)


def line_ranges(node: Instruction) -> tuple[SourceRange, ...]:
    """An instruction's lines, one range each, as BuildKit gives them."""
    first, last = node.span.start.line, node.span.end.line
    return tuple(SourceRange(line, line) for line in range(first, max(first, last) + 1))


class InstructionModule(Protocol):
    """The seam: a module of `instructions/`."""

    def parse(self, node: Instruction, lint: Linter) -> Command:
        """Check the form of an instruction. Raises DockerfileError."""

    def apply(self, command: Command, dispatch: Dispatch) -> None:
        """Do to the stage what it says. Raises DockerfileError, ExpansionError or ValueError."""
