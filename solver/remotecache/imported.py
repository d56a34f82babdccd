"""Cache that was imported for a build: looked up by key, its layers fetched when a result is needed."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...oci import descriptor as _d
from ..base import Context, SolveError
from ..sources.pull import Fetcher, unpack_layers
from .config import CacheConfig


def record_digest(key: str, output: int, outputs: int) -> str:
    """The digest under which one of a vertex's outputs stands in a cache config."""
    tail = f"@{output}/{outputs}" if outputs > 1 else ""
    return "sha256:" + hashlib.sha256((key + tail).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Imported:
    """One place's cache: its config, and what fetches its layers."""

    name: str
    config: CacheConfig
    fetcher: Fetcher


@dataclass(frozen=True, slots=True)
class _Found:
    place: Imported
    chain: tuple[int, ...]
    identity: str


class RemoteCache:
    """What a build has imported, the first place that knows a key first."""

    def __init__(self, places: Sequence[Imported]) -> None:
        self._by_digest: dict[str, _Found] = {}
        for place in places:
            identities: dict[tuple[int, ...], str] = {}
            for record in place.config.records:
                for chain in record.chains:
                    if all(place.config.layers[number].diff_id for number in chain):
                        # The first key of a result is what others that were made from it call it.
                        identity = identities.setdefault(chain, record.digest)
                        self._by_digest.setdefault(record.digest, _Found(place, chain, identity))

    def __bool__(self) -> bool:
        return bool(self._by_digest)

    def has(self, key: str, outputs: int) -> bool:
        """Whether every output of a vertex is there under a key."""
        return all(record_digest(key, number, outputs) in self._by_digest for number in range(outputs))

    def pull(self, key: str, outputs: int, context: Context) -> list[tuple[str, str]]:
        """The snapshots of a key's outputs, fetched where they are not here, each with its identity.

        Raises:
            SolveError: where the place does not give the layers (any more).
        """
        out = []
        for number in range(outputs):
            found = self._by_digest[record_digest(key, number, outputs)]
            layers = [found.place.config.layers[at] for at in found.chain]
            descriptors = [_d.Descriptor(layer.media_type, layer.blob, layer.size) for layer in layers]
            snapshot = unpack_layers(descriptors, [layer.diff_id for layer in layers], found.place.fetcher, context)
            if snapshot is None:
                raise SolveError(f"{found.place.name}: a cached result without layers")
            out.append((snapshot, found.identity))
        return out


def load_all(
    entries: Sequence[tuple[str, Mapping[str, str]]],
    context: Context,
    shown: Callable[[str, Callable[[], Imported]], Imported | None],
) -> RemoteCache:
    """The caches of a request, by type and attributes. `shown` runs each as a step of the progress; it gives None for
    one that failed, which a build goes on without."""
    from . import find

    places = []
    for kind, attrs in entries:
        module = find(kind)
        name = attrs.get("ref") or attrs.get("src") or kind
        place = shown(f"importing cache manifest from {name}", lambda m=module, a=attrs: m.load(a, context))  # type: ignore[misc]
        if place is not None:
            places.append(place)
    return RemoteCache(places)
