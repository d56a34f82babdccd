"""The scheduler over graphs whose ops are made up: each run is recorded, and can be held, failed or stopped."""

import hashlib
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from brickyard.llb.graph import Metadata, Output, Vertex
from brickyard.llb.marshal import marshal
from brickyard.llb.ops import Copy, ExecOp, FileAction, FileOp, Meta, Mount, SourceOp
from brickyard.solver.base import Cancelled, Context, Result, Selection, SolveError
from brickyard.solver.ops import TABLE
from brickyard.solver.scheduler.inflight import Inflight, Slots
from brickyard.solver.scheduler.job import Job
from brickyard.solver.scheduler.keys import record_digest
from brickyard.solver.scheduler.status import Reporter
from brickyard.wire.pb import control_pb2, ops_pb2

Act = Callable[[Context], object]


@dataclass
class Ops:
    """The made-up ops. `acts` says what happens while the op of a name runs, `contents` what it makes."""

    runs: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    acts: dict[str, Act] = field(default_factory=dict)
    key_acts: dict[str, Act] = field(default_factory=dict)
    source_keys: dict[str, str] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def name(vertex: Vertex) -> str:
        """What a test calls it."""
        if isinstance(vertex.op, SourceOp):
            return vertex.op.identifier.partition("://")[2]
        return vertex.metadata.description["llb.customname"]

    def selections(self, vertex: Vertex) -> Sequence[Selection | None]:
        """Copies count by content, runs by the input itself."""
        return [Selection() if isinstance(vertex.op, FileOp) else None] * len(vertex.inputs)

    def cache_key(self, vertex: Vertex, context: Context) -> str:
        """A source's given key, or the op."""
        if not isinstance(vertex.op, SourceOp):
            return repr(vertex.op)
        name = self.name(vertex)
        with self.lock:
            self.asked.append(name)
        if name in self.key_acts:
            self.key_acts[name](context)
        return self.source_keys.get(name, name)

    def run(self, vertex: Vertex, inputs: Sequence[Result], context: Context) -> Sequence[Result]:
        """A snapshot with one file."""
        name = self.name(vertex)
        with self.lock:
            self.runs.append(name)
        if name in self.acts:
            self.acts[name](context)
        made = context.snapshots.prepare(None)
        with context.snapshots.mounted(made, readonly=False) as root:
            (root / "content").write_bytes(self.contents.get(name, name.encode()))
        context.snapshots.commit(made)
        return [Result(made)]


@pytest.fixture
def ops(monkeypatch: pytest.MonkeyPatch) -> Ops:
    """The solver with made-up ops."""
    made = Ops()
    for kind in (ExecOp, FileOp, SourceOp):
        monkeypatch.setitem(TABLE, kind, made)
    return made


def source(name: str, scheme: str = "docker-image") -> Output:
    """Something from outside."""
    return Output(Vertex(SourceOp(f"{scheme}://{name}")))


def run(name: str, *inputs: Output, ignore_cache: bool = False) -> Output:
    """An op whose inputs count by what they are."""
    mounts = [Mount(f"/{number}" if number else "/", input=number) for number in range(len(inputs))] or [Mount("/")]
    mounts[0] = replace(mounts[0], output=0)
    digest = hashlib.sha256(name.encode()).hexdigest()
    op = ExecOp(Meta((digest,)), tuple(mounts))
    return Output(Vertex(op, inputs, metadata=Metadata({"llb.customname": name}, ignore_cache=ignore_cache)))


def copy(name: str, *inputs: Output) -> Output:
    """An op whose inputs count by their content."""
    actions = [FileAction(Copy(name, "/"), -1, number, 0) for number in range(len(inputs))]
    return Output(Vertex(FileOp(tuple(actions)), inputs, metadata=Metadata({"llb.customname": name})))


def definition(head: Output) -> ops_pb2.Definition:
    """A graph as it comes off the wire."""
    return marshal(head).to_pb()


