"""What sources of images have in common: the manifest for a platform, and layers that become snapshots.

A layer is streamed into the content store while it is verified, several at a time, and unpacked in order over the one
below; snapshots are found again by chain id, so that images share them.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ...oci import descriptor as _d
from ...oci.config import ConfigError, chain_ids, decode_config, diff_ids
from ...oci.platform import Platform, host
from ...oci.unpack import LayerError
from ..background import Task, interruptible
from ..base import Context, SolveError
from ..layers import Layer, exclusively, set_chain, set_layer, snapshot_of_chain

if TYPE_CHECKING:
    from ..snapshots.leases import Lease

MAX_DOCUMENT = 8 << 20
"""The largest manifest, index or config that is read."""

_PARALLEL = 4
_MAX_DEPTH = 8


class Fetcher(Protocol):
    """A place that has an image's content."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    def manifest(self, digest: str) -> bytes:
        """A manifest or index, verified."""

    def config(self, descriptor: _d.Descriptor) -> bytes:
        """A config, verified."""

    def blob(self, descriptor: _d.Descriptor) -> Iterator[bytes]:
        """A blob in pieces; its end raises where it is not what the descriptor says."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image for one platform: `digest` is what its reference means, an index's or the manifest's own."""

    digest: str
    manifest: _d.Manifest
    config: bytes
    diff_ids: tuple[str, ...]

    @property
    def key(self) -> str:
        """What the file system is, whatever the image is called and however its layers are compressed."""
        return f"image:{chain_ids(self.diff_ids)[-1] if self.diff_ids else 'empty'}"


def load(digest: str, platform: Platform | None, fetcher: Fetcher, context: Context, limit: int | None = None) -> Image:
    """The image that a digest means for a platform, this machine's where none is given.

    `limit` takes so many of the lowest layers only.

    Raises:
        SolveError: where it is no image, has none for the platform, or is damaged.
    """
    wanted = platform or host()
    try:
        found = _chosen(digest, wanted, fetcher, context)
        config = _kept(found.config.digest, context, partial(fetcher.config, found.config))
        diffs = diff_ids(decode_config(config))
    except (_d.DescriptorError, ConfigError) as error:
        raise SolveError(f"{fetcher.name}: {error}") from None
    if len(diffs) != len(found.layers):
        raise SolveError(f"{fetcher.name}: the manifest has {len(found.layers)} layers, the config {len(diffs)}")
    if limit is not None and limit > len(diffs):
        raise SolveError(f"{fetcher.name}: a limit of {limit} layers, but the image has {len(diffs)}")
    return Image(digest, found, config, diffs[:limit])


def _chosen(digest: str, platform: Platform, fetcher: Fetcher, context: Context) -> _d.Manifest:
    media_type = ""
    for _ in range(_MAX_DEPTH):
        found = _d.decode(_kept(digest, context, partial(fetcher.manifest, digest)), media_type)
        if isinstance(found, _d.Manifest):
            return found
        entry = _d.choose(found, platform)
        if entry is None:
            offered = sorted({str(m.platform) for m in found.manifests if m.platform is not None} - {"unknown/unknown"})
            raise SolveError(f"{fetcher.name}: no image for {platform}; there are: {', '.join(offered) or 'none'}")
        digest, media_type = entry.digest, entry.media_type
    raise SolveError(f"{fetcher.name}: indexes nested too deep")


def _kept(digest: str, context: Context, fetch: Callable[[], bytes]) -> bytes:
    """A document from the content store, fetched where it is not there."""
    try:
        if context.content.has(digest):
            return context.content.read(digest)
    except FileNotFoundError:
        # It was dropped in between.
        pass
    except ValueError as error:
        raise SolveError(str(error)) from None
    with exclusively(context, digest):
        if context.content.has(digest):
            return context.content.read(digest)
        data = interruptible(context, fetch)
        context.content.put(data)
        return data


def unpack(image: Image, fetcher: Fetcher, context: Context) -> str | None:
    """The snapshot of an image's file system; what is there already is not fetched.

    Raises:
        SolveError: where a layer is missing, damaged or hostile.
    """
    count = len(image.diff_ids)
    return unpack_layers(image.manifest.layers[:count], image.diff_ids, fetcher, context)


def unpack_layers(
    layers: Sequence[_d.Descriptor], diffs: Sequence[str], fetcher: Fetcher, context: Context
) -> str | None:
    """The snapshot of layers, the lowest first, with the digests of their tars. Raises SolveError."""
    lease = context.leases.open()
    try:
        return _unpacked(layers, tuple(diffs), fetcher, lease, context)
    finally:
        lease.release()


def _unpacked(
    layers: Sequence[_d.Descriptor], diffs: tuple[str, ...], fetcher: Fetcher, lease: "Lease", context: Context
) -> str | None:
    chain = chain_ids(diffs)
    parent, begin = None, 0
    for place in range(len(chain), 0, -1):
        known = snapshot_of_chain(context, chain[place - 1])
        if known is not None and lease.add([known]):
            parent, begin = known, place
            break
    if begin == len(chain):
        return parent
    stop, slots = threading.Event(), threading.Semaphore(_PARALLEL)
    fetches = [Task(partial(_fetch, layer, fetcher, context, stop), slots) for layer in layers[begin:]]
    try:
        for place, fetch in enumerate(fetches, begin):
            fetch.result(context, fetches)
            layer = Layer(_d.as_layer(layers[place]), diffs[place])
            parent = _applied(parent, chain[place], layer, fetcher, lease, context)
    finally:
        stop.set()
        for fetch in fetches:
            fetch.cancel()
    return parent


def _fetch(layer: _d.Descriptor, fetcher: Fetcher, context: Context, stop: threading.Event) -> None:
    """Put a layer's blob into the content store."""
    with exclusively(context, layer.digest):
        if context.content.has(layer.digest):
            return
        # The fetcher verifies the blob itself.
        with context.content.writer(hashed=True) as out:
            for piece in fetcher.blob(layer):
                if stop.is_set():
                    return
                out.write(piece)
                context.progress(layer.digest, out.size, layer.size)
            out.commit(layer.digest)


def _applied(
    parent: str | None, chain_id: str, layer: Layer, fetcher: Fetcher, lease: "Lease", context: Context
) -> str:
    """The snapshot of a layer over a parent, which the lease keeps."""
    with exclusively(context, chain_id):
        known = snapshot_of_chain(context, chain_id)
        if known is not None and lease.add([known]):
            return known
        context.check()
        digest = layer.descriptor.digest
        try:
            with context.step(f"extracting {digest}"):
                snapshot = context.snapshots.apply_layer(
                    parent, lambda: context.content.open(digest), diff_id=layer.diff_id
                )
        except LayerError as error:
            raise SolveError(f"{fetcher.name}: layer {digest}: {error}") from error
        lease.add([snapshot])
        set_layer(context, snapshot, layer)
        set_chain(context, chain_id, snapshot)
        context.cache.set_value("description", snapshot, f"pulled from {fetcher.name}".encode())
        return snapshot
