"""The bridge over a connection: BuildKit's `LLBBridge` as a frontend container sees it."""

from typing import TypeVar

from google.protobuf.message import Message

from ...llb.bridge import BridgeError
from ...wire.calls import CallError
from ...wire.h2.client import Caller
from ...wire.pb import gateway_pb2

M = TypeVar("M", bound=Message)
_SERVICE = "/moby.buildkit.v1.frontend.LLBBridge/"


class ConnectedBridge:
    """Calls of the gateway on the other side of a connection."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.requests: dict[str, gateway_pb2.SolveRequest] = {}
        """What was asked for each ref, for gateways so old that a result is returned by asking once more."""

    def _call(self, name: str, request: Message, reply: type[M]) -> M:
        try:
            return self._caller.unary(_SERVICE + name, request, reply)
        except CallError as error:
            status = error.status.SerializeToString() if error.status is not None else b""
            raise BridgeError(str(error), error.code, status) from None

    def ping(self) -> gateway_pb2.PongResponse:
        """Capabilities and workers."""
        return self._call("Ping", gateway_pb2.PingRequest(), gateway_pb2.PongResponse)

    def inputs(self) -> gateway_pb2.InputsResponse:
        """The client's definitions."""
        return self._call("Inputs", gateway_pb2.InputsRequest(), gateway_pb2.InputsResponse)

    def solve(self, request: gateway_pb2.SolveRequest) -> gateway_pb2.SolveResponse:
        """Solve a definition, or hand over to another frontend."""
        response = self._call("Solve", request, gateway_pb2.SolveResponse)
        if response.ref:
            self.requests[response.ref] = request
        return response

    def evaluate(self, request: gateway_pb2.EvaluateRequest) -> gateway_pb2.EvaluateResponse:
        """Wait for a result."""
        return self._call("Evaluate", request, gateway_pb2.EvaluateResponse)

    def resolve_image_config(
        self, request: gateway_pb2.ResolveImageConfigRequest
    ) -> gateway_pb2.ResolveImageConfigResponse:
        """An image's digest and config."""
        return self._call("ResolveImageConfig", request, gateway_pb2.ResolveImageConfigResponse)

    def resolve_source_meta(
        self, request: gateway_pb2.ResolveSourceMetaRequest
    ) -> gateway_pb2.ResolveSourceMetaResponse:
        """What is known of a source."""
        return self._call("ResolveSourceMeta", request, gateway_pb2.ResolveSourceMetaResponse)

    def read_file(self, request: gateway_pb2.ReadFileRequest) -> gateway_pb2.ReadFileResponse:
        """A file of a result."""
        return self._call("ReadFile", request, gateway_pb2.ReadFileResponse)

    def read_dir(self, request: gateway_pb2.ReadDirRequest) -> gateway_pb2.ReadDirResponse:
        """A folder of a result."""
        return self._call("ReadDir", request, gateway_pb2.ReadDirResponse)

    def stat_file(self, request: gateway_pb2.StatFileRequest) -> gateway_pb2.StatFileResponse:
        """What is known of a path."""
        return self._call("StatFile", request, gateway_pb2.StatFileResponse)

    def warn(self, request: gateway_pb2.WarnRequest) -> gateway_pb2.WarnResponse:
        """Tell the client of a finding."""
        return self._call("Warn", request, gateway_pb2.WarnResponse)

    def give_back(self, request: gateway_pb2.ReturnRequest) -> None:
        """End the frontend with a result or an error."""
        self._call("Return", request, gateway_pb2.ReturnResponse)
