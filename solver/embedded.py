"""The solver in this process, behind the messages of `moby.buildkit.v1.Control`."""

import _thread
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..llb.bridge import Frontend
from ..wire.pb import control_pb2, ops_pb2
from ..wire.session import Session
from .base import Context, SolveError
from .cache.store import CacheStore
from .content.store import ContentStore
from .snapshots.leases import Leases
from .snapshots.store import Snapshots

if TYPE_CHECKING:
    from ..oci.transport import HostOptions
    from .build import Build, Shared
    from .executor.base import Executor
    from .gateway.refs import Outcome
    from .scheduler.explain import Explanation

LOCK_SECONDS = 30.0
"""How long a second process waits for the state folder."""
_SAY_SECONDS = 0.5
_POLL_SECONDS = 0.05
_SPARE_BYTES = 1 << 20
_Answer = TypeVar("_Answer")


class EmbeddedSolver:
    """Builds with the state under `root`, which one process uses at a time.

    `frontends` maps names such as `dockerfile.v0` to what they stand for. `entitlements` is what builds may ask for,
    None everything.
    `registries` gives options for registry hosts, when one is first spoken to. `on_wait` is called with the id of the
    process that has the folder, 0 where it can't be told, when that one makes us wait.

    Raises:
        SolveError: where another process keeps the folder for longer than `lock_seconds`, or it can't be written.
    """

    def __init__(
        self,
        root: Path,
        *,
        frontends: Mapping[str, Frontend] | None = None,
        executor: str | None = None,
        max_parallelism: int = 0,
        entitlements: Iterable[str] | None = None,
        registries: "Callable[[], Mapping[str, HostOptions]]" = dict,
        lock_seconds: float = LOCK_SECONDS,
        on_wait: Callable[[int], None] = lambda holder: None,
    ) -> None:
        self.root = root
        self._frontends = dict(frontends or {})
        self._executor_name = executor
        self._max_parallelism = max_parallelism
        self._registries = registries
        self._entitlements = None if entitlements is None else frozenset(entitlements)
        self._executor: Executor | None = None
        self._executor_lock = threading.Lock()
        self._shared: Shared | None = None
        self._closed = False
        self._running: set[tuple[threading.Event, threading.Event]] = set()
        """What stops each call that runs, and what says that it has ended."""
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._release_lock = _lock(root / "lock", lock_seconds, on_wait)
        except TimeoutError:
            raise SolveError(
                f"another process is using {root}: wait for it, or give this one a folder of its own"
            ) from None
        except OSError as error:
            raise SolveError(f"cannot use {root}: {error.strerror or error}") from error
        try:
            try:
                self._open(root)
            except OSError as error:
                if error.errno != errno.ENOSPC or not _give_back_spare(root):
                    raise
                self._open(root)
        except OSError as error:
            self._release_lock()
            hint = "free some space on its disk" if error.errno == errno.ENOSPC else ""
            raise SolveError(f"cannot use {root}: {error.strerror or error}", hint=hint) from error
        except BaseException:
            self._release_lock()
            raise
        _keep_spare(root)

    def _open(self, root: Path) -> None:
        self.content = ContentStore(root)
        self.cache = CacheStore(root)
        try:
            self.snapshots = Snapshots(root)
        except BaseException:
            self.cache.close()
            raise
        self.leases = Leases(self.snapshots)

    def _find_executor(self) -> "Executor":
        from .executor.find import find_executor

        with self._executor_lock:
            if self._executor is None:
                self._executor = find_executor(self._executor_name, self.root / "executor")
            return self._executor

    def _share(self) -> "Shared":
        from .build import Shared
        from .scheduler.inflight import Slots

        with self._executor_lock:
            if self._shared is None:
                self._shared = Shared(
                    self._frontends, slots=Slots(self._max_parallelism), max_parallelism=self._max_parallelism
                )
            return self._shared

    def context(self, session: Session, cancel: threading.Event, entitlements: Iterable[str] = ()) -> Context:
        """What the work of one build gets. Raises SolveError for entitlements that are not granted."""
        from .entitlements import granted

        return Context(
            root=self.root,
            session=session,
            snapshots=self.snapshots,
            content=self.content,
            cache=self.cache,
            executor=self._find_executor,
            cancel=cancel,
            leases=self.leases,
            entitlements=granted(entitlements, self._entitlements),
            registry=_registry(session, self._registries),
        )

    def solve(
        self,
        request: control_pb2.SolveRequest,
        session: Session,
        on_status: Callable[[control_pb2.StatusResponse], None],
        cancel: threading.Event | None = None,
        client_frontend: Frontend | None = None,
        on_result: "Callable[[Build, Outcome], None] | None" = None,
    ) -> control_pb2.SolveResponse:
        """Run one build; Ctrl-C in this thread stops it and cleans up before KeyboardInterrupt goes on.

        `client_frontend` is called with the bridge where the request has neither a definition nor a frontend, and
        `on_result` at the end of a build that went well.

        Raises:
            SolveError, SourceError: for a build that fails.
            Cancelled: where `cancel` was set.
        """
        from .build import run
        from .scheduler.status import Reporter

        stop = cancel or threading.Event()
        context = self.context(session, stop, request.Entitlements)
        return self._interruptible(
            lambda: run(request, context, Reporter(on_status), self._share(), client_frontend, on_result), stop
        )

    def explain(self, ref: str) -> list["Explanation"]:
        """Whether each vertex of a build that has ended here was cached, and for a miss the first thing that changed.

        Empty for a build that is not known (any more).
        """
        return list(self._share().explained.get(ref, ()))

    def definition(
        self,
        request: control_pb2.SolveRequest,
        session: Session,
        on_status: Callable[[control_pb2.StatusResponse], None] = lambda status: None,
    ) -> ops_pb2.Definition:
        """The graph that a request's frontend makes, without solving it but for what the frontend must read.

        Raises:
            SolveError, SourceError: where the frontend fails.
        """
        from .build import definition
        from .scheduler.status import Reporter

        stop = threading.Event()
        context = self.context(session, stop, request.Entitlements)
        return self._interruptible(lambda: definition(request, context, Reporter(on_status), self._share()), stop)

    def _interruptible(self, call: Callable[[], _Answer], cancel: threading.Event) -> _Answer:
        """Call it in another thread, so that an interrupt of this one never cuts into its work."""
        outcome: list[_Answer] = []
        failed: list[BaseException] = []
        # Not `join`: Python up to 3.12 takes a thread for ended when an interrupt cuts into waiting for it.
        ended = threading.Event()

        def work() -> None:
            try:
                outcome.append(call())
            except BaseException as error:
                failed.append(error)
            finally:
                ended.set()

        self._running.add((cancel, ended))
        try:
            # Not `Thread.start`, which waits for the thread: an interrupt would come between the two.
            _thread.start_new_thread(work, ())
            # A signal may come to another thread, and then wakes this one only when it looks.
            while not ended.wait(0.2):
                continue
        except BaseException:
            cancel.set()
            ended.wait()
            raise
        finally:
            self._running.discard((cancel, ended))
        if failed:
            raise failed[0]
        return outcome[0]

    def disk_usage(self, request: control_pb2.DiskUsageRequest) -> control_pb2.DiskUsageResponse:
        """What the state folder holds. Raises SolveError for a filter that is not known."""
        from .usage import Usage

        return Usage(self.root, self.cache, self.snapshots, self.content, self.leases).disk_usage(request)

    def prune(self, request: control_pb2.PruneRequest) -> Iterator[control_pb2.UsageRecord]:
        """Remove what the request asks for; yields what went."""
        from .usage import Usage

        return Usage(self.root, self.cache, self.snapshots, self.content, self.leases).prune(request)

    def fsck(self, *, repair: bool = False) -> Iterator[str]:
        """What is wrong with the state folder, one sentence each; with `repair` it is dropped. No build may run."""
        from .fsck import fsck, history

        yield from fsck(self.cache, self.snapshots, self.content, repair=repair)
        yield from history(self.root, repair=repair)

    def close(self) -> None:
        """Stop what runs and give the folder back; a second time does nothing."""
        if self._closed:
            return
        self._closed = True
        running = list(self._running)
        for cancel, _ in running:
            cancel.set()
        for _, ended in running:
            ended.wait()
        self.snapshots.close()
        self.cache.close()
        _keep_spare(self.root)
        self._release_lock()
        if not any(self.root.iterdir()):
            shutil.rmtree(self.root, ignore_errors=True)


