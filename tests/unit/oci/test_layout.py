"""Image layouts on disk and in archives."""

import io
import json
import tarfile
import threading
from pathlib import Path

import pytest

from brickyard.oci import descriptor as d
from brickyard.oci import platform
from brickyard.oci.config import ConfigError
from brickyard.oci.digest import DigestMismatch, of_bytes
from brickyard.oci.layout import (
    IMAGE_NAME,
    DockerImage,
    Layout,
    LayoutError,
    read_archive,
    write_archive,
    write_docker_archive,
)
from brickyard.oci.reference import parse

AMD64, ARM64 = platform.parse("linux/amd64"), platform.parse("linux/arm64")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.create(tmp_path / "layout")


def image(layout: Layout, name: str, on: platform.Platform | None = None) -> d.Descriptor:
    config = layout.write_blob(json.dumps({"name": name}).encode(), d.OCI_CONFIG)
    data = d.Manifest(config, ()).encode()
    layout.write_blob(data, d.OCI_MANIFEST)
    return d.describe(data, d.OCI_MANIFEST, on)


def test_create_and_open(layout: Layout) -> None:
    assert json.loads((layout.path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert Layout.open(layout.path).index() == d.Index(())
    layout.add(image(layout, "a"), "tag")
    assert len(Layout.create(layout.path).index().manifests) == 1


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("oci-layout", None, "no file 'oci-layout'"),
        ("oci-layout", "nonsense", "Expecting value"),
        ("oci-layout", "[]", "version 1"),
        ("oci-layout", '{"imageLayoutVersion": "2.0"}', "version 1"),
        ("index.json", None, "no file 'index.json'"),
        ("index.json", "{}", "neither"),
        ("index.json", '{"config": 1}', "config"),
    ],
)
def test_broken_layouts(layout: Layout, name: str, content: str | None, reason: str) -> None:
    if content is None:
        (layout.path / name).unlink()
    else:
        (layout.path / name).write_text(content)
    with pytest.raises(LayoutError, match=reason):
        Layout.open(layout.path).index()


def test_a_manifest_is_no_index(layout: Layout) -> None:
    (layout.path / "index.json").write_bytes(d.Manifest(d.describe(b"", d.OCI_CONFIG), ()).encode())
    with pytest.raises(LayoutError, match="instead of an index"):
        layout.index()


def test_blobs_are_checked(layout: Layout) -> None:
    blob = layout.write_blob(io.BytesIO(b"x" * 3_000_000), "a/b")
    assert blob == d.Descriptor("a/b", of_bytes(b"x" * 3_000_000), 3_000_000)
    assert layout.has(blob.digest)
    assert layout.read_blob(blob) == b"x" * 3_000_000
    for size in (2_999_999, 3_000_001):
        with pytest.raises(DigestMismatch):
            layout.read_blob(d.Descriptor("a/b", blob.digest, size))
    layout.blob_path(blob.digest).write_bytes(b"y" * 3_000_000)
    with layout.open_blob(blob) as stream:
        assert stream.read(100_000) == b"y" * 100_000
        with pytest.raises(DigestMismatch):
            stream.read()
    with pytest.raises(LayoutError, match="no blob"):
        layout.read_blob(d.describe(b"other", "a/b"))


def test_wrong_blobs_are_not_written(layout: Layout) -> None:
    wrong = of_bytes(b"other")
    with pytest.raises(DigestMismatch):
        layout.write_blob(b"data", "a/b", wrong)
    assert not layout.has(wrong)
    assert [path.name for path in (layout.path / "blobs").rglob("*")] == ["sha256"]


def test_other_algorithms(layout: Layout) -> None:
    import hashlib

    digest = f"sha512:{hashlib.sha512(b'data').hexdigest()}"
    assert layout.read_blob(layout.write_blob(b"data", "a/b", digest)) == b"data"


def test_names(layout: Layout) -> None:
    first, second = image(layout, "1"), image(layout, "2")
    layout.add(first, "a")
    layout.add(first, "b")
    layout.add(second, "a")
    assert layout.resolve("a").digest == second.digest
    assert layout.resolve("b").digest == first.digest
    layout.add(first)
    assert len(layout.index().manifests) == 2
    with pytest.raises(LayoutError, match="no image 'c'; it has a, b"):
        layout.resolve("c")
    with pytest.raises(LayoutError, match="2 images"):
        layout.resolve()


