"""A large layer to an OCI archive: real buildx in front of a daemon of ours and of a Docker Engine's BuildKit."""

import os
import random
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Builder, connect, running_daemon
from engine import Engine, running_engine
from figures import Compare

MIB = 1 << 20
GOALS = {"gzip": "1.0", "zstd": "1.0"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[Builder]:
    with running_daemon(tmp_path_factory.mktemp("daemon")) as daemon:
        yield connect(engine, daemon)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A context of 256 MiB that can't be compressed and 768 MiB of text."""
    folder = tmp_path_factory.mktemp("context")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY data /\n")
    (folder / "data").mkdir()
    with (folder / "data/noise").open("wb") as file:
        for _ in range(256):
            file.write(os.urandom(MIB))
    chosen = random.Random(0)
    words = ["".join(chosen.choices(string.ascii_lowercase, k=chosen.randint(2, 9))) for _ in range(5000)]
    with (folder / "data/text").open("wb") as file:
        for _ in range(96):
            piece = " ".join(chosen.choices(words, k=200_000)).encode()[:MIB]
            for turn in range(8):
                file.write(piece[turn * 1000 :] + piece[: turn * 1000])
    return folder


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_layer_of_1_gib(
    compare: Compare, builder: Builder, engine: Engine, context: Path, tmp_path: Path, compression: str
) -> None:
    # A layer that neither of them has written yet.
    (context / "data/which").write_text(compression)

    def export(name: str, output: str) -> None:
        engine.buildx("build", "--builder", name, "--provenance=false", "-o", output, context, timeout=600)

    for name in (builder.name, "default"):
        export(name, "type=cacheonly")
    output = f"type=oci,dest={tmp_path}/image.tar,compression={compression},force-compression=true"
    compare(
        f"export of a layer of 1 GiB, {compression}",
        lambda: export(builder.name, output),
        "Docker Engine",
        lambda: export("default", output),
        rounds=1,
        goal=GOALS[compression],
    )
