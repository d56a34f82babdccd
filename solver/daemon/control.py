"""`moby.buildkit.v1.Control`: what buildctl, buildx and everybody's CI jobs call."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ...wire import errors
from ...wire.h2.server import Call, Raw, ServerStream, StatusError, Unary
from ...wire.pb import control_pb2 as control
from ..base import Cancelled, SolveError
from .handlers import Methods, status_of, under
from .history import History, NoSuchBuild
from .late_session import LateSession
from .llbbridge import ClientFrontends
from .log import log
from .record_provenance import add_provenance
from .sessions import Sessions

if TYPE_CHECKING:
    from ..embedded import EmbeddedSolver
    from .gc import GarbageCollector
    from .worker import WorkerInfo

SERVICE = "moby.buildkit.v1.Control"
TIMESTAMP_KEY = "buildkit-current-timestamp"

STATUS_SECONDS = 10.0
"""How long a request for a build's status waits for the build: its Solve may still be on its way."""


class Control:
    """The calls of the service over one solver."""

    def __init__(
        self,
        solver: "EmbeddedSolver",
        history: History,
        worker: "WorkerInfo",
        collector: "GarbageCollector",
    ) -> None:
        self.sessions = Sessions()
        self.frontends = ClientFrontends()
        self._solver = solver
        self._history = history
        self._worker = worker
        self._collector = collector
        self._changed = threading.Condition()
        self._running: dict[str, threading.Event] = {}
        self._stopping = False

    def service(self) -> Methods:
        """The service for a server."""
        return under(
            SERVICE,
            {
                "Solve": Unary(control.SolveRequest, self.solve),
                "Status": ServerStream(control.StatusRequest, self.status),
                "Session": Raw(self.sessions.begin),
                "ListWorkers": Unary(control.ListWorkersRequest, self.list_workers),
                "Info": Unary(control.InfoRequest, self.info),
                "DiskUsage": Unary(control.DiskUsageRequest, self.disk_usage),
                "Prune": ServerStream(control.PruneRequest, self.prune),
                "ListenBuildHistory": ServerStream(control.BuildHistoryRequest, self.listen_build_history),
                "UpdateBuildHistory": Unary(control.UpdateBuildHistoryRequest, self.update_build_history),
            },
        )

    def stop(self) -> None:
        """Stop every build, and take no more."""
        with self._changed:
            self._stopping = True
            for cancel in self._running.values():
                cancel.set()
            self._changed.notify_all()

    def idle(self, seconds: float) -> bool:
        """Wait until no build runs; False where some still do after so long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, seconds)

    @property
    def builds(self) -> int:
        """How many builds run."""
        return len(self._running)

    def solve(self, request: control.SolveRequest, call: Call) -> control.SolveResponse:
        """Run a build to its end; it is stopped where the call is cancelled or its client goes away."""
        translate(request)
        if not request.Ref:
            raise StatusError(errors.INVALID_ARGUMENT, "a solve needs a ref")
        cancel = threading.Event()
        record = control.BuildHistoryRecord(
            Ref=request.Ref,
            Frontend=request.Frontend,
            FrontendAttrs=request.FrontendAttrs,
            Exporters=request.Exporters,
        )
        with self._changed:
            if self._stopping:
                raise StatusError(errors.UNAVAILABLE, "the daemon is stopping")
            if request.Ref in self._running:
                raise StatusError(errors.ALREADY_EXISTS, f"job ID {request.Ref} exists")
            events = self._history.start(record, internal=request.Internal)
            self._running[request.Ref] = cancel
            self._changed.notify_all()
        if not call.on_end(cancel.set):
            cancel.set()
        error: Exception | None = None
        try:
            response = self._solver.solve(
                request,
                LateSession(self.sessions, request.Session, cancel),
                events.send,
                cancel,
                self.frontends.frontend(request.Ref),
                None
                if request.Internal
                else lambda build, outcome: add_provenance(record, build, outcome, self._history),
            )
            record.ExporterResponse.update(response.ExporterResponse)
            return response
        except Exception as failure:
            error = failure
            if not isinstance(failure, SolveError | Cancelled):
                log.debug("build %s failed", request.Ref, exc_info=failure)
            raise
        finally:
            try:
                self._history.finish(record, None if error is None else status_of(error), internal=request.Internal)
            except (OSError, ValueError, sqlite3.Error) as failure:
                # The build itself is what it is; only later questions about it go without an answer.
                log.error("the record of build %s could not be kept: %s", request.Ref, failure)
            finally:
                with self._changed:
                    del self._running[request.Ref]
                    self._changed.notify_all()
                self._collector.soon()

    def status(self, request: control.StatusRequest, call: Call) -> Iterator[bytes]:
        """The events of a build from its start on, whether it runs or has ended."""
        send_timestamp(call)
        with self._changed:
            deadline = time.monotonic() + STATUS_SECONDS
            while True:
                try:
                    events = self._history.status(request.Ref, _over(call))
                    break
                except NoSuchBuild as error:
                    left = deadline - time.monotonic()
                    if left <= 0 or self._stopping or not call.active:
                        raise StatusError(errors.NOT_FOUND, str(error)) from None
                self._changed.wait(min(left, 1.0))
        yield from events

    def list_workers(self, request: control.ListWorkersRequest, call: Call) -> control.ListWorkersResponse:
        """The one worker, where the filters let it through."""
        record = self._worker.record()
        return control.ListWorkersResponse(record=[record] if self._worker.matches(list(request.filter)) else [])

    def info(self, request: control.InfoRequest, call: Call) -> control.InfoResponse:
        """Our version."""
        return control.InfoResponse(buildkitVersion=self._worker.version())

    def disk_usage(self, request: control.DiskUsageRequest, call: Call) -> control.DiskUsageResponse:
        """What the store holds."""
        return self._solver.disk_usage(request)

    def prune(self, request: control.PruneRequest, call: Call) -> Iterator[control.UsageRecord]:
        """Remove cache."""
        yield from self._solver.prune(request)

    def listen_build_history(
        self, request: control.BuildHistoryRequest, call: Call
    ) -> Iterator[control.BuildHistoryEvent]:
        """The builds that ran, and those that will."""
        send_timestamp(call)
        try:
            yield from self._history.listen(request, _over(call))
        except ValueError as error:
            raise StatusError(errors.INVALID_ARGUMENT, str(error)) from None

    def update_build_history(
        self, request: control.UpdateBuildHistoryRequest, call: Call
    ) -> control.UpdateBuildHistoryResponse:
        """Pin, unpin or delete a build's record."""
        try:
            self._history.update(request)
        except NoSuchBuild as error:
            raise StatusError(errors.NOT_FOUND, str(error)) from None
        return control.UpdateBuildHistoryResponse()


