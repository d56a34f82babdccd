"""`oci-layout://NAME@DIGEST`: an image in an image layout of the client, which gives its blobs one by one."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...llb.ops import SourceOp
from ...oci import descriptor as _d
from ...oci import digest as _digest
from ...oci.platform import Platform
from ...wire.session import Session
from ..base import Context, Result, SolveError
from .pull import MAX_DOCUMENT, Image, load, unpack

SCHEME = "oci-layout://"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class _Layout:
    """A layout of a client, by the name under which its session knows it."""

    store: str
    session: Session

    @property
    def name(self) -> str:
        return f"OCI layout {self.store!r}"

    def manifest(self, digest: str) -> bytes:
        return self._document(digest)

    def config(self, descriptor: _d.Descriptor) -> bytes:
        return self._document(descriptor.digest)

    def blob(self, descriptor: _d.Descriptor) -> Iterator[bytes]:
        verifier = _digest.Verifier(descriptor.digest, descriptor.size)
        try:
            for chunk in self._pieces(descriptor.digest):
                verifier.update(chunk)
                yield chunk
            verifier.finish()
        except _digest.DigestMismatch as error:
            raise SolveError(f"{self.name}: {error}") from None

    def _document(self, digest: str) -> bytes:
        data = b""
        for chunk in self._pieces(digest):
            data += chunk
            if len(data) > MAX_DOCUMENT:
                raise SolveError(f"{self.name}: {digest} is too large for a manifest or config")
        algorithm = _digest.split(digest)[0]
        if f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}" != digest:
            raise SolveError(f"{self.name}: the content of {digest} does not match its digest")
        return data

    def _pieces(self, digest: str) -> Iterator[bytes]:
        try:
            with self.session.open_blob(self.store, digest) as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk
        except KeyError:
            raise SolveError(f"the client offers no {self.name}") from None
        except FileNotFoundError:
            raise SolveError(f"{self.name} has no blob {digest}") from None
        except OSError as error:
            raise SolveError(f"{self.name}: {error}") from error


def _parts(reference: str, store: str) -> tuple[str, str]:
    """Store and digest of `[oci-layout://]NAME[:TAG]@DIGEST`."""
    name, at, digest = reference.removeprefix(SCHEME).rpartition("@")
    try:
        if not at:
            raise _digest.InvalidDigest("it has no digest")
        _digest.validate(digest)
    except _digest.InvalidDigest as error:
        raise SolveError(f"{reference!r}: an image of an OCI layout is named as NAME@sha256:…: {error}") from None
    head, colon, tail = name.rpartition(":")
    if colon and "/" not in tail:
        name = head
    return store or name, digest


def _image(
    reference: str, attrs: Mapping[str, str], platform: Platform | None, context: Context
) -> tuple[Image, _Layout]:
    name, digest = _parts(reference, attrs.get("oci.store", ""))
    session = attrs.get("oci.session", "")
    layout = _Layout(name, context.session.other(session) if session else context.session)
    return load(digest, platform, layout, context, layer_limit(attrs.get("oci.layerlimit", ""))), layout


def layer_limit(text: str) -> int | None:
    """The number of a layer limit attribute. Raises SolveError."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        raise SolveError(f"the layer limit {text!r} is no positive number")
    return int(text)


def cache_key(op: SourceOp, platform: Platform | None, context: Context) -> str:
    """The chain id of the image's layers."""
    return _image(op.identifier, op.attrs, platform, context)[0].key


def snapshot(op: SourceOp, platform: Platform | None, context: Context) -> Result:
    """The image's file system."""
    image, layout = _image(op.identifier, op.attrs, platform, context)
    return Result(unpack(image, layout, context))


def resolve_config(
    reference: str, platform: Platform | None, context: Context, attrs: Mapping[str, str] | None = None
) -> tuple[str, str, bytes]:
    """The reference as it was given, its digest, and the config for a platform.

    `attrs` are those of the source op: where `oci.store` is missing, the layout has the reference's own name.

    Raises:
        SolveError: where there is no such image.
    """
    image, _ = _image(reference, attrs or {}, platform, context)
    return reference, image.digest, image.config
