"""OCI image layouts on disk and as archives, and the archives of `docker save` (OCI image spec, image layout)."""

import fcntl
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from . import descriptor as _d
from . import digest as _digest
from .compression import CompressionError, decompress
from .config import decode_config, diff_ids, platform_of
from .platform import Platform
from .reference import InvalidReference, Reference, parse
from .tar import Entry, Kind, Readable, TarError, TarReader, TarWriter, Writable

IMAGE_NAME = "io.containerd.image.name"
"""The annotation in which containerd and BuildKit keep the full name of an image."""

Opener = Callable[[], BinaryIO]

_LAYOUT = "oci-layout"
_INDEX = "index.json"
_VERSION = b'{"imageLayoutVersion":"1.0.0"}'
_MAX_DOCUMENT = 16 << 20
_MAX_DEPTH = 8
_CHUNK = 1 << 20


class LayoutError(ValueError):
    """A directory or archive that is no image layout, or one that lacks what was asked for."""


@dataclass(frozen=True, slots=True)
class DockerImage:
    """One image of a docker archive: its config, its layers lowest first, and its names.

    `manifest` is the image's own manifest where there is one; else one is made.
    """

    config: bytes
    layers: Sequence[tuple[_d.Descriptor, Opener]]
    names: Sequence[Reference] = ()
    manifest: bytes = b""


class _VerifyingFile(io.RawIOBase):
    """A blob that raises at its end, or where it gets too long, unless it is what its digest says."""

    def __init__(self, raw: BinaryIO, verifier: _digest.Verifier) -> None:
        self._raw = raw
        self._verifier = verifier

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        data = self._raw.read(len(view))
        if data:
            self._verifier.update(data)
        elif len(view):
            self._verifier.finish()
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._raw.close()
        super().close()


