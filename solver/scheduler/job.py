"""Solves the graphs of one build: what is cached is not run, what is ready runs, as much at once as allowed.

All definitions of a build are loaded into one `Job`, where vertices of the same digest are one `Node`. A node is
solved for the evaluations (`_Request`) that need it, found in this order:

1. by its definition key, as soon as the keys of its inputs are known; what is behind a hit is never looked at;
2. by its content key, once the results of its inputs are there;
3. by running it.

Source: BuildKit's two levels of cache keys and its edges (docs/dev/solver, solver/edge.go), as one loop over events.
"""

import errno
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from enum import IntEnum
from types import ModuleType
from typing import TYPE_CHECKING

from ...llb.caps import CapError
from ...llb.graph import Vertex
from ...llb.load import DefinitionError, load
from ...llb.ops import BuildOp, ExecOp, SourceOp
from ...wire import errors
from ...wire.fsutil.errors import describe
from ...wire.pb import control_pb2, ops_pb2
from .. import entitlements
from ..base import Cancelled, Context, Result, SolveError
from ..capabilities import SUPPORTED
from ..ops import TABLE, content_op_key
from ..ops.describe import name_of
from .explain import Explanation, Input, explain, notes
from .inflight import Inflight, Slots
from .keys import IDENTITY, content_key, definition_key, link_key, outputs, plain_op_key, record_digest
from .status import Reporter, error_text

if TYPE_CHECKING:
    from ..remotecache.imported import RemoteCache

_POLL = 0.1
"""Seconds between two looks at whether a build was stopped; results wake the waiting thread at once."""
_WIDE = 256
"""The most processes and transfers of one build at the same time, where the user sets no limit."""
_QUIET = ("docker-image://", "oci-layout://")
"""Sources whose key is found without work that a user would want to see, unless they report some."""


class State(IntEnum):
    """Where a node is on its way."""

    IDLE = 0
    """Nothing needs its result."""
    WAITING = 1
    """Needed; whether it is cached is not known before its key is."""
    BLOCKED = 2
    """Not found by its definition: waits for the results of its inputs."""
    QUEUED = 3
    RUNNING = 4
    DONE = 5
    FAILED = 6


class Node:
    """A vertex in a job."""

    __slots__ = (
        "cancel", "data", "digest", "error", "fresh", "ignored", "inputs", "key", "key_requests", "keying", "message",
        "missing", "number", "offer", "op_key", "plain", "reported", "requests", "results", "state", "unkeyed", "users",
        "vertex",
    )  # fmt: skip

    def __init__(self, vertex: Vertex, digest: str, inputs: Sequence[tuple["Node", int]], number: int) -> None:
        self.number = number
        self.vertex = vertex
        self.digest = digest
        self.inputs = tuple(inputs)
        self.users: list[Node] = []
        self.data = b""
        self.message: control_pb2.Vertex | None = None
        self.reported = False
        self.op_key = ""
        self.key = ""
        self.plain = ""
        """The key by which imported caches know it too: without times of files, where those don't count."""
        self.keying = False
        self.unkeyed = 0
        self.ignored = vertex.metadata.ignore_cache
        self.fresh = self.ignored
        self.missing = 0
        self.offer = ""
        """The key under which an imported cache has its results."""
        self.state = State.IDLE
        self.results: tuple[Result, ...] = ()
        self.error: Exception | None = None
        self.requests: set[_Request] = set()
        self.key_requests: set[_Request] = set()
        self.cancel = threading.Event()

    @property
    def name(self) -> str:
        """What it is called in the progress."""
        return self.message.name if self.message is not None else name_of(self.vertex)


