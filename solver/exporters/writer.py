"""Images from results: layers, configs, manifests and, for several platforms, an index, all in the content store."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ...oci import descriptor as _d
from ...oci.config import ConfigError, decode_config, diff_ids
from ...oci.platform import Platform, format_all, host, normalize
from ..base import Context, Exportable, Result, SolveError
from ..layers import Layer
from .attestations import attestation_manifest, with_layers
from .blobs import Rewrite, at_once, layer_finder, layers_of, media_type
from .imageconfig import default_config, patch, platform_of
from .options import ImageOptions, metadata_epoch
from .statements import Subject, for_files, statements

CONFIG_KEY = "containerimage.config"
BASE_CONFIG_KEY = "containerimage.base.config"
INLINE_CACHE_KEY = "containerimage.inlinecache"


@dataclass(frozen=True, slots=True)
class Committed:
    """An image in the content store.

    `root` is the manifest, or the index, with annotations and platform; `manifests` are all manifests and then the
    index; `blobs` are layers and configs, each once.
    """

    root: _d.Descriptor
    config_digest: str
    manifests: tuple[_d.Descriptor, ...]
    blobs: tuple[Layer, ...]

    def digests(self) -> list[str]:
        """Every digest, the root's first."""
        found = [self.root.digest, *(m.digest for m in self.manifests), *(b.descriptor.digest for b in self.blobs)]
        return list(dict.fromkeys(found))

    def answer(self, root: _d.Descriptor | None = None) -> dict[str, str]:
        """What the client is told."""
        out = {"containerimage.digest": self.root.digest}
        if self.config_digest:
            out["containerimage.config.digest"] = self.config_digest
        described = _d.encode_json((root or self.root).to_json(), None)
        return out | {"containerimage.descriptor": base64.b64encode(described).decode()}


def is_multi(result: Exportable) -> bool:
    """Whether a result is one of several platforms, be it one of one."""
    return any(result.refs.keys() - {""})


def platforms_of(result: Exportable) -> list[tuple[str, Platform]]:
    """The platforms of a result with their keys in `refs`, in the frontend's order. Raises SolveError."""
    if is_multi(result):
        if not result.platforms or any(key not in result.refs for key, _ in result.platforms):
            raise SolveError("the platforms that the frontend names are not those of its results")
        return list(result.platforms)
    if result.platforms:
        return [("", result.platforms[0][1])]
    data = result.refs.get("", (Result(None), None))[1] or result.metadata.get(CONFIG_KEY)
    if not data:
        return [("", host())]
    try:
        return [("", normalize(platform_of(decode_config(data))))]
    except ConfigError as error:
        raise SolveError(str(error)) from None


def commit(result: Exportable, options: ImageOptions, context: Context) -> Committed:
    """Make an image of a result; attestations make it an index even for a single platform.

    Raises:
        SolveError: for annotations or configs that do not fit the result, and where a layer cannot be written.
    """
    platforms = platforms_of(result)
    attested = {key: found for key, found in result.attestations.items() if found}
    multi = is_multi(result) or any(
        found if options.inline_attestations else for_files(found) for found in attested.values()
    )
    if multi and attested and not options.oci_types:
        raise SolveError("attestations cannot be exported with oci-mediatypes=false")
    _check_annotations(options, [platform for _, platform in platforms], multi)
    images = at_once([partial(_image, result, key, platform, options, context) for key, platform in platforms])
    if not multi:
        return replace(images[0], blobs=_once(images[0].blobs))
    manifests, blobs = [image.root for image in images], [blob for image in images for blob in image.blobs]
    for (key, platform), image in zip(platforms, images, strict=True):
        if key in attested:
            described, more = _attest(result, key, platform, image, options, context)
            manifests.append(described)
            blobs += more
    index = _d.Index(
        tuple(manifests),
        options.annotations.get("index"),
        _d.OCI_INDEX if options.oci_types else _d.DOCKER_INDEX,
    )
    data = index.encode()
    root = _d.describe(data, index.media_type)
    with context.step(f"exporting manifest list {root.digest}"):
        context.content.put(data)
    root = replace(root, annotations=options.annotations.get("index-descriptor"))
    return Committed(root, "", (*manifests, root), _once(blobs))


def _once(blobs: Sequence[Layer]) -> tuple[Layer, ...]:
    return tuple({blob.descriptor.digest: blob for blob in blobs}.values())