def _over(call: Call) -> Callable[[], bool]:
    return lambda: not call.active


def send_timestamp(call: Call) -> None:
    """Tell the client our clock, by which it shows how long ago things were."""
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    call.send_metadata(((TIMESTAMP_KEY, now),))


def translate(request: control.SolveRequest) -> None:
    """Bring the forms of older clients into today's (BuildKit's control.go): one exporter, caches by reference.

    `SOURCE_DATE_EPOCH` among the build args goes to exporters that have no `source-date-epoch` of their own.
    """
    cache = request.Cache
    if cache.ExportRefDeprecated:
        attrs: dict[str, Any] = {**cache.ExportAttrsDeprecated, "ref": cache.ExportRefDeprecated}
        cache.Exports.append(control.CacheOptionsEntry(Type="registry", Attrs=attrs))
        cache.ClearField("ExportRefDeprecated")
        cache.ClearField("ExportAttrsDeprecated")
    for ref in cache.ImportRefsDeprecated:
        cache.Imports.append(control.CacheOptionsEntry(Type="registry", Attrs={"ref": ref}))
    cache.ClearField("ImportRefsDeprecated")
    if not request.Exporters and request.ExporterDeprecated:
        request.Exporters.append(
            control.Exporter(Type=request.ExporterDeprecated, Attrs=dict(request.ExporterAttrsDeprecated))
        )
    request.ClearField("ExporterDeprecated")
    request.ClearField("ExporterAttrsDeprecated")
    epoch = request.FrontendAttrs.get("build-arg:SOURCE_DATE_EPOCH")
    if epoch:
        for exporter in request.Exporters:
            if "source-date-epoch" not in exporter.Attrs:
                exporter.Attrs["source-date-epoch"] = epoch
