"""Cache in a registry, under a reference of its own or in an image (`inline`)."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from ...oci import descriptor as _d
from ...oci.reference import InvalidReference, Reference, parse
from ...oci.registry import Registry, RegistryError
from ...wire import errors
from ..background import interruptible, together
from ..base import Context, SolveError
from ..exporters.options import boolean
from ..layers import Layer, add_source, get_sources
from .config import LARGEST, CacheConfig
from .imported import Imported
from .manifest import read, written
from .times import now

_PARALLEL = 4


def _reference(attrs: Mapping[str, str]) -> Reference:
    if not attrs.get("ref"):
        raise SolveError("a registry cache needs ref=NAME", code=errors.INVALID_ARGUMENT)
    try:
        return parse(attrs["ref"]).tag_name_only()
    except InvalidReference as error:
        raise SolveError(str(error), code=errors.INVALID_ARGUMENT) from None


def _registry(attrs: Mapping[str, str], reference: Reference, context: Context) -> Registry:
    registry: Registry = context.registry()
    insecure = attrs.get("registry.insecure", "false")
    return registry.insecure(reference.domain) if boolean("registry.insecure", insecure) else registry


class _Blobs:
    """A `pull.Fetcher` of a repository's blobs."""

    def __init__(self, reference: Reference, registry: Registry) -> None:
        self._reference = reference
        self._registry = registry

    @property
    def name(self) -> str:
        return str(self._reference)

    def manifest(self, digest: str) -> bytes:
        return self._registry.manifest(self._reference.with_digest(digest))[1]

    def config(self, descriptor: _d.Descriptor) -> bytes:
        return self._registry.read_blob(self._reference, descriptor, LARGEST)

    def blob(self, descriptor: _d.Descriptor) -> Iterator[bytes]:
        try:
            yield from self._registry.blob(self._reference, descriptor)
        except RegistryError as error:
            raise SolveError(f"{self.name}: {error}") from error


def load(attrs: Mapping[str, str], context: Context) -> Imported:
    """The cache under a reference."""
    reference = _reference(attrs)
    registry = _registry(attrs, reference, context)
    fetcher = _Blobs(reference, registry)

    def blob(descriptor: _d.Descriptor) -> bytes:
        if descriptor.media_type in _d.MANIFEST_TYPES:
            return fetcher.manifest(descriptor.digest)
        return fetcher.config(descriptor)

    def ask() -> Imported:
        described, data = registry.manifest(reference)
        return Imported(str(reference), read(data, str(reference), blob, described.media_type), fetcher)

    try:
        return interruptible(context, ask)
    except RegistryError as error:
        raise SolveError(f"{reference}: {error}") from error


def store(config: CacheConfig, layers: Sequence[Layer], attrs: Mapping[str, str], context: Context) -> dict[str, str]:
    """Push layers, config and manifest."""
    reference = _reference(attrs)
    registry = _registry(attrs, reference, context)
    data, described, manifest, kind = written(config, now(), layers, attrs)

    def push(layer: Layer) -> None:
        context.check()
        digest = layer.descriptor.digest
        sources = [parse(source) for source in get_sources(context, digest)]
        with context.step(f"writing layer {digest}"):
            registry.push_blob(reference, layer.descriptor, lambda: context.content.open(digest), mount_from=sources)
        add_source(context, digest, reference.name)

    try:
        together(context, [partial(push, layer) for layer in layers], _PARALLEL)
        with context.step(f"writing config {described.digest}"):
            context.content.put(data)
            registry.push_blob(reference, described, lambda: context.content.open(described.digest))
        root = _d.describe(manifest, kind)
        with context.step(f"writing cache image manifest {root.digest}"):
            interruptible(context, partial(registry.push_manifest, reference, manifest, kind))
    except RegistryError as error:
        raise SolveError(f"failed to push the cache to {reference}: {error}") from error
    return {"cache.manifest": _d.encode_json(root.to_json(), None).decode()}
