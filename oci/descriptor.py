"""Descriptors, manifests and indexes, of OCI and of Docker (OCI image spec; Docker image manifest v2, schema 2)."""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from . import digest as _digest
from .platform import Platform, normalize

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
_DISTRIBUTABLE = {
    "application/vnd.oci.image.layer.nondistributable.v1.tar": OCI_LAYER,
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": OCI_LAYER_GZIP,
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": OCI_LAYER_ZSTD,
    "application/vnd.docker.image.rootfs.foreign.diff.tar": DOCKER_LAYER,
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": DOCKER_LAYER_GZIP,
}
# What a lazily loaded layer says of itself.
_OF_LAYERS = ("containerd.io/snapshot/stargz/toc.digest", "io.containers.estargz.uncompressed-size")
REF_NAME = "org.opencontainers.image.ref.name"
"""The annotation that names a tag in an image layout."""

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")
_NO_ANNOTATIONS: Mapping[str, str] = MappingProxyType({})


class DescriptorError(ValueError):
    """A descriptor, manifest or index that breaks the specification; the message names the field."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A content by type, digest and size."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=lambda: _NO_ANNOTATIONS, hash=False)
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    artifact_type: str = ""
    data: bytes | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON object, its keys in the specification's order."""
        out: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.urls:
            out["urls"] = list(self.urls)
        if self.annotations:
            out["annotations"] = dict(sorted(self.annotations.items()))
        if self.data is not None:
            out["data"] = base64.b64encode(self.data).decode()
        if self.platform is not None:
            out["platform"] = platform_to_json(self.platform)
        if self.artifact_type:
            out["artifactType"] = self.artifact_type
        return out

    @staticmethod
    def from_json(value: object, where: str = "descriptor") -> "Descriptor":
        """Read a JSON object; `where` names it in errors.

        Raises:
            DescriptorError: where a field is missing, of a wrong type or not valid.
        """
        obj = _object(value, where)
        media_type = _text(obj, "mediaType", where)
        if not _MEDIA_TYPE.fullmatch(media_type):
            raise DescriptorError(f"{where}.mediaType: {media_type!r} is not a media type")
        size = obj.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise DescriptorError(f"{where}.size: expected a number of bytes, got {size!r}")
        return Descriptor(
            media_type,
            _digest_of(obj, where),
            size,
            _strings(obj, "annotations", where),
            platform_from_json(obj["platform"], f"{where}.platform") if obj.get("platform") else None,
            _texts(obj, "urls", where),
            _text(obj, "artifactType", where),
            _base64(obj, "data", where),
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its config and its layers, lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=lambda: _NO_ANNOTATIONS, hash=False)
    media_type: str = OCI_MANIFEST
    artifact_type: str = ""
    subject: Descriptor | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON object, its keys in the specification's order."""
        out: dict[str, Any] = {"schemaVersion": 2, "mediaType": self.media_type}
        if self.artifact_type:
            out["artifactType"] = self.artifact_type
        out["config"] = self.config.to_json()
        out["layers"] = [layer.to_json() for layer in self.layers]
        return out | _tail(self.subject, self.annotations)

    def encode(self) -> bytes:
        """The bytes that the digest is of."""
        return encode_json(self.to_json())

    def descriptor(self, platform: Platform | None = None, annotations: Mapping[str, str] | None = None) -> Descriptor:
        """A descriptor of `encode()`."""
        return describe(self.encode(), self.media_type, platform, annotations)


@dataclass(frozen=True, slots=True)
class Index:
    """Several manifests, usually of one image for several platforms."""

    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=lambda: _NO_ANNOTATIONS, hash=False)
    media_type: str = OCI_INDEX
    artifact_type: str = ""
    subject: Descriptor | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON object, its keys in the specification's order."""
        out: dict[str, Any] = {"schemaVersion": 2, "mediaType": self.media_type}
        if self.artifact_type:
            out["artifactType"] = self.artifact_type
        out["manifests"] = [manifest.to_json() for manifest in self.manifests]
        return out | _tail(self.subject, self.annotations)

    def encode(self) -> bytes:
        """The bytes that the digest is of."""
        return encode_json(self.to_json())

    def descriptor(self, platform: Platform | None = None, annotations: Mapping[str, str] | None = None) -> Descriptor:
        """A descriptor of `encode()`."""
        return describe(self.encode(), self.media_type, platform, annotations)


