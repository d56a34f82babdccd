"""Image references: `domain/path:tag@digest`, in the normal form of Docker's `distribution/reference`."""

import re
from dataclasses import dataclass, replace

from . import digest as _digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_MAX_NAME = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(rf"(?P<domain>{_DOMAIN})/(?P<path>{_PATH})(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?")
_ONLY_TAG = re.compile(_TAG)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


class InvalidReference(ValueError):
    """A text that names no image."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An image by name, with a tag, a digest, both or neither."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Domain and path: `docker.io/library/alpine`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar(self) -> str:
        """The short form that people write: `alpine:3.20` for `docker.io/library/alpine:3.20`."""
        name = self.name
        if self.domain == DEFAULT_DOMAIN:
            name = self.path
            rest = name.removeprefix(_OFFICIAL)
            if "/" not in rest:
                name = rest
        return name + self._suffix()

    def tag_name_only(self) -> "Reference":
        """The same with tag `latest` where there is neither a tag nor a digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> "Reference":
        """The same with another tag.

        Raises:
            InvalidReference: for a text that is no tag.
        """
        if not _ONLY_TAG.fullmatch(tag):
            raise InvalidReference(f"{tag!r} is not a tag: letters, digits, '_', '.' and '-', at most 128")
        return replace(self, tag=tag)

    def with_digest(self, digest: str) -> "Reference":
        """The same with another digest.

        Raises:
            InvalidDigest: for a text that is no digest.
        """
        return replace(self, digest=_digest.validate(digest))

    def trimmed(self) -> "Reference":
        """The same without tag and digest."""
        return Reference(self.domain, self.path)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        """The full form, which `parse` reads back."""
        return self.name + self._suffix()


def parse(text: str) -> Reference:
    """Read a reference, short or full.

    Raises:
        InvalidReference: for a text that names no image, saying what is wrong with it.
    """
    if not text:
        raise InvalidReference("an image reference must not be empty")
    if _IDENTIFIER.fullmatch(text):
        raise InvalidReference(
            f"{text!r}: a reference cannot be 64 hexadecimal digits; write name@sha256:… for a digest"
        )
    domain, rest = _split_domain(text)
    name = rest.partition(":")[0]
    if name.lower() != name:
        raise InvalidReference(f"{text!r}: the repository name must be lower case: {name.lower()!r}")
    match = _REFERENCE.fullmatch(f"{domain}/{rest}")
    if match is None:
        raise InvalidReference(f"{text!r} is not an image reference: write [domain/]path[:tag][@digest]")
    if len(match["path"]) > _MAX_NAME:
        raise InvalidReference(f"{text!r}: the repository name must not be longer than {_MAX_NAME} characters")
    if match["digest"]:
        try:
            _digest.validate(match["digest"])
        except _digest.InvalidDigest as error:
            raise InvalidReference(f"{text!r}: {error}") from None
    return Reference(match["domain"], match["path"], match["tag"] or "", match["digest"] or "")


def _split_domain(text: str) -> tuple[str, str]:
    """Domain and rest: the first component is a domain where it looks like a host name, else it is part of the path."""
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, _OFFICIAL + text
    if first == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    elif first == "localhost" or "." in first or ":" in first or first.lower() != first:
        domain = first
    else:
        domain, rest = DEFAULT_DOMAIN, text
    if domain == DEFAULT_DOMAIN and "/" not in rest:
        rest = _OFFICIAL + rest
    return domain, rest
