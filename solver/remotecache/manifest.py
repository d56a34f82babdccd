"""The manifest of an exported cache: an image manifest (the default) or an index over config and layers."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...oci import descriptor as _d
from ...wire import errors
from ..base import SolveError
from ..exporters.blobs import media_type
from ..exporters.options import boolean
from .config import MEDIA_TYPE, CacheConfig, CacheLayer, CacheRecord, decode, from_json

if TYPE_CHECKING:
    from ..layers import Layer

INLINE = "moby.buildkit.cache.v0"
"""The key of an image config that holds a cache config."""
_MOST_IMAGES = 256
UNCOMPRESSED = "containerd.io/uncompressed"


def written(
    config: CacheConfig, created: str, layers: "Sequence[Layer]", attrs: Mapping[str, str]
) -> tuple[bytes, _d.Descriptor, bytes, str]:
    """The config with its descriptor, and the manifest with its media type, as `attrs` ask for. Raises SolveError."""
    oci = boolean("oci-mediatypes", attrs.get("oci-mediatypes", "true"))
    image = boolean("image-manifest", attrs["image-manifest"]) if "image-manifest" in attrs else oci
    if image and not oci:
        raise SolveError("image-manifest=true needs oci-mediatypes=true", code=errors.INVALID_ARGUMENT)
    data = config.encode(created)
    described = _d.describe(data, MEDIA_TYPE)
    entries = [_with_diff_id(media_type(layer.descriptor, oci), layer.diff_id) for layer in layers]
    if image:
        manifest = _d.Manifest(config=described, layers=tuple(entries))
        return data, described, manifest.encode(), _d.OCI_MANIFEST
    kind = _d.OCI_INDEX if oci else _d.DOCKER_INDEX
    index = _d.Index(manifests=(*entries, described), media_type=kind)
    return data, described, index.encode(), kind


def _with_diff_id(descriptor: _d.Descriptor, diff_id: str) -> _d.Descriptor:
    return replace(descriptor, annotations={**descriptor.annotations, UNCOMPRESSED: diff_id})


def read(data: bytes, where: str, blob: Callable[[_d.Descriptor], bytes], media_type: str = "") -> CacheConfig:
    """The config that a manifest leads to: of a cache, or the inline one of an image. Raises SolveError."""
    try:
        found = _d.decode(data, media_type)
    except _d.DescriptorError as error:
        raise SolveError(f"{where}: {error}", code=errors.INVALID_ARGUMENT) from None
    if isinstance(found, _d.Manifest):
        if found.config.media_type == MEDIA_TYPE:
            return decode(blob(found.config), where, _by_digest(found.layers))
        return _inline(found, where, blob)
    config = next((entry for entry in found.manifests if entry.media_type == MEDIA_TYPE), None)
    if config is not None:
        return decode(blob(config), where, _by_digest(found.manifests))
    images = [e for e in found.manifests if e.media_type in _d.MANIFEST_TYPES and not _attestation(e)]
    if len(images) > _MOST_IMAGES:
        raise SolveError(f"{where}: an index of {len(images)} images", code=errors.INVALID_ARGUMENT)
    return _joined([read(blob(entry), where, blob, entry.media_type) for entry in images])


def _by_digest(descriptors: "Sequence[_d.Descriptor]") -> dict[str, _d.Descriptor]:
    return {entry.digest: entry for entry in descriptors}


def _attestation(entry: _d.Descriptor) -> bool:
    return entry.platform is not None and entry.platform.os == "unknown"


def _inline(manifest: _d.Manifest, where: str, blob: Callable[[_d.Descriptor], bytes]) -> CacheConfig:
    """The cache config in an image's config, whose layers are those of the image, by their number."""
    from ...oci.config import ConfigError, decode_config, diff_ids

    try:
        image = decode_config(blob(manifest.config))
        text = image.get(INLINE)
        if not isinstance(text, str):
            return CacheConfig((), ())
        records = json.loads(base64.b64decode(text, validate=True))
        diffs = diff_ids(image)
    except (ConfigError, ValueError, RecursionError) as error:
        raise SolveError(f"{where}: {error}", code=errors.INVALID_ARGUMENT) from None
    layers = [
        {
            "blob": layer.digest,
            "parent": number - 1,
            "annotations": {"mediaType": layer.media_type, "diffID": diff_id, "size": layer.size},
        }
        for number, (layer, diff_id) in enumerate(zip(manifest.layers, diffs, strict=False))
    ]
    return from_json({"layers": layers, "records": records}, where)


def _joined(configs: "Sequence[CacheConfig]") -> CacheConfig:
    records: list[CacheRecord] = []
    out: list[CacheLayer] = []
    for config in configs:
        begin = len(out)
        out += [replace(layer, parent=layer.parent + begin if layer.parent >= 0 else -1) for layer in config.layers]
        records += [
            replace(record, chains=tuple(tuple(number + begin for number in chain) for chain in record.chains))
            for record in config.records
        ]
    return CacheConfig(tuple(out), tuple(records))