def test_an_unnamed_image_gets_a_name(layout: Layout) -> None:
    layout.add(image(layout, "1"))
    assert layout.resolve() == image(layout, "1")
    layout.add(image(layout, "1"), "tag")
    assert len(layout.index().manifests) == 1


def test_full_names(layout: Layout) -> None:
    first, second = image(layout, "1"), image(layout, "2")
    for entry, name in ((first, "docker.io/library/a:1"), (second, "example.com/b:1")):
        annotations = {IMAGE_NAME: name}
        layout.add(d.Descriptor(entry.media_type, entry.digest, entry.size, annotations))
    layout.add(image(layout, "3"), "docker.io/library/c:latest")
    assert layout.resolve("a:1").digest == first.digest
    assert layout.resolve("example.com/b:1").digest == second.digest
    assert layout.resolve("c").digest == image(layout, "3").digest


def test_digests(layout: Layout) -> None:
    listed, unlisted = image(layout, "1", AMD64), image(layout, "2")
    layout.add(listed, "tag")
    assert layout.resolve(listed.digest).platform == AMD64
    assert layout.resolve(unlisted.digest) == unlisted
    with pytest.raises(LayoutError, match="no blob"):
        layout.resolve(of_bytes(b"other"))
    text = layout.write_blob(b"text", "a/b")
    with pytest.raises(LayoutError, match="no manifest"):
        layout.resolve(text.digest)


def test_platforms_through_nested_indexes(layout: Layout) -> None:
    entries = image(layout, "1", AMD64), image(layout, "2", ARM64)
    inner = layout.write_blob(d.Index(entries).encode(), d.OCI_INDEX)
    outer = layout.write_blob(d.Index((inner,)).encode(), d.OCI_INDEX)
    layout.add(outer, "tag")
    assert layout.resolve("tag") == d.retagged(outer, "tag")
    assert layout.resolve("tag", ARM64) == entries[1]
    assert layout.resolve("", AMD64) == entries[0]
    with pytest.raises(LayoutError, match="no manifest for linux/s390x"):
        layout.resolve("tag", platform.parse("linux/s390x"))


def test_several_platforms_under_one_name(layout: Layout) -> None:
    for number, on in enumerate((AMD64, ARM64)):
        entry = image(layout, str(number), on)
        index = layout.index()
        new = d.Index((*index.manifests, d.retagged(entry, "tag")))
        (layout.path / "index.json").write_bytes(new.encode())
    assert layout.resolve("tag", ARM64).platform == ARM64


def test_indexes_that_nest_for_ever(layout: Layout) -> None:
    entry = image(layout, "1", AMD64)
    for _ in range(12):
        entry = layout.write_blob(d.Index((entry,)).encode(), d.OCI_INDEX)
    layout.add(entry, "tag")
    with pytest.raises(LayoutError, match="no manifest"):
        layout.resolve("tag", AMD64)


def test_threads_lose_no_image(layout: Layout) -> None:
    def add(number: int) -> None:
        layout.add(image(layout, str(number)), f"t{number}")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(layout.index().manifests) == 16


# Archives


def archived(layout: Layout) -> bytes:
    out = io.BytesIO()
    index = layout.index()
    blobs = []
    for path in (layout.path / "blobs/sha256").iterdir():
        described = d.Descriptor("a/b", f"sha256:{path.name}", path.stat().st_size)
        blobs += [(described, lambda path=path: path.open("rb"))] * 2
    write_archive(out, index, reversed(blobs))
    return out.getvalue()


def test_an_archive_is_the_layout(layout: Layout, tmp_path: Path) -> None:
    layout.add(image(layout, "1", AMD64), "tag")
    data = archived(layout)
    assert data == archived(layout)
    other = read_archive(io.BytesIO(data), tmp_path / "new/other")
    assert other.index() == layout.index()
    assert other.resolve("tag", AMD64) == layout.resolve("tag", AMD64)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {member.mtime for member in tar.getmembers()} == {0}
        tar.extractall(tmp_path / "plain", filter="data")
    assert Layout.open(tmp_path / "plain").index() == layout.index()


def tar_of(**files: bytes) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


