"""Images of a layout that the client has."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from brickyard.llb.ops import SourceOp
from brickyard.oci.layout import read_archive
from brickyard.oci.platform import Platform
from brickyard.solver.base import Exportable, Result, SolveError
from brickyard.solver.exporters import find
from brickyard.solver.sources import oci_layout

AMD64 = Platform("linux", "amd64")
CONFIG = json.dumps({"architecture": "amd64", "os": "linux"}).encode()


@pytest.fixture
def image(yard: Any, tmp_path: Path) -> str:
    """The digest of an image of two layers in the client's layout `base`, which the solver does not know."""
    below = yard.snapshot({"etc/name": b"one", "etc/gone": b""})
    result = Exportable({"": (Result(yard.snapshot({"etc/name": b"two"}, below)), CONFIG)})
    answer = find("oci").export(result, "0", {}, yard.context)
    yard.client.layouts["base"] = read_archive(io.BytesIO(yard.client.files["0"]), tmp_path / "layout").path
    for digest in list(yard.context.content.digests()):
        yard.context.content.remove(digest)
    return answer["containerimage.digest"]


def op(digest: str, **attrs: str) -> SourceOp:
    names = {"oci.store": "base"} | {f"oci.{key}": value for key, value in attrs.items()}
    return SourceOp(f"oci-layout://base:latest@{digest}", names)


def test_layers_become_snapshots(yard: Any, image: str) -> None:
    result = oci_layout.snapshot(op(image), AMD64, yard.context)
    with yard.context.snapshots.mounted(result.snapshot) as root:
        assert (root / "etc/name").read_bytes() == b"two"
    assert len(yard.context.snapshots.chain(result.snapshot)) == 2
    names = [name for name, _, _ in yard.progress]
    assert any(name.startswith("extracting sha256:") for name in names)
    assert any(name.startswith("sha256:") for name in names)
    # A second time nothing is read or unpacked.
    yard.client.layouts.clear()
    assert oci_layout.snapshot(op(image), AMD64, yard.context) == result


def test_the_key_is_of_the_layers(yard: Any, image: str) -> None:
    key = oci_layout.cache_key(op(image), AMD64, yard.context)
    assert key.startswith("image:sha256:")
    assert oci_layout.cache_key(op(image, layerlimit="1"), AMD64, yard.context) != key
    limited = oci_layout.snapshot(op(image, layerlimit="1"), AMD64, yard.context)
    with yard.context.snapshots.mounted(limited.snapshot) as root:
        assert (root / "etc/name").read_bytes() == b"one"
    with pytest.raises(SolveError, match="the image has 2"):
        oci_layout.cache_key(op(image, layerlimit="3"), AMD64, yard.context)


def test_layers_are_exported_as_they_came(yard: Any, image: str) -> None:
    result = oci_layout.snapshot(op(image), AMD64, yard.context)
    answer = find("oci").export(Exportable({"": (result, CONFIG)}), "1", {"compression": "zstd"}, yard.context)
    manifest = json.loads(yard.context.content.read(answer["containerimage.digest"]))
    assert {layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"]} == {"gzip"}
    forced = {"compression": "zstd", "force-compression": "true"}
    answer = find("oci").export(Exportable({"": (result, CONFIG)}), "1", forced, yard.context)
    manifest = json.loads(yard.context.content.read(answer["containerimage.digest"]))
    assert {layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"]} == {"zstd"}


def test_the_config(yard: Any, image: str) -> None:
    reference = f"oci-layout://base@{image}"
    given, digest, config = oci_layout.resolve_config(reference, AMD64, yard.context)
    assert (given, digest) == (reference, image)
    assert json.loads(config)["architecture"] == "amd64"


def test_damage(yard: Any, image: str) -> None:
    layout = yard.client.layouts["base"]
    manifest = json.loads((layout / "blobs" / image.replace(":", "/")).read_bytes())
    layer = layout / "blobs" / manifest["layers"][1]["digest"].replace(":", "/")
    data = layer.read_bytes()
    layer.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(SolveError, match="does not match its digest"):
        oci_layout.snapshot(op(image), AMD64, yard.context)
    layer.unlink()
    with pytest.raises(SolveError, match="has no blob sha256"):
        oci_layout.snapshot(op(image), AMD64, yard.context)
    layer.write_bytes(data)
    assert oci_layout.snapshot(op(image), AMD64, yard.context).snapshot


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("oci-layout://base:latest", "has no digest"),
        ("oci-layout://base@sha256:12", "hexadecimal digits"),
        ("oci-layout://other@sha256:" + "0" * 64, "has no blob|offers no"),
    ],
)
def test_wrong_references(yard: Any, image: str, identifier: str, message: str) -> None:
    with pytest.raises(SolveError, match=message):
        oci_layout.cache_key(SourceOp(identifier, {}), AMD64, yard.context)