def _keep_spare(root: Path) -> None:
    """Set some space aside: on a disk that is full otherwise, prune needs a little to begin with."""
    spare = root / "spare"
    try:
        descriptor = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        os.posix_fallocate(descriptor, 0, _SPARE_BYTES)
    except OSError:
        spare.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _give_back_spare(root: Path) -> bool:
    try:
        (root / "spare").unlink()
    except OSError:
        return False
    return True


def _lock(path: Path, seconds: float, on_wait: Callable[[int], None]) -> Callable[[], None]:
    """Lock a file; gives what unlocks it. Raises TimeoutError where another process keeps it for so long."""
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    begun, told = time.monotonic(), False
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited = time.monotonic() - begun
            if waited >= seconds:
                raise TimeoutError
            if waited >= _SAY_SECONDS and not told:
                told = True
                on_wait(_holder(descriptor))
            time.sleep(_POLL_SECONDS)
        with suppress(OSError):
            # Only for whoever waits; a full disk has no room for it.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return lambda: os.close(descriptor)


def _holder(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def _registry(session: Session, hosts: "Callable[[], Mapping[str, HostOptions]]") -> Callable[[], Any]:
    made: list[Any] = []
    lock = threading.Lock()

    def registry() -> Any:
        from .registries import open_registry

        with lock:
            if not made:
                made.append(open_registry(session, hosts()))
            return made[0]

    return registry
