"""Cache in folders: OCI layouts that the session offers as content stores, and whose index the client keeps."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..wire.reasons import reason
from .errors import ClientError

STORE = "local:"
"""What stands before a folder in the name of its content store, as BuildKit's client names it."""
_MANIFEST = "cache.manifest"

Entry = tuple[str, dict[str, str]]


@dataclass(slots=True)
class Caches:
    """The cache options of a request, and the folders behind them by store. `updates` are the tags to write after."""

    imports: list[Entry] = field(default_factory=list)
    exports: list[Entry] = field(default_factory=list)
    stores: dict[str, Path] = field(default_factory=dict)
    updates: list[tuple[Path, str]] = field(default_factory=list)

    def commit(self, response: Mapping[str, str]) -> None:
        """Name what was exported in the folders' indexes. Raises ClientError."""
        text = response.get(_MANIFEST)
        if text is None:
            return
        from ..oci.descriptor import Descriptor, DescriptorError
        from ..oci.layout import Layout, LayoutError

        for folder, tag in self.updates:
            try:
                descriptor = Descriptor.from_json(json.loads(text))
                layout = Layout.open(folder)
                if layout.has(descriptor.digest):
                    layout.add(descriptor, tag)
            except (LayoutError, DescriptorError, ValueError, OSError) as error:
                raise ClientError(f"the cache in {folder} cannot be written: {error}") from error


def prepare(cache_from: list[Entry], cache_to: list[Entry]) -> Caches:
    """Find the folders. One to import from that holds no cache (yet) is left out, and said so on standard error.

    Raises:
        ClientError: a folder is not named, or can't be made.
    """
    found = Caches()
    for kind, attrs in cache_from:
        if kind == "local":
            _import(dict(attrs), found)
        else:
            found.imports.append((kind, dict(attrs)))
    for kind, attrs in cache_to:
        if kind == "local":
            _export(dict(attrs), found)
        found.exports.append((kind, dict(attrs)))
    return found


def _import(attrs: dict[str, str], found: Caches) -> None:
    from ..oci.layout import Layout, LayoutError

    source = attrs.get("src", "")
    if not source:
        raise ClientError("--cache-from type=local needs src=FOLDER")
    try:
        layout = Layout.open(Path(source))
        digest = attrs.get("digest") or layout.resolve(attrs.get("tag") or "latest").digest
    except (LayoutError, OSError) as error:
        print(f"WARNING: no cache is imported from {source}: {reason(error)}", file=sys.stderr)
        return
    found.imports.append(("local", {**attrs, "digest": digest}))
    found.stores[STORE + source] = Path(source).absolute()


def _export(attrs: dict[str, str], found: Caches) -> None:
    from ..oci.layout import Layout, LayoutError

    target = attrs.get("dest", "")
    if not target:
        raise ClientError("--cache-to type=local needs dest=FOLDER")
    try:
        Layout.create(Path(target))
    except (LayoutError, OSError) as error:
        raise ClientError(f"--cache-to {target}: {reason(error)}") from error
    found.stores[STORE + target] = Path(target).absolute()
    found.updates.append((Path(target).absolute(), attrs.get("tag") or "latest"))