def describe(
    data: bytes, media_type: str, platform: Platform | None = None, annotations: Mapping[str, str] | None = None
) -> Descriptor:
    """A descriptor of `data`."""
    return Descriptor(media_type, _digest.of_bytes(data), len(data), annotations or _NO_ANNOTATIONS, platform)


def decode(data: bytes, media_type: str = "") -> Manifest | Index:
    """Read a manifest or an index.

    Args:
        data: the JSON document.
        media_type: what the registry or descriptor says that it is; the document's own field must not contradict it.

    Raises:
        DescriptorError: where it is neither, naming the field.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DescriptorError(f"manifest: not a JSON document: {error}") from None
    obj = _object(value, "manifest")
    if obj.get("schemaVersion") == 1 or "fsLayers" in obj:
        raise DescriptorError("manifest: Docker image manifest schema 1 is not supported; push the image again")
    own = _text(obj, "mediaType", "manifest")
    if own and media_type and own != media_type:
        raise DescriptorError(f"manifest.mediaType: {own!r} contradicts the announced type {media_type!r}")
    kind = own or media_type
    # A document with both lists reads differently to different readers (CVE-2021-41190).
    if "manifests" in obj and ("layers" in obj or "config" in obj):
        raise DescriptorError("manifest: both a manifest (config, layers) and an index (manifests)")
    if kind in INDEX_TYPES or (not kind and "manifests" in obj):
        return _index(obj, kind or OCI_INDEX)
    if kind in MANIFEST_TYPES or (not kind and "config" in obj):
        return _manifest(obj, kind or OCI_MANIFEST)
    raise DescriptorError(f"manifest.mediaType: {kind!r} is neither an image manifest nor an index")


def _manifest(obj: dict[str, Any], media_type: str) -> Manifest:
    where = "manifest"
    if "config" not in obj:
        raise DescriptorError("manifest.config: missing")
    return Manifest(
        Descriptor.from_json(obj["config"], "manifest.config"),
        _descriptors(obj, "layers", where),
        _strings(obj, "annotations", where),
        media_type,
        _text(obj, "artifactType", where),
        Descriptor.from_json(obj["subject"], "manifest.subject") if obj.get("subject") else None,
    )


def _index(obj: dict[str, Any], media_type: str) -> Index:
    where = "index"
    return Index(
        _descriptors(obj, "manifests", where),
        _strings(obj, "annotations", where),
        media_type,
        _text(obj, "artifactType", where),
        Descriptor.from_json(obj["subject"], "index.subject") if obj.get("subject") else None,
    )


def choose(index: Index, platform: Platform) -> Descriptor | None:
    """The manifest of an index that runs best on `platform`, or None.

    An exact match wins; then, for arm, the highest variant below the wanted one, and for arm64 and amd64 likewise;
    then an entry that names no platform.
    """
    found = [(rank, -place, entry) for place, entry in enumerate(index.manifests) if (rank := _rank(entry, platform))]
    return max(found, key=lambda item: item[:2])[2] if found else None


def _rank(entry: Descriptor, platform: Platform) -> int:
    """How well an entry runs on `platform`: 0 not at all, higher is better."""
    if entry.platform is None:
        return 1
    have, want = normalize(entry.platform), normalize(platform)
    if have.os != want.os or (want.os_version and have.os_version and want.os_version != have.os_version):
        return 0
    if have.architecture == want.architecture:
        if have.variant == want.variant:
            return 1000
        have_level, want_level = _level(have), _level(want)
        return 100 + have_level if 0 < have_level < want_level else 0
    # A 64-bit ARM processor also runs 32-bit programs.
    if have.architecture == "arm" and want.architecture == "arm64" and 0 < _level(have) <= 8:
        return 10 + _level(have)
    return 0


def _level(platform: Platform) -> int:
    """The variant as a number: processors of a higher one run programs of a lower one."""
    default = {"amd64": "v1", "arm64": "v8", "arm": "v7"}.get(platform.architecture, "")
    digits = (platform.variant or default).removeprefix("v")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 3 else 0


def platform_to_json(platform: Platform) -> dict[str, Any]:
    """The JSON object of a platform."""
    out: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        out["os.version"] = platform.os_version
    if platform.os_features:
        out["os.features"] = list(platform.os_features)
    if platform.variant:
        out["variant"] = platform.variant
    return out


def platform_from_json(value: object, where: str = "platform") -> Platform:
    """Read the JSON object of a platform.

    Raises:
        DescriptorError: where a field has a wrong type.
    """
    obj = _object(value, where)
    return Platform(
        _text(obj, "os", where),
        _text(obj, "architecture", where),
        _text(obj, "variant", where),
        _text(obj, "os.version", where),
        _texts(obj, "os.features", where),
    )


def as_layer(descriptor: Descriptor) -> Descriptor:
    """A layer of another image as a layer of a new one: distributable, with no annotations but those of its format."""
    annotations = {key: value for key, value in descriptor.annotations.items() if key in _OF_LAYERS}
    media_type = _DISTRIBUTABLE.get(descriptor.media_type, descriptor.media_type)
    return Descriptor(media_type, descriptor.digest, descriptor.size, annotations or _NO_ANNOTATIONS)


def encode_json(value: object, indent: int | None = 2) -> bytes:
    """JSON in the bytes that Go's encoder writes, so that equal manifests have equal digests everywhere."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=(",", ": " if indent else ":"))
    for char, escape in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(char, escape)
    return text.encode()


