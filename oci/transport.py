"""Requests to registries: connections, authorization, redirections, and trying again."""

import base64
import email.utils
import ipaddress
import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

import httpx

from ..wire.reasons import reason
from .auth import TOKEN_USERS, Challenge, Token, TokenCache, challenges, merge_scopes
from .errors import Denied, NotFound, RateLimited, RegistryError, ServerError, Unauthorized, Unreachable
from .reference import DEFAULT_DOMAIN, Reference

Credentials = Callable[[str], tuple[str, str] | None]
"""Gives user and secret for a registry's host, or None."""

Tokens = Callable[[str, str, str, Sequence[str]], tuple[str, int] | None]
"""Gives a bearer token and its seconds of life for a registry's host, a token server's realm and service, and scopes;
None where it has none. It stands before the credentials, which then nobody sees here."""

AGAIN = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that may be others the next time."""

_HUB_HOST = "registry-1.docker.io"
_MAX_ANSWER = 1 << 20
_MAX_REDIRECTS = 8
_MAX_WAIT = 60.0
_PROBE_SECONDS = 5.0
_CLIENT_ID = "brickyard"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class HostOptions:
    """How to speak to one registry.

    Attributes:
        plain_http: without TLS; None is TLS except for this machine itself.
        skip_verify: accept any certificate; together with `plain_http`, where the registry speaks TLS only.
        ca: files with certificates of authorities to accept besides the system's.
        client_cert: certificate and key that identify this client.
        mirrors: registries, `host` or `host/prefix`, to read from first.
    """

    plain_http: bool | None = None
    skip_verify: bool = False
    ca: tuple[Path, ...] = ()
    client_cert: tuple[Path, Path] | None = None
    mirrors: tuple[str, ...] = ()


@dataclass(slots=True)
class Host:
    """A registry that requests go to, and how it wants them to be authorised."""

    name: str
    url: str
    client: httpx.Client
    challenge: Challenge | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A repository on a registry; a mirror keeps it under another path."""

    host: Host
    path: str
    query: str = ""

    def url(self, rest: str) -> str:
        """The address of something in the repository."""
        return f"{self.host.url}/v2/{self.path}/{rest}{self.query}"


