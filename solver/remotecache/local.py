"""Cache in a folder of the client's: an OCI layout that the session offers as a content store."""

from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

from ...oci import descriptor as _d
from ...oci import digest as _digest
from ...wire import errors
from ..base import Context, SolveError
from ..layers import Layer
from .config import LARGEST, CacheConfig
from .imported import Imported
from .manifest import UNCOMPRESSED, read, written
from .times import now

PREFIX = "local:"
_CHUNK = 1 << 20


class _Blobs:
    """A `pull.Fetcher` of a content store's blobs; what they are is checked, as the client may give anything."""

    def __init__(self, store: str, context: Context) -> None:
        self._store = store
        self._context = context

    @property
    def name(self) -> str:
        return self._store.removeprefix(PREFIX)

    def manifest(self, digest: str) -> bytes:
        return self._document(digest)

    def config(self, descriptor: _d.Descriptor) -> bytes:
        return self._document(descriptor.digest)

    def blob(self, descriptor: _d.Descriptor) -> Iterator[bytes]:
        verifier = _digest.Verifier(descriptor.digest, descriptor.size)
        try:
            for piece in self._pieces(descriptor.digest):
                verifier.update(piece)
                yield piece
            verifier.finish()
        except _digest.DigestMismatch as error:
            raise SolveError(f"{self.name}: {error}", code=errors.DATA_LOSS) from None

    def _document(self, digest: str) -> bytes:
        out = bytearray()
        for piece in self.blob(_d.Descriptor("", digest, -1)):
            out += piece
            if len(out) > LARGEST:
                raise SolveError(f"{self.name}: the blob {digest} is too large", code=errors.INVALID_ARGUMENT)
        return bytes(out)

    def _pieces(self, digest: str) -> Iterator[bytes]:
        try:
            with self._context.session.open_blob(self._store, digest) as file:
                while piece := file.read(_CHUNK):
                    yield piece
        except KeyError:
            raise SolveError(f"the client offers no cache folder {self.name!r}", code=errors.NOT_FOUND) from None
        except OSError as error:
            raise SolveError(f"{self.name}: the blob {digest} can't be read: {error}") from error


def load(attrs: Mapping[str, str], context: Context) -> Imported:
    """The cache that a folder's index names."""
    source, digest = attrs.get("src", ""), attrs.get("digest", "")
    if not source or not digest:
        raise SolveError("a local cache needs src=FOLDER and the digest of its manifest", code=errors.INVALID_ARGUMENT)
    try:
        _digest.validate(digest)
    except _digest.InvalidDigest as error:
        raise SolveError(f"{source}: {error}", code=errors.INVALID_ARGUMENT) from None
    fetcher = _Blobs(PREFIX + source, context)
    return Imported(source, read(fetcher.manifest(digest), source, fetcher.config), fetcher)


def store(config: CacheConfig, layers: Sequence[Layer], attrs: Mapping[str, str], context: Context) -> dict[str, str]:
    """Write layers, config and manifest; the client puts the manifest into its index."""
    if not attrs.get("dest"):
        raise SolveError("a local cache needs dest=FOLDER", code=errors.INVALID_ARGUMENT)
    name = PREFIX + attrs["dest"]
    data, described, manifest, kind = written(config, now(), layers, attrs)
    root = _d.describe(manifest, kind)
    try:
        for layer in layers:
            digest = layer.descriptor.digest
            with context.step(f"writing layer {digest}"), context.content.open(digest) as file:
                context.session.write_blob(
                    name, digest, layer.descriptor.size, _pieces(file, context), {UNCOMPRESSED: layer.diff_id}
                )
        with context.step(f"writing config {described.digest}"):
            context.session.write_blob(name, described.digest, described.size, [data], {})
        with context.step(f"writing cache image manifest {root.digest}"):
            context.session.write_blob(name, root.digest, root.size, [manifest], {})
    except KeyError:
        raise SolveError(f"the client offers no cache folder {attrs['dest']!r}", code=errors.NOT_FOUND) from None
    return {"cache.manifest": _d.encode_json(root.to_json(), None).decode()}


def _pieces(file: BinaryIO, context: Context) -> Iterator[bytes]:
    while piece := file.read(_CHUNK):
        context.check()
        yield piece
