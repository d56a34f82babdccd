"""The sessions that are open now: found by id, whichever of `Session` and `Solve` came first, and watched."""

import threading
import time
from collections.abc import Mapping, Sequence

from ...wire import errors
from ...wire.calls import CallError
from ...wire.h2.client import Caller
from ...wire.h2.connection import Connection, Stream
from ...wire.h2.server import Call, StatusError
from ...wire.pb import control_pb2
from ...wire.tunnel import tunnel
from .log import log
from .session import GrpcSession

ID_KEY = "x-docker-expose-session-uuid"
NAME_KEY = "x-docker-expose-session-name"
SHARED_KEY = "x-docker-expose-session-sharedkey"
METHOD_KEY = "x-docker-expose-session-grpc-method"
TIMEOUT_KEY = "x-buildkit-session-health-custom-timeout"

SESSIONS = 1000
"""The most sessions at the same time; one more is refused."""

WAIT_SECONDS = 5.0
"""How long a build waits for a session that has not come yet."""


class SessionGone(Exception):
    """There is no such session."""


class Sessions:
    """The open sessions by id."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: dict[str, GrpcSession] = {}

    def add(self, session: GrpcSession) -> None:
        """Make a session known. Raises StatusError where its id is taken, or there are too many."""
        with self._changed:
            if session.id in self._open:
                raise StatusError(errors.ALREADY_EXISTS, f"session {session.id} already exists")
            if len(self._open) >= SESSIONS:
                raise StatusError(errors.RESOURCE_EXHAUSTED, "too many sessions at the same time")
            self._open[session.id] = session
            self._changed.notify_all()

    def remove(self, session: GrpcSession) -> None:
        """Forget a session, and let what waits for it fail."""
        session.close()
        with self._changed:
            if self._open.get(session.id) is session:
                del self._open[session.id]

    def get(self, id: str, *, wait: float = WAIT_SECONDS, stop: threading.Event | None = None) -> GrpcSession:
        """The session of an id; what stands before a colon is not part of it.

        Raises:
            SessionGone: where it does not come in time, or `stop` is set.
        """
        prefix, colon, rest = id.partition(":")
        key = rest if colon and rest else prefix
        deadline = time.monotonic() + wait
        with self._changed:
            while (found := self._open.get(key)) is None:
                left = deadline - time.monotonic()
                if left <= 0 or (stop is not None and stop.is_set()):
                    raise SessionGone(f"no active session for {key}: the client has left, or never opened it")
                self._changed.wait(min(left, 0.25) if stop is not None else left)
            return found

    def begin(self, stream: Stream, call: Call) -> None:
        """A client's `Control.Session` call; it goes on until either side ends it, and needs no thread.

        Raises:
            StatusError: where the id is missing or taken, or there are too many sessions.
        """
        id = next(iter(call.values(ID_KEY)), "")
        if not id:
            raise StatusError(errors.INVALID_ARGUMENT, f"a session needs an id in {ID_KEY}")
        connection = tunnel(stream, Connection)
        session = GrpcSession(
            id,
            Caller(connection),
            frozenset(method.lower() for method in call.values(METHOD_KEY)),
            next(iter(call.values(SHARED_KEY)), ""),
            next(iter(call.values(NAME_KEY)), ""),
        )
        self.add(session)
        log.debug("session %s started", id)

        def ended() -> None:
            self.remove(session)
            log.debug("session %s finished", id)

        if not call.on_end(ended):
            ended()
            return
        timing = interval({TIMEOUT_KEY: call.values(TIMEOUT_KEY)})
        threading.Thread(
            target=watch, args=(session, session.caller, stream, timing), name="session-health", daemon=True
        ).start()


def interval(metadata: Mapping[str, Sequence[str]]) -> tuple[float, float, int]:
    """Seconds between two health checks, seconds that one may take, and how many failures end the session."""
    try:
        milliseconds = int(next(iter(metadata.get(TIMEOUT_KEY, ())), "") or 0)
    except ValueError:
        milliseconds = 0
    if milliseconds > 0:
        seconds = max(milliseconds / 1000, 1.0)
        return seconds, seconds, 1
    return 5.0, 15.0, 2


def watch(session: GrpcSession, caller: Caller, stream: Stream, timing: tuple[float, float, int]) -> None:
    """Ask the client for its health until the session closes; a client that doesn't answer is cut off."""
    every, limit, failures = timing
    failed, took = 0, 0.0
    while not session.closed.wait(every):
        began = time.monotonic()
        try:
            # The messages of a health check are empty, or what isn't looked at.
            caller.unary(
                "/grpc.health.v1.Health/Check", control_pb2.InfoRequest(), control_pb2.InfoRequest, (),
                max(limit, took * 1.5),
            )  # fmt: skip
        except CallError as error:
            failed += 1
            if session.closed.is_set():
                return
            log.warning("session %s: health check failed: %s", session.id, error)
            if failed >= failures:
                stream.cancel()
                return
        else:
            failed = 0
        took = time.monotonic() - began
