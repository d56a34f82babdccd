"""Cache records as BuildKit writes them (cache/remotecache/v1/types): `application/vnd.buildkit.cacheconfig.v0`.

Source: BuildKit's cache/remotecache/v1 and its types. Records name layers by their index, and a layer the one below it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...oci import descriptor as _d
from ...oci.digest import InvalidDigest, validate
from ...wire import errors
from ..base import SolveError
from ..layers import Layer

MEDIA_TYPE = "application/vnd.buildkit.cacheconfig.v0"
_MOST = 1_000_000
_DEEPEST = 1024


@dataclass(frozen=True, slots=True)
class CacheLayer:
    """A layer; `parent` is the index of the one below it, -1 for none. `annotations` may lack the diff id."""

    blob: str
    parent: int
    media_type: str = ""
    diff_id: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """A key's digest, and the chains of layers that are results of it, each from the lowest up."""

    digest: str
    chains: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """A whole config."""

    layers: tuple[CacheLayer, ...]
    records: tuple[CacheRecord, ...]

    def encode(self, created: str = "") -> bytes:
        """The JSON document; `created` is an RFC 3339 time for every record and layer."""
        return json.dumps(self.to_json(created), separators=(",", ":")).encode()

    def to_json(self, created: str = "") -> dict[str, Any]:
        """The document as an object."""
        time = {"createdAt": created} if created else {}
        layers = [
            {
                "blob": layer.blob,
                "parent": layer.parent,
                "annotations": {"mediaType": layer.media_type, "diffID": layer.diff_id, "size": layer.size, **time},
            }
            for layer in self.layers
        ]
        return {"layers": layers, "records": [_record(record, self.layers, time) for record in self.records]}


def _record(record: CacheRecord, layers: Sequence[CacheLayer], time: Mapping[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {"digest": record.digest}
    for chain in record.chains:
        if chain and _stack(layers, chain[-1]) == chain:
            out.setdefault("layers", []).append({"layer": chain[-1], **time})
        else:
            out.setdefault("chains", []).append({"layers": list(chain), **time})
    return out


def _stack(layers: Sequence[CacheLayer], top: int) -> tuple[int, ...]:
    """A layer with those below it, the lowest first."""
    out: list[int] = []
    while top >= 0 and len(out) < _DEEPEST:
        out.append(top)
        top = layers[top].parent
    return tuple(reversed(out))


def decode(data: bytes, where: str, descriptors: Mapping[str, _d.Descriptor] | None = None) -> CacheConfig:
    """Read a config; what it lacks about a layer is taken from `descriptors`, by blob.

    Raises:
        SolveError: for what is no config, or refers to what is not there.
    """
    try:
        value = json.loads(data)
        given = value.get("layers") or []
        if len(given) > _MOST or len(value.get("records") or []) > _MOST:
            raise ValueError("too large")
        layers = tuple(_layer(entry, len(given), descriptors or {}) for entry in given)
        return CacheConfig(layers, tuple(_read(entry, layers) for entry in value.get("records") or []))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SolveError(f"{where}: not a cache config: {error}", code=errors.INVALID_ARGUMENT) from None


def _layer(entry: Mapping[str, Any], count: int, descriptors: Mapping[str, _d.Descriptor]) -> CacheLayer:
    blob, parent = _digest(entry["blob"]), int(entry.get("parent", 0))
    if not -1 <= parent < count:
        raise ValueError(f"layer {blob} has no parent {parent}")
    notes = entry.get("annotations") or {}
    known = descriptors.get(blob)
    uncompressed = known.annotations.get("containerd.io/uncompressed", "") if known is not None else ""
    diff_id = str(notes.get("diffID") or uncompressed)
    return CacheLayer(
        blob,
        parent,
        str(notes.get("mediaType") or (known.media_type if known is not None else "")),
        _digest(diff_id) if diff_id else "",
        int(notes.get("size") or (known.size if known is not None else 0)),
    )


def _read(entry: Mapping[str, Any], layers: Sequence[CacheLayer]) -> CacheRecord:
    chains: list[tuple[int, ...]] = []
    for result in entry.get("layers") or []:
        top = int(result.get("layer", 0))
        if not 0 <= top < len(layers):
            raise ValueError(f"there is no layer {top}")
        chain = _stack(layers, top)
        if layers[chain[0]].parent != -1:
            raise ValueError("layers are each other's parents")
        chains.append(chain)
    for result in entry.get("chains") or []:
        chain = tuple(int(number) for number in result["layers"])
        if not all(0 <= number < len(layers) for number in chain) or len(chain) > _DEEPEST:
            raise ValueError("there are no such layers in a chain")
        chains.append(chain)
    return CacheRecord(_digest(entry["digest"]), tuple(chains))


def _digest(value: object) -> str:
    try:
        return validate(str(value))
    except InvalidDigest as error:
        raise ValueError(str(error)) from None


class ConfigBuilder:
    """Collects chains of layers and the keys that they stand for; equal ones once."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self._index: dict[tuple[str, int], int] = {}
        self._parents: list[int] = []
        self._records: dict[str, list[tuple[int, ...]]] = {}

    def add(self, keys: Sequence[str], chain: Sequence[Layer]) -> None:
        """Put a chain of layers, the lowest first, under digests of keys."""
        below, numbers = -1, []
        for layer in chain:
            place = (layer.descriptor.digest, below)
            number = self._index.get(place)
            if number is None:
                number = self._index[place] = len(self.layers)
                self.layers.append(layer)
                self._parents.append(below)
            numbers.append(number)
            below = number
        for key in keys:
            chains = self._records.setdefault(key, [])
            if tuple(numbers) not in chains:
                chains.append(tuple(numbers))

    def build(self) -> CacheConfig:
        """The config of all that was added."""
        layers = tuple(
            CacheLayer(
                layer.descriptor.digest, parent, layer.descriptor.media_type, layer.diff_id, layer.descriptor.size
            )
            for layer, parent in zip(self.layers, self._parents, strict=True)
        )
        return CacheConfig(layers, tuple(CacheRecord(key, tuple(chains)) for key, chains in self._records.items()))
