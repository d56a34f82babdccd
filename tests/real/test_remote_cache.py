"""What one builder exports as cache another one finds: every step is cached, for buildx and for the command, and no
cache, however wrong, keeps a build from being made."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from daemons import Builder, Daemon, connect, running_daemon
from engine import Cli
from services import program

from brickyard.oci.digest import of_bytes

pytestmark = pytest.mark.real

TEXT = """
FROM {base} AS one
RUN --network=none echo one > /one && cat /one
FROM {base} AS two
WORKDIR /work
COPY a.txt deep ./
RUN --network=none cat a.txt b.txt > /two
FROM scratch
COPY --from=one /one /
COPY --from=two /two /
COPY --link a.txt /linked
"""


@dataclass(frozen=True)
class Said:
    """What a build told of its vertices, and all its words."""

    text: str
    code: int
    vertices: Mapping[str, dict[str, Any]]

    def steps(self) -> dict[str, bool]:
        """The steps of the Dockerfile that were begun: whether each was cached."""
        found = {one["name"]: bool(one.get("cached")) for one in self.vertices.values() if one.get("started")}
        words = ("] RUN", "] COPY", "] WORKDIR")
        return {name: cached for name, cached in found.items() if any(word in name for word in words)}

    def error(self, name: str) -> str:
        """The error of the vertex with this in its name."""
        return " ".join(one.get("error", "") for one in self.vertices.values() if name in one["name"])

    def all_cached(self) -> bool:
        """Whether there are steps, and not one was run."""
        return bool(self.steps()) and all(self.steps().values())


def said(done: "subprocess.CompletedProcess[str]", check: bool) -> Said:
    """Read `--progress rawjson`."""
    vertices: dict[str, dict[str, Any]] = {}
    for line in done.stderr.splitlines():
        if line.startswith("{"):
            for vertex in json.loads(line).get("vertexes") or ():
                vertices.setdefault(vertex["digest"], {}).update(vertex)
    assert not check or done.returncode == 0, done.stderr[-5000:]
    assert "Traceback" not in done.stderr
    return Said(done.stderr, done.returncode, vertices)


@dataclass(frozen=True)
class Buildx:
    """buildx with a daemon of ours."""

    builder: Builder

    def build(self, *args: str | Path, check: bool = True) -> Said:
        done = self.builder.build("--progress", "rawjson", "--provenance=false", *args, check=False)
        return said(done, check)

    def prune(self) -> None:
        self.builder.buildx("prune", "--all", "--force")


@dataclass(frozen=True)
class Command:
    """`brickyard build` with a state folder of its own."""

    root: Path

    def run(self, *args: str | Path) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "brickyard", *args]
        env = {**os.environ, "BRICKYARD_ROOT": os.fspath(self.root)}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)

    def build(self, *args: str | Path, check: bool = True) -> Said:
        return said(self.run("build", "--progress", "rawjson", *args), check)

    def prune(self) -> None:
        assert self.run("prune", "--all", "--force").returncode == 0


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Daemon]]:
    folder = tmp_path_factory.mktemp("daemons")
    with running_daemon(folder / "first") as first, running_daemon(folder / "second") as second:
        yield first, second


@pytest.fixture
def first(buildx: Cli, daemons: tuple[Daemon, Daemon]) -> Buildx:
    return Buildx(connect(buildx, daemons[0], "first"))


@pytest.fixture
def second(buildx: Cli, daemons: tuple[Daemon, Daemon]) -> Buildx:
    return Buildx(connect(buildx, daemons[1], "second"))


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path / "root")


@pytest.fixture
def context(tmp_path: Path, base_image: str, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / "context"
    (folder / "deep").mkdir(parents=True)
    # No other test has built these files.
    (folder / "a.txt").write_text(f"{request.node.name}\n")
    (folder / "deep/b.txt").write_text("b\n")
    (folder / "Dockerfile").write_text(TEXT.format(base=base_image))
    return folder


def touch(context: Path) -> None:
    """Other times, the same content."""
    for path in [context, *context.rglob("*")]:
        os.utime(path, (1_500_000_000, 1_500_000_000))


def raw(reference: str) -> Any:
    """The manifest or index under a reference."""
    shown = subprocess.run(
        [program("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{reference}"],
        capture_output=True, check=True,
    )  # fmt: skip
    return json.loads(shown.stdout)


FORMS = {
    "max": ("mode=max", "vnd.oci.image.manifest", "tar+gzip"),
    "min": ("mode=min", "vnd.oci.image.manifest", "tar+gzip"),
    "index": ("mode=max,image-manifest=false", "vnd.oci.image.index", "tar+gzip"),
    "docker": ("mode=max,image-manifest=false,oci-mediatypes=false", "manifest.list", "diff.tar.gzip"),
    "zstd": ("mode=max,compression=zstd,force-compression=true", "vnd.oci.image.manifest", "tar+zstd"),
    "uncompressed": ("mode=max,compression=uncompressed,force-compression=true", "vnd.oci.image.manifest", ".tar"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_in_a_registry(form: str, first: Buildx, second: Buildx, context: Path, registry: str) -> None:
    attrs, kind, layers = FORMS[form]
    name = f"{registry}/forms/{form}:1"
    first.build(context, "--cache-to", f"type=registry,ref={name},{attrs}")
    written = raw(name)
    assert kind in written["mediaType"]
    entries = written.get("layers") or written["manifests"][:-1]
    assert {entry["mediaType"].endswith(layers) for entry in entries} == {True}
    touch(context)
    second.prune()
    found = second.build(context, "--cache-from", f"type=registry,ref={name}")
    assert found.all_cached(), found.steps()
    # Of the result alone there are its own three layers; of all, those of the steps on the way, too.
    assert (len(entries) == 3) is (form == "min")
    if form == "max":
        first.prune()
        assert first.build(context, "--cache-from", f"type=registry,ref={name}").all_cached()


@pytest.mark.parametrize("attrs", ["mode=max", "mode=min", "mode=max,image-manifest=false,compression=zstd"])
def test_every_form_in_a_folder(attrs: str, first: Buildx, second: Buildx, context: Path, tmp_path: Path) -> None:
    first.build(context, "--cache-to", f"type=local,dest={tmp_path}/cache,{attrs}")
    touch(context)
    second.prune()
    assert second.build(context, "--cache-from", f"type=local,src={tmp_path}/cache").all_cached()


def test_inline_in_an_image_that_is_pushed(first: Buildx, second: Buildx, context: Path, registry: str) -> None:
    name = f"{registry}/forms/inline:1"
    first.build(context, "--cache-to", "type=inline", "--push", "-t", name)
    touch(context)
    second.prune()
    assert second.build(context, "--cache-from", name).all_cached()


def test_what_changed_is_made_and_the_rest_is_found(
    first: Buildx, second: Buildx, context: Path, registry: str
) -> None:
    name = f"{registry}/forms/changed:1"
    first.build(context, "--cache-to", f"type=registry,ref={name},mode=max")
    (context / "deep/b.txt").write_text("another\n")
    second.prune()
    steps = second.build(context, "--cache-from", f"type=registry,ref={name}").steps()
    ran = {step.partition("] ")[2] for step, cached in steps.items() if not cached}
    assert "RUN --network=none cat a.txt b.txt > /two" in ran
    assert "COPY a.txt deep ./" in ran
    assert not any("echo one" in step for step in ran)
    assert not any("WORKDIR" in step for step in ran)


def test_the_command_and_the_daemon_share_a_cache(
    first: Buildx, command: Command, context: Path, registry: str, tmp_path: Path
) -> None:
    name = f"{registry}/forms/shared:1"
    first.build(context, "--cache-to", f"type=registry,ref={name},mode=max")
    touch(context)
    assert command.build("--cache-from", name, context).all_cached()
    command.prune()
    command.build("--cache-to", f"type=local,dest={tmp_path}/cache,mode=max,compression=zstd", context)
    command.prune()
    out = tmp_path / "out"
    found = command.build("--cache-from", f"type=local,src={tmp_path}/cache", "-o", f"type=local,dest={out}", context)
    assert found.all_cached(), found.steps()
    assert (out / "two").read_text() == (context / "a.txt").read_text() + "b\n"
    first.prune()
    assert first.build(context, "--cache-from", f"type=local,src={tmp_path}/cache").all_cached()


def test_no_cache_there_is_a_warning(second: Buildx, command: Command, context: Path, registry: str) -> None:
    name = f"{registry}/forms/none:1"
    found = second.build(context, "--cache-from", f"type=registry,ref={name}")
    assert found.error(f"importing cache manifest from {name}"), found.text
    # An image without a cache is no error.
    name = f"{registry}/base:latest"
    found = second.build(context, "--cache-from", f"type=registry,ref={name}")
    assert not found.error("importing cache manifest")
    command.build("--cache-from", f"{registry}/forms/none:1", "--cache-from", "type=local,src=/none", context)


def test_types_that_are_not_there_are_named(command: Command, context: Path) -> None:
    for kind in ("gha", "s3", "azblob"):
        for flag in ("--cache-to", "--cache-from"):
            refused = command.build(flag, f"type={kind},url=x", context, check=False)
            assert refused.code == 2
            assert f"cache of type '{kind}' is not supported" in refused.text


def test_an_export_that_fails_may_be_ignored(first: Buildx, context: Path, tmp_path: Path) -> None:
    to = "type=registry,ref=127.0.0.1:1/nobody/there:1"
    failed = first.build(context, "--cache-to", to, check=False)
    assert failed.code == 1
    assert "failed to push the cache to 127.0.0.1:1/nobody/there:1" in failed.text
    out = tmp_path / "out"
    first.build(context, "--cache-to", f"{to},ignore-error=true", "-o", f"type=local,dest={out}")
    assert (out / "one").exists()


def rewritten(folder: Path, change: Any) -> None:
    """Change the config of a cache in a folder; manifest and index name the new one."""
    index = json.loads((folder / "index.json").read_text())
    blobs = folder / "blobs/sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())

    def put(data: bytes) -> dict[str, Any]:
        digest = of_bytes(data)
        (blobs / digest[7:]).write_bytes(data)
        return {"digest": digest, "size": len(data)}

    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
    changed = change(config)
    manifest["config"].update(put(changed if isinstance(changed, bytes) else json.dumps(config).encode()))
    index["manifests"][0].update(put(json.dumps(manifest).encode()))
    (folder / "index.json").write_text(json.dumps(index))


def swap(config: dict[str, Any]) -> None:
    """Every result is that of another key, whose layers are not there."""
    for layer in config["layers"]:
        layer["annotations"]["diffID"] = of_bytes(b"none")


HOSTILE = {
    "noise": lambda config: b"\xff\x00",
    "infinite": lambda config: [layer["annotations"].update(size=float("inf")) for layer in config["layers"]],
    "blobs": lambda config: [layer.update(blob=of_bytes(b"gone")) for layer in config["layers"]],
    "other-algorithm": lambda config: [layer.update(blob="sha512:" + "0" * 128) for layer in config["layers"]],
    "diff-ids": swap,
    "large": lambda config: json.dumps(config | {"x": "y" * (40 << 20)}).encode(),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, base_image: str) -> tuple[Path, Path]:
    """A context, and a cache of it in a folder."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "context/deep").mkdir(parents=True)
    (folder / "context/a.txt").write_text("a\n")
    (folder / "context/deep/b.txt").write_text("b\n")
    (folder / "context/Dockerfile").write_text(TEXT.format(base=base_image))
    Command(folder / "root").build("--cache-to", f"type=local,dest={folder}/cache,mode=max", folder / "context")
    return folder / "context", folder / "cache"


