"""The graph: vertices that hold an op and point at the outputs they read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..oci.platform import Platform
from .ops import NO_ATTRS, OpKind


@dataclass(frozen=True, slots=True)
class ProgressGroup:
    """Vertices that progress shows as one line; a `weak` member does not start it."""

    id: str
    name: str
    weak: bool = False


@dataclass(frozen=True, slots=True)
class SourceRange:
    """Lines of a source file, from 1, both included; columns from 0."""

    start_line: int
    end_line: int
    start_column: int = 0
    end_column: int = 0


@dataclass(frozen=True, slots=True)
class LinuxResources:
    """Limits of a process's cgroup; 0 and empty texts set none. Sizes in bytes, times in microseconds."""

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What travels beside an op and does not count for its digest (`pb.OpMetadata`)."""

    description: Mapping[str, str] = field(default_factory=lambda: NO_ATTRS)
    caps: frozenset[str] = frozenset()
    ignore_cache: bool = False
    progress_group: ProgressGroup | None = None
    locations: tuple[SourceRange, ...] = ()
    resources: LinuxResources | None = None


class Vertex:
    """One op with its inputs.

    `walk` is the order in which a definition visits the inputs, where it differs from their own order. Vertices are
    values that compare by identity; a definition merges those of equal digest.
    """

    __slots__ = ("inputs", "metadata", "op", "platform", "walk")

    def __init__(
        self,
        op: OpKind,
        inputs: Sequence["Output"] = (),
        platform: Platform | None = None,
        metadata: Metadata | None = None,
        walk: Sequence["Output"] | None = None,
    ) -> None:
        self.op = op
        self.inputs = tuple(inputs)
        self.platform = platform
        self.metadata = metadata if metadata is not None else Metadata()
        self.walk = self.inputs if walk is None else tuple(walk)


class EncodedVertex(Vertex):
    """An op of a definition that was given: its bytes go on as they are."""

    __slots__ = ("data",)

    def __init__(
        self,
        data: bytes,
        op: OpKind,
        inputs: Sequence["Output"] = (),
        platform: Platform | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        super().__init__(op, inputs, platform, metadata)
        self.data = data


class Deferred:
    """A vertex that is known only when the rest of the graph is: the build context, whose filter lists what is read."""

    __slots__ = ("target",)

    def __init__(self) -> None:
        self.target: Output | None = None

    def resolve(self, output: "Output") -> None:
        """Say what it stands for. Must come before the graph is marshalled."""
        self.target = output


class Output:
    """The result number `index` of a vertex."""

    __slots__ = ("_vertex", "index")

    def __init__(self, vertex: Vertex | Deferred, index: int = 0) -> None:
        self._vertex = vertex
        self.index = index

    @property
    def vertex(self) -> Vertex:
        """The vertex itself. Raises RuntimeError for a deferred one that was never resolved."""
        found: Vertex | Deferred = self._vertex
        while isinstance(found, Deferred):
            if found.target is None:
                raise RuntimeError("the graph has a deferred vertex that was never resolved")
            found = found.target._vertex
        return found
