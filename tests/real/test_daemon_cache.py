"""Caches that builders hand to one another: of each type, between daemons of ours, and with BuildKit."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Builder, connect, running_daemon
from engine import Cli, Engine

pytestmark = pytest.mark.real

TEXT = """
FROM {base} AS one
RUN --network=none echo one > /one && cat /one
FROM {base} AS two
COPY a.txt /a.txt
RUN --network=none cat /a.txt > /two
FROM scratch
COPY --from=one /one /
COPY --from=two /two /
"""


@pytest.fixture
def context(tmp_path: Path, base_image: str) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "a.txt").write_text("a\n")
    (folder / "Dockerfile").write_text(TEXT.format(base=base_image))
    return folder


@pytest.fixture
def daemons(buildx: Cli, tmp_path: Path) -> Iterator[tuple[Builder, Builder]]:
    with running_daemon(tmp_path / "first") as first, running_daemon(tmp_path / "second") as second:
        yield connect(buildx, first, "first"), connect(buildx, second, "second")


def cached(said: str) -> set[str]:
    """The numbered steps that a plain progress shows as cached."""
    names: dict[str, str] = {}
    found = set()
    for line in said.splitlines():
        number, _, rest = line.partition(" ")
        if rest.startswith("["):
            names[number] = rest
        if rest == "CACHED":
            found.add(names.get(number, number))
    return {name for name in found if "FROM" not in name}


@pytest.mark.parametrize("kind", ["registry", "local", "inline"])
def test_what_one_daemon_exports_another_imports(
    kind: str, daemons: tuple[Builder, Builder], context: Path, registry: str, tmp_path: Path
) -> None:
    name = f"{registry}/cache/{kind}:1"
    to, source = {
        "registry": (f"type=registry,ref={name},mode=max", f"type=registry,ref={name}"),
        "local": (f"type=local,dest={tmp_path}/cache,mode=max", f"type=local,src={tmp_path}/cache"),
        "inline": ("type=inline", f"type=registry,ref={name}"),
    }[kind]
    first, second = daemons
    output = ("--push", "-t", name) if kind == "inline" else ()
    first.build(context, "--cache-to", to, "--provenance=false", *output)
    said = second.build(context, "--cache-from", source, "--progress", "plain").stderr
    steps = cached(said)
    # An inline cache has what the image itself is made of.
    wanted = {"COPY --from=one /one /", "COPY --from=two /two /"}
    if kind != "inline":
        wanted |= {"RUN --network=none echo one > /one && cat /one", "RUN --network=none cat /a.txt > /two"}
    missing = {want for want in wanted if not any(step.endswith(want) for step in steps)}
    assert not missing, said
    first.buildx("prune", "--all", "--force")
    again = first.build(context, "--cache-from", source, "--progress", "plain").stderr
    assert {want for want in wanted if any(step.endswith(want) for step in cached(again))} == wanted


def test_a_cache_that_is_not_there_is_a_miss(daemons: tuple[Builder, Builder], context: Path, registry: str) -> None:
    first, _ = daemons
    said = first.build(context, "--cache-from", f"type=registry,ref={registry}/cache/none:1").stderr
    assert "Traceback" not in said


@pytest.mark.xdist_group("engine")
def test_buildkits_caches_and_ours_do_no_harm_to_the_other(
    docker_engine: Engine, context: Path, registry: str, tmp_path: Path
) -> None:
    """Each reads what the other wrote; where its keys are none of its own, that is a miss and no error."""
    with running_daemon(tmp_path / "d") as daemon:
        ours = connect(docker_engine, daemon, "caches")
        theirs = f"type=registry,ref={registry}/cache/theirs:1"
        docker_engine.buildx("build", "--builder", "default", context, "--cache-to", f"{theirs},mode=max")
        said = ours.build(context, "--cache-from", theirs, "--progress", "plain").stderr
        assert "importing cache manifest" in said
        assert "ERROR" not in said
        own = f"type=registry,ref={registry}/cache/ours:1"
        ours.build(context, "--cache-to", f"{own},mode=max")
        docker_engine.buildx("prune", "--builder", "default", "--all", "--force")
        said = docker_engine.buildx(
            "build", "--builder", "default", context, "--cache-from", own, "--progress", "plain"
        ).stderr
        assert "importing cache manifest" in said
        assert "ERROR" not in said
        docker_engine.buildx("rm", "caches")
