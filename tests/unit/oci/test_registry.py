"""The registry client against answers that real registries give only sometimes."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import httpx
import pytest

from brickyard.oci import descriptor as d
from brickyard.oci.reference import parse
from brickyard.oci.registry import (
    ContentMismatch,
    Denied,
    HostOptions,
    NotFound,
    RateLimited,
    Registry,
    RegistryError,
    ServerError,
    Unauthorized,
    Unreachable,
)

REF = parse("example.com/app:1")
MANIFEST = d.Manifest(d.describe(b"{}", d.OCI_CONFIG), ()).encode()
DIGEST = d.describe(MANIFEST, d.OCI_MANIFEST).digest
HEADERS = {"Content-Type": d.OCI_MANIFEST, "Docker-Content-Digest": DIGEST}
Answer = httpx.Response | Exception


class Script(httpx.BaseTransport):
    """Answers requests by a function and keeps what was asked."""

    def __init__(self, answer: Callable[[httpx.Request], Answer]) -> None:
        self._answer = answer
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = self._answer(request)
        if isinstance(answer, Exception):
            raise answer
        if not answer.is_stream_consumed:
            return answer
        return httpx.Response(answer.status_code, headers=answer.headers, stream=Pieces([answer.content]))

    def lines(self) -> list[str]:
        return [f"{request.method} {request.url}" for request in self.requests]


def client(answer: Callable[[httpx.Request], Answer], **more: Any) -> tuple[Registry, Script]:
    script = Script(answer)
    return Registry(transport=script, **more), script


def turns(*answers: Answer) -> Callable[[httpx.Request], Answer]:
    left = iter(answers)
    return lambda _: next(left)


def manifest(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, headers=HEADERS, content=MANIFEST)


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client waits between its tries; nobody waits."""
    out: list[float] = []
    monkeypatch.setattr("time.sleep", out.append)
    return out


class Pieces(httpx.SyncByteStream):
    """A body that may break off."""

    def __init__(self, pieces: Iterable[bytes], error: Exception | None = None) -> None:
        self._pieces, self._error = pieces, error

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._error is not None:
            raise self._error


def test_requests_go_to_the_right_place() -> None:
    for name, start in (
        ("alpine", "https://registry-1.docker.io/v2/library/alpine/manifests/latest"),
        ("example.com/a/b:c", "https://example.com/v2/a/b/manifests/c"),
        (f"example.com/a:b@{DIGEST}", f"https://example.com/v2/a/manifests/{DIGEST}"),
        ("localhost/a", "http://localhost/v2/a/manifests/latest"),
        ("127.0.0.1:5000/a", "http://127.0.0.1:5000/v2/a/manifests/latest"),
        ("[::1]:5000/a", "http://[::1]:5000/v2/a/manifests/latest"),
    ):
        registry, script = client(manifest)
        assert registry.resolve(parse(name)).digest == DIGEST
        assert script.lines() == [f"HEAD {start}"]
        assert d.DOCKER_INDEX in script.requests[0].headers["Accept"]


