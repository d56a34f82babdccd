"""Pushing an image: blobs at the same time, mounted from other repositories where that works, then manifests."""

from dataclasses import replace
from functools import partial

from ...oci.reference import Reference, parse
from ...oci.registry import Registry, RegistryError
from ..background import interruptible, together
from ..base import Context, SolveError
from ..layers import Layer, add_source, get_sources
from .writer import Committed

_PARALLEL = 4


def push(image: Committed, target: Reference, context: Context, *, by_digest: bool, insecure: bool) -> None:
    """Push an image under a name, or only under its digest.

    Raises:
        SolveError: where the registry refuses something.
    """
    session: Registry = context.registry()
    registry = session.insecure(target.domain) if insecure else session
    try:
        with context.step("pushing layers"):
            together(context, [partial(_blob, blob, target, registry, context) for blob in image.blobs], _PARALLEL)
        shown = target.trimmed() if by_digest else replace(target, digest="").tag_name_only()
        with context.step(f"pushing manifest for {shown.with_digest(image.root.digest)}"):
            for manifest in image.manifests:
                context.check()
                last = manifest.digest == image.root.digest
                ref = shown if last and not by_digest else target.trimmed()
                data = context.content.read(manifest.digest)
                interruptible(context, partial(registry.push_manifest, ref, data, manifest.media_type))
    except RegistryError as error:
        raise SolveError(f"failed to push {target}: {error}") from error
    finally:
        if registry is not session:
            registry.close()


def _blob(blob: Layer, target: Reference, registry: Registry, context: Context) -> None:
    context.check()
    digest = blob.descriptor.digest
    size = blob.descriptor.size

    def progress(done: int) -> None:
        context.check()
        context.progress(f"pushing {digest}", done, size)

    sources = [parse(source) for source in get_sources(context, digest)]
    registry.push_blob(
        target, blob.descriptor, lambda: context.content.open(digest), mount_from=sources, progress=progress
    )
    progress(size)
    if blob.diff_id:
        add_source(context, digest, target.name)
