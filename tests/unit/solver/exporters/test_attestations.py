"""Attestations beside an image."""

import base64
import json
from typing import Any

import pytest

from brickyard.oci import descriptor as d
from brickyard.oci.platform import Platform
from brickyard.solver.base import Attestation, Exportable, Result, SolveError
from brickyard.solver.exporters import find
from brickyard.solver.exporters.statements import Subject, statements
from brickyard.wire.pb import gateway_pb2

CONFIG = json.dumps({"architecture": "amd64", "os": "linux"}).encode()
SLSA = "https://slsa.dev/provenance/v1"
SPDX = "https://spdx.dev/Document"


def provenance(inline_only: bool = False) -> Attestation:
    metadata = {"reason": b"provenance", "inline-only": b"true" if inline_only else b"false"}
    return Attestation("intoto", None, "provenance.json", SLSA, metadata=metadata, content=lambda: b'{"a": "<b>"}')


def exported(yard: Any, result: Exportable, **attrs: str) -> tuple[dict[str, str], Any]:
    """The answer, and the decoded root."""
    answer = find("image").export(result, "0", attrs, yard.context)
    return answer, json.loads(yard.context.content.read(answer["containerimage.digest"]))


def read(yard: Any, descriptor: dict[str, Any]) -> Any:
    return json.loads(yard.context.content.read(descriptor["digest"]))


