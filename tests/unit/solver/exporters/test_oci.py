"""The exporters of image layouts."""

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

import pytest

from brickyard.oci.platform import Platform
from brickyard.solver.base import Exportable, Result, SolveError
from brickyard.solver.exporters import find

CONFIG = json.dumps(
    {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]}, "rootfs": {"type": "layers", "diff_ids": None}}
).encode()


def members(archive: bytes) -> dict[str, bytes]:
    """The files of an archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}  # type: ignore[union-attr]


def blob(files: Mapping[str, bytes], digest: str) -> bytes:
    data = files["blobs/" + digest.replace(":", "/")]
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
    return data


def document(files: Mapping[str, bytes], digest: str) -> Any:
    return json.loads(blob(files, digest))


def test_an_archive_is_a_layout(yard: Any) -> None:
    below = yard.snapshot({"etc/one": b"1"})
    result = Exportable({"": (Result(yard.snapshot({"etc/two": b"22"}, below)), CONFIG)})
    answer = find("oci").export(result, "0", {"name": "shop:1,docker.io/library/shop"}, yard.context)
    files = members(yard.client.files["0"])
    index = json.loads(files["index.json"])
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    assert [m["annotations"]["io.containerd.image.name"] for m in index["manifests"]] == [
        "docker.io/library/shop:1",
        "docker.io/library/shop:latest",
    ]
    assert [m["annotations"]["org.opencontainers.image.ref.name"] for m in index["manifests"]] == ["1", "latest"]
    assert {m["digest"] for m in index["manifests"]} == {answer["containerimage.digest"]}
    manifest = document(files, answer["containerimage.digest"])
    config = document(files, manifest["config"]["digest"])
    assert answer["containerimage.config.digest"] == manifest["config"]["digest"]
    assert config["config"] == {"Cmd": ["/x"]}
    assert len(manifest["layers"]) == len(config["rootfs"]["diff_ids"]) == len(config["history"]) == 2
    described = json.loads(base64.b64decode(answer["containerimage.descriptor"]))
    assert described["platform"] == {"architecture": "amd64", "os": "linux"}
    assert yard.client.metadata["0"]["image.name"] == "docker.io/library/shop:1,docker.io/library/shop:latest"
    assert "manifest.json" not in files


def test_the_second_export_is_the_same(yard: Any) -> None:
    result = Exportable({"": (Result(yard.snapshot({"a": b"1"})), CONFIG)})
    first = find("oci").export(result, "0", {}, yard.context)
    again = find("docker").export(result, "1", {"name": "x"}, yard.context)
    assert first["containerimage.digest"] == again["containerimage.digest"]
    listed = json.loads(members(yard.client.files["1"])["manifest.json"])
    assert listed[0]["RepoTags"] == ["x:latest"]
    assert set(members(yard.client.files["0"])) == {*members(yard.client.files["1"])} - {"manifest.json"}


def test_a_folder(yard: Any) -> None:
    result = Exportable({"": (Result(yard.snapshot({"a": b"1"})), CONFIG)})
    answer = find("oci").export(result, "0", {"tar": "false"}, yard.context)
    files = yard.client.folders["0"]
    assert json.loads(files["index.json"])["manifests"][0]["digest"] == answer["containerimage.digest"]
    assert document(files, answer["containerimage.digest"])["layers"]


def test_two_platforms_make_an_index(yard: Any) -> None:
    arm = CONFIG.replace(b"amd64", b"arm64")
    result = Exportable(
        {
            "linux/amd64": (Result(yard.snapshot({"a": b"1"})), CONFIG),
            "linux/arm64": (Result(yard.snapshot({"a": b"2"})), arm),
        },
        platforms=(("linux/arm64", Platform("linux", "arm64")), ("linux/amd64", Platform("linux", "amd64"))),
    )
    answer = find("oci").export(result, "0", {}, yard.context)
    files = members(yard.client.files["0"])
    index = document(files, answer["containerimage.digest"])
    assert [m["platform"]["architecture"] for m in index["manifests"]] == ["arm64", "amd64"]
    assert "containerimage.config.digest" not in answer
    with pytest.raises(SolveError, match="does not support several platforms"):
        find("docker").export(result, "0", {}, yard.context)


def test_a_client_without_a_destination(yard: Any) -> None:
    yard.client.takes_output = False
    with pytest.raises(SolveError, match="takes no archive"):
        find("oci").export(Exportable({"": (Result(None), CONFIG)}), "0", {}, yard.context)


def test_unknown_types_are_named() -> None:
    with pytest.raises(SolveError, match="unknown exporter 'zip'"):
        find("zip")