@dataclass
class Builds:
    """Jobs of one solver, and what they reported."""

    context: Context
    inflight: Inflight = field(default_factory=Inflight)
    slots: Slots = field(default_factory=Slots)
    events: list[control_pb2.StatusResponse] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    def job(self, max_parallelism: int = 0, **changes: object) -> Job:
        """A job; `changes` are to its context."""
        context = replace(self.context, cancel=threading.Event(), **changes)  # type: ignore[arg-type]
        made = Job(context, Reporter(self.events.append), self.inflight, self.slots, max_parallelism)
        self.jobs.append(made)
        return made

    def build(self, *heads: Output) -> list[Result]:
        """One build of its own."""
        job = self.job()
        try:
            return solve(job, *heads)
        finally:
            job.close()

    def vertexes(self) -> Iterator[control_pb2.Vertex]:
        """The events of vertices."""
        for event in self.events:
            yield from event.vertexes

    def said(self, name: str) -> list[str]:
        """What was reported of a vertex."""
        out = []
        for vertex in self.vertexes():
            if vertex.name.rpartition("://")[2] == name:
                if vertex.HasField("completed"):
                    out.append("cached" if vertex.cached else f"failed: {vertex.error}" if vertex.error else "done")
                else:
                    out.append("started" if vertex.HasField("started") else "announced")
        return out


def solve(job: Job, *heads: Output) -> list[Result]:
    """The results of graphs in a job."""
    loaded = [job.load(definition(head)) for head in heads]
    return job.solve([head for head in loaded if head is not None])


@pytest.fixture
def builds(yard: Any, ops: Ops) -> Iterator[Builds]:
    """A solver without builds."""
    made = Builds(yard.context)
    yield made
    for job in made.jobs:
        job.context.cancel.set()
        job.close()


def content(builds: Builds, result: Result) -> bytes:
    """What the op of a result made."""
    with builds.context.snapshots.mounted(result.snapshot) as root:
        return (root / "content").read_bytes()


