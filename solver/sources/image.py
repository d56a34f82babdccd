"""`docker-image://REFERENCE`: an image of a registry.

Which content a tag means is asked once for each client's session. The resolve mode `default` asks the registry, and
falls back to an image that was built here under that name where the registry has none or can't be reached; `pull` asks
the registry only; `local` takes an image that was built here first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ...llb.ops import SourceOp
from ...oci import descriptor as _d
from ...oci import digest as _digest
from ...oci.platform import Platform
from ...oci.reference import InvalidReference, Reference, parse
from ...oci.registry import Denied, NotFound, Registry, RegistryError, Unauthorized, Unreachable
from ..background import interruptible
from ..base import Context, Result, SolveError
from ..image_store import find_image
from ..layers import add_source
from .memo import Memo
from .oci_layout import layer_limit
from .pull import MAX_DOCUMENT, Image, load, unpack

SCHEME = "docker-image://"
MODES = ("default", "pull", "local")

_memo: Memo[str] = Memo("image")


@dataclass(frozen=True, slots=True)
class _Repository:
    """The repository of a reference."""

    reference: Reference
    context: Context

    @property
    def name(self) -> str:
        return str(self.reference)

    def manifest(self, digest: str) -> bytes:
        with _explained(self.reference):
            registry: Registry = self.context.registry()
            return registry.manifest(self.reference.trimmed().with_digest(digest))[1]

    def config(self, descriptor: _d.Descriptor) -> bytes:
        with _explained(self.reference):
            registry: Registry = self.context.registry()
            return registry.read_blob(self.reference, descriptor, MAX_DOCUMENT)

    def blob(self, descriptor: _d.Descriptor) -> Iterator[bytes]:
        with _explained(self.reference):
            registry: Registry = self.context.registry()
            yield from registry.blob(self.reference, descriptor)


@contextmanager
def _explained(reference: Reference) -> Iterator[None]:
    try:
        yield
    except RegistryError as error:
        raise SolveError(f"{reference}: {error}") from error


def _parsed(text: str) -> Reference:
    try:
        return parse(text.removeprefix(SCHEME)).tag_name_only()
    except InvalidReference as error:
        raise SolveError(str(error)) from None


def resolve(reference: Reference, mode: str, context: Context) -> str:
    """The digest that a reference means.

    Raises:
        SolveError: where it can't be found out.
    """
    if mode not in MODES:
        raise SolveError(f"unknown image resolve mode {mode!r}: use {', '.join(MODES)}")
    if reference.digest:
        return reference.digest
    if mode == "local" and (local := find_image(reference, context)):
        return local
    # What fails in one mode may be found in another.
    return _memo.get(context, f"{mode} {reference}", lambda: _ask(reference, mode, context))


def _ask(reference: Reference, mode: str, context: Context) -> str:
    registry: Registry = context.registry()
    try:
        return interruptible(context, lambda: registry.resolve(reference)).digest
    except (NotFound, Unauthorized, Denied, Unreachable) as error:
        local = find_image(reference, context) if mode == "default" else None
        if local is None:
            raise SolveError(f"{reference}: {error}") from error
        return local
    except RegistryError as error:
        raise SolveError(f"{reference}: {error}") from error


def _of(op: SourceOp, platform: Platform | None, context: Context) -> tuple[Image, _Repository]:
    reference = _parsed(op.identifier)
    digest = resolve(reference, op.attrs.get("image.resolvemode", "") or "default", context)
    checksum = op.attrs.get("image.checksum", "")
    if checksum and checksum != digest:
        raise SolveError(f"{reference}: the image is {digest}, not {checksum}")
    repository = _Repository(reference, context)
    return load(digest, platform, repository, context, layer_limit(op.attrs.get("image.layerlimit", ""))), repository


def cache_key(op: SourceOp, platform: Platform | None, context: Context) -> str:
    """The chain id of the image's layers."""
    return _of(op, platform, context)[0].key


def snapshot(op: SourceOp, platform: Platform | None, context: Context) -> Result:
    """The image's file system."""
    image, repository = _of(op, platform, context)
    name = unpack(image, repository, context)
    for layer in image.manifest.layers:
        # A layer that was here already may have come from elsewhere.
        add_source(context, layer.digest, repository.reference.name)
    return Result(name)


def resolve_config(reference: str, platform: Platform | None, mode: str, context: Context) -> tuple[str, str, bytes]:
    """The reference with its digest, the digest (an index's where there is one), and the config for a platform.

    Raises:
        SolveError: where there is no such image, or the registry does not give it.
    """
    parsed = _parsed(reference)
    digest = resolve(parsed, mode or "default", context)
    image = load(digest, platform, _Repository(parsed, context), context)
    try:
        return str(parsed.with_digest(digest)), digest, image.config
    except _digest.InvalidDigest as error:
        raise SolveError(f"{reference}: {error}") from None