class _Request:
    """One evaluation: the nodes that it asks for, and what came of it."""

    __slots__ = ("done", "error", "heads", "touched")

    def __init__(self, heads: Iterable[Node]) -> None:
        self.heads = {node for node in heads if node.state is not State.DONE}
        self.touched: list[Node] = []
        self.error: Exception | None = None
        self.done = threading.Event()
        if not self.heads:
            self.done.set()

    def fail(self, error: Exception) -> None:
        if self.error is None and not self.done.is_set():
            self.error = error
            self.done.set()

    def reached(self, node: Node) -> None:
        self.heads.discard(node)
        if not self.heads:
            self.done.set()


class _Lane:
    """Threads for one kind of work, at most `limit`; a thread ends when nothing is left."""

    def __init__(self, limit: int, run: Callable[[Node], None]) -> None:
        self.limit = limit
        self._run = run
        self._queue: deque[Node] = deque()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()

    def push(self, node: Node) -> None:
        """Run a node on a thread of this lane."""
        with self._lock:
            self._queue.append(node)
            if len(self._threads) >= self.limit:
                return
            thread = threading.Thread(target=self._work, name="solver")
            self._threads.add(thread)
        thread.start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._threads.discard(threading.current_thread())
                    return
                node = self._queue.popleft()
            self._run(node)

    def join(self) -> None:
        """Wait for the threads; what is queued is dropped."""
        with self._lock:
            self._queue.clear()
            threads = list(self._threads)
        for thread in threads:
            thread.join()