class Gate:
    """An act that says that it began, and goes on when it is opened or stopped."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.opened = threading.Event()
        self.stopped = False

    def __call__(self, context: Context) -> None:
        self.began.set()
        while not self.opened.wait(0.01):
            if context.cancel.is_set():
                self.stopped = True
                context.check()


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """A call in another thread, and what comes of it."""
    out: list[object] = []

    def work() -> None:
        try:
            out.append(call())
        except BaseException as error:
            out.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, out


def test_runs_inputs_first_and_once(builds: Builds, ops: Ops) -> None:
    base = source("base")
    low = run("low", base)
    top = run("top", run("left", low), run("right", low))
    [result] = builds.build(top)
    assert content(builds, result) == b"top"
    assert sorted(ops.runs) == ["base", "left", "low", "right", "top"]
    assert ops.runs.index("low") < min(ops.runs.index("left"), ops.runs.index("right"))
    assert ops.runs[-1] == "top"
    assert builds.said("low") == ["announced", "started", "done"]


def test_a_second_build_only_asks_its_sources(builds: Builds, ops: Ops) -> None:
    graph = run("top", run("low", source("base")))
    first = builds.build(graph)
    ops.runs.clear()
    builds.events.clear()
    assert builds.build(graph) == first
    assert ops.runs == []
    assert ops.asked == ["base", "base"]
    assert [builds.said(name) for name in ("base", "low", "top")] == [["announced", "cached"]] * 3
    assert len(builds.events) == 2


def test_what_is_behind_a_hit_is_not_needed(builds: Builds, ops: Ops) -> None:
    low = run("low", source("base"))
    builds.build(run("top", low))
    for snapshot in builds.context.cache.records():
        if snapshot.description == "low":
            builds.context.cache.remove([snapshot.key])
    ops.runs.clear()
    builds.build(run("top", low))
    assert ops.runs == []
    builds.build(run("other", low))
    assert ops.runs == ["low", "other"]


def test_a_changed_source_runs_what_reads_it(builds: Builds, ops: Ops) -> None:
    graph = run("top", run("low", source("base")))
    builds.build(graph)
    ops.source_keys["base"] = "changed"
    ops.runs.clear()
    builds.build(graph)
    assert ops.runs == ["base", "low", "top"]


def test_equal_content_is_a_hit(builds: Builds, ops: Ops) -> None:
    ops.contents |= {"context": b"files"}
    graph = run("top", copy("copied", source("context", "local")))
    builds.build(graph)
    ops.source_keys["context"] = "changed, but not what is copied"
    ops.runs.clear()
    builds.events.clear()
    builds.build(graph)
    assert ops.runs == ["context"]
    assert builds.said("copied") == ["announced", "cached"]
    assert builds.said("top") == ["announced", "cached"]
    # What was found by content is found by its definition from now on.
    ops.runs.clear()
    builds.build(graph)
    assert ops.runs == []


def test_a_lost_snapshot_is_made_again(builds: Builds, ops: Ops) -> None:
    graph = run("top", source("base"))
    [result] = builds.build(graph)
    assert result.snapshot is not None
    builds.context.snapshots.remove(result.snapshot)
    ops.runs.clear()
    [again] = builds.build(graph)
    assert ops.runs == ["top"]
    assert content(builds, again) == b"top"


def test_ignore_cache_runs_and_what_follows_goes_by_content(builds: Builds, ops: Ops) -> None:
    def graph(ignore: bool) -> Output:
        low = run("low", source("base"), ignore_cache=ignore)
        return run("top", copy("copied", low), low)

    builds.build(graph(False))
    ops.runs.clear()
    builds.build(graph(True))
    assert ops.runs == ["low", "top"]
    ops.contents["low"] = b"something new"
    ops.runs.clear()
    builds.build(graph(True))
    assert ops.runs == ["low", "copied", "top"]


def test_stages_run_while_a_slow_source_is_asked_where_a_hit_is_out_of_question(builds: Builds, ops: Ops) -> None:
    gate = Gate()
    ops.key_acts["context"] = gate
    low = run("low", source("base"), ignore_cache=True)
    top = run("top", low, copy("copied", source("context", "local")))
    thread, out = in_thread(lambda: builds.build(replace_ignored(top)))
    assert gate.began.wait(5)
    deadline(lambda: "low" in ops.runs)
    gate.opened.set()
    thread.join()
    assert isinstance(out[0], list)


def replace_ignored(head: Output) -> Output:
    """The same vertex, without the use of the cache."""
    vertex = head.vertex
    metadata = replace(vertex.metadata, ignore_cache=True)
    return Output(Vertex(vertex.op, vertex.inputs, metadata=metadata))


def deadline(done: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    tick = threading.Event()
    for _ in range(500):
        if done():
            return
        tick.wait(0.01)
    raise AssertionError("it did not happen in 5 seconds")


def test_ops_run_at_the_same_time(builds: Builds, ops: Ops) -> None:
    barrier = threading.Barrier(3)
    for name in ("a", "b", "c"):
        ops.acts[name] = lambda context: barrier.wait(5)
    base = source("base")
    builds.build(run("top", *(run(name, base) for name in ("a", "b", "c"))))
    assert ops.runs[-1] == "top"


def test_no_more_at_the_same_time_than_allowed(builds: Builds, ops: Ops) -> None:
    now, most = [0], [0]

    def act(context: Context) -> None:
        with ops.lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.005)
        with ops.lock:
            now[0] -= 1

    names = [f"step {number}" for number in range(8)]
    ops.acts.update(dict.fromkeys(names, act))
    builds.slots = Slots(2)
    job = builds.job()
    base = source("base")
    solve(job, run("top", *(run(name, base) for name in names)))
    assert most[0] == 2


def test_the_first_error_ends_the_evaluation_and_stops_the_rest(builds: Builds, ops: Ops) -> None:
    gate = Gate()
    ops.acts["slow"] = gate

    def fail(context: Context) -> None:
        assert gate.began.wait(5)
        raise SolveError("no luck", exit_code=3)

    ops.acts["bad"] = fail
    base = source("base")
    job = builds.job()
    with pytest.raises(SolveError, match="no luck") as caught:
        solve(job, run("top", run("slow", base), run("bad", base)))
    job.close()
    assert gate.stopped
    assert "top" not in ops.runs
    assert builds.said("bad")[-1] == "failed: no luck"
    assert builds.said("slow")[-1] == "failed: context canceled"
    assert caught.value.exit_code == 3
    assert ops_pb2.Op.FromString(caught.value.op).WhichOneof("op") == "exec"
    assert caught.value.vertex == next(v.digest for v in builds.vertexes() if v.name == "bad")


def test_an_error_does_not_touch_other_evaluations(builds: Builds, ops: Ops) -> None:
    gate = Gate()
    ops.acts["shared"] = gate

    def fail(context: Context) -> None:
        assert gate.began.wait(5)
        raise SolveError("no luck")

    ops.acts["bad"] = fail
    base = source("base")
    shared = run("shared", base)
    job = builds.job()
    other, out = in_thread(lambda: solve(job, shared))
    assert gate.began.wait(5)
    with pytest.raises(SolveError, match="no luck"):
        solve(job, run("top", shared, run("bad", base)))
    gate.opened.set()
    other.join()
    assert not gate.stopped
    assert [content(builds, result) for result in out[0]] == [b"shared"]  # type: ignore[attr-defined]
    # A node that failed stays so.
    with pytest.raises(SolveError, match="no luck"):
        solve(job, run("bad", base))
    assert ops.runs.count("bad") == 1


def test_a_source_that_fails_fails_what_reads_it(builds: Builds, ops: Ops) -> None:
    def fail(context: Context) -> None:
        raise OSError(2, "not there")

    ops.key_acts["context"] = fail
    job = builds.job()
    with pytest.raises(SolveError, match="not there"):
        solve(job, run("top", source("base"), copy("copied", source("context", "local"))))
    assert builds.said("context") == ["announced", "started", "failed: not there"]
    with pytest.raises(SolveError, match="not there"):
        solve(job, copy("copied", source("context", "local")))


def test_a_build_is_stopped(builds: Builds, ops: Ops) -> None:
    gate = Gate()
    ops.acts["slow"] = gate
    job = builds.job()
    thread, out = in_thread(lambda: solve(job, run("top", run("slow", source("base")))))
    assert gate.began.wait(5)
    job.context.cancel.set()
    thread.join(5)
    assert isinstance(out[0], Cancelled)
    job.close()
    assert gate.stopped
    # The next build does what was left.
    ops.acts.clear()
    builds.build(run("top", run("slow", source("base"))))


def test_one_evaluation_is_stopped_and_asked_for_again(builds: Builds, ops: Ops) -> None:
    gate = Gate()
    ops.acts["slow"] = gate
    job = builds.job()
    stop = threading.Event()
    loaded = job.load(definition(run("slow", source("base"))))
    assert loaded is not None
    thread, out = in_thread(lambda: job.solve([loaded], stop))
    assert gate.began.wait(5)
    stop.set()
    thread.join(5)
    assert isinstance(out[0], Cancelled)
    ops.acts.clear()
    [result] = job.solve([loaded])
    assert content(builds, result) == b"slow"


def test_a_key_that_was_stopped_is_asked_again(builds: Builds, ops: Ops) -> None:
    gate = Gate()
    ops.key_acts["context"] = gate
    job = builds.job()
    stop = threading.Event()
    loaded = job.load(definition(copy("copied", source("context", "local"), source("base"))))
    assert loaded is not None
    thread, out = in_thread(lambda: job.solve([loaded], stop))
    assert gate.began.wait(5)
    stop.set()
    thread.join(5)
    assert isinstance(out[0], Cancelled)
    ops.key_acts.clear()
    [result] = job.solve([loaded])
    assert content(builds, result) == b"copied"


def test_equal_vertices_of_two_builds_run_once(builds: Builds, ops: Ops) -> None:
    gate = Gate()
    ops.acts["slow"] = gate
    graph = run("slow", source("base"))
    first, out = in_thread(lambda: builds.build(graph))
    assert gate.began.wait(5)
    second, other = in_thread(lambda: builds.build(graph))
    deadline(lambda: any(flight.listeners for flight in builds.inflight._running.values()))
    gate.opened.set()
    first.join()
    second.join()
    assert out == other
    assert ops.runs.count("slow") == 1


def test_a_stopped_build_leaves_the_work_to_the_other(builds: Builds, ops: Ops) -> None:
    gate = Gate()
    ops.acts["slow"] = gate
    graph = run("slow", source("base"))
    job = builds.job()
    first, out = in_thread(lambda: solve(job, graph))
    assert gate.began.wait(5)
    second, other = in_thread(lambda: builds.build(graph))
    deadline(lambda: any(flight.listeners for flight in builds.inflight._running.values()))
    ops.acts.clear()
    job.context.cancel.set()
    first.join()
    second.join()
    assert isinstance(out[0], Cancelled)
    assert isinstance(other[0], list)
    assert ops.runs.count("slow") == 2


def test_definitions_of_one_build_share_their_vertices(builds: Builds, ops: Ops) -> None:
    job = builds.job()
    low = run("low", source("base"))
    solve(job, run("one", low))
    solve(job, run("two", low), run("three", low))
    assert ops.asked == ["base"]
    assert sorted(ops.runs) == ["base", "low", "one", "three", "two"]
    assert builds.said("low") == ["announced", "started", "done"]


def test_results_in_use_are_not_removed(builds: Builds, ops: Ops) -> None:
    job = builds.job()
    [result] = solve(job, run("top", source("base")))
    assert result.snapshot is not None
    leases = builds.context.leases
    assert result.snapshot in leases.held()
    with leases.removing([result.snapshot]) as free:
        assert not free
    job.close()
    with leases.removing([result.snapshot]) as free:
        assert free == {result.snapshot}
        # What is about to go is no hit.
        ops.runs.clear()
        builds.build(run("top", source("base")))
        assert ops.runs == ["top"]


def test_a_broken_definition_is_refused(builds: Builds) -> None:
    with pytest.raises(SolveError, match="not an encoded op") as caught:
        builds.job().load(ops_pb2.Definition(**{"def": [b"\xff", b""]}))
    assert caught.value.code == 3


def test_an_output_that_is_not_there(builds: Builds, ops: Ops) -> None:
    low = run("low", source("base"))
    with pytest.raises(SolveError, match="low has no output 3"):
        builds.build(run("top", Output(low.vertex, 3)))
    with pytest.raises(SolveError, match="low has no output 1"):
        builds.build(Output(low.vertex, 1))


def test_entitlements_count_for_cached_ops_too(builds: Builds, ops: Ops) -> None:
    from brickyard.llb.ops import NetMode

    low = run("low", source("base"))
    op = low.vertex.op
    assert isinstance(op, ExecOp)
    graph = Output(Vertex(replace(op, network=NetMode.HOST), low.vertex.inputs, metadata=low.vertex.metadata))
    solve(builds.job(entitlements=frozenset({"network.host"})), graph)
    with pytest.raises(SolveError, match=r"network\.host is not allowed"):
        builds.job().load(definition(graph))


def test_logs_and_progress_belong_to_their_vertex(builds: Builds, ops: Ops) -> None:
    def act(context: Context) -> None:
        context.log(1, b"hello")
        context.progress("layer", 5, 10)
        context.progress("layer", 6, 10)
        context.progress("layer", 10, 10)
        with context.step("unpacking"):
            context.check()

    ops.acts["base"] = act
    builds.build(run("top", source("base")))
    digest = next(v.digest for v in builds.vertexes() if v.name.endswith("base"))
    logs = [log for event in builds.events for log in event.logs]
    assert [(log.vertex, log.stream, log.msg) for log in logs] == [(digest, 1, b"hello")]
    statuses = [status for event in builds.events for status in event.statuses]
    assert {status.vertex for status in statuses} == {digest}
    seen = [(s.ID, s.current, s.total, s.HasField("completed")) for s in statuses]
    assert seen == [
        ("layer", 5, 10, False),
        ("layer", 10, 10, True),
        ("unpacking", 0, 0, False),
        ("unpacking", 0, 0, True),
    ]
    assert statuses[0].started == statuses[1].started


def why(job: Job) -> dict[str, str]:
    """The reasons for the misses of a job."""
    return {found.name.rpartition("://")[2]: found.reason or found.outcome for found in job.explain()}


def built(builds: Builds, head: Output) -> dict[str, str]:
    """Build in a job of its own, and say why what ran."""
    job = builds.job()
    solve(job, head)
    job.close()
    return why(job)


def test_explains_the_first_build_and_hits(builds: Builds, ops: Ops) -> None:
    graph = run("top", source("base"))
    assert built(builds, graph) == {"base": "it never ran before", "top": "it never ran before"}
    assert built(builds, graph) == {"base": "hit", "top": "hit"}


def test_explains_a_changed_command(builds: Builds, ops: Ops) -> None:
    def graph(command: str) -> Output:
        made = run("step", source("base"))
        op = made.vertex.op
        assert isinstance(op, ExecOp)
        op = replace(op, meta=replace(op.meta, args=("sh", "-c", command), env=("A=1",)))
        return Output(Vertex(op, made.vertex.inputs, metadata=made.vertex.metadata))

    built(builds, graph("make one"))
    assert built(builds, graph("make two"))["step"] == "the command changed: it was make one"


def test_explains_another_step_after_the_same_one(builds: Builds, ops: Ops) -> None:
    base = source("base")
    built(builds, run("RUN one", base))
    assert built(builds, run("RUN two", base))["RUN two"] == "the step is another one: it was RUN one"


def test_explains_changed_inputs(builds: Builds, ops: Ops) -> None:
    graph = run("top", run("low", source("base")))
    built(builds, graph)
    ops.source_keys["base"] = "changed"
    assert built(builds, graph) == {
        "base": "what it fetches changed",
        "low": "what it is built on changed: docker-image://base",
        "top": "what it is built on changed: low",
    }


def test_explains_changed_content_and_content_that_did_not_change(builds: Builds, ops: Ops) -> None:
    graph = copy("copied", source("context", "local"))
    built(builds, graph)
    ops.source_keys["context"] = "second"
    assert built(builds, graph)["copied"] == "content"
    ops.source_keys["context"] = "third"
    ops.contents["context"] = b"other files"
    assert built(builds, graph)["copied"] == "what it reads of local://context changed"


def test_explains_what_was_pruned_or_is_never_cached(builds: Builds, ops: Ops) -> None:
    graph = run("top", source("base"))
    built(builds, graph)
    builds.context.cache.remove([r.key for r in builds.context.cache.records() if r.description == "top"])
    assert built(builds, graph)["top"] == "its result is not in the cache any more"
    assert built(builds, replace_ignored(graph))["top"] == "the cache is not used for it"


def test_new_stages_run_while_a_slow_source_is_asked(builds: Builds, ops: Ops) -> None:
    """No cache is switched off: what has never read its input can't be a hit."""
    gate = Gate()
    ops.key_acts["context"] = gate
    top = run("top", run("low", source("base")), copy("copied", source("context", "local")))
    thread, out = in_thread(lambda: builds.build(top))
    assert gate.began.wait(5)
    deadline(lambda: "low" in ops.runs)
    gate.opened.set()
    thread.join()
    assert isinstance(out[0], list)