@dataclass(frozen=True, slots=True)
class Request:
    """A request that can be sent again."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Callable[[], Iterable[bytes]] | None = None


class Exchange:
    """Sends requests to registries. Threads may share one."""

    def __init__(
        self,
        credentials: Credentials,
        hosts: Mapping[str, HostOptions],
        timeout: float,
        retries: int,
        transport: httpx.BaseTransport | None,
        tokens: Tokens | None = None,
    ) -> None:
        """See `Registry`."""
        self._credentials = credentials
        self._give_token = tokens
        self._options = hosts
        self._timeout = httpx.Timeout(timeout, pool=None)
        self.retries = retries
        self._transport = transport
        self._hosts: dict[str, Host] = {}
        self._clients: dict[tuple[object, ...], httpx.Client] = {}
        self._lock = threading.Lock()
        self._tokens = TokenCache()

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()

    def target(self, ref: Reference) -> Target:
        """The repository of a reference on the registry itself."""
        return Target(self._host(ref.domain), ref.path)

    def targets(self, ref: Reference) -> list[Target]:
        """Where to read from, in order: the mirrors, then the registry itself."""
        out = []
        for mirror in self._options.get(ref.domain, HostOptions()).mirrors:
            name, _, prefix = mirror.partition("/")
            path = f"{prefix}/{ref.path}" if prefix else ref.path
            out.append(Target(self._host(name), path, f"?ns={ref.domain}"))
        return [*out, self.target(ref)]

    def first(self, ref: Reference, ask: Callable[[Target], _T]) -> _T:
        """The answer of the first place that has one."""
        *mirrors, origin = self.targets(ref)
        for mirror in mirrors:
            try:
                return ask(mirror)
            except RegistryError:
                # A mirror may be down, behind, or not have everything; the registry itself decides.
                continue
        return ask(origin)

    def _host(self, name: str) -> Host:
        with self._lock:
            host = self._hosts.get(name)
            if host is None:
                options = self._options.get(name, HostOptions())
                local = _is_local(name)
                plain = local if options.plain_http is None else options.plain_http
                address = _HUB_HOST if name == DEFAULT_DOMAIN else name
                client = self._client(options, local)
                if plain and options.skip_verify and _speaks_tls(client, address):
                    plain = False
                url = f"{'http' if plain else 'https'}://{address}"
                host = self._hosts[name] = Host(name, url, client)
            return host

    def _client(self, options: HostOptions, local: bool) -> httpx.Client:
        key = (options.skip_verify, options.ca, options.client_cert, local)
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = httpx.Client(
                verify=tls_context(options),
                timeout=self._timeout,
                headers={"User-Agent": _CLIENT_ID, "Accept-Encoding": "identity"},
                transport=self._transport,
                # No proxy stands between this machine and itself.
                trust_env=not local,
            )
        return client

    @contextmanager
    def send(self, target: Target, request: Request, scope: str, *, once: bool = False) -> Iterator[httpx.Response]:
        """Send a request, authorised as the registry wants it; the answer is one of success, its body not yet read.

        Args:
            target: the repository.
            request: the request.
            scope: what a token must allow.
            once: do not send it again after a failure that leaves open whether it had an effect.
        """
        answer = self._authorised(target, request, scope, once)
        try:
            yield answer
        except httpx.TransportError as error:
            raise _unreachable(target.host.name, error) from error
        finally:
            answer.close()

    def _authorised(self, target: Target, request: Request, scope: str, once: bool) -> httpx.Response:
        host, refused = target.host, ""
        for attempt in range(3):
            header = self._authorization(host, scope, refused)
            answer = self._retrying(host, request, header, host.url, once)
            if answer.status_code < 300:
                return answer
            asked_here = _origin(str(answer.url)) == _origin(host.url)
            if answer.status_code != 401 or not asked_here or attempt == 2:
                raise self._failure(target, answer)
            offered = _best(challenges(", ".join(answer.headers.get_list("WWW-Authenticate"))))
            if offered is None or (header and offered.scheme == "basic"):
                raise self._failure(target, answer)
            answer.close()
            host.challenge = offered
            scope = " ".join(merge_scopes(scope, offered.parameters.get("scope", "")))
            refused = header.removeprefix("Bearer ") if header.startswith("Bearer ") else ""
        raise AssertionError("the last attempt returns or raises")

    def _authorization(self, host: Host, scope: str, refused: str) -> str:
        challenge = host.challenge
        if challenge is None:
            return ""
        if challenge.scheme == "basic":
            found = self._credentials(host.name)
            return _basic(*found) if found else ""
        scopes = merge_scopes(scope)
        realm, service = challenge.parameters.get("realm", ""), challenge.parameters.get("service", "")
        key = (f"{host.name} {realm} {service}", scopes)
        return "Bearer " + self._tokens.get(key, lambda: self._token(host, realm, service, scopes), refused)

    def _token(self, host: Host, realm: str, service: str, scopes: tuple[str, ...]) -> Token:
        where = urlsplit(realm)
        if where.scheme not in ("http", "https") or not where.hostname:
            raise ServerError(f"{host.name}: no address of a token server: {realm!r}", host=host.name)
        given = self._give_token(host.name, realm, service, scopes) if self._give_token is not None else None
        if given is not None:
            return Token.fresh(*given)
        found = self._credentials(host.name)
        if found and where.scheme == "http" and not host.url.startswith("http:"):
            raise Unauthorized(f"{host.name}: the token server {where.hostname} has no TLS, so it gets no credentials")
        if found and found[0] in TOKEN_USERS:
            form = {"grant_type": "refresh_token", "refresh_token": found[1]}
            answer = self._ask_with_form(host, realm, service, scopes, form)
        else:
            answer = self._ask_with_query(host, realm, service, scopes, found)
            if found and answer.status_code in (404, 405):
                answer.close()
                form = {"grant_type": "password", "username": found[0], "password": found[1]}
                answer = self._ask_with_form(host, realm, service, scopes, form)
        try:
            if answer.status_code >= 300:
                raise self._token_failure(host, where.hostname, answer, bool(found))
            value = json_answer(answer, where.hostname)
        finally:
            answer.close()
        text = value.get("token") or value.get("access_token")
        if not isinstance(text, str) or not text.isascii() or not text.isprintable():
            raise ServerError(f"{where.hostname}: the token server gave no token", host=host.name)
        return Token.fresh(text, value.get("expires_in"))

    def _ask_with_query(
        self, host: Host, realm: str, service: str, scopes: tuple[str, ...], found: tuple[str, str] | None
    ) -> httpx.Response:
        query: list[tuple[str, str | int | float | bool | None]] = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        query += [("account", found[0])] if found else []
        url = str(httpx.URL(realm).copy_merge_params(query))
        return self._retrying(host, Request("GET", url), _basic(*found) if found else "", realm)

    def _ask_with_form(
        self, host: Host, realm: str, service: str, scopes: tuple[str, ...], form: dict[str, str]
    ) -> httpx.Response:
        data = urlencode({**form, "service": service, "client_id": _CLIENT_ID, "scope": " ".join(scopes)}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(data))}
        return self._retrying(host, Request("POST", realm, headers, data), "", realm)

    def _token_failure(self, host: Host, server: str, answer: httpx.Response, known: bool) -> RegistryError:
        text = _error_text(answer)
        if answer.status_code in (400, 401, 403):
            why = "refused the credentials" if known else "wants credentials"
            return Unauthorized(
                f"{host.name}: {server} {why}{text}; {_login(host.name)}", host=host.name, status=answer.status_code
            )
        return ServerError(
            f"{host.name}: the token server {server} answered {answer.status_code}{text}",
            host=host.name,
            status=answer.status_code,
        )

    def _retrying(
        self, host: Host, request: Request, authorization: str, origin: str, once: bool = False
    ) -> httpx.Response:
        """Send a request until it is answered by something else than an excuse."""
        failures = 0
        while True:
            failures += 1
            last = once or failures > self.retries
            try:
                answer = self._following(host, request, authorization, origin)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                if last or _hopeless(error):
                    raise _unreachable(host.name, error) from error
                delay = backoff(failures)
            else:
                delay = _retry_after(answer) or backoff(failures)
                if answer.status_code not in AGAIN or last or delay > _MAX_WAIT:
                    return answer
                answer.close()
            time.sleep(delay)

    def _following(self, host: Host, request: Request, authorization: str, origin: str) -> httpx.Response:
        """Send a request and follow redirections; the authorization goes to no other server."""
        url = request.url
        for _ in range(_MAX_REDIRECTS):
            headers = dict(request.headers)
            if authorization and _origin(url) == _origin(origin):
                headers["Authorization"] = authorization
            content = request.body() if callable(request.body) else request.body
            answer = host.client.send(
                host.client.build_request(request.method, url, headers=headers, content=content), stream=True
            )
            location = answer.headers.get("Location")
            moved = (301, 302, 303, 307, 308) if request.method in ("GET", "HEAD") else (307, 308)
            if answer.status_code not in moved or not location:
                return answer
            answer.close()
            following = urljoin(str(answer.url), location)
            if url.startswith("https:") and not following.startswith("https:"):
                raise ServerError(f"{host.name}: redirects to an address without TLS", host=host.name)
            url = following
        raise ServerError(f"{host.name}: more than {_MAX_REDIRECTS} redirections", host=host.name)

    def _failure(self, target: Target, answer: httpx.Response) -> RegistryError:
        host, status = target.host.name, answer.status_code
        text = f"{_error_text(answer)}"
        answer.close()
        if status == 401:
            why = "refused the credentials" if self._credentials(host) else "wants credentials"
            return Unauthorized(f"{host} {why} for {target.path}{text}; {_login(host)}", host=host, status=status)
        if status == 403:
            return Denied(f"{host} denies access to {target.path}{text}; {_login(host)}", host=host, status=status)
        if status == 404:
            what = str(answer.url.path).partition(f"/v2/{target.path}/")[2]
            return NotFound(f"{host} has no {_missing(target.path, what)}{text}", host=host, status=status)
        if status == 429:
            return RateLimited(
                f"{host} answers no more requests for now{text}; wait, or log in for a higher limit",
                host=host,
                status=status,
            )
        return ServerError(
            f"{host} answered {status} to {answer.request.method} {answer.url.path}{text}", host=host, status=status
        )


def _speaks_tls(client: httpx.Client, address: str) -> bool:
    """Whether a server that may do without TLS wants it."""
    try:
        answer = client.get(f"http://{address}/v2/", timeout=_PROBE_SECONDS)
    except httpx.RemoteProtocolError:
        return True
    except httpx.HTTPError:
        # The request itself will say what is wrong.
        return False
    return answer.status_code == 400 and b"HTTPS server" in answer.content


def _basic(user: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def _login(host: str) -> str:
    return "run `docker login`" if host == DEFAULT_DOMAIN else f"run `docker login {host}`"


def _best(offered: list[Challenge]) -> Challenge | None:
    for scheme in ("bearer", "basic"):
        for challenge in offered:
            if challenge.scheme == scheme:
                return challenge
    return None


def _is_local(name: str) -> bool:
    """Whether a host is this machine itself."""
    host = urlsplit(f"//{name}").hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80}.get(parts.scheme, 443)


def tls_context(options: HostOptions) -> ssl.SSLContext:
    """What certificates are checked against: the system's authorities, and those of the options."""
    paths = ssl.get_default_verify_paths()
    # A machine without certificates of its own takes those that come with httpx.
    context = ssl.create_default_context() if paths.cafile or paths.capath else httpx.create_ssl_context()
    for path in options.ca:
        context.load_verify_locations(path)
    if options.client_cert is not None:
        context.load_cert_chain(*options.client_cert)
    if options.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def backoff(failures: int) -> float:
    """Longer after each failure, and never the same for two clients."""
    return float(min(10.0, 0.2 * 2 ** (failures - 1)) * random.uniform(0.8, 1.2))


