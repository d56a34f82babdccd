"""`http://` and `https://`: one file of a web server, or what the client hands over (`http://buildkit-session/…`).

Without a checksum the server is asked once for each client's session, and answers that an earlier download is still
good where it knows it by its ETag.
"""

import email.message
import email.utils
import hashlib
import json
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ...llb.ops import SourceOp
from ...oci import digest as _digest
from ...oci.platform import Platform
from ...wire.pb import gateway_pb2, ops_pb2
from ...wire.reasons import reason
from ..base import Context, Result, SolveError
from .memo import Memo

if TYPE_CHECKING:
    import httpx

SESSION_HOST = "buildkit-session"
FIRST_DELAY = 0.2
"""Half the seconds before the second try; doubled for each one after."""

_HEADERS = {"accept": "Accept", "user-agent": "User-Agent"}
_ALGORITHMS = {0: "sha256", 1: "sha384", 2: "sha512"}
_LONGEST_SUFFIX = 4096
_CHUNK = 1 << 20
_RETRIES = 4
_AGAIN = (408, 429, 500, 502, 503, 504)
_LONGEST_WAIT = 60.0
_CONNECT_SECONDS, _STALL_SECONDS = 30.0, 60.0


@dataclass(frozen=True, slots=True)
class Download:
    """A file that was fetched: the snapshot that holds it, and what the server said of it."""

    snapshot: str
    checksum: str
    filename: str
    etag: str = ""
    modified: str = ""


@dataclass(frozen=True, slots=True)
class _Request:
    """What an op asks for."""

    url: str
    checksum: str
    filename: str
    perm: int
    uid: int
    gid: int
    auth_secret: str
    headers: tuple[tuple[str, str], ...]

    @property
    def key(self) -> str:
        """What makes two downloads interchangeable."""
        value = [self.url, self.filename, self.perm, self.uid, self.gid, self.auth_secret, self.headers]
        return hashlib.sha256(json.dumps(value).encode()).hexdigest()

    @property
    def shown(self) -> str:
        """The address without what may be secret in it."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


_memo: Memo[Download] = Memo("http")


def _request(identifier: str, attrs: Mapping[str, str]) -> _Request:
    def number(key: str, default: int) -> int:
        text = attrs.get(key, "")
        try:
            value = int(text, 0) if text[:1] != "0" or text[1:2] in ("", "x", "o", "b") else int(text, 8)
        except ValueError:
            if not text:
                return default
            raise SolveError(f"{identifier}: {key} is no number: {text!r}") from None
        if value < 0 or value > (0o7777 if key == "http.perm" else 2**32 - 2):
            raise SolveError(f"{identifier}: {key} is out of range: {text}")
        return value

    checksum = attrs.get("http.checksum", "")
    try:
        if checksum:
            _digest.validate(checksum)
        host = urlsplit(identifier).hostname
    except ValueError as error:
        raise SolveError(f"{identifier}: {error}") from None
    if not host:
        raise SolveError(f"{identifier!r} is no address: it names no host")
    for key in ("http.sig.pubkey", "http.sig.signature"):
        if attrs.get(key):
            raise SolveError(f"{identifier}: the attribute {key} is not supported: signatures can't be verified here")
    headers = {
        _HEADERS[name]: value
        for key, value in attrs.items()
        if key.startswith("http.header.") and (name := key.removeprefix("http.header.").lower()) in _HEADERS
    }
    return _Request(
        identifier,
        checksum,
        attrs.get("http.filename", ""),
        number("http.perm", 0) or 0o600,
        number("http.uid", 0),
        number("http.gid", 0),
        attrs.get("http.authheadersecret", ""),
        tuple(sorted(headers.items())),
    )


def cache_key(op: SourceOp, platform: Platform | None, context: Context) -> str:
    """A key of the file's content, name, owner and mode; with a checksum nothing is asked for it."""
    request = _request(op.identifier, op.attrs)
    if request.checksum:
        name, checksum, modified = file_name(request.url, request.filename), request.checksum, ""
    else:
        found = resolve(request, context)
        name, checksum, modified = found.filename, found.checksum, found.modified
    value = [name, request.perm, request.uid, request.gid, checksum, modified, request.auth_secret, request.headers]
    return "http:" + hashlib.sha256(json.dumps(value).encode()).hexdigest()


def snapshot(op: SourceOp, platform: Platform | None, context: Context) -> Result:
    """The file, alone in a file system."""
    request = _request(op.identifier, op.attrs)
    if request.checksum:
        for known in _downloads(request, context):
            if known.checksum == request.checksum:
                return Result(known.snapshot)
        return Result(_fetch(request, [], context).snapshot)
    found = resolve(request, context)
    if not context.snapshots.exists(found.snapshot):
        found = _fetch(request, [], context)
    return Result(found.snapshot)