GOOD = {"./oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": d.Index(()).encode()}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "no index.json and no oci-layout"),
        ({"oci-layout": b"{}", "index.json": d.Index(()).encode()}, "version 1"),
        ({**GOOD, "index.json": b"{}"}, "neither"),
        ({**GOOD, f"blobs/{of_bytes(b'a').replace(':', '/')}": b"b"}, "does not match"),
        ({**GOOD, "blobs/sha256/../../../escape": b"x"}, "sha256 digest"),
        ({**GOOD, "blobs/sha256/" + "A" * 64: b"x"}, "sha256 digest"),
        ({**GOOD, "blobs/md5/" + "a" * 32: b"x"}, "unsupported"),
        ({"index.json": bytes(17 << 20)}, "too large"),
    ],
)
def test_broken_archives(tmp_path: Path, files: dict[str, bytes], reason: str) -> None:
    with pytest.raises(LayoutError, match=reason):
        read_archive(tar_of(**files), tmp_path / "x")
    assert not (tmp_path / "escape").exists()


def test_archives_of_other_things(tmp_path: Path) -> None:
    for data in (b"nonsense" * 100, b"\x1f\x8b\x08nonsense"):
        with pytest.raises(LayoutError):
            read_archive(io.BytesIO(data), tmp_path)
    with pytest.raises(LayoutError, match="limit"):
        read_archive(tar_of(x=bytes(100_000)), tmp_path, max_size=1000)


def test_files_of_other_kinds_are_left_out(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("blobs/sha256")
        link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
        tar.addfile(link)
        for name, data in GOOD.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    out.seek(0)
    read_archive(out, tmp_path / "x")
    assert not (tmp_path / "x/blobs/sha256").is_symlink()


def test_wrong_content_ends_an_archive() -> None:
    blob = d.describe(b"data", "a/b")
    for content in (b"dat", b"date", b"data!"):
        with pytest.raises(ValueError):
            write_archive(io.BytesIO(), d.Index(()), [(blob, lambda content=content: io.BytesIO(content))])


def docker_archive(*images: DockerImage) -> dict[str, bytes]:
    out = io.BytesIO()
    write_docker_archive(out, images)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}  # type: ignore[union-attr]


def docker_image(*names: str, layers: int = 2) -> DockerImage:
    data = [f"layer {number}".encode() for number in range(layers)]
    diffs = [of_bytes(layer) for layer in data]
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diffs}}
    described = [(d.describe(layer, d.DOCKER_LAYER), lambda layer=layer: io.BytesIO(layer)) for layer in data]
    return DockerImage(json.dumps(config).encode(), described, [parse(name) for name in names])


def test_docker_archives() -> None:
    files = docker_archive(docker_image("app", "example.com/app:2"), docker_image())
    first, second = json.loads(files["manifest.json"])
    assert first["RepoTags"] == ["app:latest", "example.com/app:2"]
    assert second["RepoTags"] is None
    assert [files[name] for name in first["Layers"]] == [b"layer 0", b"layer 1"]
    assert json.loads(files[first["Config"]])["os"] == "linux"
    top = of_bytes(b"layer 1").removeprefix("sha256:")
    assert json.loads(files["repositories"]) == {"app": {"latest": top}, "example.com/app": {"2": top}}
    index = d.decode(files["index.json"])
    assert isinstance(index, d.Index)
    assert [entry.annotations.get(IMAGE_NAME) for entry in index.manifests] == [
        "docker.io/library/app:latest",
        "example.com/app:2",
        None,
    ]


def test_docker_archives_keep_the_manifest() -> None:
    plain = docker_image("app")
    manifest = d.Manifest(d.describe(plain.config, d.OCI_CONFIG), tuple(layer for layer, _ in plain.layers)).encode()
    files = docker_archive(DockerImage(plain.config, plain.layers, plain.names, manifest))
    index = d.decode(files["index.json"])
    assert isinstance(index, d.Index)
    assert [entry.digest for entry in index.manifests] == [of_bytes(manifest)]


def test_docker_archives_without_layers_have_no_repositories() -> None:
    assert "repositories" not in docker_archive(docker_image("app", layers=0))


def test_broken_docker_images() -> None:
    plain = docker_image("app")
    with pytest.raises(LayoutError, match="2 layers, but there are 1"):
        docker_archive(DockerImage(plain.config, plain.layers[:1]))
    with pytest.raises(ConfigError):
        docker_archive(DockerImage(b"[]", ()))