def test_what_may_be_a_hit_waits_for_a_slow_source(builds: Builds, ops: Ops) -> None:
    top = run("top", run("low", source("base")), copy("copied", source("context", "local")))
    builds.build(top)
    builds.context.cache.remove([r.key for r in builds.context.cache.records() if r.description == "low"])
    ops.runs.clear()
    gate = Gate()
    ops.key_acts["context"] = gate
    thread, out = in_thread(lambda: builds.build(top))
    assert gate.began.wait(5)
    gate.opened.set()
    thread.join()
    assert isinstance(out[0], list)
    assert ops.runs == []


def any_graph(chance: random.Random) -> list[Output]:
    """Vertices in an order in which each one may read those before it."""
    out = [source(f"s{number}", chance.choice(["docker-image", "local"])) for number in range(chance.randint(1, 3))]
    for number in range(chance.randint(1, 12)):
        inputs = [chance.choice(out) for _ in range(chance.randint(1, 3))]
        make = chance.choice([run, copy])
        out.append(make(f"v{number}", *inputs))
    return out


def below(head: Output) -> set[str]:
    """The names of all vertices that a head stands on, itself too."""
    found: set[str] = set()
    pending = [head.vertex]
    while pending:
        vertex = pending.pop()
        found.add(Ops.name(vertex))
        pending += [i.vertex for i in vertex.inputs]
    return found


