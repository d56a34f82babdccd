"""The registry client against Debian's docker-registry, with skopeo on the other side."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from brickyard.oci import descriptor as d
from brickyard.oci.config import decode_config, diff_ids, platform_of
from brickyard.oci.layer import Compression, LayerPacker, LayerWriter, apply_layer, of_trees, pack
from brickyard.oci.layout import DockerImage, Layout, read_archive, write_archive, write_docker_archive
from brickyard.oci.platform import Platform
from brickyard.oci.reference import Reference, parse
from brickyard.oci.registry import (
    ContentMismatch,
    Denied,
    HostOptions,
    NotFound,
    Registry,
    RegistryError,
    Unauthorized,
    Unreachable,
)

pytestmark = pytest.mark.real
AMD64 = Platform("linux", "amd64")


class Image:
    """A small image of two layers."""

    def __init__(
        self, folder: Path, platform: Platform = AMD64, kinds: Sequence[Compression] = ("gzip", "zstd")
    ) -> None:
        files = folder / uuid.uuid4().hex
        (files / "etc").mkdir(parents=True)
        (files / "etc/name").write_text(f"image {files.name} for {platform}")
        (files / "etc/blob").write_bytes(os.urandom(300_000))
        (files / "etc/link").symlink_to("name")
        self.blobs: dict[str, bytes] = {}
        layers, diffs = [], []
        for kind, paths in zip(kinds, (["etc", "etc/name", "etc/blob"], ["etc/link"]), strict=True):
            out = io.BytesIO()
            writer = LayerWriter(out, kind)
            packer = LayerPacker(writer, bytes(files), timestamp=1)
            for path in paths:
                packer.add(path.encode(), (files / path).lstat())
            packer.close()
            blob = writer.close()
            self.blobs[blob.digest] = out.getvalue()
            layers.append(blob.descriptor())
            diffs.append(blob.diff_id)
        self.config_data = json.dumps(
            {
                "os": platform.os,
                "architecture": platform.architecture,
                "config": {"Cmd": ["/bin/sh"], "Labels": {"of": "brickyard"}},
                "rootfs": {"type": "layers", "diff_ids": diffs},
            }
        ).encode()
        self.config = d.describe(self.config_data, d.OCI_CONFIG)
        self.blobs[self.config.digest] = self.config_data
        self.manifest = d.Manifest(self.config, tuple(layers))
        self.descriptor = self.manifest.descriptor(platform)
        self.files = files

    def push(self, client: Registry, ref: Reference) -> d.Descriptor:
        for blob in (*self.manifest.layers, self.manifest.config):
            client.push_blob(ref, blob, lambda blob=blob: io.BytesIO(self.blobs[blob.digest]))
        return client.push_manifest(ref, self.manifest.encode(), self.manifest.media_type)


def pull(client: Registry, ref: Reference, root: Path) -> dict[str, Any]:
    """Unpack the image of a reference below `root`, and give its config."""
    _, data = client.manifest(ref)
    manifest = d.decode(data)
    if isinstance(manifest, d.Index):
        chosen = d.choose(manifest, AMD64)
        assert chosen is not None
        return pull(client, ref.with_digest(chosen.digest), root)
    config = decode_config(client.read_blob(ref, manifest.config))
    root.mkdir()
    for layer, diff in zip(manifest.layers, diff_ids(config), strict=True):
        content = io.BytesIO(b"".join(client.blob(ref, layer)))
        assert apply_layer(content, root, overlay=False, owner=False).diff_id == diff
    return config


def skopeo(*words: str | Path) -> str:
    program = shutil.which("skopeo")
    if program is None:
        pytest.skip("skopeo is not installed (tests/real/components.py install)")
    done = subprocess.run([program, "--insecure-policy", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def new(host: str, prefix: str = "test") -> Reference:
    return parse(f"{host}/{prefix}/{uuid.uuid4().hex}:1")


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_skopeo_reads_what_we_push(registry: str, tmp_path: Path) -> None:
    ref, image = new(registry), Image(tmp_path)
    with Registry() as client:
        pushed = image.push(client, ref)
        assert client.resolve(ref) == pushed
        assert client.manifest(ref) == (pushed, image.manifest.encode())
        assert client.tags(ref) == ["1"]
    found = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{ref}"))
    assert (found["Digest"], found["Labels"]) == (pushed.digest, {"of": "brickyard"})
    skopeo("copy", "--src-tls-verify=false", f"docker://{ref}", f"oci:{tmp_path / 'copy'}:x")
    copy = Layout.open(tmp_path / "copy")
    assert copy.resolve("x").digest == pushed.digest
    assert copy.read_blob(image.manifest.layers[0]) == image.blobs[image.manifest.layers[0].digest]


def test_we_read_what_skopeo_pushes(registry: str, tmp_path: Path) -> None:
    # Docker's own manifests know no zstd.
    image, ref = Image(tmp_path, kinds=("gzip", "uncompressed")), new(registry)
    layout = Layout.create(tmp_path / "layout")
    for blob in (*image.manifest.layers, image.config):
        layout.write_blob(image.blobs[blob.digest], blob.media_type, blob.digest)
    layout.add(layout.write_blob(image.manifest.encode(), image.manifest.media_type), "tag")
    skopeo("copy", "--dest-tls-verify=false", "--format=v2s2", f"oci:{layout.path}:tag", f"docker://{ref}")
    with Registry() as client:
        assert client.resolve(ref).media_type == d.DOCKER_MANIFEST
        config = pull(client, ref, tmp_path / "root")
    assert platform_of(config) == AMD64
    assert (tmp_path / "root/etc/blob").read_bytes() == (image.files / "etc/blob").read_bytes()
    assert os.readlink(tmp_path / "root/etc/link") == "name"


def test_an_index_of_two_platforms(registry: str, tmp_path: Path) -> None:
    ref = new(registry)
    images = [Image(tmp_path, Platform("linux", name)) for name in ("arm64", "amd64")]
    with Registry() as client:
        for image in images:
            image.push(client, ref.with_digest(image.descriptor.digest).with_tag("part"))
        index = d.Index(tuple(image.descriptor for image in images))
        client.push_manifest(ref, index.encode(), index.media_type)
        assert client.resolve(ref).media_type == d.OCI_INDEX
        pull(client, ref, tmp_path / "root")
    assert (tmp_path / "root/etc/name").read_text().endswith("linux/amd64")
    raw = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{ref}"))
    assert [entry["platform"]["architecture"] for entry in raw["manifests"]] == ["arm64", "amd64"]


def test_blobs_are_not_sent_twice(registry: str) -> None:
    data, first, second = os.urandom(100_000), new(registry), new(registry)
    blob = d.describe(data, d.OCI_LAYER)
    progress: list[int] = []
    with Registry() as client:
        assert not client.has_blob(first, blob.digest)
        assert client.push_blob(first, blob, lambda: io.BytesIO(data), progress=progress.append) == "uploaded"
        assert progress[-1] == len(data)
        assert client.has_blob(first, blob.digest)
        assert client.push_blob(first, blob, lambda: pytest.fail("sent again")) == "exists"
        refs = [new(registry), first]
        assert client.push_blob(second, blob, lambda: pytest.fail("not mounted"), mount_from=refs) == "mounted"
        assert b"".join(client.blob(second, blob)) == data


@pytest.mark.parametrize("size", [0, 1, 700_000])
def test_uploads_in_pieces(registry: str, size: int) -> None:
    data, ref = os.urandom(size), new(registry)
    blob = d.describe(data, d.OCI_LAYER)
    with Registry() as client:
        assert client.push_blob(ref, blob, lambda: io.BytesIO(data), chunk_size=250_000) == "uploaded"
        assert client.read_blob(ref, blob) == data
        more = [os.urandom(3_000_000) for _ in range(3)]
        found = client.push_stream(ref, iter(more), d.OCI_LAYER)
        assert found == d.describe(b"".join(more), d.OCI_LAYER)
        assert client.has_blob(ref, found.digest)


def test_wrong_content_is_refused(registry: str) -> None:
    ref, data = new(registry), b"content"
    lie = d.Descriptor(d.OCI_LAYER, sha(b"other"), len(data))
    with Registry() as client:
        for chunk_size in (0, 3):
            with pytest.raises(ContentMismatch):
                client.push_blob(ref, lie, lambda: io.BytesIO(data), chunk_size=chunk_size)
        assert not client.has_blob(ref, lie.digest)
        client.push_blob(ref, d.describe(data, d.OCI_LAYER), lambda: io.BytesIO(data))
        for size in (3, 100):
            with pytest.raises(ContentMismatch, match="bytes"):
                list(client.blob(ref, d.Descriptor(d.OCI_LAYER, sha(data), size)))


def test_what_is_not_there(registry: str) -> None:
    ref = new(registry)
    with Registry() as client:
        for ask in (client.resolve, client.manifest, client.tags):
            with pytest.raises(NotFound, match=ref.path):
                ask(ref)
        with pytest.raises(NotFound):
            list(client.blob(ref, d.describe(b"none", d.OCI_LAYER)))
        manifest = d.Manifest(d.describe(b"none", d.OCI_CONFIG), ())
        with pytest.raises(RegistryError, match="blob"):
            client.push_manifest(ref, manifest.encode(), d.OCI_MANIFEST)


def test_many_tags(registry: str, tmp_path: Path) -> None:
    ref, image = new(registry), Image(tmp_path)
    names = [f"t{number:03}" for number in range(120)]
    with Registry() as client:
        for name in names:
            image.push(client, ref.with_tag(name))
        assert sorted(client.tags(ref)) == names


def test_basic(registry_basic: Any, tmp_path: Path) -> None:
    login, ref, image = registry_basic, new(registry_basic.host), Image(tmp_path)
    with Registry() as client, pytest.raises(Unauthorized, match=f"docker login {login.host}"):
        client.resolve(ref)
    with Registry(lambda _: (login.user, "mortar")) as client, pytest.raises(Unauthorized) as caught:
        image.push(client, ref)
    assert "mortar" not in str(caught.value)
    with Registry({login.host: (login.user, login.password)}.get) as client:
        pushed = image.push(client, ref)
        assert client.resolve(ref) == pushed
    credentials = f"--creds={login.user}:{login.password}"
    found = json.loads(skopeo("inspect", "--tls-verify=false", credentials, f"docker://{ref}"))
    assert found["Digest"] == pushed.digest


@pytest.mark.parametrize("identity", [False, True])
def test_tokens(registry_token: Any, tmp_path: Path, identity: bool) -> None:
    login, ref, image = registry_token, new(registry_token.host, "private"), Image(tmp_path)
    secret = ("<token>", login.identity) if identity else (login.user, login.password)
    login.requests.clear()
    with Registry({login.host: secret}.get) as client:
        pushed = image.push(client, ref)
        assert client.resolve(ref) == pushed
        pull(client, ref, tmp_path / "root")
        other = new(login.host, "private")
        layer = image.manifest.layers[0]
        assert client.push_blob(other, layer, lambda: pytest.fail("not mounted"), mount_from=[ref]) == "mounted"
    method = "POST" if identity else "GET"
    # One token for each set of rights, however many requests.
    assert login.requests[:2] == [f"{method} repository:{ref.path}:pull,push", f"{method} repository:{ref.path}:pull"]
    assert len(login.requests) == 4
    if not identity:
        credentials = f"--creds={login.user}:{login.password}"
        found = json.loads(skopeo("inspect", "--tls-verify=false", credentials, f"docker://{ref}"))
        assert found["Digest"] == pushed.digest


def test_tokens_refused(registry_token: Any, tmp_path: Path) -> None:
    login, image = registry_token, Image(tmp_path)
    public, private = new(login.host, "public"), new(login.host, "private")
    with Registry({login.host: (login.user, login.password)}.get) as client:
        image.push(client, public)
        image.push(client, private)
    with Registry() as client:
        assert client.resolve(public).digest == image.descriptor.digest
        with pytest.raises((Unauthorized, Denied), match="docker login"):
            client.resolve(private)
        with pytest.raises((Unauthorized, Denied)):
            image.push(client, public)
    for secret in ((login.user, "nonsense"), ("", "nonsense")):
        with Registry({login.host: secret}.get) as client:
            with pytest.raises(Unauthorized, match="refused the credentials") as caught:
                client.resolve(private)
            assert "nonsense" not in str(caught.value)


def test_mirrors(registry: str, registry_basic: Any, tmp_path: Path) -> None:
    name, image = f"test/{uuid.uuid4().hex}", Image(tmp_path)
    with Registry() as client:
        image.push(client, parse(f"{registry}/mirror/{name}:1"))
    down = "127.0.0.1:9"
    hosts = {"example.com": HostOptions(mirrors=(down, f"{registry}/mirror"))}
    with Registry(hosts=hosts, retries=0) as client:
        ref = parse(f"example.com/{name}:1")
        assert client.resolve(ref).digest == image.descriptor.digest
        pull(client, ref, tmp_path / "root")


def test_nobody_there() -> None:
    with Registry(retries=1) as client, pytest.raises(Unreachable, match="cannot reach the registry 127"):
        client.resolve(parse("127.0.0.1:9/app"))


def test_no_tls_there(registry: str) -> None:
    hosts = {registry: HostOptions(plain_http=False)}
    with Registry(hosts=hosts) as client, pytest.raises(Unreachable, match="does not speak TLS"):
        client.resolve(new(registry))


def test_tls(registry_tls: tuple[str, Path]) -> None:
    host, certificate = registry_tls
    ref, data = new(host), b"secret"
    blob = d.describe(data, d.OCI_LAYER)
    with (
        Registry(hosts={host: HostOptions(plain_http=False)}) as client,
        pytest.raises(Unreachable, match="certificate is not trusted"),
    ):
        client.has_blob(ref, blob.digest)
    for options in (HostOptions(False, ca=(certificate,)), HostOptions(False, skip_verify=True)):
        with Registry(hosts={host: options}) as client:
            client.push_blob(ref, blob, lambda: io.BytesIO(data))
            assert client.read_blob(ref, blob) == data


def archive_of(image: Image) -> Iterable[tuple[d.Descriptor, Any]]:
    for blob in (*image.manifest.layers, image.config):
        yield blob, lambda blob=blob: io.BytesIO(image.blobs[blob.digest])
    yield image.descriptor, lambda: io.BytesIO(image.manifest.encode())


def test_skopeo_reads_our_archives(tmp_path: Path) -> None:
    image, name = Image(tmp_path), parse("example.com/app:1")
    with (tmp_path / "oci.tar").open("wb") as out:
        write_archive(out, d.Index((d.retagged(image.descriptor, "1"),)), archive_of(image))
    found = json.loads(skopeo("inspect", f"oci-archive:{tmp_path / 'oci.tar'}:1"))
    assert found["Digest"] == image.descriptor.digest
    layers = [(blob, lambda blob=blob: io.BytesIO(image.blobs[blob.digest])) for blob in image.manifest.layers]
    with (tmp_path / "docker.tar").open("wb") as out:
        write_docker_archive(out, [DockerImage(image.config_data, layers, [name])])
    found = json.loads(skopeo("inspect", f"docker-archive:{tmp_path / 'docker.tar'}:{name}"))
    assert found["Labels"] == {"of": "brickyard"}
    skopeo("copy", f"docker-archive:{tmp_path / 'docker.tar'}:{name}", f"dir:{tmp_path / 'dir'}")


def test_we_read_archives_of_skopeo(tmp_path: Path) -> None:
    image = Image(tmp_path)
    with (tmp_path / "ours.tar").open("wb") as out:
        write_archive(out, d.Index((d.retagged(image.descriptor, "1"),)), archive_of(image))
    skopeo("copy", f"oci-archive:{tmp_path / 'ours.tar'}:1", f"oci-archive:{tmp_path / 'theirs.tar'}:2")
    with (tmp_path / "theirs.tar").open("rb") as stream:
        layout = read_archive(stream, tmp_path / "layout")
    assert layout.resolve("2", AMD64).digest == image.descriptor.digest


def test_umoci_unpacks_our_layers(tmp_path: Path) -> None:
    program = shutil.which("umoci")
    if program is None:
        pytest.skip("umoci is not installed (tests/real/components.py install)")
    files = tmp_path / "files"
    (files / "d/gone").mkdir(parents=True)
    (files / "d/long").mkdir()
    deep = files / "d/long" / ("é" * 100)
    deep.write_text("data")
    os.link(deep, files / "d/hard")
    layout = Layout.create(tmp_path / "layout")
    layers, diffs = [], []
    changed = tmp_path / "changed"
    shutil.copytree(files, changed)
    (changed / "d/gone").rmdir()
    shutil.rmtree(changed / "d/long")
    (changed / "d/long").mkdir()
    for before, now in ((None, files), (bytes(files), changed)):
        out = io.BytesIO()
        writer = LayerWriter(out, "gzip")
        pack(of_trees(before, bytes(now)), LayerPacker(writer, bytes(now)))
        blob = writer.close()
        layers.append(layout.write_blob(out.getvalue(), blob.descriptor().media_type, blob.digest))
        diffs.append(blob.diff_id)
    config = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": {"type": "layers", "diff_ids": diffs}}
    manifest = d.Manifest(layout.write_blob(json.dumps(config).encode(), d.OCI_CONFIG), tuple(layers))
    layout.add(layout.write_blob(manifest.encode(), d.OCI_MANIFEST), "tag")
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    command: list[str | Path] = [
        program,
        "raw",
        "unpack",
        *rootless,
        "--image",
        f"{layout.path}:tag",
        tmp_path / "theirs",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = tmp_path / "ours"
    ours.mkdir()
    for layer in layers:
        with layout.open_blob(layer) as stream:
            apply_layer(stream, ours, overlay=False, owner=os.geteuid() == 0)

    def tree(root: Path) -> list[tuple[str, int, int]]:
        return [(str(p.relative_to(root)), p.lstat().st_mode, p.lstat().st_nlink) for p in sorted(root.rglob("*"))]

    assert tree(ours) == tree(tmp_path / "theirs")
    assert not (ours / "d/gone").exists()
    assert (ours / "d/hard").read_text() == "data"