@pytest.mark.parametrize(
    ("probe", "scheme"),
    [
        (httpx.Response(401), "http"),
        (httpx.Response(400, content=b"Client sent an HTTP request to an HTTPS server.\n"), "https"),
        (httpx.RemoteProtocolError("no HTTP"), "https"),
        (httpx.ConnectTimeout("slow"), "http"),
    ],
)
def test_insecure_registries_may_speak_tls(probe: httpx.Response | Exception, scheme: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/v2/":
            return manifest(request)
        if isinstance(probe, Exception):
            raise probe
        return probe

    made, script = client(answer, retries=0)
    registry = made.insecure("host.example.com")
    for _ in range(2):
        assert registry.resolve(parse("host.example.com/a")).digest == DIGEST
    address = f"HEAD {scheme}://host.example.com/v2/a/manifests/latest"
    assert script.lines() == ["GET http://host.example.com/v2/", address, address]


def test_tokens_that_are_given() -> None:
    asked = []

    def tokens(host: str, realm: str, service: str, scopes: Sequence[str]) -> tuple[str, int]:
        asked.append((host, realm, service, list(scopes)))
        return "given", 300

    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers.get("Authorization") == "Bearer given":
            return manifest(request)
        return httpx.Response(
            401, headers={"WWW-Authenticate": 'Bearer realm="https://auth.example.com/t",service="s"'}
        )

    registry, script = client(answer, tokens=tokens, credentials=lambda _: ("user", "secret"))
    assert registry.resolve(parse("example.com/a")).digest == DIGEST
    assert asked == [("example.com", "https://auth.example.com/t", "s", ["repository:a:pull"])]
    assert len(script.requests) == 2


@pytest.mark.parametrize(
    "first",
    [
        httpx.Response(405),
        httpx.Response(200, headers={"Content-Type": d.OCI_MANIFEST, "Content-Length": "5"}),
        httpx.Response(200, headers={**HEADERS, "Content-Length": "0"}),
        httpx.Response(200, headers={"Content-Type": "application/json", "Docker-Content-Digest": DIGEST}),
        httpx.Response(200, headers={"Content-Type": d.OCI_MANIFEST, "Docker-Content-Digest": "nonsense"}),
    ],
)
def test_a_head_that_says_too_little(first: httpx.Response) -> None:
    registry, script = client(turns(first, httpx.Response(200, content=MANIFEST)))
    assert registry.resolve(REF) == d.describe(MANIFEST, d.OCI_MANIFEST)
    assert [request.method for request in script.requests] == ["HEAD", "GET"]


def test_wrong_digests_are_refused() -> None:
    pinned = REF.with_digest("sha256:" + "0" * 64)
    registry, _ = client(manifest)
    for ask in (registry.resolve, registry.manifest):
        with pytest.raises(ContentMismatch):
            ask(pinned)
    registry, _ = client(lambda _: httpx.Response(200, headers=HEADERS, content=MANIFEST + b" "))
    with pytest.raises(ContentMismatch):
        registry.manifest(REF)


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"nonsense", d.OCI_MANIFEST), (MANIFEST, d.OCI_INDEX), (b" " * (9 << 20), d.OCI_MANIFEST), (b"{}", "text/html")],
)
def test_what_is_no_manifest(content: bytes, kind: str) -> None:
    registry, _ = client(lambda _: httpx.Response(200, headers={"Content-Type": kind}, content=content))
    with pytest.raises(ServerError):
        registry.manifest(REF)


def test_failures_are_tried_again(sleeps: list[float]) -> None:
    answers: list[Answer] = [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.Response(503),
        httpx.Response(429, headers={"Retry-After": "7"}),
        httpx.Response(200, headers=HEADERS, content=MANIFEST),
    ]
    registry, script = client(turns(*answers))
    assert registry.resolve(REF).digest == DIGEST
    assert len(script.requests) == 5
    assert sleeps == sorted(sleeps)
    assert sleeps[3] == 7.0