def _tail(subject: Descriptor | None, annotations: Mapping[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if subject is not None:
        out["subject"] = subject.to_json()
    if annotations:
        out["annotations"] = dict(sorted(annotations.items()))
    return out


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DescriptorError(f"{where}: expected an object, got {type(value).__name__}")
    return value


def _text(obj: dict[str, Any], key: str, where: str) -> str:
    value = obj.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DescriptorError(f"{where}.{key}: expected a string, got {type(value).__name__}")
    return value


def _texts(obj: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = obj.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DescriptorError(f"{where}.{key}: expected a list of strings")
    return tuple(value)


def _strings(obj: dict[str, Any], key: str, where: str) -> Mapping[str, str]:
    value = obj.get(key)
    if not value:
        return _NO_ANNOTATIONS
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise DescriptorError(f"{where}.{key}: expected an object of strings")
    return value


def _base64(obj: dict[str, Any], key: str, where: str) -> bytes | None:
    text = obj.get(key)
    if text is None:
        return None
    try:
        return base64.b64decode(_text(obj, key, where), validate=True)
    except binascii.Error:
        raise DescriptorError(f"{where}.{key}: not base64") from None


def _digest_of(obj: dict[str, Any], where: str) -> str:
    try:
        return _digest.validate(_text(obj, "digest", where))
    except _digest.InvalidDigest as error:
        raise DescriptorError(f"{where}.digest: {error}") from None


def _descriptors(obj: dict[str, Any], key: str, where: str) -> tuple[Descriptor, ...]:
    value: Iterable[object] | None = obj.get(key)
    if value is None:
        # Go writes a list without members as null.
        return ()
    if not isinstance(value, list):
        raise DescriptorError(f"{where}.{key}: expected a list, got {type(value).__name__}")
    return tuple(Descriptor.from_json(item, f"{where}.{key}[{place}]") for place, item in enumerate(value))


def retagged(descriptor: Descriptor, name: str) -> Descriptor:
    """The same content under the name that an image layout resolves; an empty name removes it."""
    annotations = {key: value for key, value in descriptor.annotations.items() if key != REF_NAME}
    return replace(descriptor, annotations=annotations | ({REF_NAME: name} if name else {}))
