"""The layer blobs of a snapshot: those that it was made from as they are, others written once and kept."""

import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from ...oci import descriptor as _d
from ...oci.layer import (
    Below,
    Compression,
    CompressionError,
    Difference,
    Folder,
    LayerBlob,
    LayerError,
    LayerPacker,
    LayerWriter,
    Listings,
    Stack,
    decompress,
    of_trees,
    of_upper,
    pack,
)
from ...oci.rewrite import bound_times
from ...oci.tar import TarError
from ..base import Context, SolveError
from ..layers import FIRST, Layer, exclusively, get_layer, get_sources, set_layer
from .options import LayerForm

_CHUNK = 1 << 20
_KINDS: dict[str, Compression] = {
    _d.OCI_LAYER: "uncompressed",
    _d.DOCKER_LAYER: "uncompressed",
    _d.OCI_LAYER_GZIP: "gzip",
    _d.DOCKER_LAYER_GZIP: "gzip",
    _d.OCI_LAYER_ZSTD: "zstd",
    _d.DOCKER_LAYER_ZSTD: "zstd",
}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Times to change: no file is younger than `epoch`, in seconds, but for the lowest layers, `kept` by diff id."""

    epoch: int
    kept: tuple[str, ...] = ()


def layers_of(snapshot: str | None, form: LayerForm, context: Context, rewrite: Rewrite | None = None) -> list[Layer]:
    """The blobs of a snapshot and those below it, lowest first; all are in the content store.

    Raises:
        SolveError: where one cannot be written.
    """
    names, listed = context.snapshots.chain(snapshot), Listings()
    if rewrite is None:
        return at_once([partial(_blob, name, form, context, listed) for name in names])
    kept = 0
    for name, diff_id in zip(names, rewrite.kept, strict=False):
        layer = get_layer(context, name)
        if layer is None or layer.diff_id != diff_id:
            break
        kept += 1
    low = [partial(_blob, name, form, context, listed) for name in names[:kept]]
    high = [partial(_rewritten, name, form, rewrite.epoch, context, listed) for name in names[kept:]]
    return at_once([*low, *high])


def at_once(tasks: list[Callable[[], _T]], workers: int = 0) -> list[_T]:
    """The results of tasks that run at the same time, in order; the first error is raised."""
    if len(tasks) < 2:
        return [task() for task in tasks]
    with ThreadPoolExecutor(min(len(tasks), workers or os.cpu_count() or 1)) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def kind_of(layer: _d.Descriptor) -> Compression | None:
    """How a layer is compressed, None where its type is not known."""
    return _KINDS.get(layer.media_type)


def _blob(name: str, form: LayerForm, context: Context, listed: Listings) -> Layer:
    with exclusively(context, f"blob {name}"):
        first = get_layer(context, name)
        if first is not None and not _there(first, context):
            first = None
        if first is None:
            first = _written(name, form, context, listed)
            set_layer(context, name, first)
            return first
        if not form.force or kind_of(first.descriptor) == form.kind:
            return first
        title = form.kind if form.level is None else f"{form.kind}-{form.level}"
        known = get_layer(context, name, title)
        if known is None or not context.content.has(known.descriptor.digest):
            known = _converted(first, form, context)
            set_layer(context, name, known, title)
        return known


def _there(layer: Layer, context: Context) -> bool:
    """Whether the blob is in the content store, where it may have to be fetched again."""
    if context.content.has(layer.descriptor.digest):
        return True
    sources = get_sources(context, layer.descriptor.digest)
    if not sources:
        return False
    from ...oci.reference import InvalidReference, parse
    from ...oci.registry import Registry, RegistryError

    registry: Registry = context.registry()
    for source in sources:
        try:
            with context.content.writer() as out:
                for piece in registry.blob(parse(source), layer.descriptor):
                    out.write(piece)
                    context.check()
                out.commit(layer.descriptor.digest)
            return True
        except (RegistryError, InvalidReference):
            continue
    return False


@contextmanager
def _differences(name: str, context: Context, listed: Listings) -> Iterator[tuple[bytes, Iterator[Difference]]]:
    """What a snapshot changes of its parent, and the directory with the changed files."""
    store = context.snapshots
    upper, parent = os.fsencode(store.own_files(name)), store.parent(name)
    with ExitStack() as stack:
        base: Below | None = None
        if parent is not None and store.mode == "overlay":
            base = Stack([os.fsencode(folder) for folder in store.folders(parent)], listed)
        elif parent is not None:
            base = Folder(os.fsencode(stack.enter_context(store.mounted(parent))))
        found = of_upper(upper, base) if store.mode == "overlay" else of_trees(base, upper)
        yield upper, _checked(found, context)


def _written(name: str, form: LayerForm, context: Context, listed: Listings, timestamp: int | None = None) -> Layer:
    """A blob of what a snapshot changes of its parent."""

    def fill(writer: LayerWriter) -> None:
        # Without root's rights files can't have the owners that they have in the image.
        owner = None if os.geteuid() == 0 else (0, 0)
        with _differences(name, context, listed) as (upper, found):
            pack(found, LayerPacker(writer, upper, timestamp=timestamp, owner=owner))

    return replace(_stored(fill, form, context), own=True)


def layer_finder(snapshot: str | None, digests: Sequence[str], context: Context) -> Callable[[str], str | None]:
    """Tells which of the layers of a snapshot, given by digest, brought a path: the highest that has it."""
    pending = list(zip(context.snapshots.chain(snapshot), digests, strict=True))
    known: dict[bytes, str] = {}
    listed = Listings()

    def find(path: str) -> str | None:
        wanted = os.fsencode(posixpath.normpath("/" + path).lstrip("/"))
        while wanted not in known and pending:
            name, digest = pending.pop()
            with _differences(name, context, listed) as (_, found):
                for difference in found:
                    if difference.status is not None:
                        known.setdefault(difference.path, digest)
        return known.get(wanted)

    return find


def _checked(differences: Iterator[Difference], context: Context) -> Iterator[Difference]:
    for difference in differences:
        context.check()
        yield difference


def _rewritten(name: str, form: LayerForm, epoch: int, context: Context, listed: Listings) -> Layer:
    """A blob of a snapshot in which no file is younger than a time."""
    title = f"{form.kind if form.level is None else f'{form.kind}-{form.level}'}@{epoch}"
    with exclusively(context, f"blob {name} {title}"):
        known = get_layer(context, name, title)
        if known is not None and context.content.has(known.descriptor.digest):
            return known
        first = get_layer(context, name)
        if first is None or first.own or not _there(first, context):
            made = _written(name, form, context, listed, epoch)
        else:
            digest = first.descriptor.digest

            def fill(writer: LayerWriter) -> None:
                with context.content.open(digest) as file:
                    bound_times(file, writer, epoch)

            made = _stored(fill, form, context)
        noted = replace(made.descriptor, annotations={"buildkit/rewritten-timestamp": str(epoch)})
        made = replace(made, descriptor=noted)
        set_layer(context, name, made, title)
        return made


def _converted(layer: Layer, form: LayerForm, context: Context) -> Layer:
    def fill(writer: LayerWriter) -> None:
        with context.content.open(layer.descriptor.digest) as file:
            stream = decompress(file)
            while chunk := stream.read(_CHUNK):
                writer.write(chunk)
                context.check()

    return _stored(fill, form, context)


def _stored(fill: Callable[[LayerWriter], None], form: LayerForm, context: Context) -> Layer:
    try:
        with context.content.writer(hashed=True) as out:
            writer = LayerWriter(out, form.kind, form.level or None)
            fill(writer)
            blob: LayerBlob = writer.close()
            out.commit(blob.digest)
    except (LayerError, CompressionError, TarError) as error:
        raise SolveError(f"cannot export a layer: {error}") from error
    return Layer(blob.descriptor(), blob.diff_id)


def media_type(layer: _d.Descriptor, oci: bool) -> _d.Descriptor:
    """The same layer with OCI's or with Docker's name of its type, where the type is known."""
    kind = kind_of(layer)
    if kind is None:
        return layer
    return replace(
        layer, media_type=LayerBlob("", layer.digest, layer.size, kind).descriptor(docker=not oci).media_type
    )


__all__ = ["FIRST", "at_once", "kind_of", "layers_of", "media_type"]