def resolve_meta(
    source: ops_pb2.SourceOp,
    context: Context,
    response: gateway_pb2.ResolveSourceHTTPResponse,
    wanted: gateway_pb2.ChecksumRequest | None = None,
) -> None:
    """Fill in checksum, file name and time of a file, and a digest of it with a suffix where one is `wanted`.

    Raises:
        SolveError: where the file cannot be had, or the digest is of a kind that is not known.
    """
    request = _request(source.identifier, dict(source.attrs))
    if request.checksum and wanted is None:
        response.Checksum = request.checksum
        response.Filename = file_name(request.url, request.filename)
        return
    found = resolve(request, context)
    response.Checksum, response.Filename = found.checksum, found.filename
    moment = _moment(found.modified)
    if moment is not None:
        response.LastModified.seconds = moment
    if wanted is not None:
        response.ChecksumResponse.Digest = _suffixed(found, wanted, context)
        response.ChecksumResponse.Suffix = wanted.Suffix


def _suffixed(download: Download, wanted: gateway_pb2.ChecksumRequest, context: Context) -> str:
    """The digest of a file and a suffix together, as signatures are made of."""
    algorithm = _ALGORITHMS.get(wanted.Algo)
    if algorithm is None or len(wanted.Suffix) > _LONGEST_SUFFIX:
        raise SolveError("unsupported checksum request: sha256, sha384 and sha512 are known, and 4 KiB of suffix")
    digest = hashlib.new(algorithm)
    with context.snapshots.mounted(download.snapshot) as root, open(root / download.filename, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    digest.update(wanted.Suffix)
    return f"{algorithm}:{digest.hexdigest()}"


def resolve(request: _Request, context: Context) -> Download:
    """The file as the server has it now. Raises SolveError."""
    return _memo.get(context, request.key, lambda: _fetch(request, _downloads(request, context), context))


def file_name(url: str, wanted: str, disposition: str = "") -> str:
    """The name of the file: the one that is wanted, else the server's, else the last part of the address."""
    if wanted:
        return _safe(wanted)
    if disposition:
        message = email.message.Message()
        message["Content-Disposition"] = disposition
        given = message.get_filename()
        if given and not given.endswith("/"):
            return _safe(given)
    return _safe(unquote(urlsplit(url).path))


def _safe(text: str) -> str:
    name = posixpath.basename(posixpath.normpath(text.strip())) if text.strip() else ""
    if name in ("", ".", "..", "/") or not all(char.isprintable() or char == " " for char in name):
        return "download"
    return name


# Earlier downloads


def _downloads(request: _Request, context: Context) -> list[Download]:
    data = context.cache.get_value("http", request.key)
    found = [Download(**entry) for entry in json.loads(data)] if data else []
    return [download for download in found if context.snapshots.exists(download.snapshot)]


def _remember(request: _Request, download: Download, context: Context) -> None:
    kept = [old for old in _downloads(request, context) if old.etag != download.etag or not old.etag][-7:]
    value = json.dumps([asdict(entry) for entry in [*kept, download]]).encode()
    context.cache.set_value("http", request.key, value)


# Requests


def _fetch(request: _Request, known: list[Download], context: Context) -> Download:
    """Download the file, unless the server says that one of the `known` is still what it has."""
    if urlsplit(request.url).hostname == SESSION_HOST:
        return _upload(request, context)
    import httpx

    from ...oci.transport import HostOptions, tls_context

    failures = 0
    tagged = {download.etag: download for download in known if download.etag}
    timeout = httpx.Timeout(_STALL_SECONDS, connect=_CONNECT_SECONDS)
    tls = tls_context(HostOptions())
    with httpx.Client(timeout=timeout, verify=tls, follow_redirects=True, max_redirects=10) as client:
        headers = _headers(request, context)
        while True:
            context.check()
            try:
                if tagged and (same := _unchanged(client, request, headers, tagged)) is not None:
                    return same
                return _get(client, request, headers, tagged, context)
            except _Refused as refused:
                failures += 1
                if refused.status not in _AGAIN or failures > _RETRIES or refused.delay > _LONGEST_WAIT:
                    raise SolveError(str(refused)) from None
                delay = refused.delay or FIRST_DELAY * 2**failures
            except httpx.TooManyRedirects:
                raise SolveError(f"{request.shown}: too many redirections") from None
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                failures += 1
                if failures > _RETRIES or not isinstance(error, httpx.TransportError) or _hopeless(error):
                    raise SolveError(f"cannot fetch {request.shown}: {reason(error)}") from error
                delay = FIRST_DELAY * 2**failures
            if context.cancel.wait(delay):
                context.check()


class _Refused(Exception):
    """An answer that is no file."""

    def __init__(self, message: str, status: int, delay: float) -> None:
        super().__init__(message)
        self.status = status
        self.delay = delay


def _hopeless(error: Exception) -> bool:
    import socket
    import ssl

    import httpx

    if isinstance(error, httpx.UnsupportedProtocol):
        return True
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError) or (isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _headers(request: _Request, context: Context) -> dict[str, str]:
    # What a server compresses for the way is stored as it was; other encodings are not asked for.
    headers = {"User-Agent": "brickyard", "Accept-Encoding": "gzip", **dict(request.headers)}
    host = urlsplit(request.url).hostname or ""
    if request.auth_secret:
        value = context.session.secret(request.auth_secret)
        if value is None:
            raise SolveError(f"{request.shown}: the client has no secret {request.auth_secret}")
    else:
        value = context.session.secret(f"HTTP_AUTH_HEADER_{host}")
        token = context.session.secret(f"HTTP_AUTH_TOKEN_{host}")
        if token is not None:
            value = b"Bearer " + token
    if value is not None:
        headers["Authorization"] = header_value(value, request.shown)
    return headers


def header_value(secret: bytes, what: str) -> str:
    """A secret as the value of a header. Raises SolveError where it is none, without showing it."""
    text = secret.decode("latin-1").strip()
    if not text or any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise SolveError(f"{what}: the secret for authentication is empty or not a single line")
    return text


def _unchanged(
    client: "httpx.Client", request: _Request, headers: Mapping[str, str], tagged: Mapping[str, Download]
) -> Download | None:
    """An earlier download that is still what the server has: some servers answer only HEAD as they should."""
    answer = client.head(request.url, headers={**headers, "If-None-Match": ", ".join(tagged)})
    if answer.status_code not in (200, 304):
        return None
    return tagged.get(_tag(answer, tagged))


def _tag(answer: "httpx.Response", tagged: Mapping[str, Download]) -> str:
    tag: str = answer.headers.get("ETag", "").removeprefix("W/")
    # A server that was asked about one may leave it out when it says that nothing changed.
    return next(iter(tagged)) if not tag and answer.status_code == 304 and len(tagged) == 1 else tag


def _get(
    client: "httpx.Client",
    request: _Request,
    headers: Mapping[str, str],
    tagged: Mapping[str, Download],
    context: Context,
) -> Download:
    asked = {**headers, **({"If-None-Match": ", ".join(tagged)} if tagged else {})}
    with client.stream("GET", request.url, headers=asked) as answer:
        if answer.status_code == 304:
            known = tagged.get(_tag(answer, tagged))
            if known is None:
                raise SolveError(f"{request.shown}: the server says that something unknown has not changed")
            return known
        if answer.status_code not in range(200, 300):
            after = answer.headers.get("Retry-After", "")
            delay = float(after) if after.isascii() and after.isdigit() and len(after) < 9 else 0.0
            message = f"cannot fetch {request.shown}: the server answered {answer.status_code} {answer.reason_phrase}"
            raise _Refused(message, answer.status_code, delay)
        length = answer.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() and "Content-Encoding" not in answer.headers else 0
        download = _store(
            request,
            file_name(request.url, request.filename, answer.headers.get("Content-Disposition", "")),
            answer.headers.get("ETag", "").removeprefix("W/"),
            answer.headers.get("Last-Modified", ""),
            answer.iter_bytes(_CHUNK),
            total,
            context,
        )
    _remember(request, download, context)
    return download


def _upload(request: _Request, context: Context) -> Download:
    """What the client hands over, which it does once."""
    try:
        with context.session.upload(request.url) as stream:
            pieces = iter(lambda: stream.read(_CHUNK), b"")
            download = _store(request, file_name(request.url, request.filename), "", "", pieces, 0, context)
    except KeyError:
        raise SolveError(f"the client has nothing to hand over as {request.shown}") from None
    except OSError as error:
        raise SolveError(f"{request.shown}: {error}") from error
    _remember(request, download, context)
    return download


# The file


def _store(
    request: _Request,
    name: str,
    etag: str,
    modified: str,
    pieces: Iterable[bytes],
    total: int,
    context: Context,
) -> Download:
    algorithm = request.checksum.partition(":")[0] or "sha256"
    moment = _moment(modified) or 0
    with _new_snapshot(context) as (snapshot, write_into):
        digest = hashlib.new(algorithm)
        with write_into as root:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(os.path.join(root, name), flags, 0o600)
            with open(fd, "wb", buffering=0) as file:
                done = 0
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
                    done += len(piece)
                    context.check()
                    context.progress(f"downloading {name}", done, total)
                if os.geteuid() == 0:
                    os.fchown(fd, request.uid, request.gid)
                os.fchmod(fd, request.perm)
                os.utime(fd, (moment, moment))
            context.progress(f"downloading {name}", -1, 0)
        checksum = f"{algorithm}:{digest.hexdigest()}"
        if request.checksum and checksum != request.checksum:
            raise SolveError(f"digest mismatch for {request.shown}: {checksum} (expected: {request.checksum})")
    context.cache.set_value("description", snapshot, f"http url {request.shown}".encode())
    return Download(snapshot, checksum, name, etag, modified)


@contextmanager
def _new_snapshot(context: Context) -> Iterator[tuple[str, Any]]:
    """A snapshot on nothing and its mount; committed at the end, dropped where the block fails."""
    name = context.snapshots.prepare(None)
    try:
        yield name, context.snapshots.mounted(name, readonly=False)
        context.snapshots.commit(name)
    except BaseException:
        context.snapshots.remove(name)
        raise


def _moment(text: str) -> int | None:
    """The seconds since 1970 of a header's time."""
    if not text:
        return None
    try:
        found = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    # A time without a zone is meant as UTC.
    return max(0, int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()))
