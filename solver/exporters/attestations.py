"""Attestations beside an image: a manifest of statements for each platform, which stands in the image's index.

Source: BuildKit's docs/attestations/attestation-storage.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...oci import descriptor as _d
from ...oci.platform import Platform
from .statements import SBOM_CORE, Statement

PAYLOAD = "application/vnd.in-toto+json"
PREDICATE_TYPE = "in-toto.io/predicate-type"
SPDX = "https://spdx.dev/Document"
UNKNOWN = Platform("unknown", "unknown")
"""The platform under which a manifest of attestations stands in an index."""

_ARTIFACT = "application/vnd.docker.attestation.manifest.v1+json"
_EMPTY = _d.describe(b"{}", "application/vnd.oci.empty.v1+json")


def with_layers(statement: Statement, layer_of: Callable[[str], str | None], tool: str) -> Statement:
    """The main SBOM with the layer that each of its files is in; any other statement as it is.

    `layer_of` gives the digest of a path's layer, `tool` names who added it.
    """
    core = statement.metadata.get(SBOM_CORE)
    name = statement.path.rpartition("/")[2].partition(".")[0]
    if core is None or name.encode() != core or statement.predicate_type != SPDX:
        return statement
    try:
        document = dict(statement.value["predicate"])
        document["files"] = [
            {**file, "comment": f"layerID: {layer}"}
            if not file.get("comment") and (layer := layer_of(str(file["fileName"])))
            else file
            for file in document.get("files") or ()
        ]
        creation = dict(document.get("creationInfo") or {})
        document["creationInfo"] = creation | {"creators": [*(creation.get("creators") or ()), f"Tool: {tool}"]}
    except (ValueError, LookupError, TypeError, AttributeError):
        # A document that is not understood is passed on as it is.
        return statement
    return replace(statement, value={**statement.value, "predicate": document})


@dataclass(frozen=True, slots=True)
class AttestationManifest:
    """What goes into the content store for a manifest of attestations, its descriptor for the index."""

    descriptor: _d.Descriptor
    manifest: bytes
    blobs: tuple[tuple[_d.Descriptor, bytes], ...]


def attestation_manifest(
    target: _d.Descriptor, encoded: Sequence[tuple[str, bytes]], *, oci_types: bool, artifact: bool
) -> AttestationManifest:
    """A manifest of statements, given as predicate type and bytes, about the image manifest `target`."""
    layers = [
        (_d.describe(data, PAYLOAD, annotations={PREDICATE_TYPE: type} if oci_types else None), data)
        for type, data in encoded
    ]
    if artifact:
        config, config_data = replace(_EMPTY, data=b"{}"), b"{}"
    else:
        value: dict[str, Any] = {
            "architecture": UNKNOWN.architecture,
            "os": UNKNOWN.os,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer, _ in layers] or None},
        }
        config_data = _d.encode_json(value, None)
        config = _d.describe(config_data, _d.OCI_CONFIG if oci_types else _d.DOCKER_CONFIG)
    manifest = _d.Manifest(
        config,
        tuple(layer for layer, _ in layers),
        media_type=_d.OCI_MANIFEST if oci_types else _d.DOCKER_MANIFEST,
        artifact_type=_ARTIFACT if artifact else "",
        subject=_d.Descriptor(target.media_type, target.digest, target.size) if artifact else None,
    )
    data = manifest.encode()
    annotations = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": target.digest,
    }
    described = _d.describe(data, manifest.media_type, UNKNOWN, annotations)
    return AttestationManifest(described, data, ((replace(config, data=None), config_data), *layers))
