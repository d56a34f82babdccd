"""`moby.buildkit.v1.frontend.LLBBridge` as a gRPC service, for frontends that are not in this process.

A frontend image reaches it over its standard streams; a client that is a frontend itself (buildx always is) over the
daemon's own server, where the metadata of each call names the build.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from ...llb.bridge import Bridge, Frontend, FrontendCall
from ...wire import errors
from ...wire.h2.server import BothStreams, Call, StatusError, Unary
from ...wire.pb import gateway_pb2 as gateway
from ..base import Cancelled
from ..errdefs import from_status
from .handlers import Methods, under

if TYPE_CHECKING:
    from ..gateway.bridge import Gateway

SERVICE = "moby.buildkit.v1.frontend.LLBBridge"
BUILD_KEY = "buildkit-controlapi-buildid"
REGISTER_SECONDS = 10.0
"""How long a call waits for the build that it names: its Solve may still be on its way."""


class Served:
    """A frontend that talks gRPC: the bridge that its calls reach, and what it returned."""

    def __init__(self, bridge: "Gateway") -> None:
        self.bridge = bridge
        self._lock = threading.Lock()
        self._returned = threading.Event()
        self._result: gateway.Result | None = None
        self._error: Exception | None = None

    def give(self, request: gateway.ReturnRequest) -> gateway.ReturnResponse:
        """The frontend's `Return`. Raises StatusError for a second one or one that says nothing, BridgeError for refs
        that were never its."""
        failed = request.HasField("error") and request.error.code != 0
        if not failed and not request.HasField("result"):
            raise StatusError(errors.INVALID_ARGUMENT, "gateway return must be either result or err")
        with self._lock:
            if self._returned.is_set():
                raise StatusError(errors.FAILED_PRECONDITION, "gateway result is already set")
            if failed:
                self._error = from_status(request.error)
            else:
                # Refs that were never given are refused here, where the frontend can be told.
                self.bridge.outcome(request.result)
                self._result = request.result
            self._returned.set()
        return gateway.ReturnResponse()

    def fail(self, error: Exception) -> None:
        """The frontend is gone; an error that it returned itself stays, a success does not."""
        with self._lock:
            if self._error is None:
                self._error = error
            self._returned.set()

    @property
    def returned(self) -> bool:
        """Whether it has returned, or failed."""
        return self._returned.is_set()

    def wait_quietly(self, cancel: threading.Event) -> None:
        """Wait until it has returned or failed, or the build is stopped."""
        while not self._returned.wait(0.1) and not cancel.is_set():
            continue

    def wait(self, cancel: threading.Event) -> gateway.Result:
        """What the frontend returned. Raises Cancelled, and what it failed with."""
        self.wait_quietly(cancel)
        if not self.returned:
            raise Cancelled("the build was cancelled")
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result


class ClientFrontends:
    """The builds whose frontend is their client, by the build's ref."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._served: dict[str, Served] = {}

    def frontend(self, ref: str) -> Frontend:
        """The frontend of a build: calls that name it reach its bridge until the client returns a result."""

        def run(bridge: Bridge, call: FrontendCall) -> gateway.Result:
            # The solver gives frontends of this process its own bridge, which can do more than the protocol says.
            own = cast("Gateway", bridge)
            served = Served(own)
            with self._changed:
                self._served[ref] = served
                self._changed.notify_all()
            try:
                return served.wait(own.build.context.cancel)
            finally:
                with self._changed:
                    del self._served[ref]

        return run

    def find(self, call: Call) -> Served:
        """The frontend that a call is part of. Raises StatusError."""
        refs = call.values(BUILD_KEY)
        if len(refs) != 1 or not refs[0]:
            raise StatusError(errors.UNKNOWN, "no buildid found in context")
        ref = refs[0]
        with self._changed:
            deadline = time.monotonic() + REGISTER_SECONDS
            while (served := self._served.get(ref)) is None:
                left = deadline - time.monotonic()
                if left <= 0 or not call.active:
                    raise StatusError(errors.NOT_FOUND, f"no such job {ref}")
                # A client that gives up is not told of otherwise.
                self._changed.wait(min(left, 0.25))
            return served


def bridge_service(find: Callable[[Call], Served]) -> Methods:
    """The service; `find` gives the frontend that a call comes from."""

    def method(kind: type[Any], answer: Callable[["Gateway", Any], Any]) -> Unary:
        return Unary(kind, lambda request, call: answer(find(call).bridge, request))

    return under(
        SERVICE,
        {
            "Ping": method(gateway.PingRequest, lambda bridge, _: bridge.ping()),
            "Inputs": method(gateway.InputsRequest, lambda bridge, _: bridge.inputs()),
            "Solve": method(gateway.SolveRequest, lambda bridge, request: bridge.solve(request)),
            "Evaluate": method(gateway.EvaluateRequest, lambda bridge, request: bridge.evaluate(request)),
            "ResolveImageConfig": method(
                gateway.ResolveImageConfigRequest, lambda bridge, request: bridge.resolve_image_config(request)
            ),
            "ResolveSourceMeta": method(
                gateway.ResolveSourceMetaRequest, lambda bridge, request: bridge.resolve_source_meta(request)
            ),
            "ReadFile": method(gateway.ReadFileRequest, lambda bridge, request: bridge.read_file(request)),
            "ReadDir": method(gateway.ReadDirRequest, lambda bridge, request: bridge.read_dir(request)),
            "StatFile": method(gateway.StatFileRequest, lambda bridge, request: bridge.stat_file(request)),
            "Warn": method(gateway.WarnRequest, lambda bridge, request: bridge.warn(request)),
            "Return": Unary(gateway.ReturnRequest, lambda request, call: find(call).give(request)),
            "NewContainer": method(
                gateway.NewContainerRequest, lambda bridge, request: bridge.containers.create(request)
            ),
            "ReleaseContainer": method(
                gateway.ReleaseContainerRequest, lambda bridge, request: bridge.containers.release(request)
            ),
            "ReadFileContainer": method(
                gateway.ReadFileRequest, lambda bridge, request: bridge.containers.read_file(request)
            ),
            "ReadDirContainer": method(
                gateway.ReadDirRequest, lambda bridge, request: bridge.containers.read_dir(request)
            ),
            "StatFileContainer": method(
                gateway.StatFileRequest, lambda bridge, request: bridge.containers.stat_file(request)
            ),
            "ExecProcess": BothStreams(gateway.ExecMessage, lambda requests, call: _exec(find, requests, call)),
        },
    )


def _exec(
    find: Callable[[Call], Served], requests: Iterator[gateway.ExecMessage], call: Call
) -> Iterator[gateway.ExecMessage]:
    from .processes import serve

    yield from serve(find(call).bridge.containers, requests, call)
