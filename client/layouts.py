"""`oci-layout://` references of named contexts: the folder, the tag, and the digest they stand for."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from .errors import ClientError

PREFIX = "oci-layout://"
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}")
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class LayoutRef:
    """An image in an OCI image layout."""

    path: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        """The form that `parse` reads."""
        return f"{PREFIX}{self.path}{':' + self.tag if self.tag else ''}{'@' + self.digest if self.digest else ''}"


def parse(text: str) -> LayoutRef:
    """Read `oci-layout://PATH[:TAG][@DIGEST]`; the tag is `latest` where neither is given."""
    path, tag, digest = text.removeprefix(PREFIX), "", ""
    head, at, tail = path.rpartition("@")
    if at and _DIGEST.fullmatch(tail):
        path, digest = head, tail
    head, colon, tail = path.rpartition(":")
    if colon and _TAG.fullmatch(tail):
        path, tag = head, tail
    return LayoutRef(path, tag if tag or digest else "latest", digest)


def is_tag(text: str) -> bool:
    """Whether an image can be named so in `oci-layout://PATH:TAG`."""
    return _TAG.fullmatch(text) is not None


def open_blob(layout: Path, digest: str) -> BinaryIO:
    """A blob of an OCI image layout. Raises FileNotFoundError where it has none of this digest."""
    algorithm, _, encoded = digest.partition(":")
    if not _DIGEST.fullmatch(digest):
        raise FileNotFoundError(f"not a digest: {digest!r}")
    return (layout / "blobs" / algorithm / encoded).open("rb")


def write_blob(layout: Path, digest: str, data: Iterable[bytes]) -> None:
    """Add a blob to an OCI image layout, whole or not at all. Raises OSError, for other bytes than the digest's too."""
    from ..oci.digest import DigestMismatch, InvalidDigest
    from ..oci.layout import Layout, LayoutError

    try:
        found = Layout.open(layout)
        if not found.has(digest):
            found.write_blob(_Pieces(data), "", digest)
    except (LayoutError, DigestMismatch, InvalidDigest) as error:
        raise OSError(str(error)) from error


class _Pieces:
    """Pieces of bytes as a stream."""

    def __init__(self, data: Iterable[bytes]) -> None:
        self._data = iter(data)
        self._left = b""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, none at the end."""
        while not self._left:
            piece = next(self._data, None)
            if piece is None:
                return b""
            self._left = piece
        out, self._left = self._left[:size], self._left[size:]
        return out


def resolve(ref: LayoutRef) -> LayoutRef:
    """The same reference with its digest, read from the layout's index.

    A layout that holds one image gives that image when nothing in it has the tag.

    Raises:
        ClientError: the folder is no OCI layout, or holds no such image.
    """
    # The layout reader brings the compression libraries along, which a build of a Dockerfile alone needs not wait for.
    from ..oci.layout import Layout, LayoutError

    if not Path(ref.path).is_dir():
        raise ClientError(f"OCI layout {ref.path!r} not found", "`brickyard base make DIR` makes one")
    try:
        manifests = Layout.open(Path(ref.path)).index().manifests
    except (LayoutError, OSError) as error:
        said = f"{ref.path} is no OCI image layout: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise ClientError(said, "`brickyard base make DIR` makes one") from error
    if ref.digest:
        return ref
    for key in _NAMES:
        for entry in manifests:
            if entry.annotations.get(key) == ref.tag:
                return replace(ref, digest=entry.digest)
    if len(manifests) == 1:
        return replace(ref, digest=manifests[0].digest)
    tags = sorted({entry.annotations[_NAMES[1]] for entry in manifests if _NAMES[1] in entry.annotations})
    hint = f"it has {', '.join(tags)}" if tags else "name an image by its digest: oci-layout://PATH@sha256:…"
    raise ClientError(f"{ref.path}: the OCI layout has no image {ref.tag!r}", hint)
