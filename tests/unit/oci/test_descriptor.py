"""Manifests and indexes: what is read, what is refused, and the choice of a platform."""

import json
from typing import Any

import pytest

from brickyard.oci import descriptor as d
from brickyard.oci import platform
from brickyard.oci.config import ConfigError, chain_ids, decode_config, diff_ids, platform_of
from brickyard.oci.digest import DigestMismatch, InvalidDigest, Verifier, of_bytes, validate

SHA = of_bytes(b"")


def entry(name: str, number: int = 0) -> d.Descriptor:
    return d.Descriptor(d.OCI_MANIFEST, of_bytes(f"{name}{number}".encode()), 1, platform=platform.parse(name))


def test_manifest_round_trip() -> None:
    config = d.describe(b"{}", d.OCI_CONFIG)
    layer = d.Descriptor(d.OCI_LAYER_GZIP, SHA, 3, {"b": "2", "a": "<&>"}, urls=("https://example.com/x",), data=b"abc")
    manifest = d.Manifest(config, (layer,), {"k": "v"}, artifact_type="application/x", subject=config)
    assert d.decode(manifest.encode()) == manifest
    assert d.decode(manifest.encode(), d.OCI_MANIFEST) == manifest
    assert manifest.descriptor().digest == of_bytes(manifest.encode())


def test_index_round_trip() -> None:
    index = d.Index((entry("linux/amd64"), entry("linux/arm/v7"), entry("windows(10.0.1)/amd64")), {"k": "v"})
    assert d.decode(index.encode()) == index


def test_bytes_are_those_of_go() -> None:
    manifest = d.Manifest(d.Descriptor(d.OCI_CONFIG, SHA, 2), (), {"b": "<é&", "a": "1"})
    assert manifest.encode().decode() == (
        '{\n  "schemaVersion": 2,\n  "mediaType": "application/vnd.oci.image.manifest.v1+json",\n'
        '  "config": {\n    "mediaType": "application/vnd.oci.image.config.v1+json",\n'
        f'    "digest": "{SHA}",\n    "size": 2\n  }},\n  "layers": [],\n'
        '  "annotations": {\n    "a": "1",\n    "b": "\\u003cé\\u0026"\n  }\n}'
    )


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"config": None}, "manifest.config: expected an object"),
        ({"config": {"mediaType": d.OCI_CONFIG, "digest": "sha256:x", "size": 1}}, "manifest.config.digest"),
        ({"config": {"mediaType": d.OCI_CONFIG, "digest": SHA, "size": -1}}, "manifest.config.size"),
        ({"config": {"mediaType": d.OCI_CONFIG, "digest": SHA, "size": True}}, "manifest.config.size"),
        ({"config": {"mediaType": "x", "digest": SHA, "size": 1}}, "manifest.config.mediaType"),
        ({"layers": {}}, "manifest.layers"),
        ({"layers": [7]}, r"manifest.layers\[0\]"),
        ({"annotations": {"a": 1}}, "manifest.annotations"),
        ({"manifests": []}, "both a manifest"),
        ({"schemaVersion": 1}, "schema 1"),
        ({"mediaType": "text/plain"}, "neither"),
    ],
)
def test_broken_manifests(change: dict[str, Any], where: str) -> None:
    good = {"schemaVersion": 2, "mediaType": d.OCI_MANIFEST, "layers": []}
    good["config"] = {"mediaType": d.OCI_CONFIG, "digest": SHA, "size": 1}
    d.decode(json.dumps(good).encode())
    with pytest.raises(d.DescriptorError, match=where):
        d.decode(json.dumps({**good, **change}).encode())


def test_announced_type_must_agree() -> None:
    with pytest.raises(d.DescriptorError, match="contradicts"):
        d.decode(d.Index(()).encode(), d.OCI_MANIFEST)


@pytest.mark.parametrize("data", [b"", b"[]", b"nonsense", b"{}", b"[" * 100_000])
def test_no_manifest(data: bytes) -> None:
    with pytest.raises(d.DescriptorError):
        d.decode(data)