@pytest.mark.parametrize(
    ("answer", "error", "text", "requests"),
    [
        (httpx.ConnectError("refused"), Unreachable, "cannot reach the registry example.com: refused", 3),
        (httpx.UnsupportedProtocol("what"), Unreachable, "what", 1),
        (httpx.Response(500), ServerError, "500", 3),
        (httpx.Response(400, json={"errors": [{"code": "BAD", "message": "no\x1b[31m"}]}), ServerError, "BAD: no", 1),
        (httpx.Response(401), Unauthorized, "docker login example.com", 1),
        (httpx.Response(403), Denied, "docker login example.com", 1),
        (httpx.Response(404), NotFound, "has no app, tags/list", 1),
        (httpx.Response(429), RateLimited, "no more requests", 3),
        (httpx.Response(429, headers={"Retry-After": "9999"}), RateLimited, "no more requests", 1),
        (httpx.Response(429, headers={"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}), RateLimited, "no more", 1),
        (httpx.Response(200, content=b"["), ServerError, "no JSON", 1),
        (httpx.Response(200, json={"tags": [1]}), ServerError, "no list", 1),
        (httpx.Response(302, headers={"Location": "http://example.com/"}), ServerError, "without TLS", 1),
        (httpx.Response(302, headers={"Location": "/again"}), ServerError, "redirections", 8),
    ],
)
def test_errors(answer: Answer, error: type[RegistryError], text: str, requests: int) -> None:
    registry, script = client(lambda _: answer, retries=2)
    with pytest.raises(error, match=text) as caught:
        registry.tags(REF)
    assert len(script.requests) == requests
    assert str(caught.value).isprintable()


def test_pages_of_tags() -> None:
    link = {"Link": '</v2/app/tags/list?last=b&n=2>; rel="next"'}
    answers = httpx.Response(200, headers=link, json={"tags": ["a", "b"]}), httpx.Response(200, json={"tags": ["c"]})
    registry, script = client(turns(*answers))
    assert registry.tags(REF) == ["a", "b", "c"]
    assert script.lines()[1] == "GET https://example.com/v2/app/tags/list?last=b&n=2"


def test_tags_of_another_server_are_not_asked_for() -> None:
    answer = httpx.Response(200, headers={"Link": '<https://evil.example.com/>; rel="next"'}, json={"tags": ["a"]})
    registry, script = client(lambda _: answer)
    assert registry.tags(REF) == ["a"]
    assert len(script.requests) == 1


# Blobs

DATA = bytes(range(256)) * 40
BLOB = d.describe(DATA, d.OCI_LAYER)


def broken(*pieces: bytes, status: int = 200, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=names, stream=Pieces(pieces, httpx.ReadError("reset")))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on(ranges: bool) -> None:
    rest = (
        httpx.Response(206, headers={"Content-Range": "bytes 1000-10239/10240"}, content=DATA[1000:])
        if ranges
        else httpx.Response(200, content=DATA)
    )
    progress: list[int] = []
    registry, script = client(turns(broken(DATA[:600], DATA[600:1000]), httpx.ConnectError("down"), rest))
    assert b"".join(registry.blob(REF, BLOB, progress.append)) == DATA
    assert progress[-1] == len(DATA)
    assert [request.headers.get("Range") for request in script.requests] == [None, "bytes=1000-", "bytes=1000-"]
    assert {request.headers["Accept-Encoding"] for request in script.requests} == {"identity"}


def test_a_download_that_keeps_breaking() -> None:
    registry, script = client(
        lambda request: (
            broken(status=206, Content_Range="bytes 5-") if "Range" in request.headers else broken(DATA[:5])
        ),
        retries=3,
    )
    with pytest.raises(Unreachable, match="broke after 5 of 10240 bytes"):
        list(registry.blob(REF, BLOB))
    assert len(script.requests) == 4


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, content=DATA[:-1]),
        httpx.Response(200, content=DATA + b"x"),
        httpx.Response(200, content=DATA[::-1]),
        httpx.Response(200, stream=Pieces(iter(lambda: b"x" * 1000, b""))),
    ],
)
def test_wrong_blobs(answer: httpx.Response) -> None:
    registry, _ = client(lambda _: answer)
    with pytest.raises(ContentMismatch):
        list(registry.blob(REF, BLOB))


def test_another_part_of_a_blob() -> None:
    registry, _ = client(turns(broken(DATA[:9]), httpx.Response(206, headers={"Content-Range": "bytes 3-9/10240"})))
    with pytest.raises(ServerError, match="another part"):
        list(registry.blob(REF, BLOB))