@pytest.mark.parametrize("kind", [*HOSTILE, "damaged-blobs", "missing-blobs"])
def test_a_hostile_cache_breaks_no_build(
    kind: str,
    second: Buildx,
    daemons: tuple[Daemon, Daemon],
    exported: tuple[Path, Path],
    tmp_path: Path,
    registry: str,
) -> None:
    context, whole = exported
    folder = tmp_path / "cache"
    subprocess.run(["cp", "-r", whole, folder], check=True)
    if kind in HOSTILE:
        rewritten(folder, HOSTILE[kind])
    else:
        kept = {entry["digest"] for entry in json.loads((folder / "index.json").read_text())["manifests"]}
        for path in (folder / "blobs/sha256").iterdir():
            if path.read_bytes()[:2] != b"\x1f\x8b" or f"sha256:{path.name}" in kept:
                continue
            if kind == "missing-blobs":
                path.unlink()
            else:
                path.write_bytes(path.read_bytes()[:-1] + b"!")
    second.prune()
    out = tmp_path / "out"
    found = second.build(context, "--cache-from", f"type=local,src={folder}", "-o", f"type=local,dest={out}")
    assert not any(found.steps().values())
    assert (out / "two").read_text() == "a\nb\n"
    assert "Traceback" not in daemons[1].log
