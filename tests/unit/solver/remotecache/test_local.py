"""A cache in a client's folder: what the client gives is what its digest names, or it is not used."""

import json
from pathlib import Path
from typing import Any

import pytest

from brickyard.oci import descriptor as _d
from brickyard.oci.digest import of_bytes
from brickyard.oci.layout import Layout
from brickyard.solver.base import SolveError
from brickyard.solver.remotecache import find, local
from brickyard.solver.remotecache.config import MEDIA_TYPE
from brickyard.solver.remotecache.imported import RemoteCache, record_digest

TAR = bytes(1024)
"""An archive with nothing in it."""


@pytest.fixture
def folder(yard: Any, tmp_path: Path) -> Path:
    place = tmp_path / "cache"
    Layout.create(place)
    yard.client.layouts["local:cache"] = place
    return place


def put(folder: Path, data: bytes) -> str:
    digest = of_bytes(data)
    (folder / "blobs/sha256" / digest.partition(":")[2]).write_bytes(data)
    return digest


def cache(folder: Path, size: int = len(TAR)) -> str:
    """A cache with one result; gives its manifest's digest."""
    blob = put(folder, TAR)
    notes = {"mediaType": _d.OCI_LAYER, "diffID": blob, "size": size}
    config = {
        "layers": [{"blob": blob, "parent": -1, "annotations": notes}],
        "records": [{"digest": record_digest("key", 0, 1), "layers": [{"layer": 0}]}],
    }
    data = json.dumps(config).encode()
    put(folder, data)
    layers = (_d.Descriptor(_d.OCI_LAYER, blob, size),)
    return put(folder, _d.Manifest(config=_d.describe(data, MEDIA_TYPE), layers=layers).encode())


def load(yard: Any, digest: str) -> RemoteCache:
    return RemoteCache([local.load({"src": "cache", "digest": digest}, yard.context)])


def test_a_result_is_fetched(yard: Any, folder: Path) -> None:
    remote = load(yard, cache(folder))
    assert remote.has("key", 1)
    assert not remote.has("key", 2)
    ((snapshot, identity),) = remote.pull("key", 1, yard.context)
    assert yard.context.snapshots.exists(snapshot)
    assert identity == record_digest("key", 0, 1)


@pytest.mark.parametrize("damage", ["changed", "cut", "longer", "gone"])
def test_layers_that_are_not_what_their_digest_names(yard: Any, folder: Path, damage: str) -> None:
    remote = load(yard, cache(folder))
    digest = of_bytes(TAR)
    place = folder / "blobs/sha256" / digest.partition(":")[2]
    if damage == "gone":
        place.unlink()
    else:
        place.write_bytes({"changed": b"x" + TAR[1:], "cut": TAR[:512], "longer": TAR * 2}[damage])
    with pytest.raises(SolveError, match=digest):
        remote.pull("key", 1, yard.context)
    assert list(yard.context.content.digests()) == []


@pytest.mark.parametrize("size", [0, 1, 1 << 60])
def test_sizes_that_are_not_true(yard: Any, folder: Path, size: int) -> None:
    with pytest.raises(SolveError, match=of_bytes(TAR)):
        load(yard, cache(folder, size)).pull("key", 1, yard.context)


def test_manifests_and_configs_are_verified_too(yard: Any, folder: Path) -> None:
    digest = cache(folder)
    for path in sorted((folder / "blobs/sha256").iterdir()):
        whole = path.read_bytes()
        if whole == TAR:
            continue
        path.write_bytes(whole + b" ")
        with pytest.raises(SolveError, match=path.name):
            load(yard, digest)
        path.write_bytes(whole)
    assert load(yard, digest)


@pytest.mark.parametrize("digest", ["", "x", "sha256:../../etc/passwd"])
def test_digests_that_are_none(yard: Any, folder: Path, digest: str) -> None:
    with pytest.raises(SolveError):
        load(yard, digest)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("gha", "cache of type 'gha' is not supported by this solver"),
        ("s3", "cache of type 's3' is not supported by this solver"),
        ("azblob", "cache of type 'azblob' is not supported by this solver"),
        ("magic", "cache of type 'magic' is not known"),
    ],
)
def test_other_types_are_refused_by_name(kind: str, message: str) -> None:
    with pytest.raises(SolveError, match=f"{message}.*: inline, local, registry"):
        find(kind)
