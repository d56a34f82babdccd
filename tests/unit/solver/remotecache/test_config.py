"""Cache configs: what is written is read again, and no document does more harm than to be no cache."""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.oci import descriptor as _d
from brickyard.oci.digest import of_bytes
from brickyard.solver.base import SolveError
from brickyard.solver.layers import Layer
from brickyard.solver.remotecache import config as configs
from brickyard.solver.remotecache.config import CacheLayer, CacheRecord, ConfigBuilder, decode
from brickyard.solver.remotecache.imported import RemoteCache
from brickyard.solver.remotecache.manifest import INLINE, read

A, B, C = (of_bytes(name) for name in (b"a", b"b", b"c"))
KEY = of_bytes(b"key")


def layer(digest: str, size: int = 1) -> Layer:
    return Layer(_d.Descriptor(_d.OCI_LAYER_GZIP, digest, size), digest)


def entry(blob: str = A, **more: Any) -> dict[str, Any]:
    notes = {"mediaType": _d.OCI_LAYER, "diffID": blob, "size": 1}
    return {"blob": blob, "parent": -1, "annotations": notes, **more}


def document(layers: object, records: object) -> bytes:
    return json.dumps({"layers": layers, "records": records}).encode()


def test_chains_that_share_layers() -> None:
    builder = ConfigBuilder()
    builder.add([KEY], [layer(A)])
    builder.add([B, KEY], [layer(A), layer(B)])
    builder.add([C], [layer(B)])
    made = builder.build()
    assert [(one.blob, one.parent) for one in made.layers] == [(A, -1), (B, 0), (B, -1)]
    assert decode(made.encode("2026-01-01T00:00:00Z"), "here") == made
    assert {record.digest: record.chains for record in made.records} == {KEY: ((0,), (0, 1)), B: ((0, 1),), C: ((2,),)}


def test_layers_that_are_not_stacked_on_their_parents() -> None:
    data = document([entry(A), entry(B)], [{"digest": KEY, "chains": [{"layers": [1, 0]}, {"layers": []}]}])
    assert decode(data, "here").records == (CacheRecord(KEY, ((1, 0),)),)


def test_what_the_config_lacks_is_in_the_manifest() -> None:
    known = _d.Descriptor(_d.OCI_LAYER_ZSTD, A, 7, {"containerd.io/uncompressed": B})
    found = decode(document([{"blob": A, "parent": -1}], None), "here", {A: known})
    assert found.layers == (CacheLayer(A, -1, _d.OCI_LAYER_ZSTD, B, 7),)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"null", b'"x"', b"\xff", b"{}x", b"[" * 100_000,
        document({}, []), document([], "x"), document([None], []), document([[]], []),
        document([entry("sha256:x")], []), document([entry("sha512:" + "0" * 128)], []), document([entry("../a")], []),
        document([entry(parent=1)], []), document([entry(parent=-2)], []), document([entry(parent=0.5)], []),
        document([entry(parent=float("inf"))], []), document([entry(parent="0")], []),
        document([entry(annotations={"size": -1})], []), document([entry(annotations={"size": float("inf")})], []),
        document([entry(annotations={"diffID": "sha512:" + "0" * 128})], []), document([entry(annotations=[1])], []),
        document([entry(parent=0)], [{"digest": KEY, "layers": [{"layer": 0}]}]),
        document([entry(parent=1), entry(parent=0)], [{"digest": KEY, "layers": [{"layer": 0}]}]),
        document([entry()], [{"digest": KEY, "layers": [{"layer": 1}]}]),
        document([entry()], [{"digest": KEY, "layers": [{"layer": -1}]}]),
        document([entry()], [{"digest": KEY, "layers": [0]}]),
        document([entry()], [{"digest": KEY, "chains": [{"layers": [-1]}]}]),
        document([entry()], [{"digest": KEY, "chains": [{"layers": 0}]}]),
        document([entry()], [{"digest": "x"}]), document([entry()], [{}]), document([entry()], [7]),
    ],
)  # fmt: skip
def test_what_is_no_config(data: bytes) -> None:
    with pytest.raises(SolveError, match="here: not a cache config"):
        decode(data, "here")


