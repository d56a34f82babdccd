"""Content digests: `algorithm:hex` (OCI image spec, descriptor, digests)."""

import hashlib
import re

_HEX_LENGTH = {"sha256": 64, "sha384": 96, "sha512": 128}
_HEX = re.compile(r"[a-f0-9]+")


class InvalidDigest(ValueError):
    """A text that is no digest, or one of an algorithm that is not supported."""


class DigestMismatch(ValueError):
    """Content that is not what its digest promised."""

    def __init__(self, expected: str, actual: str) -> None:
        """Name both; `actual` is a digest, or what is wrong with the size."""
        super().__init__(f"content does not match its digest: expected {expected}, got {actual}")
        self.expected = expected
        self.actual = actual


def validate(text: str) -> str:
    """Return `text` if it is a digest.

    Raises:
        InvalidDigest: for any other text.
    """
    algorithm, colon, encoded = text.partition(":")
    if not colon:
        raise InvalidDigest(f"{text!r} is not a digest: write algorithm:hex, such as sha256:…")
    length = _HEX_LENGTH.get(algorithm)
    if length is None:
        raise InvalidDigest(f"{text!r}: unsupported digest algorithm (sha256, sha384 and sha512 are supported)")
    if len(encoded) != length or not _HEX.fullmatch(encoded):
        raise InvalidDigest(f"{text!r}: a {algorithm} digest has {length} lower case hexadecimal digits")
    return text


def split(digest: str) -> tuple[str, str]:
    """The algorithm and the hexadecimal digits of a digest.

    Raises:
        InvalidDigest: for a text that is no digest; the parts are safe as file names.
    """
    algorithm, _, encoded = validate(digest).partition(":")
    return algorithm, encoded


def of_bytes(data: bytes) -> str:
    """The sha256 digest of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Verifier:
    """Checks a content that comes in pieces against a digest, and against a size where one is known."""

    def __init__(self, digest: str, size: int = -1) -> None:
        """Expect `digest`, and `size` bytes unless that is negative."""
        self._hash = hashlib.new(split(digest)[0])
        self._digest = digest
        self._size = size
        self.seen = 0

    def update(self, chunk: bytes | memoryview) -> None:
        """Take the next piece.

        Raises:
            DigestMismatch: once there is more than the expected size.
        """
        self.seen += len(chunk)
        if 0 <= self._size < self.seen:
            raise DigestMismatch(self._digest, f"more than the expected {self._size} bytes")
        self._hash.update(chunk)

    def finish(self) -> None:
        """End the content.

        Raises:
            DigestMismatch: where size or digest differ.
        """
        if self.seen < self._size:
            raise DigestMismatch(self._digest, f"{self.seen} bytes instead of {self._size}")
        actual = f"{self._digest.partition(':')[0]}:{self._hash.hexdigest()}"
        if actual != self._digest:
            raise DigestMismatch(self._digest, actual)