def test_small_blobs() -> None:
    registry, script = client(lambda _: httpx.Response(200, content=DATA))
    assert registry.read_blob(REF, BLOB) == DATA
    with pytest.raises(ServerError, match="larger than the limit"):
        registry.read_blob(REF, BLOB, limit=10)
    inline = d.Descriptor(d.OCI_CONFIG, BLOB.digest, len(DATA), data=DATA)
    lie = d.Descriptor(d.OCI_CONFIG, BLOB.digest, len(DATA), data=b"lie")
    assert registry.read_blob(REF, inline) == registry.read_blob(REF, lie) == DATA
    assert len(script.requests) == 2


def test_mirrors_come_first_and_fail_quietly() -> None:
    def answer(request: httpx.Request) -> Answer:
        match request.url.host:
            case "a.example.com":
                return httpx.Response(500)
            case "b.example.com":
                return broken(DATA[:100]) if "Range" not in request.headers else httpx.Response(404)
        return httpx.Response(206, headers={"Content-Range": "bytes 100-"}, content=DATA[100:])

    hosts = {"example.com": HostOptions(mirrors=("a.example.com", "b.example.com/cache"))}
    registry, script = client(answer, hosts=hosts, retries=0)
    assert b"".join(registry.blob(REF, BLOB)) == DATA
    blobs = f"blobs/{BLOB.digest}"
    assert script.lines()[:2] == [
        f"GET https://a.example.com/v2/app/{blobs}?ns=example.com",
        f"GET https://b.example.com/v2/cache/app/{blobs}?ns=example.com",
    ]
    assert script.lines()[-1] == f"GET https://example.com/v2/app/{blobs}"


# Authorization


def challenge(text: str) -> httpx.Response:
    return httpx.Response(401, headers={"WWW-Authenticate": text})


BEARER = 'Bearer realm="https://auth.example.com/token?x=1",service="reg,istry",scope="repository:app:pull"'


def test_redirections_get_no_authorization() -> None:
    def answer(request: httpx.Request) -> Answer:
        if request.url.host == "cdn.example.com":
            return httpx.Response(200, content=DATA)
        if "Authorization" not in request.headers:
            return challenge('Basic realm="x"')
        return httpx.Response(307, headers={"Location": "https://cdn.example.com/blob?signature=1"})

    registry, script = client(answer, credentials=lambda _: ("user", "secret"))
    assert b"".join(registry.blob(REF, BLOB)) == DATA
    assert [("Authorization" in request.headers) for request in script.requests] == [False, True, False]


def test_a_refusal_by_another_server_is_no_challenge() -> None:
    def answer(request: httpx.Request) -> Answer:
        if request.url.host == "cdn.example.com":
            return challenge('Basic realm="x"')
        return httpx.Response(307, headers={"Location": "https://cdn.example.com/"})

    registry, script = client(answer, credentials=lambda _: ("user", "secret"))
    with pytest.raises(Unauthorized):
        list(registry.blob(REF, BLOB))
    assert all("Authorization" not in request.headers for request in script.requests)


class Tokens:
    """A registry with a token server that gives numbered tokens."""

    def __init__(self, life: int = 300, form: bool = True) -> None:
        self.life, self.form = life, form
        self.good: set[str] = set()
        self.asked: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> Answer:
        if request.url.host == "auth.example.com":
            if request.method == "GET" and not self.form:
                return httpx.Response(404)
            form = httpx.QueryParams(request.content.decode())
            self.asked.append({"method": request.method, **(form if request.method == "POST" else request.url.params)})
            token = f"t{len(self.asked)}"
            self.good.add(token)
            return httpx.Response(200, json={"token": token, "expires_in": self.life})
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.good:
            return challenge(BEARER)
        return manifest(request)


def test_tokens_are_kept_and_renewed() -> None:
    server = Tokens()
    registry, script = client(server)
    for _ in range(3):
        registry.resolve(REF)
    assert len(script.requests) == 5
    assert server.asked == [{"method": "GET", "x": "1", "service": "reg,istry", "scope": "repository:app:pull"}]
    server.good.clear()
    registry.resolve(REF)
    assert len(server.asked) == 2
    registry.resolve(parse("example.com/other"))
    assert server.asked[2]["scope"] == "repository:other:pull"


