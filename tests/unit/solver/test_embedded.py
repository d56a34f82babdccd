"""The solver of one process: its lock, and how its builds end."""

import _thread
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brickyard.llb.bridge import Bridge, FrontendCall
from brickyard.solver import embedded
from brickyard.solver.base import Cancelled, SolveError
from brickyard.solver.embedded import EmbeddedSolver
from brickyard.wire.pb import control_pb2, gateway_pb2


class Client:
    """A session that offers nothing."""

    id = "a"

    def credentials(self, host: str) -> tuple[str, str] | None:
        return None


class Held:
    """A frontend that waits until its build is stopped."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.then: Callable[[], object] = lambda: None
        self.ended = False

    def __call__(self, bridge: Bridge, call: FrontendCall) -> gateway_pb2.Result:
        self.began.set()
        self.then()
        context = bridge.build.context  # type: ignore[attr-defined]
        assert context.cancel.wait(5)
        self.ended = True
        context.check()
        return gateway_pb2.Result()


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def solver(tmp_path: Path, held: Held) -> Iterator[EmbeddedSolver]:
    made = EmbeddedSolver(tmp_path / "root", frontends={"held": held}, entitlements=["network.host"])
    yield made
    made.close()


def solve(solver: EmbeddedSolver, cancel: threading.Event | None = None) -> object:
    """A build that ends when it is stopped."""
    request = control_pb2.SolveRequest(Frontend="held", Ref="r")
    return solver.solve(request, Client(), lambda status: None, cancel)  # type: ignore[arg-type]


def test_one_process_at_a_time(solver: EmbeddedSolver) -> None:
    with pytest.raises(SolveError, match="another process is using"):
        EmbeddedSolver(solver.root, lock_seconds=0.05)
    solver.close()
    EmbeddedSolver(solver.root, lock_seconds=0.05).close()


def test_waits_for_the_other_process(solver: EmbeddedSolver) -> None:
    threading.Timer(0.1, solver.close).start()
    EmbeddedSolver(solver.root, lock_seconds=5).close()


def test_says_who_makes_it_wait(solver: EmbeddedSolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_SAY_SECONDS", 0.0)
    holders: list[int] = []

    def on_wait(holder: int) -> None:
        holders.append(holder)
        solver.close()

    EmbeddedSolver(solver.root, lock_seconds=60, on_wait=on_wait).close()
    assert holders == [os.getpid()]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    EmbeddedSolver(tmp_path).close()
    assert (tmp_path / "spare").stat().st_blocks * 512 >= 1 << 20
    real = embedded.Snapshots

    def snapshots(root: Path) -> object:
        if (root / "spare").exists() or (root / "full").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(root)

    monkeypatch.setattr(embedded, "Snapshots", snapshots)
    EmbeddedSolver(tmp_path).close()
    assert (tmp_path / "spare").exists()
    (tmp_path / "full").touch()
    with pytest.raises(SolveError, match=r"cannot use .*: No space left on device") as caught:
        EmbeddedSolver(tmp_path)
    assert caught.value.hint == "free some space on its disk"
    (tmp_path / "full").unlink()
    EmbeddedSolver(tmp_path).close()


def test_a_folder_that_can_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SolveError, match="cannot use"):
        EmbeddedSolver(tmp_path / "file" / "below")


def test_an_event_stops_a_build(solver: EmbeddedSolver, held: Held) -> None:
    cancel = threading.Event()
    held.then = cancel.set
    with pytest.raises(Cancelled):
        solve(solver, cancel)
    assert held.ended


def test_an_interrupt_goes_on_once_the_build_has_ended(solver: EmbeddedSolver, held: Held) -> None:
    held.then = _thread.interrupt_main
    with pytest.raises(KeyboardInterrupt):
        solve(solver)
    assert held.ended


def test_close_stops_builds_and_waits_for_them(solver: EmbeddedSolver, held: Held) -> None:
    out: list[BaseException] = []

    def build() -> None:
        try:
            solve(solver)
        except BaseException as error:
            out.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    assert held.began.wait(5)
    solver.close()
    assert held.ended
    thread.join(5)
    assert isinstance(out[0], Cancelled)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("security.insecure", "granting entitlement security.insecure is not allowed by build daemon configuration"),
        ("everything", "unknown entitlement 'everything'"),
    ],
)
def test_entitlements(solver: EmbeddedSolver, name: str, message: str) -> None:
    request = control_pb2.SolveRequest(Entitlements=[name])
    with pytest.raises(SolveError, match=message):
        solver.solve(request, Client(), lambda status: None)  # type: ignore[arg-type]
    request = control_pb2.SolveRequest(Entitlements=["network.host"], Ref="x")
    solver.solve(request, Client(), lambda status: None)  # type: ignore[arg-type]
    assert solver.explain("x") == []