class Job:
    """The scheduler's state of one build. May be used by several threads; `close` it at the end."""

    def __init__(
        self, context: Context, reporter: Reporter, inflight: Inflight, slots: Slots, max_parallelism: int = 0
    ) -> None:
        self.context = context
        self.reporter = reporter
        self._inflight = inflight
        self._slots = slots
        self._lock = threading.Lock()
        self._nodes: dict[tuple[str, bool], Node] = {}
        self._undecided: set[Node] = set()
        self._requests: set[_Request] = set()
        wide = max_parallelism or _WIDE
        self._wide = _Lane(wide, self._run)
        self._cheap = _Lane(min(wide, os.cpu_count() or 1), self._run)
        self._remote: RemoteCache | None = None
        self._pins = context.leases.open()
        self._explanations: dict[str, Explanation] = {}

    def use(self, remote: "RemoteCache") -> None:
        """Look into imported caches from now on."""
        with self._lock:
            self._remote = remote if remote else None

    def load(self, definition: ops_pb2.Definition) -> tuple[Node, int] | None:
        """Add a definition's vertices; gives the node and output that it results in, None for an empty one.

        Raises:
            SolveError: for a definition that is broken or asks for what is not supported.
        """
        try:
            graph = load(definition)
        except DefinitionError as error:
            raise SolveError(str(error), code=errors.INVALID_ARGUMENT) from None
        if graph.result is None:
            return None
        for vertex, digest in graph.digests.items():
            missing = vertex.metadata.caps - SUPPORTED
            if missing:
                raise SolveError(str(CapError(min(missing))), vertex=digest, code=errors.UNIMPLEMENTED)
            entitlements.check(vertex, self.context.entitlements)
        nodes: dict[Vertex, Node] = {}
        raw = getattr(definition, "def")
        with self._lock:
            for (vertex, digest), data in zip(graph.digests.items(), raw, strict=False):
                nodes[vertex] = self._node(vertex, digest, data, nodes)
        return nodes[graph.result.vertex], graph.result.index

    def _node(self, vertex: Vertex, digest: str, data: bytes, nodes: dict[Vertex, Node]) -> Node:
        ignored = vertex.metadata.ignore_cache
        node = self._nodes.get((digest, ignored))
        if node is not None and (
            node.ignored or all(nodes[i.vertex] is n for i, (n, _) in zip(vertex.inputs, node.inputs, strict=True))
        ):
            return node
        inputs = [(nodes[i.vertex], i.index) for i in vertex.inputs]
        node = Node(vertex, digest, inputs, len(self._nodes))
        node.data = data
        self._nodes[digest, ignored] = node
        if inputs:
            node.op_key = str(_module(vertex).cache_key(vertex, self.context))
            for needed, _ in inputs:
                needed.users.append(node)
                node.fresh |= needed.fresh
                node.unkeyed += not needed.key
            if not node.unkeyed:
                _set_key(node)
        return node

    def solve(self, heads: Sequence[tuple[Node, int]], cancel: threading.Event | None = None) -> list[Result]:
        """The results of outputs, in this order.

        Raises:
            SolveError: of the first vertex that failed.
            Cancelled: where the build, or this evaluation by `cancel`, was stopped.
        """
        with self._lock:
            request = _Request(node for node, _ in heads)
            self._requests.add(request)
            try:
                sources = self._want_keys(request)
                if not request.done.is_set():
                    self._expand(self._demand(list(request.heads), request))
            except BaseException:
                self._release(request)
                raise
        for node in sources:
            self._wide.push(node)
        stops = [self.context.cancel, *([cancel] if cancel is not None else [])]
        while not request.done.wait(_POLL):
            if any(stop.is_set() for stop in stops):
                request.fail(Cancelled("the build was cancelled"))
            elif self.reporter.broken is not None:
                request.fail(self.reporter.broken)
        with self._lock:
            self._release(request)
        if request.error is not None:
            raise request.error
        out = []
        for node, index in heads:
            if index >= len(node.results):
                raise SolveError(f"{node.name} has no output {index}", vertex=node.digest)
            out.append(node.results[index])
        return out

    def explain(self) -> list[Explanation]:
        """For every vertex that was looked at, inputs first, whether it was cached, and for a miss why not."""
        with self._lock:
            out = []
            for node in self._nodes.values():
                known = self._explanations.get(node.digest)
                if known is not None:
                    out.append(known)
                elif node.reported and node.state in (State.IDLE, State.DONE):
                    out.append(Explanation(node.digest, node.name, "hit"))
        return out

    def keyed(self, heads: Iterable[tuple[Node, int]]) -> list[tuple[str, int]]:
        """The definition keys of some results and of all that they are built on, inputs first, each with the number
        of its outputs. The client's own folders are left out."""
        with self._lock:
            cone: set[Node] = set()
            pending = [node for node, _ in heads]
            while pending:
                node = pending.pop()
                if node not in cone:
                    cone.add(node)
                    pending.extend(needed for needed, _ in node.inputs)
        nodes = [node for node in sorted(cone, key=lambda node: node.number) if node.key and not _is_local(node)]
        return list({node.key: (node.key, outputs(node.vertex)) for node in nodes}.values())

    def results(self, digests: Iterable[str]) -> list[tuple[str, tuple[Result, ...]]]:
        """The results that are there of vertices."""
        with self._lock:
            found = [
                (digest, self._nodes.get((digest, False)) or self._nodes.get((digest, True))) for digest in digests
            ]
            return [(d, node.results) for d, node in found if node is not None and node.state is State.DONE]

    def sources(self) -> list[SourceOp]:
        """The sources of all definitions."""
        with self._lock:
            return [node.vertex.op for node in self._nodes.values() if isinstance(node.vertex.op, SourceOp)]

    def inputs_of(self, digest: str) -> "list[tuple[Node, int]]":
        """The inputs of a vertex, empty for one that is not in the job."""
        with self._lock:
            node = self._nodes.get((digest, False)) or self._nodes.get((digest, True))
            return list(node.inputs) if node is not None else []

    def close(self) -> None:
        """Stop what still runs, wait for it, and let go of the results."""
        with self._lock:
            for node in self._nodes.values():
                if node.state is State.RUNNING or node.keying:
                    node.cancel.set()
        self._wide.join()
        self._cheap.join()
        self._pins.release()

    def _want_keys(self, request: _Request) -> list[Node]:
        """Mark all below the heads as needed for their keys; gives the sources that no one has asked yet."""
        sources: list[Node] = []
        announced: list[Node] = []
        pending = list(request.heads)
        seen = set(pending)
        while pending:
            node = pending.pop()
            if node.message is None:
                node.message = Reporter.vertex(
                    node.vertex, node.digest, list(dict.fromkeys(n.digest for n, _ in node.inputs))
                )
                announced.append(node)
            if node.state is State.FAILED:
                assert node.error is not None
                request.fail(node.error)
                break
            if not node.key:
                node.key_requests.add(request)
                request.touched.append(node)
                if not node.inputs and not node.keying:
                    node.keying = True
                    node.cancel.clear()
                    sources.append(node)
            for needed, _ in node.inputs:
                if needed not in seen:
                    seen.add(needed)
                    pending.append(needed)
        announced.sort(key=lambda node: node.number)
        self.reporter.announce([node.message for node in announced if node.message is not None])
        return sources

    def _demand(self, nodes: list[Node], request: _Request) -> list[Node]:
        """Ask for results; gives the nodes that nothing has asked for before."""
        frontier: list[Node] = []
        pending = nodes
        while pending:
            node = pending.pop()
            if node.state is State.DONE or request in node.requests:
                continue
            node.requests.add(request)
            request.touched.append(node)
            if node.state is State.IDLE:
                node.state = State.WAITING
                frontier.append(node)
            elif node.state is State.FAILED:
                assert node.error is not None
                request.fail(node.error)
            elif node.state is State.BLOCKED:
                pending.extend(needed for needed, _ in node.inputs)
        return frontier

    def _expand(self, frontier: list[Node]) -> None:
        """Decide for nodes whether they are there, and ask for the inputs of those that are not."""
        hits: list[Node] = []
        touched: list[str] = []
        while frontier:
            found = self.context.cache.find([node.key for node in frontier if node.key and not node.fresh])
            following: list[Node] = []
            undecided = [node for node in frontier if not node.key and not node.ignored]
            hopeless = self._never_ran(undecided) if undecided and self._remote is None else set()
            for node in frontier:
                if not node.key and not node.ignored and node not in hopeless:
                    self._undecided.add(node)
                    continue
                record = found.get(node.key) if not node.fresh else None
                if record is not None and self._take(node, record.results):
                    hits.append(node)
                    touched.append(record.key)
                    continue
                node.offer = self._offered(node)
                if node.offer:
                    self._queue(node)
                    continue
                following += self._block(node)
            frontier = following
        if hits:
            self._show_cached(hits)
            self.context.cache.touch(touched)

    def _offered(self, node: Node) -> str:
        """The key under which an imported cache has a node, by its definition; empty for none."""
        if self._remote is None or node.fresh:
            return ""
        count = outputs(node.vertex)
        return next((key for key in (node.key, node.plain) if key and self._remote.has(key, count)), "")

    def _never_ran(self, nodes: Sequence[Node]) -> set[Node]:
        """Nodes that are no hit whatever their key turns out to be: their op never read an input that is known."""
        wanted = {node: _link_keys(node) for node in nodes}
        known = self.context.cache.get_values(LINK, [key for keys in wanted.values() for key in keys])
        return {node for node, keys in wanted.items() if any(key not in known for key in keys)}

    def _block(self, node: Node) -> list[Node]:
        """A node that has to wait for its inputs; gives those that nothing has asked for before."""
        node.state = State.BLOCKED
        needed = {n for n, _ in node.inputs if n.state is not State.DONE}
        frontier: list[Node] = []
        for request in node.requests:
            frontier += self._demand(list(needed), request)
        node.missing = sum(n.state is not State.DONE for n, _ in node.inputs)
        if not node.missing:
            self._queue(node)
        return frontier

    def _queue(self, node: Node) -> None:
        node.state = State.QUEUED
        node.cancel.clear()
        wide = bool(node.offer) or isinstance(node.vertex.op, ExecOp | SourceOp | BuildOp)
        lane = self._wide if wide else self._cheap
        lane.push(node)

    def _take(self, node: Node, snapshots: Sequence[str | None]) -> bool:
        """Use a record, if what it names is still there."""
        if not self._pins.add([snapshot for snapshot in snapshots if snapshot is not None]):
            return False
        self._done(node, tuple(Result(snapshot) for snapshot in snapshots))
        return True

    def _done(self, node: Node, results: tuple[Result, ...]) -> None:
        node.state = State.DONE
        node.results = results
        self._undecided.discard(node)
        for user in node.users:
            if user.state is State.BLOCKED:
                user.missing -= 1
                if not user.missing:
                    self._queue(user)
        for request in node.requests:
            request.reached(node)
        node.requests.clear()

    def _fail(self, node: Node, error: Exception) -> None:
        """A node that failed, with every evaluation that needs it; one that was stopped can be asked for again."""
        asked, node.keying = node.keying, False
        if not isinstance(error, Cancelled):
            node.state = State.FAILED
            node.error = error
            self._undecided.discard(node)
        elif not self.context.cancel.is_set():
            # Another evaluation may have begun to need it just when it was stopped.
            if asked and (node.requests or node.key_requests):
                node.cancel.clear()
                node.keying = True
                self._wide.push(node)
                return
            if not asked:
                node.state = State.WAITING if node.requests else State.IDLE
                if node.requests:
                    self._expand([node])
                    return
        for request in [*node.requests, *node.key_requests]:
            request.fail(error)

    def _release(self, request: _Request) -> None:
        """An evaluation has ended: what only it needed is stopped."""
        self._requests.discard(request)
        for node in request.touched:
            node.requests.discard(request)
            node.key_requests.discard(request)
            if node.keying and not (node.requests or node.key_requests):
                node.cancel.set()
            if node.requests:
                continue
            if node.state is State.RUNNING:
                node.cancel.set()
            elif node.state in (State.WAITING, State.BLOCKED, State.QUEUED):
                node.state = State.IDLE
                self._undecided.discard(node)

    def _show_cached(self, nodes: Iterable[Node]) -> None:
        """Say of nodes that they were there, and of all behind them that is not needed any more."""
        out: list[Node] = []
        pending = list(nodes)
        while pending:
            node = pending.pop()
            if node.reported or node.message is None:
                continue
            if not node.keying:
                node.reported = True
                out.append(node)
            pending.extend(n for n, _ in node.inputs if n.state in (State.IDLE, State.DONE))
        out.sort(key=lambda node: node.number)
        self.reporter.cached([node.message for node in out if node.message is not None])

    def _run(self, node: Node) -> None:
        """The work of a thread for one node: its key, or its result."""
        try:
            if node.keying:
                self._run_key(node)
            else:
                self._run_op(node)
        except BaseException as error:
            # Not the op but the scheduler's own work failed, on a full disk say: nothing that waits would be woken.
            failure = self._failure(node, error)
            with self._lock:
                for request in self._requests:
                    request.fail(failure)

    def _run_op(self, node: Node) -> None:
        with self._lock:
            if node.state is not State.QUEUED:
                return
            node.state = State.RUNNING
        shown = _Shown(self.reporter, node)
        context = self._context(node, shown)
        offer, node.offer = node.offer, ""
        if offer:
            self._load_offer(node, offer, context, shown)
            return
        try:
            # A build op waits for others, which need the slots.
            free = isinstance(node.vertex.op, BuildOp)
            with nullcontext() if free else self._slots.taken(node.cancel):
                results = self._solve(node, context, shown)
        except BaseException as error:
            failure = self._failure(node, error)
            shown.fail(failure)
            with self._lock:
                self._fail(node, failure)
            return
        with self._lock:
            self._done(node, results)

    def _load_offer(self, node: Node, offer: str, context: Context, shown: "_Shown") -> None:
        """Take a node from an imported cache; where that does not work it goes on as any other that is no hit."""
        try:
            results = self._imported(node, offer, context, shown)
        except BaseException as error:
            failure = self._failure(node, error)
            if isinstance(failure, Cancelled):
                shown.fail(failure)
                with self._lock:
                    self._fail(node, failure)
                return
            # A cache is no reason to fail: the op runs.
            shown.log(2, f"not taken from the cache: {failure}\n".encode())
            shown.end()
            with self._lock:
                self._expand(self._block(node))
            return
        with self._lock:
            self._done(node, results)

    def _imported(self, node: Node, key: str, context: Context, shown: "_Shown") -> tuple[Result, ...]:
        """The results that an imported cache has under a key. Raises SolveError where one can't be had any more."""
        remote = self._remote
        assert remote is not None
        shown.start()
        pulled = remote.pull(key, outputs(node.vertex), context)
        if not self._pins.add([snapshot for snapshot, _ in pulled]):
            raise SolveError("what was imported has been removed again")
        values = [(IDENTITY, snapshot, identity.encode()) for snapshot, identity in pulled]
        keys = list(dict.fromkeys(found for found in (node.key, key, node.plain) if found))
        context.cache.add(keys, [snapshot for snapshot, _ in pulled], node.digest, node.name, values + _links(node))
        self._explanations[node.digest] = Explanation(node.digest, node.name, "hit", "from an imported cache")
        shown.end(cached=True)
        with self._lock:
            self._show_cached(needed for needed, _ in node.inputs if needed.state in (State.IDLE, State.DONE))
        return tuple(Result(snapshot) for snapshot, _ in pulled)

    def _run_key(self, node: Node) -> None:
        shown = _Shown(self.reporter, node)
        context = self._context(node, shown)
        try:
            if isinstance(node.vertex.op, SourceOp) and not node.vertex.op.identifier.startswith(_QUIET):
                shown.start()
            op_key = str(_module(node.vertex).cache_key(node.vertex, context))
        except BaseException as error:
            failure = self._failure(node, error)
            shown.fail(failure)
            with self._lock:
                self._fail(node, failure)
            return
        shown.end()
        with self._lock:
            node.op_key = op_key
            node.keying = False
            self._keyed(node)
            # More keys are known: those that have their own can be decided, others may have become hopeless.
            waiting = [n for n in self._undecided if n.state is State.WAITING]
            self._undecided.clear()
            self._expand(waiting)

    @staticmethod
    def _keyed(source: Node) -> None:
        """Set the key of a source, and of all that it was the last unknown key of."""
        _set_key(source)
        pending = [source]
        while pending:
            node = pending.pop()
            node.key_requests.clear()
            for user in node.users:
                user.unkeyed -= 1
                if not user.unkeyed:
                    _set_key(user)
                    pending.append(user)

    def _context(self, node: Node, shown: "_Shown") -> Context:
        return replace(self.context, cancel=node.cancel, log=shown.log, progress=shown.progress)

    def _failure(self, node: Node, error: BaseException) -> Exception:
        """The error as one of this vertex."""
        if isinstance(error, Cancelled):
            return error
        if isinstance(error, SolveError):
            failure = error
        elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            failure = SolveError(
                f"no space left on the device that holds {self.context.root}", hint="free some space, or prune"
            )
            failure.__cause__ = error
        else:
            failure = SolveError(describe(error) or type(error).__name__)
            failure.__cause__ = error
        if not failure.vertex:
            failure.vertex = node.digest
            failure.op = node.data
            failure.description = node.vertex.metadata.description
        return failure

    def _solve(self, node: Node, context: Context, shown: "_Shown") -> tuple[Result, ...]:
        """A node by the content of its inputs, or by running it."""
        context.check()
        inputs = _inputs(node, context)
        lookup = content_key(content_op_key(node.vertex, node.op_key), inputs) if inputs else node.key
        if node.ignored:
            return self._execute(node, inputs, lookup, context, shown)
        while True:
            found = self._find(node, lookup, inputs, context)
            if found is not None:
                return found
            if self._inflight.claim(lookup, node.cancel, shown.log):
                break
        try:
            # Between the look and the claim another build may have ended it.
            found = self._find(node, lookup, inputs, context)
            if found is not None:
                return found
            found = self._find_imported(node, lookup, context, shown)
            if found is not None:
                return found
            shown.tee = lambda stream, data: self._inflight.log(lookup, stream, data)
            return self._execute(node, inputs, lookup, context, shown)
        finally:
            self._inflight.release(lookup)

    def _find_imported(self, node: Node, lookup: str, context: Context, shown: "_Shown") -> tuple[Result, ...] | None:
        """A hit in an imported cache by the content of the inputs."""
        if self._remote is None or not self._remote.has(lookup, outputs(node.vertex)):
            return None
        try:
            return self._imported(node, lookup, context, shown)
        except SolveError as error:
            shown.log(2, f"not taken from the cache: {error}\n".encode())
            return None

    def _find(self, node: Node, lookup: str, inputs: Sequence[Input], context: Context) -> tuple[Result, ...] | None:
        """A hit by content, or by a definition key that was not known earlier."""
        own = node.key if not node.fresh else ""
        records = context.cache.find([lookup] if own in ("", lookup) else [own, lookup])
        for key in (own, lookup):
            record = records.get(key)
            if record is None or not self._pins.add([s for s in record.results if s is not None]):
                continue
            if key != own and node.key:
                values = _links(node) if inputs else []
                keys = list(dict.fromkeys(found for found in (node.key, node.plain) if found))
                context.cache.add(keys, record.results, node.digest, node.name, values)
            self._explanations[node.digest] = Explanation(node.digest, node.name, "hit" if key == own else "content")
            with self._lock:
                self._show_cached([node])
            return tuple(Result(snapshot) for snapshot in record.results)
        return None

    def _execute(
        self, node: Node, inputs: Sequence[Input], lookup: str, context: Context, shown: "_Shown"
    ) -> tuple[Result, ...]:
        vertex = node.vertex
        if not node.reported:
            shown.start()
        self._explanations[node.digest] = explain(vertex, node.digest, node.data, inputs, node.key, context)
        results = tuple(_module(vertex).run(vertex, [Result(i.snapshot) for i in inputs], context))
        snapshots = [result.snapshot for result in results]
        self._pins.add([snapshot for snapshot in snapshots if snapshot is not None])
        keys = list(dict.fromkeys(key for key in (node.key, lookup, node.plain) if key))
        values = notes(vertex, node.data, inputs, node.key) + (_links(node) if node.key else [])
        # What ran although the cache had it may be something else: what reads it must not take it for the same.
        first = f"{lookup}!{secrets.token_hex(8)}" if node.fresh else lookup
        values += _identities(first, snapshots, context)
        context.cache.add(keys, snapshots, node.digest, node.name, values)
        shown.end()
        return results