def test_tokens_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    server = Tokens(life=100)
    registry, _ = client(server)
    registry.resolve(REF)
    now += 85
    registry.resolve(REF)
    assert len(server.asked) == 1
    now += 10
    registry.resolve(REF)
    assert len(server.asked) == 2


@pytest.mark.parametrize("user", ["", "<token>"])
def test_identity_tokens(user: str) -> None:
    server = Tokens()
    registry, script = client(server, credentials={"example.com": (user, "identity")}.get)
    registry.resolve(REF)
    assert server.asked == [
        {
            "method": "POST",
            "grant_type": "refresh_token",
            "refresh_token": "identity",
            "service": "reg,istry",
            "client_id": "brickyard",
            "scope": "repository:app:pull",
        }
    ]
    assert all("identity" not in line for line in script.lines())


def test_passwords_by_form_where_there_is_no_other_way() -> None:
    server = Tokens(form=False)
    registry, _ = client(server, credentials={"example.com": ("user", "secret")}.get)
    registry.resolve(REF)
    assert server.asked[0]["grant_type"] == "password"


def test_docker_hub_is_asked_for_by_its_name() -> None:
    asked: list[str] = []
    registry, _ = client(Tokens(), credentials=asked.append)
    registry.resolve(parse("alpine"))
    assert set(asked) == {"docker.io"}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Digest realm=x", "docker login"),
        ("", "docker login"),
        ('Bearer realm="http://auth.example.com/token"', "no TLS"),
        ('Bearer realm="file:///etc/passwd"', "no address of a token server"),
        ("Bearer service=x", "no address of a token server"),
        ('Basic realm="x"', "refused the credentials"),
    ],
)
def test_challenges_that_cannot_be_met(text: str, error: str) -> None:
    registry, script = client(lambda _: challenge(text), credentials=lambda _: ("user", "secret"))
    with pytest.raises(RegistryError, match=error) as caught:
        registry.resolve(REF)
    assert "secret" not in str(caught.value)
    assert all(request.url.host == "example.com" for request in script.requests)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, json={}),
        httpx.Response(200, json={"token": "a\nb"}),
        httpx.Response(500),
        httpx.Response(200),
    ],
)
def test_broken_token_servers(answer: httpx.Response) -> None:
    registry, _ = client(lambda request: challenge(BEARER) if request.url.host == "example.com" else answer)
    with pytest.raises(ServerError, match=r"auth\.example\.com"):
        registry.resolve(REF)


def test_a_token_that_never_works() -> None:
    registry, script = client(
        lambda request: (
            challenge(BEARER) if request.url.host == "example.com" else httpx.Response(200, json={"token": "t"})
        )
    )
    with pytest.raises(Unauthorized, match="wants credentials"):
        registry.resolve(REF)
    assert len(script.requests) < 8


# Pushes


class Uploads:
    """A registry that takes uploads and fails some requests first."""

    def __init__(self, **failures: list[Answer]) -> None:
        self.failures = failures
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[str, bytes] = {}

    def __call__(self, request: httpx.Request) -> Answer:
        if left := self.failures.get(request.method):
            return left.pop(0)
        number = request.url.path.rpartition("/")[2]
        match request.method:
            case "HEAD":
                return httpx.Response(404)
            case "POST":
                self.parts[str(len(self.parts))] = b""
                return httpx.Response(202, headers={"Location": f"/v2/app/blobs/uploads/{len(self.parts) - 1}?state=x"})
            case "PATCH":
                start = len(self.parts[number])
                assert request.headers["Content-Range"] == f"{start}-{start + len(request.content) - 1}"
                self.parts[number] += request.content
                return httpx.Response(202, headers={"Location": str(request.url)})
            case "PUT":
                assert request.url.params["state"] == "x"
                self.blobs[request.url.params["digest"]] = self.parts.pop(number) + request.content
                return httpx.Response(201)
        raise AssertionError(request.method)