@pytest.mark.parametrize("seed", range(12))
def test_any_graph_in_any_state_of_the_cache(builds: Builds, ops: Ops, seed: int) -> None:
    """Several evaluations and builds at once, some of them failing or stopped, always come to their end."""
    chance = random.Random(seed)
    graph = any_graph(chance)
    names = sorted(set().union(*map(below, graph)))
    for _ in range(3):
        records = builds.context.cache.records()
        builds.context.cache.remove([record.key for record in records if chance.random() < 0.4])
        for name in names:
            if chance.random() < 0.2:
                ops.source_keys[name] = str(chance.random())
        ops.runs.clear()
        bad = chance.choice(names) if chance.random() < 0.3 else ""
        ops.acts = {bad: broken} if bad else {}
        jobs = [builds.job(), builds.job(chance.randint(1, 3))]
        stop = threading.Event()
        calls = []
        for number in range(4):
            heads = [chance.choice(graph) for _ in range(chance.randint(1, 3))]
            job = chance.choice(jobs)
            loaded = [found for head in heads if (found := job.load(definition(head))) is not None]
            stops = stop if number == 3 else None
            calls.append((heads, *in_thread(partial(job.solve, loaded, stops))))
        if chance.random() < 0.5:
            stop.set()
        for heads, thread, out in calls:
            thread.join(20)
            assert not thread.is_alive()
            needed = set().union(*map(below, heads))
            if isinstance(out[0], SolveError):
                assert bad in needed
                assert str(out[0]) == "broken"
            elif isinstance(out[0], list):
                made = [content(builds, result).decode() for result in out[0]]
                assert made == [Ops.name(head.vertex) for head in heads]
            else:
                assert isinstance(out[0], Cancelled)
                assert stop.is_set()
        for job in jobs:
            job.close()
        assert builds.inflight._running == {}
    assert builds.context.leases.held() == set()
    ops.acts = {}
    first = builds.build(graph[-1])
    ops.runs.clear()
    assert builds.build(graph[-1]) == first
    assert ops.runs == []