class _Shown:
    """The events of one run of a node. A source's run is only shown where it has something to say."""

    def __init__(self, reporter: Reporter, node: Node) -> None:
        self._reporter = reporter
        self._node = node
        self._lock = threading.Lock()
        self._running: control_pb2.Vertex | None = None
        self.tee: Callable[[int, bytes], None] | None = None

    def start(self) -> None:
        """Say that it runs, once."""
        with self._lock:
            if self._running is None:
                assert self._node.message is not None
                self._node.reported = True
                self._running = self._reporter.start(self._node.message)

    def log(self, stream: int, data: bytes) -> None:
        """Output of its process."""
        self.start()
        self._reporter.log(self._node.digest, stream, data)
        if self.tee is not None:
            self.tee(stream, data)

    def progress(self, name: str, current: int, total: int) -> None:
        """How far a part of it has come."""
        self.start()
        self._reporter.progress(self._node.digest, name, current, total)

    def end(self, cached: bool = False) -> None:
        """It is done, if it was said to run."""
        if self._running is not None:
            self._reporter.finish(self._running, cached=cached)
            self._running = None

    def fail(self, error: Exception) -> None:
        """It failed. What was stopped before it ran is not shown."""
        if self._running is None and isinstance(error, Cancelled):
            return
        self.start()
        assert self._running is not None
        self._reporter.finish(self._running, error_text(error))
        self._running = None


