"""The attributes that the exporters of images share (BuildKit's exporter options)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from ...oci.layer import Compression
from ...oci.platform import Platform, PlatformError, format_all, parse
from ..base import SolveError

Kind = Literal["index", "index-descriptor", "manifest", "manifest-descriptor"]

_KINDS = ("index", "index-descriptor", "manifest", "manifest-descriptor")
_ANNOTATION = re.compile(r"annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/-]+)\])?\.(\S+)\Z")
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}\Z")


def boolean(key: str, value: str) -> bool:
    """A truth value; an attribute without a value is true. Raises SolveError."""
    if value == "" or value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise SolveError(f"the exporter option {key}={value!r} must be true or false")


def integer(key: str, value: str) -> int:
    """A whole number. Raises SolveError."""
    if not _INTEGER.match(value):
        raise SolveError(f"the exporter option {key}={value!r} must be a whole number")
    return int(value)


def epoch_of(attrs: Mapping[str, str]) -> int | None:
    """The time that `source-date-epoch` gives, in seconds; an empty one is none. Raises SolveError."""
    value = attrs.get("source-date-epoch", "")
    return integer("source-date-epoch", value) if value else None


def metadata_epoch(metadata: Mapping[str, bytes], platform: str) -> int | None:
    """The time that a frontend gave with its result, for one platform or for all. Raises SolveError."""
    for key in (f"source.date.epoch/{platform}", "source.date.epoch", "source-date-epoch"):
        if key in metadata:
            value = metadata[key].decode(errors="replace")
            return integer("SOURCE_DATE_EPOCH", value) if value else None
    return None


@dataclass(frozen=True, slots=True)
class LayerForm:
    """How new layers are written: with `force` also layers that exist already."""

    kind: Compression = "gzip"
    level: int | None = None
    force: bool = False


def layer_form(attrs: Mapping[str, str]) -> LayerForm:
    """What `compression`, `compression-level` and `force-compression` say. Raises SolveError."""
    kind = attrs.get("compression", "gzip")
    if kind in ("estargz", "nydus", "overlaybd"):
        raise SolveError(f"the compression {kind} is not supported: use gzip, zstd or uncompressed")
    if kind not in ("gzip", "zstd", "uncompressed"):
        raise SolveError(f"unknown compression {kind!r}: use gzip, zstd or uncompressed")
    level = None
    if "compression-level" in attrs:
        level = integer("compression-level", attrs["compression-level"])
        highest = {"gzip": 9, "zstd": 22}.get(kind, level)
        if level < 0 or level > highest:
            raise SolveError(f"the compression level {level} is not one of {kind}'s: 0 to {highest}")
    force = "force-compression" in attrs and boolean("force-compression", attrs["force-compression"])
    return LayerForm(cast(Compression, kind), level if kind != "uncompressed" else None, force)


@dataclass(frozen=True, slots=True)
class Annotations:
    """Annotations by the place they go to, and there by platform (`linux/amd64`); "" is every platform."""

    of: Mapping[tuple[Kind, str], Mapping[str, str]] = field(default_factory=dict)

    def get(self, kind: Kind, platform: Platform | None = None) -> dict[str, str]:
        """All for one place; those for a platform win. An index has those of every platform."""
        if kind.startswith("index"):
            return {key: value for (k, _), entries in self.of.items() if k == kind for key, value in entries.items()}
        names = [""] + ([format_all(platform)] if platform is not None else [])
        return {key: value for name in names for key, value in self.of.get((kind, name), {}).items()}

    def platforms(self) -> set[str]:
        """The platforms that any are for."""
        return {platform for _, platform in self.of if platform}


def split_annotations(attrs: Mapping[str, str]) -> tuple[Annotations, dict[str, str]]:
    """The annotations among attributes (`annotation-KIND[PLATFORM].KEY`), and the other attributes.

    Raises:
        SolveError: for an unknown kind or platform.
    """
    found: dict[tuple[Kind, str], dict[str, str]] = {}
    rest: dict[str, str] = {}
    for key, value in attrs.items():
        match = _ANNOTATION.match(key)
        if match is None:
            rest[key] = value
            continue
        kind, platform = match[1] or "manifest", ""
        if kind not in _KINDS:
            raise SolveError(f"{key}: unknown kind of annotation {kind!r}: use {', '.join(_KINDS)}")
        if match[2]:
            try:
                platform = format_all(parse(match[2]))
            except PlatformError as error:
                raise SolveError(f"{key}: {error}") from None
        found.setdefault((cast(Kind, kind), platform), {})[match[3]] = value
    return Annotations(found), rest


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """What an image is made like.

    `names` is what `name` holds, `oci_types` whether media types are OCI's or Docker's, `epoch` the time in seconds
    that nothing is younger than, and `rest` the attributes that belong to one exporter only.
    """

    names: tuple[str, ...] = ()
    form: LayerForm = LayerForm()
    oci_types: bool = True
    oci_artifact: bool = True
    inline_attestations: bool = False
    rewrite_timestamp: bool = False
    epoch: int | None = None
    annotations: Annotations = Annotations()
    rest: Mapping[str, str] = field(default_factory=dict)


_SHARED = (
    "name", "compression", "compression-level", "force-compression", "oci-mediatypes", "oci-artifact",
    "attestation-inline", "rewrite-timestamp", "prefer-nondist-layers", "source-date-epoch",
)  # fmt: skip


def read_options(attrs: Mapping[str, str], *, inline_attestations: bool = False) -> ImageOptions:
    """Read attributes.

    Raises:
        SolveError: for a value that makes no sense, and for values that contradict one another.
    """
    annotations, given = split_annotations(attrs)
    form = layer_form(given)

    def flag(key: str, default: bool) -> bool:
        return boolean(key, given[key]) if key in given else default

    oci_types = flag("oci-mediatypes", True)
    artifact = flag("oci-artifact", oci_types)
    if artifact and not oci_types:
        raise SolveError("the exporter options oci-artifact=true and oci-mediatypes=false contradict each other")
    if flag("prefer-nondist-layers", False):
        raise SolveError("the exporter option prefer-nondist-layers is not supported: layers are distributable")
    return ImageOptions(
        names=tuple(name.strip() for name in given.get("name", "").split(",") if name.strip()),
        form=form,
        oci_types=oci_types,
        oci_artifact=artifact,
        inline_attestations=flag("attestation-inline", inline_attestations),
        rewrite_timestamp=flag("rewrite-timestamp", False),
        epoch=epoch_of(given),
        annotations=annotations,
        rest={key: value for key, value in given.items() if key not in _SHARED},
    )
