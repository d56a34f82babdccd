"""What the client needs of a solver: BuildKit's Control service as calls, whoever stands behind them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from ..llb.bridge import Frontend
from ..wire.pb import control_pb2, ops_pb2
from ..wire.session import Session

OnStatus = Callable[[control_pb2.StatusResponse], None]


class Explanation(Protocol):
    """Whether a vertex was cached: `outcome` is hit, content (a hit by what the inputs hold) or miss, with a reason."""

    @property
    def name(self) -> str:
        """What the progress calls the vertex."""

    @property
    def outcome(self) -> str:
        """`hit`, `content` or `miss`."""

    @property
    def reason(self) -> str:
        """Of a miss the first thing that changed; empty where nothing is known."""


class Solver(Protocol):
    """An embedded solver, or a remote one behind a connection."""

    def solve(
        self,
        request: control_pb2.SolveRequest,
        session: Session,
        on_status: OnStatus,
        *,
        client_frontend: Frontend | None = None,
    ) -> control_pb2.SolveResponse:
        """Build, telling `on_status` (from any thread) what goes on. A KeyboardInterrupt ends the build cleanly.

        `client_frontend` runs here, over the gateway's bridge, where the request names no frontend.
        """

    def definition(self, request: control_pb2.SolveRequest, session: Session) -> ops_pb2.Definition:
        """The build graph that the request's frontend makes, without solving it."""

    def explain(self, ref: str) -> Sequence[Explanation]:
        """For each vertex of a build that has ended whether it was cached, and of a miss why not."""

    def disk_usage(self, request: control_pb2.DiskUsageRequest) -> control_pb2.DiskUsageResponse:
        """What the cache holds."""

    def prune(self, request: control_pb2.PruneRequest) -> Iterator[control_pb2.UsageRecord]:
        """Remove cache, giving each record that is removed."""

    def fsck(self, *, repair: bool = False) -> Iterator[str]:
        """What is wrong with the store, one sentence each; with `repair` it is dropped."""

    def close(self) -> None:
        """Let go of the store, or the connection."""