def _is_local(node: Node) -> bool:
    return isinstance(node.vertex.op, SourceOp) and node.vertex.op.identifier.startswith("local://")


def _module(vertex: Vertex) -> ModuleType:
    return TABLE[type(vertex.op)]


def _set_key(node: Node) -> None:
    """Set the keys of a node whose inputs have theirs."""
    node.key = definition_key(node.op_key, [(needed.key, index) for needed, index in node.inputs])
    if not node.inputs:
        plain = plain_op_key(node.op_key)
        node.plain = node.key if plain == node.op_key else definition_key(plain, [])
        return
    if all(needed.plain == needed.key for needed, _ in node.inputs):
        node.plain = node.key
        return
    for (needed, _), selection in zip(node.inputs, _module(node.vertex).selections(node.vertex), strict=True):
        # An op that takes a folder of the client as it is takes the times of its files, too.
        if not needed.plain or (selection is None and needed.plain != needed.key and not needed.inputs):
            return
    node.plain = definition_key(node.op_key, [(needed.plain, index) for needed, index in node.inputs])


def _inputs(node: Node, context: Context) -> list[Input]:
    """The inputs of a node, with the checksums of what it reads of them. Raises SolveError."""
    out = []
    if not node.inputs:
        return []
    from ..cache.checksum import checksum

    identities: dict[str, bytes] | None = None

    for (needed, index), selection in zip(node.inputs, _module(node.vertex).selections(node.vertex), strict=True):
        if index >= len(needed.results):
            raise SolveError(f"{needed.name} has no output {index}", vertex=needed.digest)
        snapshot = needed.results[index].snapshot
        found = None if selection is None else checksum(snapshot, selection, context)
        if found is None and identities is None:
            identities = context.cache.get_values(IDENTITY, _snapshots(node))
        known = identities.get(snapshot) if identities is not None and snapshot is not None else None
        identity = known.decode() if known is not None else str(snapshot)
        out.append(Input(needed.name, needed.digest, f"{needed.key}#{index}", snapshot, identity, found, selection))
    return out


