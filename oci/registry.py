"""A client of the registry protocol (OCI distribution spec 1.1; Docker registry HTTP API v2)."""

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Literal
from urllib.parse import quote, urljoin

import httpx

from . import descriptor as _d
from . import digest as _digest
from .errors import (
    ContentMismatch,
    Denied,
    NotFound,
    RateLimited,
    RegistryError,
    ServerError,
    Unauthorized,
    Unreachable,
)
from .reference import Reference
from .transport import (
    AGAIN,
    Credentials,
    Exchange,
    HostOptions,
    Request,
    Target,
    Tokens,
    backoff,
    json_answer,
    read_answer,
)

__all__ = [
    "ContentMismatch",
    "Denied",
    "HostOptions",
    "NotFound",
    "RateLimited",
    "Registry",
    "RegistryError",
    "ServerError",
    "Unauthorized",
    "Unreachable",
]

Pushed = Literal["exists", "mounted", "uploaded"]
Progress = Callable[[int], None]

_ACCEPT = ", ".join((_d.OCI_INDEX, _d.DOCKER_INDEX, _d.OCI_MANIFEST, _d.DOCKER_MANIFEST, "*/*;q=0.1"))
_MAX_MANIFEST = 8 << 20
_CHUNK = 1 << 20
_PIECE = 4 << 20
# No answer at all, an answer that may be another the next time, or an upload that the registry no longer knows.
_NEW_UPLOAD = AGAIN | {0, 404, 416}


