"""What a frontend and a solver know of each other: BuildKit's `LLBBridge`, in this process or over a connection.

The same frontend runs inside our daemon, as a container under any BuildKit, and in tests: it only sees a `Bridge`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..wire.pb import gateway_pb2


class BridgeError(Exception):
    """A call of the bridge that failed.

    `code` is gRPC's status number; `status` the bytes of a `google.rpc.Status` with typed details, where there is one.
    """

    def __init__(self, message: str, code: int = 2, status: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class FrontendCall:
    """What a frontend is started with.

    `opts` are the frontend options, such as `filename` and `build-arg:NAME`; `session_id` is the client's session.
    """

    opts: Mapping[str, str] = field(default_factory=dict)
    session_id: str = ""


class Bridge(Protocol):
    """The calls of `moby.buildkit.v1.frontend.LLBBridge` that frontends of files use. All raise BridgeError."""

    def ping(self) -> gateway_pb2.PongResponse:
        """Capabilities of the gateway and of LLB, and the workers with their platforms."""

    def inputs(self) -> gateway_pb2.InputsResponse:
        """The definitions that the client gave beside the options."""

    def solve(self, request: gateway_pb2.SolveRequest) -> gateway_pb2.SolveResponse:
        """Solve a definition, or hand over to another frontend; the result is lazy unless `Evaluate` is set."""

    def evaluate(self, request: gateway_pb2.EvaluateRequest) -> gateway_pb2.EvaluateResponse:
        """Wait until a result is there."""

    def resolve_image_config(
        self, request: gateway_pb2.ResolveImageConfigRequest
    ) -> gateway_pb2.ResolveImageConfigResponse:
        """The digest and config of an image (the older form of `resolve_source_meta`)."""

    def resolve_source_meta(
        self, request: gateway_pb2.ResolveSourceMetaRequest
    ) -> gateway_pb2.ResolveSourceMetaResponse:
        """What is known of a source without fetching it; the source policy may have changed it."""

    def read_file(self, request: gateway_pb2.ReadFileRequest) -> gateway_pb2.ReadFileResponse:
        """A file, or a range of it, of a result."""

    def read_dir(self, request: gateway_pb2.ReadDirRequest) -> gateway_pb2.ReadDirResponse:
        """A folder of a result."""

    def stat_file(self, request: gateway_pb2.StatFileRequest) -> gateway_pb2.StatFileResponse:
        """What is known of a path of a result."""

    def warn(self, request: gateway_pb2.WarnRequest) -> gateway_pb2.WarnResponse:
        """Tell the client of a finding."""


Frontend = Callable[[Bridge, FrontendCall], gateway_pb2.Result]
"""Reads what it builds through the bridge and gives the result that `Return` would send.

Raises SourceError for what is wrong in a user's file or options, BridgeError for calls that failed.
"""