def _identities(key: str, snapshots: Sequence[str | None], context: Context) -> list[tuple[str, str, bytes]]:
    """The notes of what new snapshots are; what has one already keeps it."""
    names = [snapshot for snapshot in snapshots if snapshot is not None]
    known = context.cache.get_values(IDENTITY, names)
    count = len(snapshots)
    return [
        (IDENTITY, snapshot, record_digest(key, number, count).encode())
        for number, snapshot in enumerate(snapshots)
        if snapshot is not None and snapshot not in known
    ]


def _snapshots(node: Node) -> list[str]:
    """The snapshots that a node reads."""
    found = [needed.results[index].snapshot for needed, index in node.inputs if index < len(needed.results)]
    return list(dict.fromkeys(snapshot for snapshot in found if snapshot is not None))


LINK = "link"
"""The kind of the cache's notes of which op has ever read what: without one, an op is no hit."""


def _link_keys(node: Node) -> list[str]:
    """For each input whose key is known, the note that a run of this op on it has left."""
    return [
        link_key(node.op_key, position, needed.key, index)
        for position, (needed, index) in enumerate(node.inputs)
        if needed.key
    ]


def _links(node: Node) -> list[tuple[str, str, bytes]]:
    return [(LINK, key, node.key.encode()) for key in _link_keys(node)]