def _attest(
    result: Exportable, key: str, platform: Platform, image: Committed, options: ImageOptions, context: Context
) -> tuple[_d.Descriptor, list[Layer]]:
    """A manifest of the statements about one platform's image, in the content store."""
    from ..provenance import purl

    snapshot = result.refs[key][0].snapshot
    find = layer_finder(snapshot, [blob.descriptor.digest for blob in image.blobs[:-1]], context)
    algorithm, _, encoded_digest = image.root.digest.partition(":")
    subjects = [Subject(purl("docker", name, platform), {algorithm: encoded_digest}) for name in options.names]
    encoded = [
        (statement.predicate_type, with_layers(statement, find, "brickyard").encode())
        for statement in statements(result.attestations[key], subjects, context)
    ]
    made = attestation_manifest(image.root, encoded, oci_types=options.oci_types, artifact=options.oci_artifact)
    with context.step(f"exporting attestation manifest {made.descriptor.digest}"):
        for data in (made.manifest, *(data for _, data in made.blobs)):
            context.content.put(data)
    return made.descriptor, [Layer(described, "") for described, _ in made.blobs]


def _check_annotations(options: ImageOptions, platforms: Sequence[Platform], multi: bool) -> None:
    strangers = options.annotations.platforms() - {format_all(platform) for platform in platforms}
    if strangers:
        raise SolveError(f"invalid annotation: the result has no platform {', '.join(sorted(strangers))}")
    index = options.annotations.get("index") or options.annotations.get("index-descriptor")
    if index and not multi:
        raise SolveError("annotations of an index are not supported for a result of a single platform")
    descriptors = [options.annotations.get("manifest-descriptor", platform) for platform in platforms]
    if not options.oci_types and (index or any(descriptors)):
        raise SolveError("annotations of descriptors cannot be exported with oci-mediatypes=false")


def _image(result: Exportable, key: str, platform: Platform, options: ImageOptions, context: Context) -> Committed:
    ref, config = result.refs.get(key, (Result(None), None))
    config = config or _member(result.metadata, CONFIG_KEY, key) or default_config()
    base = _member(result.metadata, BASE_CONFIG_KEY, key)
    epoch = options.epoch
    if epoch is None:
        epoch = metadata_epoch(result.metadata, key or format_all(platform))
    rewrite = None
    if options.rewrite_timestamp and epoch is not None:
        rewrite = Rewrite(epoch, _diff_ids(base) if base else ())
    with context.step("exporting layers"):
        layers = layers_of(ref.snapshot, options.form, context, rewrite)
    names = context.snapshots.chain(ref.snapshot)
    try:
        data = patch(
            config,
            [layer.diff_id for layer in layers],
            [context.snapshots.created(name) for name in names],
            lambda: _descriptions(names, context),
            epoch=epoch,
            base=base,
            inline_cache=_member(result.metadata, INLINE_CACHE_KEY, key),
        )
    except ConfigError as error:
        raise SolveError(str(error)) from None
    described = _d.describe(data, _d.OCI_CONFIG if options.oci_types else _d.DOCKER_CONFIG)
    layers = [replace(layer, descriptor=_bare(layer.descriptor, options.oci_types)) for layer in layers]
    manifest = _d.Manifest(
        described,
        tuple(layer.descriptor for layer in layers),
        options.annotations.get("manifest", platform),
        _d.OCI_MANIFEST if options.oci_types else _d.DOCKER_MANIFEST,
    )
    encoded = manifest.encode()
    root = _d.describe(encoded, manifest.media_type, platform)
    for name, digest, document in (("manifest", root.digest, encoded), ("config", described.digest, data)):
        with context.step(f"exporting {name} {digest}"):
            context.content.put(document)
    root = replace(root, annotations=options.annotations.get("manifest-descriptor", platform))
    config_blob = Layer(described, "")
    return Committed(root, described.digest, (root,), (*layers, config_blob))


def _diff_ids(config: bytes) -> tuple[str, ...]:
    try:
        return diff_ids(decode_config(config))
    except ConfigError as error:
        raise SolveError(str(error)) from None


def _member(metadata: Mapping[str, bytes], name: str, key: str) -> bytes | None:
    return metadata.get(f"{name}/{key}") or metadata.get(name)


def _bare(layer: _d.Descriptor, oci: bool) -> _d.Descriptor:
    """A layer's descriptor as it stands in a manifest."""
    layer = media_type(layer, oci)
    return layer if oci else replace(layer, annotations={})


def _descriptions(names: Sequence[str], context: Context) -> list[str]:
    """What made each snapshot."""
    made = {name: record.description for record in context.cache.records() for name in record.results if name}
    noted = context.cache.get_values("description", names)
    return [made.get(name) or noted.get(name, b"created by buildkit").decode(errors="replace") for name in names]
