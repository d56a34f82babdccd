"""The seams of the solver: what an op, a source and an exporter are given, and what they give back."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..llb.graph import Vertex
from ..llb.ops import SourceOp
from ..oci.platform import Platform
from ..wire.session import Session

if TYPE_CHECKING:
    from ..wire.pb import errdefs_pb2, gateway_pb2, ops_pb2
    from .cache.store import CacheStore
    from .content.store import ContentStore
    from .executor.base import Executor
    from .snapshots.leases import Leases
    from .snapshots.store import Snapshots


class SolveError(Exception):
    """A build that failed.

    An op raises it with what it knows: `exit_code` and `log` (the last output) where a process failed, `action` (a
    position) where an action of a file op did, `hint` (what to do about it), `code` (gRPC's status number, 0 for one
    that follows from the rest). The scheduler adds `vertex`, the digest of the op, `op`, its bytes, and
    `description`; the build adds `sources`, the places in the user's files that the op comes from.
    """

    def __init__(
        self,
        message: str,
        *,
        vertex: str = "",
        exit_code: int | None = None,
        log: bytes = b"",
        action: int | None = None,
        hint: str = "",
        code: int = 0,
    ) -> None:
        super().__init__(message)
        self.vertex = vertex
        self.exit_code = exit_code
        self.log = log
        self.action = action
        self.hint = hint
        self.code = code
        self.op = b""
        self.description: Mapping[str, str] = {}
        self.sources: Sequence[errdefs_pb2.Source] = ()
        self.status: bytes = b""
        """The encoded `google.rpc.Status` that a frontend gave, with its details, where it is one of those."""


class Cancelled(Exception):
    """The build was stopped."""


@dataclass(frozen=True, slots=True)
class Result:
    """One output of a vertex: a committed snapshot, or None for an empty file system."""

    snapshot: str | None


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of an input that an op reads, for its content-based key; empty `paths` is all of it.

    `wildcard` lets `paths` hold patterns; `follow` follows links at their ends. Some of what is chosen must begin
    with each `required` path; where all may be missing it is `optional`. `also` are further parts of the same input.
    """

    paths: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    wildcard: bool = False
    follow: bool = False
    required: tuple[str, ...] = ()
    optional: bool = False
    also: tuple["Selection", ...] = ()


def no_builds(definition: "ops_pb2.Definition", cancel: threading.Event) -> Result:
    """What a context without a build solves: nothing."""
    raise SolveError("a definition can be solved as a part of a build only")


@dataclass(slots=True)
class Context:
    """What an op, a source or an exporter works with.

    `log` takes the stream (1 stdout, 2 stderr) and bytes. `progress` takes the name of a part of the work, how far it
    has come and the total, in bytes or files: both 0 for a part without numbers that begins, a negative `current` for
    its end (`step` does both). What reaches the total has ended. Calls may be frequent: they are thinned out. `solve`
    solves another definition as a part of the same build, until its event is set.
    """

    root: Path
    session: Session
    snapshots: "Snapshots"
    content: "ContentStore"
    cache: "CacheStore"
    executor: Callable[[], "Executor"]
    cancel: threading.Event
    leases: "Leases"
    log: Callable[[int, bytes], None] = lambda stream, data: None
    progress: Callable[[str, int, int], None] = lambda name, current, total: None
    entitlements: frozenset[str] = frozenset()
    solve: Callable[["ops_pb2.Definition", threading.Event], Result] = no_builds
    registry: Callable[[], Any] = lambda: None

    def check(self) -> None:
        """Raises Cancelled where the build was stopped."""
        if self.cancel.is_set():
            raise Cancelled("the build was cancelled")

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show a part of the work, without numbers, for the time of the block."""
        self.progress(name, 0, 0)
        yield
        self.progress(name, -1, 0)


class OpSolver(Protocol):
    """A kind of op: a module of `ops/`."""

    def selections(self, vertex: Vertex) -> Sequence[Selection | None]:
        """For each input what the op reads of it, or None where its content must not make the key."""

    def cache_key(self, vertex: Vertex, context: Context) -> str:
        """The op's own part of the definition-based key: a digest of all in it that decides the result."""

    def run(self, vertex: Vertex, inputs: Sequence[Result], context: Context) -> Sequence[Result]:
        """The outputs. Raises SolveError or Cancelled."""


class Source(Protocol):
    """A scheme of source ops: a module of `sources/`."""

    def cache_key(self, op: SourceOp, platform: Platform | None, context: Context) -> str:
        """A key that changes when what would be fetched does: an image's digest, a local folder's checksum."""

    def snapshot(self, op: SourceOp, platform: Platform | None, context: Context) -> Result:
        """Fetch it."""


@dataclass(frozen=True, slots=True)
class Attestation:
    """A statement about a platform's result (`gateway.Attestation`).

    `kind` is `intoto`, a predicate of `predicate_type` about `subjects` (empty: the result itself), or `bundle`, a
    folder `path` of `result` whose files hold whole statements. The predicate is what `content` gives when the export
    asks for it, or where that is None the file `path` of `result`. In `metadata` are `reason` (`provenance`, `sbom`)
    and `inline-only` (`true`: only for images, not for files beside a result), among others.
    """

    kind: str
    result: Result | None
    path: str
    predicate_type: str = ""
    subjects: Sequence["gateway_pb2.InTotoSubject"] = ()
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    content: Callable[[], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Exportable:
    """A result to export.

    `refs` maps a platform's id, such as `linux/amd64`, to its file system and the bytes of its image config (None
    where the frontend gave none); the only key is "" where the result is a single one, which may still have a
    platform. `platforms` lists (id, platform) as the frontend ordered them (`refs.platforms`), for a single result
    with the id "" where it is known; it is empty for a result without platforms. `metadata` is all that the frontend
    said, with its keys as they came (`containerimage.config/linux/amd64`, `annotation…`, `source-date-epoch`,
    `containerimage.inlinecache` …). `attestations` are by the same keys as `refs`; those of the frontend come first,
    then the solver's provenance where the request asks for one.
    """

    refs: Mapping[str, tuple[Result, bytes | None]]
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    platforms: Sequence[tuple[str, Platform]] = ()
    attestations: Mapping[str, Sequence[Attestation]] = field(default_factory=dict)

    def platform(self, id: str) -> Platform | None:
        """The platform of a key of `refs`."""
        return dict(self.platforms).get(id)


class Exporter(Protocol):
    """A type of export: a module of `exporters/`."""

    def export(self, result: Exportable, id: str, attrs: Mapping[str, str], context: Context) -> dict[str, str]:
        """Write it out; returns what the client is told, such as `containerimage.digest`.

        `id` is the exporter's position in the request as text, which is the name that the session knows it by.
        Parts of the work are shown with `context.progress`. Raises SolveError or Cancelled.
        """
