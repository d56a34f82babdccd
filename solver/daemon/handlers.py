"""The daemon's services beside its own: health and traces; and exceptions as BuildKit's typed statuses."""

import threading
from collections.abc import Iterator, Mapping

from ...llb.bridge import BridgeError
from ...wire.calls import CallError
from ...wire.h2.server import Call, Method, Raw, ServerStream, StatusError, Unary
from ...wire.pb import rpc_status_pb2
from ..errdefs import to_status
from .log import log

Methods = Mapping[str, Method | Raw]

_SERVING = b"\x08\x01"
"""`HealthCheckResponse{status: SERVING}`."""


def status_of(error: BaseException) -> rpc_status_pb2.Status:
    """The status that an exception is answered with."""
    status = _status_of(error)
    log.debug("call failed: %s", status.message)
    return status


def _status_of(error: BaseException) -> rpc_status_pb2.Status:
    if isinstance(error, StatusError):
        return rpc_status_pb2.Status(code=error.code, message=str(error))
    if isinstance(error, BridgeError):
        if error.status:
            return rpc_status_pb2.Status.FromString(error.status)
        return rpc_status_pb2.Status(code=error.code, message=str(error))
    if isinstance(error, CallError) and error.status is not None:
        return error.status
    return to_status(error)


def under(service: str, methods: Methods) -> dict[str, Method | Raw]:
    """Methods by their paths."""
    return {f"/{service}/{name}": method for name, method in methods.items()}


def _watch(request: bytes, call: Call) -> Iterator[bytes]:
    yield _SERVING
    over = threading.Event()
    if call.on_end(over.set):
        over.wait()


def health() -> Methods:
    """`grpc.health.v1.Health`: this process serves, whatever service is asked for."""
    methods: Methods = {"Check": Unary(None, lambda request, call: _SERVING), "Watch": ServerStream(None, _watch)}
    return under("grpc.health.v1.Health", methods)


def accept_traces() -> Methods:
    """OpenTelemetry's trace service: spans are taken and dropped, so that clients that send them go on."""
    export = Unary(None, lambda request, call: b"")
    return under("opentelemetry.proto.collector.trace.v1.TraceService", {"Export": export})
