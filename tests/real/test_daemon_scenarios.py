"""Real buildx on a daemon of ours, next to the BuildKit of a Docker Engine: the same images, the same words.

The scenarios are those of the frontend image; here all of the solver is ours.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemons import Builder, connect, running_daemon
from engine import Engine
from ociarchive import images
from scenarios import CALLS, FAILURES, SAME, Failure, Scenario
from test_frontend_image import Built, World, git_server, http_server, ssh_agent, vertices, without_definition, world

__all__ = ["git_server", "http_server", "ssh_agent", "world"]

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("engine")]

EPOCH = "1700000000"


@pytest.fixture(scope="module")
def builder(docker_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    flags = ("--allow-insecure-entitlement", "network.host", "--allow-insecure-entitlement", "security.insecure")
    with running_daemon(tmp_path_factory.mktemp("daemon"), *flags) as daemon:
        made = connect(docker_engine, daemon, "scenarios")
        yield made
        docker_engine.buildx("rm", "scenarios")


Build = Callable[..., Built]


@pytest.fixture
def build(world: World, builder: Builder, tmp_path: Path) -> Build:
    """Build a scenario with our daemon or with the Engine."""

    def call(scenario: Scenario, *more: str | Path, ours: bool, output: bool = True) -> Built:
        context = tmp_path / "context"
        text = world.filled(scenario.dockerfile, context)
        if not context.exists():
            for name, content in {"Dockerfile": text, **scenario.files}.items():
                (context / name).parent.mkdir(parents=True, exist_ok=True)
                (context / name).write_bytes(content.encode())
                os.utime(context / name, (1_700_000_000, 1_700_000_000))
        flags: list[str | Path] = [world.filled(flag, context) for flag in scenario.flags]
        if "-f" in flags:
            flags[flags.index("-f") + 1] = context / flags[flags.index("-f") + 1]
        if "--network" not in flags and output:
            flags += ["--network", "none"]
        metadata = tmp_path / "metadata.json"
        metadata.unlink(missing_ok=True)
        if output:
            flags += ["-o", f"type=oci,dest={tmp_path}/image.tar,rewrite-timestamp=true", "--metadata-file", metadata]
            flags += ["--provenance=false", "--progress", "rawjson"]
        done = world.engine.buildx(
            "build", "--builder", builder.name if ours else "default", *flags, *more,
            "-" if scenario.stdin else context,
            env={"SOURCE_DATE_EPOCH": EPOCH, "SSH_AUTH_SOCK": world.places["AGENT"], **scenario.env},
            stdin=text.encode() if scenario.stdin else None,
            check=False,
        )  # fmt: skip
        digest = json.loads(metadata.read_text())["containerimage.digest"] if metadata.exists() else ""
        return Built(done.returncode, digest, *vertices(done.stderr if output else ""), done.stdout, done.stderr)

    return call


@pytest.mark.parametrize("scenario", SAME, ids=[scenario.name for scenario in SAME])
def test_the_same_image(scenario: Scenario, build: Build, tmp_path: Path) -> None:
    """The same config and the same entries in the same layers; only the compressor differs."""
    theirs = build(scenario, ours=False)
    assert theirs.code == 0, theirs.err[-3000:]
    expected = images(tmp_path / "image.tar")
    ours = build(scenario, ours=True)
    assert ours.code == 0, ours.err[-3000:]
    assert sorted(ours.steps().values()) == sorted(theirs.steps().values())
    assert images(tmp_path / "image.tar") == expected
    again = build(scenario, ours=True)
    assert again.digest == ours.digest
    steps = again.steps()
    assert {name for digest, name in steps.items() if digest in again.cached} == set(steps.values())


@pytest.mark.parametrize("scenario", CALLS, ids=[scenario.name for scenario in CALLS])
def test_calls_say_the_same(scenario: Scenario, build: Build) -> None:
    ours, theirs = build(scenario, ours=True, output=False), build(scenario, ours=False, output=False)
    assert without_definition(ours.out) == without_definition(theirs.out)
    assert ours.code == theirs.code


@pytest.mark.parametrize("failure", FAILURES, ids=[failure.scenario.name for failure in FAILURES])
def test_failures_say_what_and_where(failure: Failure, build: Build) -> None:
    theirs, ours = build(failure.scenario, ours=False), build(failure.scenario, ours=True)
    assert (ours.code, theirs.code) == (1, 1)
    assert failure.says in ours.err
    assert "Traceback" not in ours.err
    if failure.line is not None:
        assert re.search(rf"^\s*{failure.line} \| >>> ", ours.err, re.MULTILINE), ours.err[-3000:]
