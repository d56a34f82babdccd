"""Images that we export, in the hands of a real registry, skopeo and umoci; and images of a registry as sources."""

import io
import json
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from brickyard.llb.ops import SourceOp
from brickyard.oci.layout import read_archive
from brickyard.oci.platform import Platform
from brickyard.oci.registry import Registry
from brickyard.solver.base import Context, Exportable, Result, SolveError
from brickyard.solver.cache.store import CacheStore
from brickyard.solver.content.store import ContentStore
from brickyard.solver.executor.base import Executor
from brickyard.solver.exporters import find
from brickyard.solver.snapshots.leases import Leases
from brickyard.solver.snapshots.store import Snapshots
from brickyard.solver.sources import image as image_source

pytestmark = pytest.mark.real
AMD64 = Platform("linux", "amd64")
CONFIG = json.dumps(
    {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/hello"], "Env": ["A=<b>&c"]}}
).encode()


@dataclass
class Client:
    """A session that knows credentials and takes archives."""

    logins: dict[str, tuple[str, str]] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def credentials(self, host: str) -> tuple[str, str] | None:
        return self.logins.get(host)

    def output_file(self, exporter: str, metadata: Mapping[str, str]) -> Any:
        return self.files[exporter].open("wb")


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (tests/real/components.py install)")
    return found


def run(*words: str | Path) -> str:
    done = subprocess.run([program(str(words[0])), *words[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def context(tmp_path: Path, client: Client) -> Iterator[Context]:
    yield from opened(tmp_path / "state", client)


@pytest.fixture
def other(tmp_path: Path, client: Client) -> Iterator[Context]:
    """A second state folder that knows nothing of the first."""
    yield from opened(tmp_path / "other", client)


def opened(root: Path, client: Client) -> Iterator[Context]:
    snapshots, cache = Snapshots(root), CacheStore(root)

    def executor() -> Executor:
        raise AssertionError("nothing here runs a process")

    with Registry(client.credentials, retries=2) as registry:
        yield Context(
            root=root,
            session=client,  # type: ignore[arg-type]
            snapshots=snapshots,
            content=ContentStore(root),
            cache=cache,
            executor=executor,
            cancel=threading.Event(),
            leases=Leases(snapshots),
            registry=lambda: registry,
        )
    snapshots.close()
    cache.close()


def snapshot(context: Context, files: Mapping[str, bytes], parent: str | None = None) -> str:
    name = context.snapshots.prepare(parent)
    with context.snapshots.mounted(name, readonly=False) as root:
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
            (root / path).chmod(0o755)
    context.snapshots.commit(name)
    return name


def two_layers(context: Context) -> Exportable:
    below = snapshot(context, {"hello": b"#!/bin/sh\n", "etc/old": uuid.uuid4().bytes})
    top = context.snapshots.prepare(below)
    with context.snapshots.mounted(top, readonly=False) as root:
        (root / "etc/old").unlink()
        (root / "etc/new").symlink_to("/hello")
    context.snapshots.commit(top)
    return Exportable({"": (Result(top), CONFIG)})


def new(host: str, prefix: str = "images") -> str:
    return f"{host}/{prefix}/{uuid.uuid4().hex}:1"


def pull(reference: str, context: Context) -> Path:
    """The file system of an image, by its snapshot's mount."""
    op = SourceOp(f"docker-image://{reference}", {})
    key = image_source.cache_key(op, AMD64, context)
    assert key.startswith("image:sha256:")
    found = image_source.snapshot(op, AMD64, context)
    assert found.snapshot is not None
    with context.snapshots.mounted(found.snapshot) as root:
        assert (root / "hello").read_bytes() == b"#!/bin/sh\n"
        assert (root / "etc/new").readlink() == Path("/hello")
        assert not (root / "etc/old").exists()
    return root


def test_push_and_pull(registry: str, context: Context, other: Context) -> None:
    name = new(registry)
    answer = find("image").export(two_layers(context), "0", {"name": name, "push": "true"}, context)
    assert answer["image.name"] == name
    found = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{name}"))
    assert found["Digest"] == answer["containerimage.digest"]
    assert found["Env"] == ["A=<b>&c"]
    pull(name, other)
    pinned, digest, config = image_source.resolve_config(name, AMD64, "default", other)
    assert (pinned, digest) == (f"{name}@{digest}", answer["containerimage.digest"])
    assert json.loads(config)["config"]["Cmd"] == ["/hello"]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_compressions(registry: str, context: Context, other: Context, compression: str) -> None:
    name = new(registry)
    attrs = {"name": name, "push": "true", "compression": compression}
    find("image").export(two_layers(context), "0", attrs, context)
    pull(name, other)
    run("skopeo", "inspect", "--tls-verify=false", f"docker://{name}")


def test_layers_are_mounted_from_where_they_came(registry: str, context: Context, other: Context) -> None:
    first, second = new(registry), new(registry)
    find("image").export(two_layers(context), "0", {"name": first, "push": "true"}, context)
    result = image_source.snapshot(SourceOp(f"docker-image://{first}", {}), AMD64, other)
    for digest in list(other.content.digests()):
        # The blobs are not needed: the registry has them.
        if other.content.size(digest) < 1000:
            continue
        other.content.remove(digest)
    top = snapshot(other, {"more": b"more"}, result.snapshot)
    find("image").export(Exportable({"": (Result(top), CONFIG)}), "0", {"name": second, "push": "true"}, other)
    pull(second, context)


def test_basic_auth(registry_basic: Any, context: Context, other: Context, client: Client) -> None:
    name = new(registry_basic.host)
    with pytest.raises(SolveError, match="wants credentials"):
        find("image").export(two_layers(context), "0", {"name": name, "push": "true"}, context)
    client.logins[registry_basic.host] = (registry_basic.user, registry_basic.password)
    find("image").export(two_layers(context), "0", {"name": name, "push": "true"}, context)
    pull(name, other)


def test_bearer_tokens(registry_token: Any, context: Context, other: Context, client: Client) -> None:
    name = new(registry_token.host)
    client.logins[registry_token.host] = (registry_token.user, registry_token.password)
    find("image").export(two_layers(context), "0", {"name": name, "push": "true"}, context)
    pull(name, other)


def test_push_by_digest(registry: str, context: Context, other: Context) -> None:
    name = new(registry).rpartition(":")[0]
    attrs = {"name": name, "push": "true", "push-by-digest": "true"}
    answer = find("image").export(two_layers(context), "0", attrs, context)
    pull(f"{name}@{answer['containerimage.digest']}", other)
    with pytest.raises(SolveError, match="has no"):
        pull(name, other)


def test_several_platforms(registry: str, context: Context, other: Context) -> None:
    name = new(registry)
    result = two_layers(context)
    arm = snapshot(context, {"hello": b"arm"})
    platforms = [("linux/amd64", AMD64), ("linux/arm64", Platform("linux", "arm64"))]
    both = Exportable(
        {"linux/amd64": result.refs[""], "linux/arm64": (Result(arm), CONFIG.replace(b"amd64", b"arm64"))},
        platforms=platforms,
    )
    find("image").export(both, "0", {"name": name, "push": "true"}, context)
    pull(name, other)
    raw = json.loads(run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"))
    assert [m["platform"]["architecture"] for m in raw["manifests"]] == ["amd64", "arm64"]
    with pytest.raises(SolveError, match="no image for linux/s390x; there are: linux/amd64, linux/arm64"):
        image_source.cache_key(SourceOp(f"docker-image://{name}", {}), Platform("linux", "s390x"), other)


@pytest.mark.parametrize("types", ["true", "false"])
def test_skopeo_and_umoci_take_archives(context: Context, client: Client, tmp_path: Path, types: str) -> None:
    client.files = {"0": tmp_path / "oci.tar", "1": tmp_path / "docker.tar"}
    result = two_layers(context)
    answer = find("oci").export(result, "0", {"name": "shop:1", "oci-mediatypes": types}, context)
    find("docker").export(result, "1", {"name": "shop:1", "oci-mediatypes": types}, context)
    run("skopeo", "--insecure-policy", "copy", f"docker-archive:{client.files['1']}", f"dir:{tmp_path / 'dir'}")
    layout = read_archive(io.BytesIO(client.files["0"].read_bytes()), tmp_path / "layout")
    found = json.loads(run("skopeo", "inspect", f"oci:{layout.path}"))
    assert found["Digest"] == answer["containerimage.digest"]
    run("skopeo", "--insecure-policy", "copy", f"oci:{layout.path}", f"oci:{tmp_path / 'copy'}:x")
    run("umoci", "unpack", "--image", f"{tmp_path / 'copy'}:x", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/etc/new").readlink() == Path("/hello")
    assert not (tmp_path / "bundle/rootfs/etc/old").exists()
