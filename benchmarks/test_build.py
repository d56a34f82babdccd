"""Whole builds by the command: the parallel example, builds of which nothing changed, and a large context."""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from figures import BRICKYARD, ROOT, Compare, run, timed

EXAMPLE = ROOT / "examples/parallel"
SLEEP = 5.0
FILES, FOLDERS = 20_000, 200


def bare_python() -> float:
    """Seconds that an interpreter takes to start, as the machine is now."""
    return sorted(timed(lambda: run(sys.executable, "-c", "pass")) for _ in range(5))[2]


@pytest.fixture
def build(root: Path, base: Path) -> Callable[..., object]:
    """`brickyard build` with the offline base."""

    def call(context: Path, *args: str | Path, base_image: bool = True) -> object:
        offline = ("--build-context", f"base=oci-layout://{base}") if base_image else ()
        return run(*BRICKYARD, "build", "--root", root, "--progress", "plain", *offline, *args, context)

    return call


@pytest.mark.goal
def test_parallel_example(compare: Compare, build: Callable[..., object], root: Path) -> None:
    figure = compare(
        "examples/parallel",
        lambda: build(EXAMPLE),
        "its longest path",
        SLEEP,
        rounds=3,
        goal="+ 0.5 s",
        before=lambda: shutil.rmtree(root, ignore_errors=True),
    )
    # One after the other it is 20 seconds. A machine that does other things too takes longer, for bare Python as well.
    assert figure.ours < SLEEP + max(0.5, 25 * bare_python())


@pytest.mark.goal
def test_nothing_changed(compare: Compare, build: Callable[..., object]) -> None:
    build(EXAMPLE)
    figure = compare(
        "examples/parallel again",
        lambda: build(EXAMPLE),
        "python -c pass",
        lambda: run(sys.executable, "-c", "pass"),
        rounds=7,
        goal="< 0.5 s",
    )
    assert figure.ours < max(0.5, 20 * figure.theirs)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 files of 1 KiB in 200 folders, and a Dockerfile that copies them."""
    folder = tmp_path_factory.mktemp("large")
    for number in range(FILES):
        path = folder / f"src/{number % FOLDERS:03}/{number:05}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number:1023}\n")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY src /src\n")
    return folder


def test_large_context_for_the_first_time(
    compare: Compare, build: Callable[..., object], context: Path, root: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"

    def copied() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        run("cp", "-a", context, copy)

    copied()
    compare(
        f"context of {FILES:,} files, first",
        lambda: build(context, base_image=False),
        "cp -a",
        copied,
        rounds=3,
        before=lambda: shutil.rmtree(root, ignore_errors=True),
    )


def test_large_context_that_did_not_change(compare: Compare, build: Callable[..., object], context: Path) -> None:
    build(context, base_image=False)
    # Files as new as the last build are read again, since they may have changed since.
    time.sleep(1)
    build(context, base_image=False)
    compare(
        f"context of {FILES:,} files, unchanged",
        lambda: build(context, base_image=False),
        "find -printf",
        lambda: run("find", context, "-printf", "%p %s %T@\\n"),
    )


def test_large_context_with_one_file_changed(compare: Compare, build: Callable[..., object], context: Path) -> None:
    build(context, base_image=False)
    time.sleep(1)
    build(context, base_image=False)
    changes = iter(range(100))
    compare(
        f"context of {FILES:,} files, one changed",
        lambda: build(context, base_image=False),
        "find -printf",
        lambda: run("find", context, "-printf", "%p %s %T@\\n"),
        rounds=3,
        before=lambda: (context / "src/000/00000.txt").write_text(f"change {next(changes)}\n"),
    )
