"""Exporter `oci`: an OCI image layout, as an archive or, with `tar=false`, as a folder."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Protocol, runtime_checkable

from ...oci import descriptor as _d
from ...oci.layout import IMAGE_NAME, Opener, layout_files, write_archive
from ...oci.reference import Reference
from ...wire.fsutil import tree
from ..base import Context, Exportable, SolveError
from .image import parsed_names, with_metadata
from .options import ImageOptions, boolean, read_options
from .writer import Committed, commit

_CHUNK = 1 << 20
_STORE = "export"
_CREATED = "org.opencontainers.image.created"


def export(result: Exportable, id: str, attrs: Mapping[str, str], context: Context) -> dict[str, str]:
    """Make the image and send it to the client.

    Raises:
        SolveError: for options that make no sense, and where the archive cannot be written.
    """
    return export_layout(result, id, attrs, context, docker=False)


def export_layout(
    result: Exportable, id: str, attrs: Mapping[str, str], context: Context, *, docker: bool
) -> dict[str, str]:
    """The same for both exporters of layouts; `docker` adds the list that `docker load` reads."""
    options = read_options(attrs)
    tar = "tar" not in options.rest or boolean("tar", options.rest["tar"])
    given = list(options.names)
    if given == ["*"] and "image.name" in result.metadata:
        given = result.metadata["image.name"].decode(errors="replace").split(",")
    names = parsed_names(given)
    image = commit(with_metadata(result, options), options, context)
    root = _dated(image.root, options)
    answer = image.answer(root)
    if names:
        answer["image.name"] = ",".join(map(str, names))
    index = _d.Index(tuple(_named(root, name) for name in names) or (root,))
    if tar:
        with context.step("sending tarball"), sending(id, answer, context) as out:
            write_archive(
                out, index, _contents(image, context), docker=_docker_list(image, names, context) if docker else None
            )
    else:
        with context.step("sending layout"):
            _send_folder(index, image, id, answer, context)
    return answer


@contextmanager
def sending(id: str, answer: Mapping[str, str], context: Context) -> Iterator[BinaryIO]:
    """The client's stream for an archive; closed at the end of the block. Raises SolveError."""
    try:
        with context.session.output_file(id, answer) as out:
            yield _Cancellable(out, context)  # type: ignore[misc]
    except KeyError:
        raise SolveError("the client takes no archive for this export: give it a destination") from None
    except BrokenPipeError:
        raise SolveError("the client stopped reading the archive") from None


class _Cancellable:
    """A stream that stops with the build."""

    def __init__(self, out: BinaryIO, context: Context) -> None:
        self._out = out
        self._context = context

    def write(self, data: bytes) -> None:
        self._context.check()
        self._out.write(data)


def _dated(root: _d.Descriptor, options: ImageOptions) -> _d.Descriptor:
    if _CREATED in root.annotations:
        return root
    moment = time.gmtime(options.epoch if options.epoch is not None else None)
    return replace(root, annotations={**root.annotations, _CREATED: time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)})


def _named(root: _d.Descriptor, name: Reference) -> _d.Descriptor:
    reference_name = name.tag or name.digest
    return replace(root, annotations={**root.annotations, IMAGE_NAME: str(name), _d.REF_NAME: reference_name})


def _contents(image: Committed, context: Context) -> list[tuple[_d.Descriptor, Opener]]:
    def opener(digest: str) -> Opener:
        return lambda: context.content.open(digest)

    described = [*image.manifests, *(blob.descriptor for blob in image.blobs)]
    return [(entry, opener(entry.digest)) for entry in described]


def _docker_list(image: Committed, names: Sequence[Reference], context: Context) -> bytes:
    """Docker's own list of images: the first manifest, where there are attestations beside it."""
    chosen = image.manifests[0]
    manifest = _d.decode(context.content.read(chosen.digest), chosen.media_type)
    assert isinstance(manifest, _d.Manifest)
    entry = {
        "Config": _blob_name(manifest.config.digest),
        "RepoTags": [name.familiar for name in names] or None,
        "Layers": [_blob_name(layer.digest) for layer in manifest.layers] or None,
    }
    return _d.encode_json([entry], None)


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


@runtime_checkable
class _TakesBlobs(Protocol):
    """A session of a client that takes blobs one by one and lists them in the layout's index itself."""

    def write_blob(self, store: str, digest: str, size: int, data: Iterable[bytes], labels: Mapping[str, str]) -> None:
        """Put a blob into one of the client's stores."""


def _sent(session: _TakesBlobs, image: Committed, context: Context) -> bool:
    """Put an image into the client's store for exports. False where it has none, and takes a folder if anything."""
    try:
        # What leads to others comes last.
        for entry in [*(blob.descriptor for blob in image.blobs), *image.manifests]:
            session.write_blob(_STORE, entry.digest, entry.size, _pieces(entry.digest, context), {})
    except KeyError:
        return False
    return True


def _send_folder(index: _d.Index, image: Committed, id: str, answer: Mapping[str, str], context: Context) -> None:
    session = context.session
    if isinstance(session, _TakesBlobs) and _sent(session, image, context):
        return
    try:
        with TemporaryDirectory(dir=context.root, prefix="layout-") as folder:
            for name, data in layout_files(index).items():
                (Path(folder) / name).write_bytes(data)
            for digest in image.digests():
                place = Path(folder) / _blob_name(digest)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.link(context.content.path(digest), place)
            session.output_dir(id, tree.folder(Path(folder)), answer)
    except KeyError:
        raise SolveError("the client takes no folder for this export: give it a destination") from None


def _pieces(digest: str, context: Context) -> Iterator[bytes]:
    with context.content.open(digest) as file:
        while chunk := file.read(_CHUNK):
            context.check()
            yield chunk
