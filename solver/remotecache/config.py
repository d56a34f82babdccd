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
LARGEST = 32 << 20
"""The largest config that is read, in bytes."""
_DEEPEST = 1024
"""Results of more layers are left out, where they are written and where they are read."""
_MOST = 1 << 24
"""How many layers the chains of all results may have together."""


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
        SolveError: for what is no config, is too large, or refers to what is not there.
    """
    try:
        if len(data) > LARGEST:
            raise ValueError(f"it is larger than {LARGEST} bytes")
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SolveError(f"{where}: not a cache config: {error}", code=errors.INVALID_ARGUMENT) from None
    return from_json(value, where, descriptors)


def from_json(value: Any, where: str, descriptors: Mapping[str, _d.Descriptor] | None = None) -> CacheConfig:
    """The config of a document that was read. Raises SolveError as `decode` does."""
    try:
        given = _entries(value, "layers")
        layers = tuple(_layer(entry, len(given), descriptors or {}) for entry in given)
        stacks = _Stacks(layers)
        return CacheConfig(layers, tuple(_read(entry, layers, stacks) for entry in _entries(value, "records")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SolveError(f"{where}: not a cache config: {error}", code=errors.INVALID_ARGUMENT) from None


def _entries(value: Any, key: str) -> list[Any]:
    entries = value.get(key)
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise ValueError(f"{key} is no list")
    return entries


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _layer(entry: Mapping[str, Any], count: int, descriptors: Mapping[str, _d.Descriptor]) -> CacheLayer:
    blob, parent = _digest(entry["blob"]), _number(entry.get("parent", 0))
    if not -1 <= parent < count:
        raise ValueError(f"layer {blob} has no parent {parent}")
    notes = entry.get("annotations") or {}
    known = descriptors.get(blob)
    uncompressed = known.annotations.get("containerd.io/uncompressed", "") if known is not None else ""
    diff_id = str(notes.get("diffID") or uncompressed)
    size = _number(notes.get("size") or (known.size if known is not None else 0))
    if size < 0:
        raise ValueError(f"layer {blob} has {size} bytes")
    return CacheLayer(
        blob,
        parent,
        str(notes.get("mediaType") or (known.media_type if known is not None else "")),
        _digest(diff_id) if diff_id else "",
        size,
    )


class _Stacks:
    """Every layer with those below it, made once for each; there is a bound to all of them together."""

    def __init__(self, layers: Sequence[CacheLayer]) -> None:
        self._layers = layers
        self._known: dict[int, tuple[int, ...]] = {}
        self._total = 0

    def of(self, top: int) -> tuple[int, ...]:
        """The stack, the lowest layer first; empty where it is deeper than results may be. Raises ValueError."""
        if top not in self._known:
            found = _stack(self._layers, top)
            self.count(len(found))
            if self._layers[found[0]].parent != -1:
                if len(set(found)) < len(found):
                    raise ValueError("layers are each other's parents")
                found = ()
            self._known[top] = found
        return self._known[top]

    def count(self, more: int) -> None:
        """So many layers more. Raises ValueError where they are too many."""
        self._total += more
        if self._total > _MOST:
            raise ValueError(f"its results have more than {_MOST} layers")


def _read(entry: Mapping[str, Any], layers: Sequence[CacheLayer], stacks: _Stacks) -> CacheRecord:
    chains: list[tuple[int, ...]] = []
    for result in _entries(entry, "layers"):
        top = _number(result.get("layer", 0))
        if not 0 <= top < len(layers):
            raise ValueError(f"there is no layer {top}")
        chains.append(stacks.of(top))
    for result in _entries(entry, "chains"):
        chain = tuple(_number(number) for number in _entries(result, "layers"))
        if not all(0 <= number < len(layers) for number in chain):
            raise ValueError("there are no such layers in a chain")
        stacks.count(len(chain))
        chains.append(chain)
    return CacheRecord(_digest(entry["digest"]), tuple(chain for chain in chains if 0 < len(chain) <= _DEEPEST))


def _digest(value: object) -> str:
    try:
        found = validate(str(value))
    except InvalidDigest as error:
        raise ValueError(str(error)) from None
    if not found.startswith("sha256:"):
        raise ValueError(f"{found} is not a sha256 digest")
    return found


class ConfigBuilder:
    """Collects chains of layers and the keys that they stand for; equal ones once."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self._index: dict[tuple[str, int], int] = {}
        self._parents: list[int] = []
        self._records: dict[str, list[tuple[int, ...]]] = {}

    def add(self, keys: Sequence[str], chain: Sequence[Layer]) -> None:
        """Put a chain of layers, the lowest first, under digests of keys. One that is too deep is left out."""
        if len(chain) > _DEEPEST:
            return
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