class Layout:
    """An image layout in a directory."""

    def __init__(self, path: Path) -> None:
        """Use `open` or `create`."""
        self.path = path

    @staticmethod
    def open(path: Path) -> "Layout":
        """An existing layout.

        Raises:
            LayoutError: where there is none.
        """
        try:
            version = json.loads((path / _LAYOUT).read_bytes())
        except FileNotFoundError:
            raise LayoutError(f"{path} is no OCI image layout: it has no file {_LAYOUT!r}") from None
        except ValueError as error:
            raise LayoutError(f"{path / _LAYOUT}: {error}") from None
        if not isinstance(version, dict) or not str(version.get("imageLayoutVersion")).startswith("1."):
            raise LayoutError(f"{path / _LAYOUT}: not an image layout of version 1")
        return Layout(path)

    @staticmethod
    def create(path: Path) -> "Layout":
        """A layout in `path`: the one that is there, or a new one without images."""
        (path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        layout = Layout(path)
        if not (path / _LAYOUT).exists():
            layout._write(_LAYOUT, _VERSION)
        if not (path / _INDEX).exists():
            layout._write(_INDEX, _d.Index(()).encode())
        return layout

    def index(self) -> _d.Index:
        """The images of the layout.

        Raises:
            LayoutError: where the file is missing or broken.
        """
        try:
            found = _d.decode((self.path / _INDEX).read_bytes())
        except FileNotFoundError:
            raise LayoutError(f"{self.path} is no OCI image layout: it has no file {_INDEX!r}") from None
        except _d.DescriptorError as error:
            raise LayoutError(f"{self.path / _INDEX}: {error}") from None
        if not isinstance(found, _d.Index):
            raise LayoutError(f"{self.path / _INDEX}: an image manifest instead of an index")
        return found

    def blob_path(self, digest: str) -> Path:
        """Where the blob of a digest is, or would be; who reads it there checks it."""
        algorithm, encoded = _digest.split(digest)
        return self.path / "blobs" / algorithm / encoded

    def has(self, digest: str) -> bool:
        """Whether the layout holds a blob."""
        return self.blob_path(digest).is_file()

    def open_blob(self, descriptor: _d.Descriptor) -> BinaryIO:
        """A blob as a stream; reading its end raises `DigestMismatch` unless it is what the descriptor says.

        Raises:
            LayoutError: where the layout does not hold it.
        """
        try:
            raw = self.blob_path(descriptor.digest).open("rb")
        except FileNotFoundError:
            raise LayoutError(f"{self.path} has no blob {descriptor.digest}") from None
        verifier = _digest.Verifier(descriptor.digest, descriptor.size)
        return cast(BinaryIO, io.BufferedReader(_VerifyingFile(raw, verifier), _CHUNK))

    def read_blob(self, descriptor: _d.Descriptor) -> bytes:
        """All of a blob, checked.

        Raises:
            LayoutError: where the layout does not hold it.
            DigestMismatch: where it is not what the descriptor says.
        """
        with self.open_blob(descriptor) as stream:
            return stream.read()

    def write_blob(self, data: bytes | Readable, media_type: str, digest: str = "") -> _d.Descriptor:
        """Add a blob.

        Args:
            data: the content, or a stream of it.
            media_type: for the descriptor.
            digest: what the content must have as its digest, where that is known.

        Raises:
            DigestMismatch: where it has another; nothing is added.
        """
        if isinstance(data, bytes):
            data = cast(Readable, io.BytesIO(data))
        folder = self.path / "blobs"
        fd, temporary = tempfile.mkstemp(prefix=".writing-", dir=folder)
        try:
            verifier = _digest.Verifier(digest) if digest else None
            sha, size = hashlib.sha256(), 0
            with os.fdopen(fd, "wb") as out:
                while chunk := data.read(_CHUNK):
                    (verifier or sha).update(chunk)
                    out.write(chunk)
                    size += len(chunk)
            if verifier is not None:
                verifier.finish()
            digest = digest or f"sha256:{sha.hexdigest()}"
            target = self.blob_path(digest)
            target.parent.mkdir(exist_ok=True)
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
        return _d.Descriptor(media_type, digest, size)

    def add(self, descriptor: _d.Descriptor, name: str = "") -> None:
        """List an image in the index, under a tag or a full name; what had that name before loses it."""
        if name:
            descriptor = _d.retagged(descriptor, name)
        with self._locked():
            index = self.index()
            if not name and any(entry.digest == descriptor.digest for entry in index.manifests):
                return
            kept = [
                entry
                for entry in index.manifests
                if (entry.annotations.get(_d.REF_NAME) or entry.digest) not in (name, descriptor.digest)
            ]
            new = _d.Index((*kept, descriptor), index.annotations, index.media_type)
            self._write(_INDEX, new.encode())

    def resolve(self, selector: str = "", platform: Platform | None = None) -> _d.Descriptor:
        """The image that a tag, a full name or a digest means.

        Args:
            selector: the name; "" is the only image that there is. A digest finds any manifest of the layout, whether
                the index lists it or not.
            platform: go down through indexes to the image manifest for this platform.

        Raises:
            LayoutError: where there is none, or more than one to choose from.
        """
        found = self._select(selector)
        if platform is None:
            if len(found) > 1:
                raise LayoutError(f"{self.path}: {selector or 'the layout'!r} means {len(found)} images: name one")
            return found[0]
        chosen = _d.choose(_d.Index(tuple(found)), platform)
        for _ in range(_MAX_DEPTH):
            if chosen is None:
                break
            if chosen.media_type not in _d.INDEX_TYPES:
                return chosen
            nested = _d.decode(self.read_blob(chosen), chosen.media_type)
            chosen = _d.choose(nested, platform) if isinstance(nested, _d.Index) else None
        raise LayoutError(f"{self.path}: {selector or 'the image'!r} has no manifest for {platform}")

    def _select(self, selector: str) -> list[_d.Descriptor]:
        entries = self.index().manifests
        if not selector:
            if not entries:
                raise LayoutError(f"{self.path} holds no image")
            return list(entries)
        if found := [entry for entry in entries if selector == entry.digest]:
            return found[:1]
        try:
            digest = _digest.validate(selector)
        except _digest.InvalidDigest:
            pass
        else:
            return [self._unlisted(digest)]
        try:
            full = str(parse(selector).tag_name_only())
        except InvalidReference:
            full = selector
        # A full name is more exact than a tag, which several images of one layout may share.
        for key, value in ((IMAGE_NAME, full), (_d.REF_NAME, selector), (_d.REF_NAME, full)):
            if found := [entry for entry in entries if entry.annotations.get(key) == value]:
                return found
        names = sorted({entry.annotations.get(_d.REF_NAME, "") for entry in entries} - {""})
        raise LayoutError(f"{self.path} has no image {selector!r}" + (f"; it has {', '.join(names)}" if names else ""))

    def _unlisted(self, digest: str) -> _d.Descriptor:
        path = self.blob_path(digest)
        if not path.is_file():
            raise LayoutError(f"{self.path} has no blob {digest}")
        size = path.stat().st_size
        if size > _MAX_DOCUMENT:
            raise LayoutError(f"{self.path}: {digest} is too large for a manifest")
        try:
            kind = _d.decode(self.read_blob(_d.Descriptor("", digest, size))).media_type
        except _d.DescriptorError as error:
            raise LayoutError(f"{self.path}: {digest} is no manifest: {error}") from None
        return _d.Descriptor(kind, digest, size)

    def _write(self, name: str, data: bytes) -> None:
        fd, temporary = tempfile.mkstemp(prefix=".writing-", dir=self.path)
        with os.fdopen(fd, "wb") as out:
            out.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, self.path / name)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.path / "index.json.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def read_archive(stream: Readable, path: Path, max_size: int | None = None) -> Layout:
    """Unpack an archive of an image layout, compressed or not, into `path`; every blob is checked.

    Args:
        stream: the archive; it is read to its end.
        path: where the layout goes, a new or empty directory.
        max_size: refuse a larger archive.

    Raises:
        LayoutError: for an archive that holds no layout, or a damaged one; `path` may hold parts of it then.
    """
    documents: dict[str, bytes] = {}
    path.mkdir(parents=True, exist_ok=True)
    (path / "blobs").mkdir(exist_ok=True)
    layout = Layout(path)
    try:
        reader = TarReader(decompress(stream), max_size)
        for entry in reader:
            name = entry.name.removeprefix("./")
            if entry.kind is not Kind.FILE:
                continue
            if name in (_LAYOUT, _INDEX):
                if entry.size > _MAX_DOCUMENT:
                    raise LayoutError(f"archive: {name} is too large")
                documents[name] = b"".join(bytes(data) for _, data in reader.data())
            elif name.startswith("blobs/"):
                algorithm, _, encoded = name.removeprefix("blobs/").partition("/")
                layout.write_blob(_EntryStream(reader), "", _digest.validate(f"{algorithm}:{encoded}"))
    except (TarError, CompressionError, _digest.InvalidDigest, _digest.DigestMismatch) as error:
        raise LayoutError(f"archive: {error}") from None
    if missing := {_LAYOUT, _INDEX} - documents.keys():
        raise LayoutError(f"not an archive of an OCI image layout: it has no {' and no '.join(sorted(missing))}")
    for name, data in documents.items():
        layout._write(name, data)
    layout.index()
    return Layout.open(path)


