"""What real buildx gets out of a daemon of ours, in the hands of a Docker Engine, skopeo and a registry."""

import base64
import json
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import Builder, Daemon, connect, running_daemon
from engine import Engine
from services import program

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("engine")]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture(scope="module")
def builder(docker_engine: Engine, daemon: Daemon) -> Iterator[Builder]:
    made = connect(docker_engine, daemon, "exports")
    yield made
    docker_engine.buildx("rm", "exports")


@pytest.fixture
def context(tmp_path: Path, base_image: str) -> Path:
    """A context whose image says `hello` when it runs; its content is new each time."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "text").write_text(f"hello {uuid.uuid4()}\n")
    (folder / "Dockerfile").write_text(
        f"FROM {base_image}\n"
        "RUN --network=none mkdir /d && touch /d/a /d/b && chmod 4755 /d/a && ln /d/a /d/c\n"
        "RUN --network=none rm /d/b && ln -s a /d/l\n"
        'COPY text /d/text\nCMD ["cat", "/d/text"]\n'
    )
    return folder


def new(registry: str) -> str:
    return f"{registry}/exports/{uuid.uuid4().hex}:1"


def text(context: Path) -> str:
    return (context / "text").read_text()


def raw(builder: Builder, name: str) -> Any:
    return json.loads(builder.cli.buildx("imagetools", "inspect", "--raw", name).stdout)


def ran(engine: Engine, image: str) -> str:
    return engine.docker("run", "--rm", "--network=none", image).stdout


@pytest.mark.parametrize(
    "attrs",
    [
        "compression=gzip,compression-level=9",
        "compression=zstd,force-compression=true",
        "compression=uncompressed,force-compression=true",
        "oci-mediatypes=false",
    ],
)
def test_an_engine_runs_what_was_pushed(
    builder: Builder, docker_engine: Engine, context: Path, registry: str, attrs: str
) -> None:
    name = new(registry)
    builder.build(context, "-o", f"type=image,name={name},push=true,{attrs}", "--provenance=false")
    assert ran(docker_engine, name) == text(context)
    kind = "docker" if "oci-mediatypes" in attrs else "oci"
    manifest = raw(builder, name)
    assert f".{kind}." in manifest["mediaType"]
    if "force" in attrs:
        wanted = {"zstd": "+zstd", "uncompressed": ".tar"}[attrs.split("=")[1].split(",")[0]]
        assert all(layer["mediaType"].endswith(wanted) for layer in manifest["layers"])


def test_an_engine_runs_what_has_attestations(
    builder: Builder, docker_engine: Engine, context: Path, registry: str
) -> None:
    name = new(registry)
    builder.build(context, "-t", name, "--push", "--attest", "type=provenance,mode=max")
    assert ran(docker_engine, name) == text(context)
    found = json.loads(builder.cli.buildx("imagetools", "inspect", "--format", "{{json .Provenance}}", name).stdout)
    assert found["SLSA"]


def test_an_engine_loads(builder: Builder, docker_engine: Engine, context: Path, tmp_path: Path) -> None:
    builder.build(context, "-t", "exports-loaded:1", "--load")
    assert ran(docker_engine, "exports-loaded:1") == text(context)
    archive = tmp_path / "image.tar"
    builder.build(context, "-t", "exports-loaded:2", "-o", f"type=docker,dest={archive}")
    docker_engine.docker("load", "-i", archive)
    assert ran(docker_engine, "exports-loaded:2") == text(context)


def test_a_folder_with_a_layout(builder: Builder, context: Path, tmp_path: Path) -> None:
    layout, metadata = tmp_path / "layout", tmp_path / "metadata.json"
    builder.build(
        context,
        "-t",
        "x:1",
        "-o",
        f"type=oci,tar=false,dest={layout}",
        "--metadata-file",
        metadata,
        "--provenance=false",
    )
    command = [program("skopeo"), "inspect", f"oci:{layout}"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert found["Digest"] == json.loads(metadata.read_text())["containerimage.digest"]


def test_an_archive_of_files(builder: Builder, context: Path, tmp_path: Path) -> None:
    archive = tmp_path / "files.tar"
    builder.build(context, "-o", f"type=tar,dest={archive}")
    with tarfile.open(archive) as tar:
        assert tar.getmember("d/a").mode == 0o4755
        assert tar.getmember("d/c").linkname == "d/a"
        assert tar.getmember("d/l").linkname == "a"
        assert "d/b" not in tar.getnames()


def test_only_by_digest(builder: Builder, docker_engine: Engine, context: Path, registry: str, tmp_path: Path) -> None:
    name, metadata = new(registry).rpartition(":")[0], tmp_path / "metadata.json"
    output = f"type=image,name={name},push=true,push-by-digest=true,name-canonical=true"
    builder.build(context, "-o", output, "--metadata-file", metadata, "--provenance=false")
    digest = json.loads(metadata.read_text())["containerimage.digest"]
    assert ran(docker_engine, f"{name}@{digest}") == text(context)
    assert builder.cli.buildx("imagetools", "inspect", f"{name}:latest", check=False).returncode


def test_annotations(builder: Builder, context: Path, registry: str) -> None:
    name = new(registry)
    flags = ["--annotation", "a=1", "--annotation", "index:b=2", "--annotation", "manifest-descriptor:c=3"]
    builder.build(context, "-t", name, "--push", *flags)
    index = raw(builder, name)
    assert index["annotations"] == {"b": "2"}
    assert index["manifests"][0]["annotations"] == {"c": "3"}
    assert raw(builder, f"{name}@{index['manifests'][0]['digest']}")["annotations"] == {"a": "1"}


def test_a_registry_with_a_login(builder: Builder, context: Path, registry_basic: Any) -> None:
    name = new(registry_basic.host)
    failed = builder.build(context, "-t", name, "--push", check=False)
    assert failed.returncode
    assert f"failed to push {name}: {registry_basic.host} wants credentials" in failed.stderr
    auth = base64.b64encode(f"{registry_basic.user}:{registry_basic.password}".encode()).decode()
    config = builder.cli.config / "config.json"
    before = config.read_text()
    config.write_text(json.dumps({**json.loads(before), "auths": {registry_basic.host: {"auth": auth}}}))
    try:
        builder.build(context, "-t", name, "--push")
        (context / "Dockerfile").write_text(f"FROM {name}\nRUN --network=none cat /d/text\n")
        built = builder.build(context, "--progress=plain", "--no-cache")
        assert text(context).strip() in built.stderr
    finally:
        config.write_text(before)
    assert registry_basic.password not in (builder.daemon.folder / "log").read_text()


def test_a_registry_with_tokens(builder: Builder, context: Path, registry_token: Any) -> None:
    name = new(registry_token.host)
    auth = base64.b64encode(f"{registry_token.user}:{registry_token.password}".encode()).decode()
    config = builder.cli.config / "config.json"
    before = config.read_text()
    config.write_text(json.dumps({**json.loads(before), "auths": {registry_token.host: {"auth": auth}}}))
    try:
        builder.build(context, "-t", name, "--push")
        (context / "Dockerfile").write_text(f"FROM {name}\nRUN --network=none cat /d/text\n")
        assert text(context).strip() in builder.build(context, "--progress=plain", "--no-cache").stderr
    finally:
        config.write_text(before)


def test_what_is_refused(builder: Builder, context: Path) -> None:
    for attrs, message in (
        ("type=oci,dest=-,compression=estargz", "the compression estargz is not supported"),
        ("type=image,name=UPPER,push=true", "must be lower case"),
        ("type=image,name=x,compression-level=high", "must be a whole number"),
    ):
        failed = builder.build(context, "-o", attrs, check=False)
        assert failed.returncode
        assert message in failed.stderr


def test_the_digest_is_that_of_buildkit(
    builder: Builder, docker_engine: Engine, context: Path, tmp_path: Path, registry: str
) -> None:
    """Without a compressor in between, the same image to the last byte: layers, config and manifest."""
    found = {}
    for name in (builder.name, "default"):
        metadata = tmp_path / f"{name}.json"
        output = f"type=oci,dest={tmp_path}/{name}.tar,compression=uncompressed,force-compression=true"
        docker_engine.buildx(
            "build", "--builder", name, "-o", f"{output},rewrite-timestamp=true", "--provenance=false",
            "--metadata-file", metadata, context, env={"SOURCE_DATE_EPOCH": "1700000000"},
        )  # fmt: skip
        found[name] = json.loads(metadata.read_text())["containerimage.digest"]
    assert found[builder.name] == found["default"]