def _retry_after(answer: httpx.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit() and len(text) < 9:
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _hopeless(error: Exception) -> bool:
    """Whether a failure to connect is the same each time."""
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL | httpx.LocalProtocolError):
        return True
    return any(
        isinstance(cause, ssl.SSLError) or (isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME)
        for cause in _causes(error)
    )


def _unreachable(host: str, error: Exception) -> Unreachable:
    hint = ""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            hint = "; its certificate is not trusted: give its authority's certificate, or list the host as insecure"
        elif isinstance(cause, ssl.SSLError):
            hint = "; it does not speak TLS: list the host as insecure if that is meant"
    return Unreachable(f"cannot reach the registry {host}: {reason(error)}{hint}", host=host)


def read_answer(answer: httpx.Response, limit: int, host: str) -> bytes:
    """The body of an answer; `ServerError` where it is larger than `limit`."""
    parts, size = [], 0
    for chunk in answer.iter_bytes():
        size += len(chunk)
        if size > limit:
            raise ServerError(f"{host}: an answer larger than {limit} bytes", host=host, status=answer.status_code)
        parts.append(chunk)
    return b"".join(parts)


def json_answer(answer: httpx.Response, host: str) -> dict[str, object]:
    """The body of an answer as an object; `ServerError` where it is none."""
    try:
        value = json.loads(read_answer(answer, _MAX_ANSWER, host))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ServerError(f"{host}: the answer is no JSON object", host=host, status=answer.status_code)
    return value


def _missing(repository: str, what: str) -> str:
    kind, _, name = what.partition("/")
    if kind == "manifests":
        return f"image {repository}{'@' if ':' in name else ':'}{name}"
    return f"{repository}, {what}" if what else repository


def _error_text(answer: httpx.Response) -> str:
    """What the registry says about its refusal, in brackets, fit to be shown."""
    try:
        value = json_answer(answer, "")
        first = value["errors"][0]  # type: ignore[index]
        text = f"{first.get('code', '')}: {first.get('message', '')}"
    except (RegistryError, httpx.HTTPError, LookupError, TypeError, AttributeError):
        return ""
    return f" ({''.join(char if char.isprintable() else ' ' for char in text)[:300]})"
