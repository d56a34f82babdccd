"""The blob of a layer: compressed while it is written, with both of its digests."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, cast

from . import descriptor as _d
from .compression import BLOCK, Compression, compressor
from .tar import Readable, Writable

_TYPES: dict[Compression, tuple[str, str]] = {
    "uncompressed": (_d.OCI_LAYER, _d.DOCKER_LAYER),
    "gzip": (_d.OCI_LAYER_GZIP, _d.DOCKER_LAYER_GZIP),
    "zstd": (_d.OCI_LAYER_ZSTD, _d.DOCKER_LAYER_ZSTD),
}


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """A finished layer: the digest of its tar, and digest and size of the blob."""

    diff_id: str
    digest: str
    size: int
    kind: Compression

    def descriptor(self, *, docker: bool = False) -> _d.Descriptor:
        """The blob's descriptor, with OCI's or with Docker's media type."""
        return _d.Descriptor(_TYPES[self.kind][docker], self.digest, self.size)


class LayerWriter:
    """Takes the bytes of a layer tar and writes the compressed blob, digesting both in the same pass."""

    def __init__(self, out: Writable, kind: Compression = "gzip", level: int | None = None) -> None:
        """Write to `out`, which stays open; see `compressor` for kind and level."""
        self._out = out
        self._kind = kind
        self._compressor = compressor(kind, level)
        self._diff = hashlib.sha256()
        # Without compression the blob is the tar.
        self._blob = None if kind == "uncompressed" else hashlib.sha256()
        self._size = 0
        self._pending: list[bytes] = []
        self._waiting = 0

    @property
    def room(self) -> int:
        """How many bytes would go on without being copied together with others first."""
        return BLOCK - self._waiting

    def write(self, data: bytes) -> int:
        """Take bytes of the tar."""
        size = len(data)
        if not self._waiting and size == BLOCK:
            self._compress(data)
            return size
        self._pending.append(data)
        self._waiting += size
        if self._waiting >= BLOCK:
            joined = b"".join(self._pending)
            # Pieces of one size: a compressor may decide differently where its input is cut differently.
            whole = self._waiting // BLOCK * BLOCK
            for at in range(0, whole, BLOCK):
                self._compress(joined[at : at + BLOCK])
            self._pending, self._waiting = [joined[whole:]], self._waiting - whole
        return size

    def close(self) -> LayerBlob:
        """End the blob and describe it; `out` stays open."""
        self._compress(b"".join(self._pending))
        self._pending, self._waiting = [], 0
        self._emit(self._compressor.flush())
        diff_id = f"sha256:{self._diff.hexdigest()}"
        digest = diff_id if self._blob is None else f"sha256:{self._blob.hexdigest()}"
        return LayerBlob(diff_id, digest, self._size, self._kind)

    def _compress(self, data: bytes) -> None:
        if data:
            # The compressor may have threads, which begin before the digest does.
            ready = self._compressor.compress(data)
            self._diff.update(data)
            self._emit(ready)

    def _emit(self, data: bytes) -> None:
        if data:
            if self._blob is not None:
                self._blob.update(data)
            self._size += len(data)
            self._out.write(data)


def compress(data: Iterable[bytes] | BinaryIO, out: Writable, kind: Compression, level: int | None = None) -> LayerBlob:
    """Write `data`, a layer tar as a stream or in pieces, as a blob to `out`."""
    writer = LayerWriter(out, kind, level)
    if hasattr(data, "read"):
        stream = cast(Readable, data)
        while chunk := stream.read(1 << 20):
            writer.write(chunk)
    else:
        for chunk in data:
            writer.write(chunk)
    return writer.close()
