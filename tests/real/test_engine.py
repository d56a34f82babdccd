"""The Docker Engine that other tests run against is a real one: it builds from the offline base, and pushes."""

import json
import subprocess
from pathlib import Path

import pytest
from engine import Cli, Engine

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("engine")]

DOCKERFILE = """\
FROM base AS build
RUN --network=none echo built > /built.txt
FROM scratch
COPY --from=build /built.txt /
"""


def test_engine_and_buildx_are_the_ones_that_the_facts_are_about(docker_engine: Engine) -> None:
    version = json.loads(docker_engine.docker("version", "--format", "{{json .Server}}").stdout)
    assert int(version["Version"].split(".")[0]) >= 28
    assert "github.com/docker/buildx" in docker_engine.buildx("version").stdout
    assert "docker" in docker_engine.buildx("inspect", "default").stdout


def test_build_from_an_oci_layout(docker_engine: Engine, base_layout: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    metadata = tmp_path / "metadata.json"
    docker_engine.buildx(
        "build", "--build-context", f"base=oci-layout://{base_layout}:latest", "--metadata-file", metadata,
        "--provenance=false", "-o", f"type=local,dest={tmp_path}/out", tmp_path,
    )  # fmt: skip
    assert (tmp_path / "out/built.txt").read_text() == "built\n"


def test_build_from_the_registry_and_push(
    docker_engine: Engine, registry: str, base_image: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.replace("FROM base", f"FROM {base_image}"))
    metadata = tmp_path / "metadata.json"
    docker_engine.buildx(
        "build",
        "--push",
        "-t",
        f"{registry}/engine:latest",
        "--metadata-file",
        metadata,
        "--provenance=false",
        tmp_path,
    )
    digest = json.loads(metadata.read_text())["containerimage.digest"]
    inspected = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{registry}/engine:latest"],
        capture_output=True,
        check=True,
    )
    assert json.loads(inspected.stdout)["Digest"] == digest


def test_buildx_alone_takes_a_remote_builder(buildx: Cli, tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/none.sock"
    buildx.buildx("create", "--name", "elsewhere", "--driver", "remote", address)
    instance = json.loads((buildx.config / "buildx/instances/elsewhere").read_text())
    assert instance["Driver"] == "remote"
    assert [node["Endpoint"] for node in instance["Nodes"]] == [address]
