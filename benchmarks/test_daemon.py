"""The same commands of real buildx to a daemon of ours and to a Docker Engine's BuildKit, in turns."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Builder, connect, running_daemon
from engine import Engine, running_engine
from figures import Compare
from services import serving

SLEEPS = "FROM base AS start\n" + "".join(
    f"FROM start AS s{n}\nRUN sleep 5 && echo {n} > /{n}\n" for n in range(4)
)  # fmt: skip


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("registry"), {}) as host:
        yield host


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, registry: str) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("engine"), [registry]) as engine:
        yield engine


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[Builder]:
    with running_daemon(tmp_path_factory.mktemp("daemon")) as daemon:
        yield connect(engine, daemon)


class Pair:
    """One build by both."""

    def __init__(self, engine: Engine, builder: Builder, context: Path, *flags: str) -> None:
        self.engine, self.name = engine, builder.name
        self.words = ["--provenance=false", "--output", "type=cacheonly", *flags, context]

    def ours(self) -> None:
        self.engine.buildx("build", "--builder", self.name, *self.words, timeout=600)

    def theirs(self) -> None:
        self.engine.buildx("build", "--builder", "default", *self.words, timeout=600)


def sleeping(folder: Path, base: Path) -> tuple[Path, str, str, str, str]:
    text = SLEEPS + "FROM start\n" + "".join(f"COPY --from=s{n} /{n} /\n" for n in range(4))
    (folder / "Dockerfile").write_text(text)
    return folder, "--build-context", f"base=oci-layout://{base}:latest", "--network", "none"


def test_four_sleeps(compare: Compare, engine: Engine, builder: Builder, base: Path, tmp_path: Path) -> None:
    pair = Pair(engine, builder, *sleeping(tmp_path, base))
    compare("buildx, four sleeps", pair.ours, "Docker Engine", pair.theirs, rounds=1, goal="1.0")


def test_nothing_changed(compare: Compare, engine: Engine, builder: Builder, base: Path, tmp_path: Path) -> None:
    pair = Pair(engine, builder, *sleeping(tmp_path, base))
    pair.ours()
    pair.theirs()
    compare("buildx, nothing changed", pair.ours, "Docker Engine", pair.theirs, rounds=9, goal="1.0")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A context of 50,000 files."""
    folder = tmp_path_factory.mktemp("files")
    for number in range(50_000):
        path = folder / f"{number % 250:03}/{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{number}\n" * 20)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    return folder


def test_context_of_50000_files(compare: Compare, engine: Engine, builder: Builder, files: Path) -> None:
    pair = Pair(engine, builder, files)
    compare("buildx, 50,000 files first", pair.ours, "Docker Engine", pair.theirs, rounds=1, goal="1.0")


def test_context_of_50000_files_again(compare: Compare, engine: Engine, builder: Builder, files: Path) -> None:
    pair = Pair(engine, builder, files)
    pair.ours()
    pair.theirs()
    compare("buildx, 50,000 files again", pair.ours, "Docker Engine", pair.theirs, rounds=3, goal="1.0")


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 copies, which are 2,000 vertices."""
    folder = tmp_path_factory.mktemp("links")
    (folder / "f").write_text("f\n")
    (folder / "Dockerfile").write_text("FROM scratch\n" + "".join(f"COPY --link f /f{n}\n" for n in range(1000)))
    return folder


def test_graph(compare: Compare, engine: Engine, builder: Builder, links: Path) -> None:
    pair = Pair(engine, builder, links)
    compare("buildx, 1,000 linked copies first", pair.ours, "Docker Engine", pair.theirs, rounds=1)


def test_graph_that_is_cached(compare: Compare, engine: Engine, builder: Builder, links: Path) -> None:
    pair = Pair(engine, builder, links)
    pair.ours()
    pair.theirs()
    compare("buildx, 1,000 linked copies again", pair.ours, "Docker Engine", pair.theirs, rounds=3, goal="2.0")


def test_cache_import(compare: Compare, engine: Engine, builder: Builder, registry: str, tmp_path: Path) -> None:
    """Of linked copies, which merge, the Docker Engine takes minutes to write the cache."""
    (tmp_path / "f").write_text("f\n")
    stages = "".join(f"FROM scratch AS s{n}\nCOPY f /f{n}\n" for n in range(50))
    copies = "".join(f"COPY --from=s{n} /f{n} /\n" for n in range(50))
    (tmp_path / "Dockerfile").write_text(f"{stages}FROM scratch\n{copies}")
    for name in (builder.name, "default"):
        to = f"type=registry,ref={registry}/cache:{name},mode=max"
        engine.buildx("build", "--builder", name, "--cache-to", to, tmp_path, timeout=600)

    def imported(name: str) -> None:
        engine.buildx("prune", "--builder", name, "--all", "--force", timeout=600)
        source = f"type=registry,ref={registry}/cache:{name}"
        output = ("--output", "type=cacheonly")
        engine.buildx("build", "--builder", name, "--cache-from", source, *output, tmp_path, timeout=600)

    compare(
        "buildx, import of a cache of 100 records",
        lambda: imported(builder.name),
        "Docker Engine",
        lambda: imported("default"),
        rounds=1,
        goal="1.0",
    )