def test_a_config_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "LARGEST", 1000)
    with pytest.raises(SolveError, match="larger than 1000 bytes"):
        decode(b" " * 1001, "here")


def test_stacks_that_are_too_deep_are_left_out() -> None:
    tower = [entry(parent=number - 1) for number in range(1500)]
    records = [{"digest": KEY, "layers": [{"layer": 1023}, {"layer": 1024}]}]
    (record,) = decode(document(tower, records), "here").records
    assert [len(chain) for chain in record.chains] == [1024]
    builder = ConfigBuilder()
    builder.add([KEY], [layer(A)] * 1025)
    assert builder.build().records == ()


def test_records_that_multiply_are_bounded() -> None:
    """A small document that stands for very many chains takes neither the time nor the memory."""
    tower = [entry(parent=number - 1) for number in range(20_000)]
    records = [{"digest": KEY, "layers": [{"layer": number} for number in range(20_000)]}]
    began = time.monotonic()
    with pytest.raises(SolveError, match="more than"):
        decode(document(tower, records), "here")
    assert time.monotonic() - began < 30


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from([A, KEY, "", "x"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["layer", "layers", "chains", "digest", "blob", "parent", "size"]), inner)
    ),
    max_leaves=20,
)


@given(JSON, JSON)
def test_any_document_is_a_config_or_refused(layers: object, records: object) -> None:
    try:
        found = decode(document(layers, records), "here")
    except SolveError:
        return
    for record in found.records:
        for chain in record.chains:
            assert chain
            assert all(0 <= number < len(found.layers) for number in chain)


class Place:
    """Where blobs come from; a test gives all there is."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def add(self, data: bytes, kind: str) -> _d.Descriptor:
        described = _d.describe(data, kind)
        self.blobs[described.digest] = data
        return described

    def image(self, config: Mapping[str, Any], layers: int) -> _d.Descriptor:
        entries = tuple(_d.Descriptor(_d.OCI_LAYER_GZIP, of_bytes(b"%d" % n), 1) for n in range(layers))
        manifest = _d.Manifest(config=self.add(json.dumps(config).encode(), _d.OCI_CONFIG), layers=entries)
        return self.add(manifest.encode(), _d.OCI_MANIFEST)

    def get(self, descriptor: _d.Descriptor) -> bytes:
        return self.blobs[descriptor.digest]


def inline(records: object, diffs: list[str]) -> dict[str, Any]:
    text = records if isinstance(records, str) else base64.b64encode(json.dumps(records).encode()).decode()
    return {"rootfs": {"type": "layers", "diff_ids": diffs}, INLINE: text}


def test_inline_caches_of_an_index() -> None:
    place = Place()
    records = [{"digest": KEY, "layers": [{"layer": 1}]}]
    images = (place.image(inline(records, [A, B]), 2), place.image(inline(records, [B, C]), 2), place.image({}, 0))
    found = read(_d.Index(manifests=images).encode(), "here", place.get)
    assert [(one.diff_id, one.parent) for one in found.layers] == [(A, -1), (B, 0), (B, -1), (C, 2)]
    assert [record.chains for record in found.records] == [((0, 1),), ((2, 3),)]


@pytest.mark.parametrize(
    "records",
    ["%%%", base64.b64encode(b"[" * 100_000).decode(), 7, [{"digest": KEY, "layers": [{"layer": 9}]}]],
    ids=["no-base64", "too-deep", "number", "no-such-layer"],
)
def test_inline_caches_that_are_none(records: object) -> None:
    place = Place()
    image = place.image(inline(records, [A]), 1)
    with pytest.raises(SolveError, match="here"):
        read(place.get(image), "here", place.get)


def test_an_index_of_very_many_images() -> None:
    place = Place()
    index = _d.Index(manifests=(place.image({}, 0),) * 10_000)
    with pytest.raises(SolveError, match="an index of 10000 images"):
        read(index.encode(), "here", place.get)


def test_without_a_diff_id_a_layer_is_of_no_use() -> None:
    from brickyard.solver.remotecache.imported import Imported, record_digest

    digest = record_digest("key", 0, 1)
    found = decode(document([entry(annotations={})], [{"digest": digest, "layers": [{"layer": 0}]}]), "here")
    assert not RemoteCache([Imported("here", found, Place())])  # type: ignore[arg-type]