class _EntryStream:
    """The content of an archive's latest entry as a stream."""

    def __init__(self, reader: TarReader) -> None:
        self._pieces = reader.data()

    def read(self, _size: int, /) -> bytes:
        return bytes(next(self._pieces, (0, b""))[1])


def layout_files(index: _d.Index) -> dict[str, bytes]:
    """The files of a layout beside its blobs, by name."""
    return {_INDEX: _d.encode_json(index.to_json(), None), _LAYOUT: _VERSION}


def write_archive(
    out: Writable,
    index: _d.Index,
    blobs: Iterable[tuple[_d.Descriptor, Opener]],
    docker: bytes | None = None,
) -> None:
    """Write an image layout as a tar archive; equal images give equal bytes.

    Args:
        out: where the archive goes.
        index: the layout's index.
        blobs: all content that the index leads to, in any order; what is there twice is written once.
        docker: the content of `manifest.json`, by which `docker load` knows the images.

    Raises:
        DigestMismatch: where a blob is not what its descriptor says; the archive is unusable then.
    """
    _write(out, index, blobs, {} if docker is None else {"manifest.json": docker})


def write_docker_archive(out: Writable, images: Iterable[DockerImage]) -> None:
    """Write an archive that `docker load` reads, of old and new versions: an image layout with Docker's lists.

    Args:
        out: where the archive goes.
        images: one for each platform and image.

    Raises:
        DigestMismatch: where a layer is not what its descriptor says; the archive is unusable then.
        ConfigError: where an image's config is broken.
    """
    entries: list[_d.Descriptor] = []
    blobs: list[tuple[_d.Descriptor, Opener]] = []
    listed: list[dict[str, object]] = []
    repositories: dict[str, dict[str, str]] = {}
    for image in images:
        config, layers = _d.describe(image.config, _d.DOCKER_CONFIG), [layer for layer, _ in image.layers]
        parsed = decode_config(image.config)
        if len(diff_ids(parsed)) != len(layers):
            raise LayoutError(f"the config names {len(diff_ids(parsed))} layers, but there are {len(layers)}")
        data = image.manifest or _d.Manifest(config, tuple(layers), media_type=_d.DOCKER_MANIFEST).encode()
        described = _d.describe(data, _d.decode(data).media_type, platform_of(parsed))
        blobs += [(config, _opener(image.config)), (described, _opener(data)), *image.layers]
        names = [name.tag_name_only() for name in image.names]
        for name in names:
            annotations = {IMAGE_NAME: str(name), _d.REF_NAME: name.tag}
            entries.append(_d.describe(data, described.media_type, described.platform, annotations))
            if layers and name.tag:
                repositories.setdefault(name.trimmed().familiar, {})[name.tag] = _digest.split(layers[-1].digest)[1]
        if not names:
            entries.append(described)
        listed.append(
            {
                "Config": _blob_name(config),
                "RepoTags": [name.familiar for name in names] or None,
                "Layers": [_blob_name(layer) for layer in layers],
            }
        )
    documents = {"manifest.json": _d.encode_json(listed, None)}
    if repositories:
        documents["repositories"] = _d.encode_json(repositories, None)
    _write(out, _d.Index(tuple(entries)), blobs, documents)