def test_a_manifest_in_the_index(yard: Any) -> None:
    refs = {"": (Result(yard.snapshot({"a": b"1"})), CONFIG)}
    result = Exportable(refs, attestations={"": [provenance()]})
    answer, index = exported(yard, result, name="shop,host.example/x/y:2")
    assert "containerimage.config.digest" not in answer
    described = json.loads(base64.b64decode(answer["containerimage.descriptor"]))
    assert described["mediaType"] == d.OCI_INDEX
    image, attestation = index["manifests"]
    assert image["platform"] == {"architecture": "amd64", "os": "linux"}
    assert attestation["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert attestation["annotations"] == {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    manifest = read(yard, attestation)
    assert manifest["artifactType"] == "application/vnd.docker.attestation.manifest.v1+json"
    assert manifest["subject"] == {key: image[key] for key in ("mediaType", "digest", "size")}
    assert manifest["config"]["data"] == "e30="
    assert read(yard, manifest["config"]) == {}
    layer = manifest["layers"][0]
    assert (layer["mediaType"], layer["annotations"]) == (
        "application/vnd.in-toto+json",
        {"in-toto.io/predicate-type": SLSA},
    )
    digest = {"sha256": image["digest"].removeprefix("sha256:")}
    assert read(yard, layer) == {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": SLSA,
        "subject": [
            {"name": "pkg:docker/shop@latest?platform=linux%2Famd64", "digest": digest},
            {"name": "pkg:docker/host.example/x/y@2?platform=linux%2Famd64", "digest": digest},
        ],
        "predicate": {"a": "<b>"},
    }
    assert b"\\u003cb\\u003e" in yard.context.content.read(layer["digest"])


def test_without_artifacts(yard: Any) -> None:
    result = Exportable({"": (Result(None), CONFIG)}, attestations={"": [provenance()]})
    _, index = exported(yard, result, **{"oci-artifact": "false"})
    manifest = read(yard, index["manifests"][1])
    assert "subject" not in manifest
    assert manifest["config"]["mediaType"] == d.OCI_CONFIG
    config = read(yard, manifest["config"])
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    with pytest.raises(SolveError, match="oci-mediatypes=false"):
        exported(yard, result, **{"oci-mediatypes": "false"})


def test_several_platforms(yard: Any) -> None:
    arm = CONFIG.replace(b"amd64", b"arm64")
    platforms = [("linux/amd64", Platform("linux", "amd64")), ("linux/arm64", Platform("linux", "arm64"))]
    refs = {"linux/amd64": (Result(None), CONFIG), "linux/arm64": (Result(None), arm)}
    result = Exportable(refs, platforms=platforms, attestations={key: [provenance()] for key in refs})
    _, index = exported(yard, result)
    about = [entry.get("annotations", {}).get("vnd.docker.reference.digest") for entry in index["manifests"]]
    assert about == [None, None, index["manifests"][0]["digest"], index["manifests"][1]["digest"]]


def test_for_images_only(yard: Any) -> None:
    result = Exportable({"": (Result(None), CONFIG)}, attestations={"": [provenance(inline_only=True)]})
    _, root = exported(yard, result)
    assert "manifests" in root
    answer = find("oci").export(result, "1", {}, yard.context)
    assert "config" in json.loads(yard.context.content.read(answer["containerimage.digest"]))
    answer = find("oci").export(result, "1", {"attestation-inline": "true"}, yard.context)
    assert "manifests" in json.loads(yard.context.content.read(answer["containerimage.digest"]))


def test_an_archive_for_docker_names_the_image(yard: Any) -> None:
    import io
    import tarfile

    result = Exportable({"": (Result(yard.snapshot({"a": b"1"})), CONFIG)}, attestations={"": [provenance()]})
    find("docker").export(result, "0", {"name": "x"}, yard.context)
    with tarfile.open(fileobj=io.BytesIO(yard.client.files["0"])) as tar:
        listed = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert listed[0]["RepoTags"] == ["x:latest"]
        assert listed[0]["Config"] in tar.getnames()


def test_an_sbom(yard: Any) -> None:
    below = yard.snapshot({"bin/a": b"1", "bin/b": b"1"})
    top = yard.snapshot({"bin/b": b"2"}, below)
    document = {
        "files": [
            {"fileName": "/bin/a"},
            {"fileName": "bin/b"},
            {"fileName": "none"},
            {"fileName": "bin/a", "comment": "x"},
        ],
        "creationInfo": {"creators": ["Tool: scanner"]},
    }
    scan = yard.snapshot({"out/sbom.spdx.json": json.dumps(document).encode(), "out/extra.spdx.json": b"{}"})
    core = {"reason": b"sbom", "sbom-core": b"sbom"}
    entries = [
        Attestation("intoto", Result(scan), "/out/extra.spdx.json", SPDX, metadata=core),
        Attestation("intoto", Result(scan), "/out/sbom.spdx.json", SPDX, metadata=core),
    ]
    _, index = exported(yard, Exportable({"": (Result(top), CONFIG)}, attestations={"": entries}))
    layers = [layer["digest"] for layer in read(yard, index["manifests"][0])["layers"]]
    first, second = read(yard, index["manifests"][1])["layers"]
    predicate = read(yard, first)["predicate"]
    assert [file.get("comment") for file in predicate["files"]] == [
        f"layerID: {layers[0]}",
        f"layerID: {layers[1]}",
        None,
        "x",
    ]
    assert predicate["creationInfo"]["creators"] == ["Tool: scanner", "Tool: brickyard"]
    assert read(yard, second)["predicate"] == {}


def bundle(yard: Any, *documents: object, type: str = "") -> Attestation:
    files = {f"dir/{n}.json": json.dumps(document).encode() for n, document in enumerate(documents)}
    return Attestation("bundle", Result(yard.snapshot(files)), "dir", type)


def test_bundles(yard: Any) -> None:
    about = {"name": "thing", "digest": {"sha256": "ab"}}
    entries = [bundle(yard, {"predicateType": "a", "subject": [about], "predicate": 1}, {"predicateType": "b"})]
    found = list(statements(entries, [Subject("self", {"sha256": "cd"})], yard.context))
    assert [statement.path for statement in found] == ["dir/0.json", "dir/1.json"]
    assert json.loads(found[0].encode())["subject"] == [about]


def test_subjects(yard: Any) -> None:
    kinds = gateway_pb2.InTotoSubjectKind
    subjects = [
        gateway_pb2.InTotoSubject(kind=kinds.Self, name="also"),
        gateway_pb2.InTotoSubject(kind=kinds.Raw, name="raw", digest=["sha256:ab", "sha512:cd"]),
    ]
    files = yard.snapshot({"p.json": b"true"})
    entries = [Attestation("intoto", Result(files), "p.json", "type", subjects)]
    found = list(statements(entries, [Subject("self", {"sha256": "ef"})], yard.context))
    assert json.loads(found[0].encode())["subject"] == [
        {"name": "self", "digest": {"sha256": "ef"}},
        {"name": "also", "digest": {"sha256": "ef"}},
        {"name": "raw", "digest": {"sha256": "ab", "sha512": "cd"}},
    ]


def test_what_is_refused(yard: Any) -> None:
    files = Result(yard.snapshot({"x.json": b"not json", "dir/y": b"1"}))

    def refused(attestation: Attestation, message: str) -> None:
        result = Exportable({"": (Result(None), CONFIG)}, attestations={"": [attestation]})
        with pytest.raises(SolveError, match=message):
            find("image").export(result, "0", {}, yard.context)

    refused(Attestation("intoto", files, "x.json", SLSA), "may not set provenance")
    refused(Attestation("intoto", files, "x.json", "t"), "is no JSON")
    refused(Attestation("intoto", files, "none", "t"), "cannot read in-toto attestation 'none'")
    refused(Attestation("intoto", files, "dir", "t"), "dir is not a regular file")
    refused(Attestation("intoto", None, "x", "t"), "does not have available content")
    refused(Attestation("bundle", files, "none", ""), "cannot read the attestation bundle 'none'")
    refused(bundle(yard, {"predicateType": SLSA}), "may not bundle provenance")
    refused(bundle(yard, {"predicateType": "a"}, type="b"), "bundle entry a does not match required predicate type b")
    refused(bundle(yard, []), "cannot decode in-toto statement")


def test_links_lead_nowhere_else(yard: Any) -> None:
    store = yard.context.snapshots
    name = store.prepare(None)
    with store.mounted(name, readonly=False) as root:
        (root / "x.json").symlink_to("/etc/passwd")
    store.commit(name)
    with pytest.raises(SolveError, match=r"cannot read in-toto attestation 'x\.json'"):
        list(statements([Attestation("intoto", Result(name), "x.json", "t")], [], yard.context))
