"""The daemon: one store, one server, until it is told to stop."""

import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, cast

from ...llb.bridge import Bridge, Frontend, FrontendCall
from ...oci.platform import Platform
from ...wire.h2.server import Server
from ...wire.pb import gateway_pb2
from ..content.store import ContentStore
from ..embedded import EmbeddedSolver
from . import gc as collection
from .config import Config
from .content import content_service
from .control import Control
from .handlers import accept_traces, health, status_of
from .history import History
from .listeners import Listeners, Tls
from .llbbridge import bridge_service
from .log import log
from .worker import WorkerInfo

if TYPE_CHECKING:
    from ...oci.transport import HostOptions
    from ..gateway.bridge import Gateway

CALLS = 1000
"""The most calls at the same time; each open stream holds one. One more is refused."""

GRACE_SECONDS = 10.0
"""How long builds may take to clean up when the daemon stops."""

ANSWER_SECONDS = 2.0
"""How long the last answers may take to go out after that."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the daemon is started with, once flags and configuration are put together."""

    root: Path
    addresses: Sequence[str]
    config: Config
    tls: Tls | None = None
    uid: int | None = None
    gid: int | None = None
    entitlements: frozenset[str] = frozenset()
    platforms: Sequence[Platform] = ()
    executor: str | None = None
    frontends: Mapping[str, Frontend] = field(default_factory=dict)


class Daemon:
    """A daemon that serves from its creation to `close`.

    Raises:
        SolveError: where the state folder can't be used, or another daemon uses it.
        ListenError: for an address that can't be listened on.
    """

    def __init__(self, options: Options) -> None:
        config = options.config
        self._undo: list[Callable[[], None]] = []
        try:
            self._solver = EmbeddedSolver(
                options.root,
                frontends=_frontends(options),
                executor=options.executor,
                max_parallelism=config.worker.oci.max_parallelism,
                entitlements=options.entitlements,
                registries=lambda: _registries(config),
                lock_seconds=0.0,
            )
            self._undo.append(self._solver.close)
            history = History(
                options.root / "history", max_age=config.history.max_age, max_entries=config.history.max_entries
            )
            self._undo.append(history.close)
            policies = collection.policies(config.worker.oci, options.root)
            self._collector = collection.GarbageCollector(policies, self._solver.prune, history.collect)
            worker = WorkerInfo(
                options.root,
                self._solver.snapshots.mode,
                labels=config.worker.oci.labels,
                platforms=options.platforms,
                policies=policies,
            )
            self.control = Control(self._solver, history, worker, self._collector)
            self._history = history
            self._server = self._make_server(history)
            self._listeners = Listeners(self._server)
            self._undo.append(self._listeners.close)
            self._listeners.add(options.addresses, options.tls, uid=options.uid, gid=options.gid)
            self._listeners.start()
            self._collector.start()
        except BaseException:
            self._cleanup()
            raise

    def _make_server(self, history: History) -> Server:
        content = self._solver.content
        methods = {
            **self.control.service(),
            **bridge_service(self.control.frontends.find),
            **health(),
            **accept_traces(),
            **content_service(lambda digest: history.blob(digest) or _stored(content, digest)),
        }
        server = Server(methods, CALLS, status_of)
        self._undo.append(server.stop)
        return server

    def close(self) -> None:
        """Take no more calls, stop the builds, wait for them to clean up, and let go of the store."""
        self._listeners.stop()
        self.control.stop()
        if not self.control.idle(GRACE_SECONDS):
            log.warning("%d builds did not stop in time", self.control.builds)
        self._history.stop()
        self._server.idle(ANSWER_SECONDS)
        self._collector.stop()
        self._cleanup()

    def _cleanup(self) -> None:
        while self._undo:
            self._undo.pop()()


def _stored(content: ContentStore, digest: str) -> Path | None:
    try:
        path = content.path(digest)
    except ValueError:
        return None
    return path if path.is_file() else None


def _registries(config: Config) -> Mapping[str, "HostOptions"]:
    # Imported when a registry is spoken to: its client is large.
    from .registries import registry_hosts

    return registry_hosts(config.registry)


def _frontends(options: Options) -> dict[str, Frontend]:
    config = options.config.frontend
    out = dict(options.frontends)
    if not config.dockerfile.enabled:
        out.pop("dockerfile.v0", None)
    if config.gateway.enabled:
        allowed = tuple(config.gateway.allowed_repositories)

        def gateway(bridge: Bridge, call: FrontendCall) -> gateway_pb2.Result:
            from .frontend_image import run

            return run(cast("Gateway", bridge), call, allowed)

        out["gateway.v0"] = gateway
    return out


def serve(options: Options, ready: Callable[[], None] = lambda: None) -> None:
    """Run a daemon until SIGTERM or SIGINT; a second signal ends the process at once. Raises as `Daemon` does."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise SystemExit(128 + number)
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        daemon = Daemon(options)
        try:
            ready()
            stop.wait()
            log.info("stopping server")
        finally:
            daemon.close()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
