"""The same builds by a real Docker Engine with its own BuildKit, in turns with Brickyard."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import Engine, running_engine
from figures import BRICKYARD, ROOT, Compare, run
from frontend_image import pushed, sources
from services import serving

EXAMPLE = ROOT / "examples/parallel"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("registry"), {}) as host:
        yield host


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, registry: str) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("engine"), [registry]) as engine:
        yield engine


def docker_build(engine: Engine, base: Path, context: Path, *args: str) -> None:
    offline = ("--build-context", f"base=oci-layout://{base}:latest", "--network", "none")
    engine.buildx("build", "--provenance=false", *offline, *args, context)


def test_parallel_example(compare: Compare, engine: Engine, base: Path, root: Path) -> None:
    compare(
        "examples/parallel",
        lambda: run(*BRICKYARD, "build", "--root", root, "--build-context", f"base=oci-layout://{base}", EXAMPLE),
        "Docker Engine",
        lambda: docker_build(engine, base, EXAMPLE),
        rounds=1,
    )


def test_nothing_changed(compare: Compare, engine: Engine, base: Path, root: Path) -> None:
    def ours() -> None:
        run(*BRICKYARD, "build", "--root", root, "--build-context", f"base=oci-layout://{base}", EXAMPLE)

    ours()
    docker_build(engine, base, EXAMPLE)
    compare("examples/parallel again", ours, "Docker Engine", lambda: docker_build(engine, base, EXAMPLE), rounds=7)


def test_context_of_2000_files(compare: Compare, engine: Engine, root: Path, base: Path, tmp_path: Path) -> None:
    """First sight of a context: both read all, and copy it."""
    context = tmp_path / "context"
    for number in range(2000):
        path = context / f"src/{number % 20:02}/{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number:1023}\n")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY src /src\n")
    compare(
        "context of 2,000 files, first",
        lambda: run(*BRICKYARD, "build", "--root", root, context),
        "Docker Engine",
        lambda: docker_build(engine, base, context),
        rounds=1,
    )


def test_nothing_changed_through_the_frontend_image(
    compare: Compare, engine: Engine, registry: str, base: Path, tmp_path: Path
) -> None:
    """A warm Engine, and no step that runs: what is left is starting the frontend, and what it does."""
    image = pushed(engine, registry, sources(tmp_path))
    syntax = f"BUILDKIT_SYNTAX={image}"

    def ours() -> None:
        docker_build(engine, base, EXAMPLE, "--build-arg", syntax)

    docker_build(engine, base, EXAMPLE)
    ours()
    figure = compare(
        "examples/parallel again, our frontend image",
        ours,
        "Docker's own frontend, built in",
        lambda: docker_build(engine, base, EXAMPLE),
        rounds=9,
    )
    # The container alone is about half of what the frontend inside takes; Docker's own image is at 1.5 as well.
    assert figure.ratio < 2.2