def _opener(data: bytes) -> Opener:
    return lambda: io.BytesIO(data)


def _blob_name(descriptor: _d.Descriptor) -> str:
    return "blobs/" + "/".join(_digest.split(descriptor.digest))


def _write(
    out: Writable,
    index: _d.Index,
    blobs: Iterable[tuple[_d.Descriptor, Opener]],
    documents: dict[str, bytes],
) -> None:
    tar = TarWriter(out)
    unique = {_blob_name(descriptor): (descriptor, opener) for descriptor, opener in blobs}
    folders = {name.rpartition("/")[0] for name in unique} | {"blobs", "blobs/sha256"}
    for folder in sorted(folders):
        tar.add(Entry(folder, Kind.DIRECTORY, 0o755))
    for name, (descriptor, opener) in sorted(unique.items()):
        tar.add(Entry(name, Kind.FILE, 0o444, size=descriptor.size))
        with opener() as stream:
            _copy(stream, tar, _digest.Verifier(descriptor.digest, descriptor.size))
    for name, data in sorted({**layout_files(index), **documents}.items()):
        tar.add(Entry(name, Kind.FILE, 0o444, size=len(data)))
        tar.write(data)
    tar.close()


def _copy(stream: BinaryIO, tar: TarWriter, verifier: _digest.Verifier) -> None:
    """Write a blob; its digest is taken at the same time. Raises DigestMismatch."""
    chunk = stream.read(_CHUNK)
    if len(chunk) < _CHUNK:
        verifier.update(chunk)
        tar.write(chunk)
    else:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1, thread_name_prefix="digest") as helper:
            while chunk:
                digested = helper.submit(verifier.update, chunk)
                tar.write(chunk)
                chunk = stream.read(_CHUNK)
                digested.result()
    verifier.finish()
