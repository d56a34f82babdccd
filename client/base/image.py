"""The base image as an OCI image layout."""

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ...oci.descriptor import OCI_CONFIG, OCI_MANIFEST, Manifest
from ...oci.layer import LayerWriter
from ...oci.layout import Layout
from ...oci.platform import host
from ..errors import ClientError
from .busybox import busybox_tree
from .host import host_tree
from .tree import Tree

Source = Literal["busybox", "host"]


@dataclass(frozen=True, slots=True)
class Base:
    """A base image that was made."""

    digest: str
    source: Source
    size: int


def make(
    folder: Path,
    source: Source | None = None,
    tag: str = "latest",
    *,
    python: bool = False,
    interpreter: Path | None = None,
) -> Base:
    """Make a base image in the OCI layout `folder`, from busybox where it is installed, else from the host's tools.

    With `python` it has an interpreter too: the named one, or the system's. The image has one uncompressed layer and
    no times, so the same programs always give the same digest.

    Raises:
        ClientError: the programs are not there, or the folder holds something else.
    """
    chosen, tree = _tree(source)
    if python:
        from .python import add_python

        add_python(tree, interpreter)
    if folder.exists() and not (folder / "oci-layout").exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ClientError(f"{folder} is there and no OCI image layout", "name an empty or new folder")
    layout = Layout.create(folder)
    with tempfile.TemporaryFile() as out:
        writer = LayerWriter(out, "uncompressed")
        tree.write(writer)
        blob = writer.close()
        out.seek(0)
        layer = layout.write_blob(out, blob.descriptor().media_type, blob.digest)
    command = f"brickyard base make --from {chosen}" + (" --with python" if python else "")
    config = layout.write_blob(_config(command, blob.diff_id), OCI_CONFIG)
    manifest = layout.write_blob(Manifest(config, (layer,)).encode(), OCI_MANIFEST)
    layout.add(replace(manifest, platform=host()), tag)
    return Base(manifest.digest, chosen, layer.size)


def _tree(source: Source | None) -> tuple[Source, Tree]:
    program = shutil.which("busybox") if source != "host" else None
    if program is not None:
        return "busybox", busybox_tree(Path(program).resolve())
    if source == "busybox":
        raise ClientError("busybox is not installed", "use --from host, or install busybox-static")
    return "host", host_tree()


def _config(command: str, diff_id: str) -> bytes:
    platform = host()
    config = {
        "architecture": platform.architecture,
        **({"variant": platform.variant} if platform.variant else {}),
        "os": platform.os,
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": command}],
    }
    return json.dumps(config, separators=(",", ":")).encode()