@pytest.mark.parametrize("failure", [httpx.WriteError("reset"), httpx.Response(502), httpx.Response(404)])
@pytest.mark.parametrize("chunk_size", [0, 4000])
def test_uploads_begin_anew(failure: Answer, chunk_size: int) -> None:
    server = Uploads(**{"PATCH" if chunk_size else "PUT": [failure, failure]})
    registry, script = client(server)
    registry.push_blob(REF, BLOB, lambda: io.BytesIO(DATA), chunk_size=chunk_size)
    assert server.blobs == {BLOB.digest: DATA}
    assert [request.method for request in script.requests].count("POST") == 3


def test_uploads_give_up() -> None:
    server = Uploads(PUT=[httpx.Response(403)] * 9)
    registry, script = client(server)
    with pytest.raises(Denied):
        registry.push_blob(REF, BLOB, lambda: io.BytesIO(DATA))
    assert [request.method for request in script.requests] == ["HEAD", "POST", "PUT"]
    registry, script = client(Uploads(PUT=[httpx.Response(500)] * 9), retries=1)
    with pytest.raises(ServerError):
        registry.push_blob(REF, BLOB, lambda: io.BytesIO(DATA))
    assert [request.method for request in script.requests].count("PUT") == 2


def test_a_mount_that_is_refused_is_an_upload() -> None:
    server = Uploads(
        DELETE=[httpx.Response(500)] * 9,
        POST=[httpx.Response(403), httpx.Response(202, headers={"Location": "/v2/app/blobs/uploads/9"})],
    )
    registry, script = client(server)
    sources = [
        parse(f"{name}:1") for name in ("example.com/a", "other.example.com/b", "example.com/c", "example.com/app")
    ]
    assert registry.push_blob(REF, BLOB, lambda: io.BytesIO(DATA), mount_from=sources) == "uploaded"
    asked = [line.partition("uploads/")[2] for line in script.lines() if line.startswith("POST")]
    assert asked == [f"?mount={BLOB.digest}&from=a", f"?mount={BLOB.digest}&from=c", ""]


def test_streams_are_gathered() -> None:
    server = Uploads()
    registry, script = client(server)
    found = registry.push_stream(REF, (bytes([n % 256]) * 100_000 for n in range(100)), d.OCI_LAYER)
    assert len(server.blobs[found.digest]) == found.size == 10_000_000
    assert [request.method for request in script.requests].count("PATCH") == 3


def test_manifests_are_pushed_by_tag_or_digest() -> None:
    registry, script = client(lambda _: httpx.Response(201))
    registry.push_manifest(REF, MANIFEST, d.OCI_MANIFEST)
    registry.push_manifest(REF.trimmed(), MANIFEST, d.OCI_MANIFEST)
    assert [line.rpartition("/")[2] for line in script.lines()] == ["1", DIGEST]
    assert script.requests[0].headers["Content-Type"] == d.OCI_MANIFEST
    with pytest.raises(ContentMismatch):
        registry.push_manifest(REF.with_digest(BLOB.digest), MANIFEST, d.OCI_MANIFEST)
    registry, _ = client(lambda _: httpx.Response(201, headers={"Docker-Content-Digest": BLOB.digest}))
    with pytest.raises(ContentMismatch, match="stored"):
        registry.push_manifest(REF, MANIFEST, d.OCI_MANIFEST)


def test_an_upload_without_a_place() -> None:
    registry, _ = client(lambda request: httpx.Response(404 if request.method == "HEAD" else 202))
    with pytest.raises(ServerError, match="without a location"):
        registry.push_blob(REF, BLOB, lambda: io.BytesIO(DATA))


def test_errors_show_no_secrets() -> None:
    text = json.dumps({"errors": [{"code": "X", "message": "m" * 5000}]}).encode()
    registry, _ = client(lambda _: httpx.Response(400, content=text), credentials=lambda _: ("user", "secret"))
    with pytest.raises(ServerError) as caught:
        registry.tags(REF)
    assert len(str(caught.value)) < 500