class Registry:
    """Pulls and pushes images. Threads may share one; a context manager that closes its connections."""

    def __init__(
        self,
        credentials: Credentials | None = None,
        *,
        insecure: Collection[str] = (),
        hosts: Mapping[str, HostOptions] | None = None,
        timeout: float = 30,
        retries: int = 4,
        transport: httpx.BaseTransport | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        """Set up a client; nothing is connected yet.

        Args:
            credentials: gives user and secret for a registry's host, or None; the user "" or `<token>` marks an
                identity token. `docker.io` is asked for by that name.
            insecure: hosts to speak to without TLS, or with any certificate.
            hosts: options by host.
            timeout: seconds without any progress after which a request counts as failed.
            retries: how often a failed request is sent again.
            transport: what carries the requests instead of the network.
            tokens: gives bearer tokens, before credentials are asked for.
        """
        self._made_with: dict[str, Any] = {
            "credentials": credentials,
            "hosts": dict(hosts or {}),
            "timeout": timeout,
            "retries": retries,
            "transport": transport,
            "tokens": tokens,
        }
        options = {name: HostOptions(plain_http=True, skip_verify=True) for name in insecure}
        self._exchange = Exchange(
            credentials or (lambda _: None), {**options, **(hosts or {})}, timeout, retries, transport, tokens
        )

    def insecure(self, host: str) -> "Registry":
        """Another client that is like this one, but speaks to a host without TLS, or with any certificate."""
        hosts = {**self._made_with["hosts"], host: HostOptions(plain_http=True, skip_verify=True)}
        return Registry(**{**self._made_with, "hosts": hosts})

    def __enter__(self) -> "Registry":
        """Give the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._exchange.close()

    def resolve(self, ref: Reference) -> _d.Descriptor:
        """The descriptor of what a reference means now: an index or a manifest.

        Raises:
            RegistryError: see its subclasses.
        """
        ref = ref.tag_name_only()
        wanted = ref.digest or ref.tag

        def ask(target: Target) -> _d.Descriptor:
            request = Request("HEAD", target.url(f"manifests/{wanted}"), {"Accept": _ACCEPT})
            try:
                with self._exchange.send(target, request, _pull(target)) as answer:
                    found = _from_headers(answer)
            except (NotFound, Denied, Unauthorized):
                raise
            except RegistryError as error:
                if error.status not in (400, 405, 501):
                    raise
                found = None
            if found is None:
                return self._manifest(target, ref)[0]
            if ref.digest and found.digest != ref.digest:
                raise ContentMismatch(f"{target.host.name} has {found.digest} as {ref}", host=target.host.name)
            return found

        return self._exchange.first(ref, ask)

    def manifest(self, ref: Reference) -> tuple[_d.Descriptor, bytes]:
        """The manifest or index that a reference means now, with its descriptor.

        Raises:
            RegistryError: see its subclasses.
        """
        ref = ref.tag_name_only()
        return self._exchange.first(ref, lambda target: self._manifest(target, ref))

    def has_blob(self, ref: Reference, digest: str) -> bool:
        """Whether the repository of `ref` holds a blob."""
        return self._has(self._exchange.target(ref), digest, _pull)

    def blob(self, ref: Reference, descriptor: _d.Descriptor, progress: Progress | None = None) -> Iterator[bytes]:
        """The bytes of a blob as they arrive; a connection that breaks is taken up again where it broke.

        The digest is known at the end only: what was read may be used once the iteration has ended without an error.

        Args:
            ref: names the repository.
            descriptor: the blob.
            progress: told how many bytes there are so far.

        Raises:
            RegistryError: see its subclasses; `ContentMismatch` for a blob with another digest or size.
        """
        verifier = _digest.Verifier(descriptor.digest, descriptor.size)
        targets = self._exchange.targets(ref)
        for place, target in enumerate(targets, 1):
            try:
                for chunk in self._resuming(target, descriptor, verifier):
                    verifier.update(chunk)
                    if progress is not None:
                        progress(verifier.seen)
                    yield chunk
                verifier.finish()
                return
            except _digest.DigestMismatch as error:
                host = target.host.name
                raise ContentMismatch(f"{host}: blob of {ref.name}: {error}", host=host) from None
            except RegistryError:
                # What has arrived is kept: the next registry sends the rest.
                if place == len(targets):
                    raise

    def read_blob(self, ref: Reference, descriptor: _d.Descriptor, limit: int = _MAX_MANIFEST) -> bytes:
        """All of a small blob, such as a config.

        Raises:
            RegistryError: see its subclasses; also where it is larger than `limit`.
        """
        if descriptor.data is not None and _digest.of_bytes(descriptor.data) == descriptor.digest:
            return descriptor.data
        if descriptor.size > limit:
            raise ServerError(f"{ref.name}: blob {descriptor.digest} is larger than the limit of {limit} bytes")
        return b"".join(self.blob(ref, descriptor))

    def push_blob(
        self,
        ref: Reference,
        descriptor: _d.Descriptor,
        open: Callable[[], BinaryIO],
        *,
        mount_from: Sequence[Reference] = (),
        chunk_size: int = 0,
        progress: Progress | None = None,
    ) -> Pushed:
        """Put a blob into the repository of `ref`, in the cheapest way that there is.

        Args:
            ref: names the repository.
            descriptor: the blob.
            open: opens the content; called again for each new try.
            mount_from: repositories that hold the blob already; those of the same registry are tried in turn.
            chunk_size: upload in pieces of so many bytes, for registries behind a limit; 0 is in one piece.
            progress: told how many bytes have been sent so far.

        Raises:
            RegistryError: see its subclasses.
        """
        target = self._exchange.target(ref)
        sources = [source for source in mount_from if source.domain == ref.domain and source.path != ref.path]
        if self._has(target, descriptor.digest, _push):
            return "exists"
        for source in sources:
            if self._mount(target, descriptor.digest, source.path):
                return "mounted"

        def content() -> Iterator[bytes]:
            verifier = _digest.Verifier(descriptor.digest, descriptor.size)
            with open() as stream:
                while chunk := stream.read(chunk_size or _CHUNK):
                    verifier.update(chunk)
                    yield chunk
                    if progress is not None and not chunk_size:
                        progress(verifier.seen)
            verifier.finish()

        for attempt in range(self._exchange.retries + 1):
            location = self._begin(target)
            try:
                if chunk_size:
                    self._patch(target, location, content(), progress)
                else:
                    self._put(target, location, descriptor, content)
                return "uploaded"
            except _digest.DigestMismatch as error:
                raise ContentMismatch(f"the content to push changed: {error}", host=target.host.name) from None
            except RegistryError as error:
                # The address of an upload is good for one try; a new try begins a new upload.
                if attempt == self._exchange.retries or error.status not in _NEW_UPLOAD:
                    raise
                time.sleep(backoff(attempt + 1))
        raise AssertionError("the last attempt returns or raises")

    def push_stream(
        self, ref: Reference, chunks: Iterable[bytes], media_type: str, progress: Progress | None = None
    ) -> _d.Descriptor:
        """Put a blob into the repository of `ref` while it is being made; digest and size come out at the end.

        Raises:
            RegistryError: see its subclasses. The content cannot be sent twice, so a broken connection ends this.
        """
        target = self._exchange.target(ref)
        return _d.Descriptor(media_type, *self._patch(target, self._begin(target), _gathered(chunks), progress))

    def push_manifest(self, ref: Reference, data: bytes, media_type: str) -> _d.Descriptor:
        """Put a manifest or an index under the tag of `ref`, or under its own digest where `ref` has no tag.

        Raises:
            RegistryError: see its subclasses; `NotFound` where the registry lacks a blob that the manifest names.
        """
        target = self._exchange.target(ref)
        found = _d.describe(data, media_type)
        if ref.digest and ref.digest != found.digest:
            raise ContentMismatch(f"the manifest has the digest {found.digest}, not that of {ref}")
        url = target.url(f"manifests/{ref.tag or found.digest}")
        headers = {"Content-Type": media_type, "Content-Length": str(len(data))}
        with self._exchange.send(target, Request("PUT", url, headers, data), _push(target)) as answer:
            confirmed = answer.headers.get("Docker-Content-Digest", found.digest)
        if confirmed != found.digest:
            raise ContentMismatch(f"{target.host.name} stored {confirmed} instead of {found.digest}")
        return found

    def tags(self, ref: Reference) -> list[str]:
        """All tags of the repository of `ref`.

        Raises:
            RegistryError: see its subclasses.
        """
        target = self._exchange.target(ref)
        out: list[str] = []
        url: str | None = target.url("tags/list")
        while url:
            with self._exchange.send(target, Request("GET", url), _pull(target)) as answer:
                page = json_answer(answer, target.host.name)
                following = answer.links.get("next", {}).get("url")
                url = urljoin(str(answer.url), following) if following else None
            found = page.get("tags") or []
            if not isinstance(found, list) or not all(isinstance(tag, str) for tag in found):
                raise ServerError(f"{target.host.name}: no list of tags", host=target.host.name)
            out += found
            if url and not (found and url.startswith(target.host.url + "/")):
                break
        return out

    # Requests for one thing

    def _manifest(self, target: Target, ref: Reference) -> tuple[_d.Descriptor, bytes]:
        host = target.host.name
        request = Request("GET", target.url(f"manifests/{ref.digest or ref.tag}"), {"Accept": _ACCEPT})
        with self._exchange.send(target, request, _pull(target)) as answer:
            data = read_answer(answer, _MAX_MANIFEST, host)
            media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
            announced = answer.headers.get("Docker-Content-Digest")
        wanted = ref.digest or announced
        if wanted:
            try:
                verifier = _digest.Verifier(wanted)
                verifier.update(data)
                verifier.finish()
            except ValueError as error:
                raise ContentMismatch(f"{host}: manifest of {ref}: {error}", host=host) from None
        try:
            # Some registries announce every manifest as plain JSON.
            known = media_type if media_type in _d.INDEX_TYPES | _d.MANIFEST_TYPES else ""
            found = _d.describe(data, _d.decode(data, known).media_type)
        except _d.DescriptorError as error:
            raise ServerError(f"{host}: {ref}: {error}", host=host) from None
        return (_d.Descriptor(found.media_type, wanted, len(data)) if wanted else found), data

    def _has(self, target: Target, digest: str, scope: Callable[[Target], str]) -> bool:
        url = target.url(f"blobs/{_digest.validate(digest)}")
        try:
            with self._exchange.send(target, Request("HEAD", url), scope(target)):
                return True
        except NotFound:
            return False

    def _resuming(self, target: Target, descriptor: _d.Descriptor, verifier: _digest.Verifier) -> Iterator[bytes]:
        url = target.url(f"blobs/{descriptor.digest}")
        failures, before = 0, -1
        while True:
            at = verifier.seen
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={at}-"} if at else {})
            with self._exchange.send(target, Request("GET", url, headers), _pull(target)) as answer:
                skip = 0 if answer.status_code == 206 else at
                if answer.status_code == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {at}-"):
                    raise ServerError(f"{target.host.name}: another part of a blob than asked for")
                try:
                    for chunk in answer.iter_raw():
                        if skip >= len(chunk):
                            skip -= len(chunk)
                            continue
                        yield chunk[skip:]
                        skip = 0
                    return
                except (httpx.TransportError, httpx.StreamError) as broken:
                    error = broken
            failures = 1 if verifier.seen > before else failures + 1
            before = verifier.seen
            if failures > self._exchange.retries:
                raise Unreachable(
                    f"{target.host.name}: the connection broke after {verifier.seen} of {descriptor.size} bytes of "
                    f"blob {descriptor.digest}: {error}",
                    host=target.host.name,
                ) from error
            time.sleep(backoff(failures))

    def _mount(self, target: Target, digest: str, source: str) -> bool:
        request = Request(
            "POST", f"{target.url('blobs/uploads/')}?mount={digest}&from={source}", {"Content-Length": "0"}
        )
        scope = " ".join((_push(target), f"repository:{source}:pull"))
        try:
            with self._exchange.send(target, request, scope) as answer:
                if answer.status_code == 201:
                    return True
                location = answer.headers.get("Location")
        except RegistryError:
            # A mount is only a short cut.
            return False
        if location:
            self._cancel(target, urljoin(str(answer.url), location))
        return False

    def _cancel(self, target: Target, location: str) -> None:
        try:
            with self._exchange.send(target, Request("DELETE", location), _push(target)):
                pass
        except RegistryError:
            # A registry drops uploads that nobody finishes by itself.
            return

    def _begin(self, target: Target) -> str:
        request = Request("POST", target.url("blobs/uploads/"), {"Content-Length": "0"})
        with self._exchange.send(target, request, _push(target)) as answer:
            return _location(answer, target.host.name)

    def _put(
        self, target: Target, location: str, descriptor: _d.Descriptor, content: Callable[[], Iterator[bytes]]
    ) -> None:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)}
        request = Request("PUT", _with_digest(location, descriptor.digest), headers, content)
        with self._exchange.send(target, request, _push(target), once=True):
            return

    def _patch(
        self, target: Target, location: str, chunks: Iterable[bytes], progress: Progress | None
    ) -> tuple[str, int]:
        sha, size = hashlib.sha256(), 0
        for chunk in filter(None, chunks):
            sha.update(chunk)
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Range": f"{size}-{size + len(chunk) - 1}",
                "Content-Length": str(len(chunk)),
            }
            # Once a piece has arrived, sending it again is refused, and a failure does not tell whether it has.
            request = Request("PATCH", location, headers, chunk)
            with self._exchange.send(target, request, _push(target), once=True) as answer:
                location = _location(answer, target.host.name)
            size += len(chunk)
            if progress is not None:
                progress(size)
        digest = f"sha256:{sha.hexdigest()}"
        request = Request("PUT", _with_digest(location, digest), {"Content-Length": "0"})
        with self._exchange.send(target, request, _push(target)):
            return digest, size


def _pull(target: Target) -> str:
    return f"repository:{target.path}:pull"


def _push(target: Target) -> str:
    return f"repository:{target.path}:pull,push"


def _gathered(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that are worth a request each."""
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= _PIECE:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _location(answer: httpx.Response, host: str) -> str:
    location = answer.headers.get("Location")
    if not location:
        raise ServerError(f"{host}: an upload without a location", host=host, status=answer.status_code)
    return urljoin(str(answer.url), str(location))


def _with_digest(location: str, digest: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={quote(digest, safe='')}"


def _from_headers(answer: httpx.Response) -> _d.Descriptor | None:
    """The descriptor that the headers give, or None where they do not say enough."""
    media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
    size = answer.headers.get("Content-Length", "")
    if media_type not in _d.INDEX_TYPES | _d.MANIFEST_TYPES or not size.isdigit() or not int(size):
        return None
    try:
        return _d.Descriptor(media_type, _digest.validate(answer.headers.get("Docker-Content-Digest", "")), int(size))
    except _digest.InvalidDigest:
        return None