def broken(context: Context) -> None:
    """An act that fails."""
    raise SolveError("broken")


def test_a_store_that_breaks_ends_the_build(builds: Builds, ops: Ops, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    job = builds.job()
    monkeypatch.setattr(builds.context.cache, "add", full)
    with pytest.raises(SolveError, match="database or disk is full"):
        solve(job, run("top", source("base")))
    monkeypatch.setattr(builds.context.cache, "find", full)
    with pytest.raises((SolveError, sqlite3.OperationalError), match="database or disk is full"):
        solve(builds.job(), run("other", source("base")))


def test_a_client_that_can_be_told_nothing_ends_the_build(builds: Builds, ops: Ops) -> None:
    gate = Gate()
    ops.acts["slow"] = gate

    def send(status: control_pb2.StatusResponse) -> None:
        if gate.began.is_set():
            raise BrokenPipeError("nobody reads this")

    job = Job(replace(builds.context, cancel=threading.Event()), Reporter(send), builds.inflight, builds.slots)
    ops.acts["loud"] = lambda context: gate.began.wait(5) and context.log(1, b"x")
    base = source("base")
    with pytest.raises(BrokenPipeError):
        solve(job, run("top", run("slow", base), run("loud", base)))
    job.close()
    assert gate.stopped


@dataclass
class Elsewhere:
    """An imported cache: what another store has, by the digests of keys."""

    builds: Builds
    keys: dict[str, str] = field(default_factory=dict)
    pulled: list[str] = field(default_factory=list)
    gone: bool = False

    def __bool__(self) -> bool:
        return True

    def has(self, key: str, outputs: int) -> bool:
        return outputs == 1 and record_digest(key, 0, 1) in self.keys

    def pull(self, key: str, outputs: int, context: Context) -> list[tuple[str, str]]:
        if self.gone:
            raise SolveError("no such blob")
        name = self.keys[record_digest(key, 0, 1)]
        self.pulled.append(name)
        made = self.builds.context.snapshots.prepare(None)
        with self.builds.context.snapshots.mounted(made, readonly=False) as root:
            (root / "content").write_bytes(name.encode())
        self.builds.context.snapshots.commit(made)
        return [(made, f"the {name} of all machines")]


def forget(builds: Builds) -> dict[str, str]:
    """Empty the cache; what was in it by the digests of its keys."""
    records = builds.context.cache.records()
    builds.context.cache.remove([record.key for record in records])
    return {record_digest(record.key, 0, 1): record.description for record in records}


def test_imported_results_are_taken_and_what_is_behind_them_is_not(builds: Builds, ops: Ops) -> None:
    graph = run("top", run("low", source("base")))
    builds.build(graph)
    elsewhere = Elsewhere(builds, forget(builds))
    ops.runs.clear()
    builds.events.clear()
    job = builds.job()
    job.use(elsewhere)  # type: ignore[arg-type]
    [result] = solve(job, graph)
    assert content(builds, result) == b"top"
    assert (ops.runs, elsewhere.pulled) == ([], ["top"])
    assert builds.said("top") == ["announced", "started", "cached"]
    assert why(job)["top"] == "from an imported cache"
    # From now on it is in the own cache, under the name that it has everywhere.
    assert builds.build(graph) == [result]
    assert result.snapshot is not None
    assert builds.context.cache.get_value("identity", result.snapshot) == b"the top of all machines"


def test_imported_results_are_found_by_content(builds: Builds, ops: Ops) -> None:
    graph = run("top", copy("copied", source("context", "local")))
    ops.contents["context"] = b"files"
    builds.build(graph)
    elsewhere = Elsewhere(builds, forget(builds))
    ops.source_keys["context"] = "another time, the same files"
    ops.runs.clear()
    job = builds.job()
    job.use(elsewhere)  # type: ignore[arg-type]
    solve(job, graph)
    assert ops.runs == ["context", "top"]
    assert elsewhere.pulled == ["copied"]


def test_imported_results_are_found_where_only_times_of_files_are_others(builds: Builds, ops: Ops) -> None:
    """Also where nothing of what is behind them is in the cache, as in one of the result's layers only."""
    graph = run("top", copy("copied", source("context", "local")))
    ops.contents["context"] = b"files"
    ops.source_keys["context"] = "local:of a time+the files"
    builds.build(graph)
    elsewhere = Elsewhere(builds, {key: name for key, name in forget(builds).items() if name == "top"})
    ops.source_keys["context"] = "local:of another+the files"
    ops.runs.clear()
    job = builds.job()
    job.use(elsewhere)  # type: ignore[arg-type]
    [result] = solve(job, graph)
    assert (ops.runs, elsewhere.pulled) == ([], ["top"])
    assert builds.build(graph) == [result]
    ops.source_keys["context"] = "local:of another+other files"
    ops.contents["context"] = b"other files"
    other = builds.job()
    other.use(elsewhere)  # type: ignore[arg-type]
    solve(other, graph)
    assert ops.runs == ["context", "copied", "top"]


def test_times_of_files_count_for_an_op_that_takes_a_folder_as_it_is(builds: Builds, ops: Ops) -> None:
    graph = run("top", source("context", "local"))
    ops.source_keys["context"] = "local:of a time+the files"
    builds.build(graph)
    elsewhere = Elsewhere(builds, forget(builds))
    ops.source_keys["context"] = "local:of another+the files"
    ops.runs.clear()
    job = builds.job()
    job.use(elsewhere)  # type: ignore[arg-type]
    solve(job, graph)
    assert "top" in ops.runs


def test_what_reads_an_imported_result_is_found_by_its_identity(builds: Builds, ops: Ops) -> None:
    graph = run("top", copy("copied", source("context", "local")))
    ops.contents["context"] = b"files"
    [first] = builds.build(graph)
    assert first.snapshot is not None
    copied = next(r for r in builds.context.cache.records() if r.description == "copied")
    assert copied.results[0] is not None
    identity = builds.context.cache.get_value("identity", copied.results[0])
    assert identity is not None
    known = forget(builds)

    class Named(Elsewhere):
        def pull(self, key: str, outputs: int, context: Context) -> list[tuple[str, str]]:
            [(made, _)] = super().pull(key, outputs, context)
            return [(made, identity.decode())]

    elsewhere = Named(builds, known)
    ops.source_keys["context"] = "another time, the same files"
    ops.runs.clear()
    job = builds.job()
    job.use(elsewhere)  # type: ignore[arg-type]
    solve(job, graph)
    assert ops.runs == ["context"]
    assert elsewhere.pulled == ["copied", "top"]


def test_an_imported_result_that_is_gone_is_made(builds: Builds, ops: Ops) -> None:
    graph = run("top", run("low", source("base")))
    builds.build(graph)
    elsewhere = Elsewhere(builds, forget(builds), gone=True)
    ops.runs.clear()
    job = builds.job()
    job.use(elsewhere)  # type: ignore[arg-type]
    [result] = solve(job, graph)
    assert content(builds, result) == b"top"
    assert ops.runs == ["base", "low", "top"]
    logs = b"".join(log.msg for event in builds.events for log in event.logs)
    assert b"not taken from the cache: no such blob" in logs


def test_what_ran_anew_is_not_taken_for_the_same(builds: Builds, ops: Ops) -> None:
    """The content key of what reads a result must not be that of the result that it replaced."""

    def graph(ignore: bool) -> Output:
        return run("top", run("low", source("base"), ignore_cache=ignore))

    builds.build(graph(False))
    ops.contents |= {"low": b"other", "top": b"made of other"}
    [result] = builds.build(graph(True))
    assert content(builds, result) == b"made of other"


def test_the_keys_of_what_may_be_exported(builds: Builds, ops: Ops) -> None:
    job = builds.job()
    loaded = job.load(definition(run("top", source("base"), copy("copied", source("context", "local")))))
    assert loaded is not None
    job.solve([loaded])
    keyed = job.keyed([loaded])
    names = [builds.context.cache.find([key])[key].description for key, _ in keyed]
    assert [name.rpartition("://")[2] for name in names] == ["base", "copied", "top"]
    assert [count for _, count in keyed] == [1, 1, 1]