@pytest.mark.parametrize(
    ("have", "want", "chosen"),
    [
        (["linux/amd64", "linux/arm64"], "linux/arm64", "linux/arm64"),
        (["linux/amd64"], "linux/arm64", None),
        (["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v6", "linux/arm/v6"),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", "linux/arm/v6"),
        (["linux/arm/v7"], "linux/arm/v6", None),
        (["linux/arm/v7"], "linux/arm64", "linux/arm/v7"),
        (["linux/arm/v7", "linux/arm64"], "linux/arm64", "linux/arm64"),
        (["linux/amd64", "linux/amd64/v2", "linux/amd64/v3"], "linux/amd64/v2", "linux/amd64/v2"),
        (["linux/amd64", "linux/amd64/v3"], "linux/amd64/v2", "linux/amd64"),
        (["linux/amd64/v3"], "linux/amd64", None),
        (["windows/amd64"], "linux/amd64", None),
        (["linux/386"], "linux/amd64", None),
    ],
)
def test_choice(have: list[str], want: str, chosen: str | None) -> None:
    found = d.choose(d.Index(tuple(entry(name) for name in have)), platform.parse(want))
    assert found == (entry(chosen) if chosen else None)


def test_first_of_equals_is_chosen() -> None:
    index = d.Index((entry("linux/amd64", 1), entry("linux/amd64", 2)))
    assert d.choose(index, platform.parse("linux/amd64")) == index.manifests[0]


def test_an_entry_without_a_platform_is_the_last_resort() -> None:
    bare = d.Descriptor(d.OCI_MANIFEST, SHA, 1)
    assert d.choose(d.Index((bare,)), platform.parse("linux/amd64")) == bare
    assert d.choose(d.Index((bare, entry("linux/amd64"))), platform.parse("linux/amd64")) == entry("linux/amd64")


def test_config() -> None:
    config = decode_config(
        json.dumps(
            {
                "os": "linux",
                "architecture": "arm",
                "variant": "v7",
                "rootfs": {"type": "layers", "diff_ids": [SHA, SHA]},
            }
        ).encode()
    )
    assert str(platform_of(config)) == "linux/arm/v7"
    assert diff_ids(config) == (SHA, SHA)
    assert chain_ids((SHA, SHA)) == (SHA, of_bytes(f"{SHA} {SHA}".encode()))
    assert chain_ids(()) == ()


@pytest.mark.parametrize(
    "value",
    [[], {"os": 1}, {"config": []}, {"config": {"Env": "A=1"}}, {"config": {"Cmd": [1]}}, {"rootfs": "x"}],
)
def test_broken_configs(value: object) -> None:
    with pytest.raises(ConfigError):
        decode_config(json.dumps(value).encode())


@pytest.mark.parametrize("value", [{"diff_ids": [1]}, {"diff_ids": ["sha256:x"]}, {"diff_ids": "x"}])
def test_broken_diff_ids(value: object) -> None:
    with pytest.raises(ConfigError, match="diff_ids"):
        diff_ids({"rootfs": value})


@pytest.mark.parametrize(
    "text", ["", "sha256", "sha256:", "sha1:" + "a" * 40, "sha256:" + "a" * 65, SHA + "\n", "a/../b:c"]
)
def test_no_digests(text: str) -> None:
    with pytest.raises(InvalidDigest):
        validate(text)


def test_verifier() -> None:
    ok = Verifier(of_bytes(b"abc"), 3)
    ok.update(b"ab")
    ok.update(b"c")
    ok.finish()
    with pytest.raises(DigestMismatch, match="more than"):
        Verifier(SHA, 0).update(b"x")
    with pytest.raises(DigestMismatch, match="instead of"):
        Verifier(SHA, 1).finish()
    wrong = Verifier(SHA)
    wrong.update(b"x")
    with pytest.raises(DigestMismatch) as caught:
        wrong.finish()
    assert (caught.value.expected, caught.value.actual) == (SHA, of_bytes(b"x"))


def test_layers_of_other_images() -> None:
    toc = {"containerd.io/snapshot/stargz/toc.digest": "x"}
    foreign = d.Descriptor(
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "sha256:" + "1" * 64,
        5,
        {**toc, "other": "y"},
        urls=("https://example.com/layer",),
    )
    assert d.as_layer(foreign) == d.Descriptor(d.DOCKER_LAYER_GZIP, foreign.digest, 5, toc)
    plain = d.Descriptor(d.OCI_LAYER_ZSTD, foreign.digest, 5)
    assert d.as_layer(plain) == plain
