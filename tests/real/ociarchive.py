"""What is in an OCI archive, layer by layer, read with nothing of ours."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

Entry = tuple[Any, ...]


def blobs(archive: Path) -> dict[str, bytes]:
    """The files of an archive by their names."""
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]


def images(archive: Path) -> dict[str, tuple[dict[str, Any], list[dict[str, Entry]]]]:
    """By platform the config of each image, without its layers' digests, and the entries of its layers."""
    files = blobs(archive)

    def blob(digest: str) -> bytes:
        return files["blobs/" + digest.replace(":", "/")]

    found = {}
    pending = list(json.loads(files["index.json"])["manifests"])
    while pending:
        descriptor = pending.pop(0)
        document = json.loads(blob(descriptor["digest"]))
        if "manifests" in document:
            pending += document["manifests"]
            continue
        config = json.loads(blob(document["config"]["digest"]))
        for step in config.get("history") or []:
            if step.get("created_by", "").startswith("HEALTHCHECK "):
                # How Go prints a pointer: what the Engine's older BuildKit writes here is no form that is kept.
                step["created_by"] = "HEALTHCHECK"
        diff_ids = (config.get("rootfs") or {}).pop("diff_ids", None) or []
        layers = [blob(layer["digest"]) for layer in document["layers"] or []]
        layers = [gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer for layer in layers]
        assert [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers] == diff_ids
        platform = "/".join(filter(None, (config.get(key, "") for key in ("os", "architecture", "variant"))))
        found[platform] = config, [entries(layer) for layer in layers]
    return found


def entries(layer: bytes) -> dict[str, Entry]:
    """A layer's entries: type, mode, owners, time, link target, content, attributes."""
    out: dict[str, Entry] = {}
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        for member in tar:
            content = tar.extractfile(member).read() if member.isreg() else b""  # type: ignore[union-attr]
            attributes = {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")}
            name = member.name.rstrip("/")
            out[name] = (
                member.type, oct(member.mode), member.uid, member.gid, int(member.mtime), member.linkname,
                content if len(content) < 200 else hashlib.sha256(content).hexdigest(), attributes,
            )  # fmt: skip
    return out
