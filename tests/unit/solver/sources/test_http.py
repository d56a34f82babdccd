"""Files of a web server, which is one of this machine that does what a test says."""

import gzip
import hashlib
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from brickyard.llb.ops import SourceOp
from brickyard.solver.base import Cancelled, SolveError
from brickyard.solver.sources import http
from brickyard.wire.pb import gateway_pb2, ops_pb2

DATA = b"the content of a file\n" * 1000
SUM = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
Handler = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Web:
    """A server: `handle` answers, `requests` were asked."""

    url: str = ""
    handle: Handler = lambda request: send(request, 200, DATA)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def lines(self) -> list[str]:
        return [f"{method} {path}" for method, path, _ in self.requests]


def send(request: BaseHTTPRequestHandler, status: int, data: bytes = b"", **headers: str) -> None:
    request.send_response(status)
    for key, value in headers.items():
        request.send_header(key.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(data)


@pytest.fixture(autouse=True)
def session(yard: Any) -> None:
    """A session of its own for each test: answers are kept for a session's time, and ports come again."""
    yard.client.id = uuid.uuid4().hex


@pytest.fixture
def web() -> Iterator[Web]:
    state = Web()

    class Handle(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.requests.append((self.command, self.path, dict(self.headers)))
            state.handle(self)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handle)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


def op(url: str, **attrs: str) -> SourceOp:
    return SourceOp(url, {f"http.{key}": value for key, value in attrs.items()})


def fetch(yard: Any, op: SourceOp) -> dict[str, tuple[bytes, int, int]]:
    """Content, mode and time of the files of a source."""
    result = http.snapshot(op, None, yard.context)
    with yard.context.snapshots.mounted(result.snapshot) as root:
        return {
            path.name: (path.read_bytes(), path.stat().st_mode & 0o7777, int(path.stat().st_mtime))
            for path in root.iterdir()
        }


def test_a_file(yard: Any, web: Web) -> None:
    web.handle = lambda r: send(r, 200, DATA, Last_Modified="Mon, 06 May 2024 07:08:09 GMT")
    key = http.cache_key(op(f"{web.url}/a/file.txt?x=1"), None, yard.context)
    assert fetch(yard, op(f"{web.url}/a/file.txt?x=1")) == {"file.txt": (DATA, 0o600, 1714979289)}
    assert web.lines() == ["GET /a/file.txt?x=1"]
    assert key == http.cache_key(op(f"{web.url}/a/file.txt?x=1"), None, yard.context)
    assert any(name == "downloading file.txt" for name, _, _ in yard.progress)


def test_name_mode_and_owner(yard: Any, web: Web) -> None:
    attrs = {"filename": "new", "perm": "0755", "uid": "12", "gid": "34"}
    result = http.snapshot(op(f"{web.url}/x", **attrs), None, yard.context)
    with yard.context.snapshots.mounted(result.snapshot) as root:
        found = (root / "new").stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid, found.st_mtime) == (0o755, 12, 34, 0)
    assert len({http.cache_key(op(f"{web.url}/x", **a), None, yard.context) for a in ({}, attrs)}) == 2


@pytest.mark.parametrize(
    ("path", "disposition", "name"),
    [
        ("/a/b.tgz", "", "b.tgz"),
        ("/a/b%20c", "", "b c"),
        ("/", "", "download"),
        ("", "", "download"),
        ("/a/..", "", "download"),
        ("/a", 'attachment; filename="x.zip"', "x.zip"),
        ("/a", 'attachment; filename="../../etc/passwd"', "passwd"),
        ("/a", 'attachment; filename=".."', "download"),
        ("/a%0Ab", "", "download"),
    ],
)
def test_names(path: str, disposition: str, name: str) -> None:
    assert http.file_name(f"http://host{path}", "", disposition) == name


def test_a_checksum_needs_no_request_for_its_key(yard: Any, web: Web) -> None:
    key = http.cache_key(op(f"{web.url}/x", checksum=SUM), None, yard.context)
    assert not web.requests
    assert fetch(yard, op(f"{web.url}/x", checksum=SUM))["x"][0] == DATA
    assert fetch(yard, op(f"{web.url}/x", checksum=SUM))["x"][0] == DATA
    assert web.lines() == ["GET /x"]
    assert http.cache_key(op(f"{web.url}/x", checksum=SUM), None, yard.context) == key
    before = set(yard.context.snapshots.ids())
    with pytest.raises(SolveError, match=f"digest mismatch .*{SUM}"):
        http.snapshot(op(f"{web.url}/x", checksum="sha256:" + "0" * 64), None, yard.context)
    assert set(yard.context.snapshots.ids()) == before


def test_unchanged_files_are_not_sent_again(yard: Any, web: Web) -> None:
    def handle(request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("If-None-Match") == '"one"':
            send(request, 304, ETag='"one"')
        else:
            send(request, 200, DATA, ETag='W/"one"')

    web.handle = handle
    first = http.snapshot(op(f"{web.url}/x"), None, yard.context)
    yard.client.id = "the next session"
    assert http.snapshot(op(f"{web.url}/x"), None, yard.context) == first
    assert web.lines() == ["GET /x", "HEAD /x"]
    web.handle = lambda r: send(r, 405) if r.command == "HEAD" else handle(r)
    yard.client.id = "a third"
    assert http.snapshot(op(f"{web.url}/x"), None, yard.context) == first
    web.handle = lambda r: send(r, 200, b"new", ETag='"two"')
    yard.client.id = "a fourth"
    assert fetch(yard, op(f"{web.url}/x"))["x"][0] == b"new"


def test_what_is_compressed_for_the_way(yard: Any, web: Web) -> None:
    web.handle = lambda r: send(r, 200, gzip.compress(DATA), Content_Encoding="gzip")
    assert fetch(yard, op(f"{web.url}/x", checksum=SUM))["x"][0] == DATA


def test_headers_and_secrets(yard: Any, web: Web) -> None:
    attrs = {"header.accept": "text/x", "header.user-agent": "me", "header.cookie": "no"}
    yard.client.secrets = {"HTTP_AUTH_TOKEN_127.0.0.1": b"tok\n", "other": b"Basic abc"}
    http.snapshot(op(f"{web.url}/x", **attrs), None, yard.context)
    sent = web.requests[-1][2]
    assert (sent["Accept"], sent["User-Agent"], sent["Authorization"]) == ("text/x", "me", "Bearer tok")
    assert "Cookie" not in sent
    http.snapshot(op(f"{web.url}/x", authheadersecret="other"), None, yard.context)
    assert web.requests[-1][2]["Authorization"] == "Basic abc"
    with pytest.raises(SolveError, match="has no secret none"):
        http.snapshot(op(f"{web.url}/x", authheadersecret="none"), None, yard.context)
    yard.client.secrets["two"] = b"a\r\nb: c"
    with pytest.raises(SolveError, match="not a single line") as caught:
        http.snapshot(op(f"{web.url}/x", authheadersecret="two"), None, yard.context)
    assert "b: c" not in str(caught.value)


def test_a_redirection_does_not_take_the_secret_along(yard: Any, web: Web) -> None:
    elsewhere = web.url.replace("127.0.0.1", "localhost") + "/there"
    web.handle = lambda r: send(r, 302, Location=elsewhere) if r.path == "/x" else send(r, 200, DATA)
    yard.client.secrets = {"HTTP_AUTH_HEADER_127.0.0.1": b"Basic abc"}
    assert fetch(yard, op(f"{web.url}/x"))["x"][0] == DATA
    assert [("Authorization" in headers) for _, _, headers in web.requests] == [True, False]
    web.handle = lambda r: send(r, 302, Location="/again")
    with pytest.raises(SolveError, match="too many redirections"):
        http.snapshot(op(f"{web.url}/y"), None, yard.context)
    web.handle = lambda r: send(r, 302, Location="file:///etc/passwd")
    with pytest.raises(SolveError, match="cannot fetch"):
        http.snapshot(op(f"{web.url}/z"), None, yard.context)


def test_a_server_with_moods(yard: Any, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    moods = iter([503, 429, 0])

    def handle(request: BaseHTTPRequestHandler) -> None:
        mood = next(moods, 200)
        if mood == 0:
            # Promises more than it sends.
            request.send_response(200)
            request.send_header("Content-Length", str(len(DATA)))
            request.end_headers()
            request.wfile.write(DATA[:100])
            request.close_connection = True
        else:
            send(request, mood, DATA if mood == 200 else b"no")

    web.handle = handle
    monkeypatch.setattr(http, "FIRST_DELAY", 0.001)
    assert fetch(yard, op(f"{web.url}/x"))["x"][0] == DATA
    assert len(web.requests) == 4
    web.handle = lambda r: send(r, 404, b"no")
    with pytest.raises(SolveError, match="answered 404"):
        http.snapshot(op(f"{web.url}/y?secret=1"), None, yard.context)
    assert len(web.requests) == 5


def test_nobody_there(yard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_DELAY", 0.001)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://user:pa55@127.0.0.1:{probe.getsockname()[1]}/x?token=s3cret"
        with pytest.raises(SolveError, match=r"cannot fetch http://127\.0\.0\.1") as caught:
            http.snapshot(op(url), None, yard.context)
    assert "pa55" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_what_the_client_hands_over(yard: Any) -> None:
    yard.client.uploads["http://buildkit-session/abc"] = DATA
    request = op("http://buildkit-session/abc", filename="context")
    key = http.cache_key(request, None, yard.context)
    # It does so once.
    yard.client.uploads.clear()
    assert fetch(yard, request)["context"][0] == DATA
    yard.client.uploads["http://buildkit-session/def"] = DATA
    assert http.cache_key(op("http://buildkit-session/def", filename="context"), None, yard.context) == key
    with pytest.raises(SolveError, match="nothing to hand over"):
        http.snapshot(op("http://buildkit-session/none"), None, yard.context)


def test_what_is_known_before(yard: Any, web: Web) -> None:
    web.handle = lambda r: send(r, 200, DATA, Last_Modified="Mon, 06 May 2024 07:08:09 GMT")
    response = gateway_pb2.ResolveSourceHTTPResponse()
    http.resolve_meta(ops_pb2.SourceOp(identifier=f"{web.url}/x.tar"), yard.context, response)
    assert (response.Checksum, response.Filename, response.LastModified.seconds) == (SUM, "x.tar", 1714979289)
    response = gateway_pb2.ResolveSourceHTTPResponse()
    source = ops_pb2.SourceOp(identifier="http://nowhere.invalid/x.tar", attrs={"http.checksum": SUM})
    http.resolve_meta(source, yard.context, response)
    assert (response.Checksum, response.Filename) == (SUM, "x.tar")


def test_a_digest_with_a_suffix(yard: Any, web: Web) -> None:
    wanted = gateway_pb2.ChecksumRequest(Algo=gateway_pb2.ChecksumRequest.CHECKSUM_ALGO_SHA512, Suffix=b"end")
    for attrs in ({}, {"http.checksum": SUM}):
        response = gateway_pb2.ResolveSourceHTTPResponse()
        source = ops_pb2.SourceOp(identifier=f"{web.url}/x.tar", attrs=attrs)
        http.resolve_meta(source, yard.context, response, wanted)
        assert response.Checksum == SUM
        assert response.ChecksumResponse.Digest == f"sha512:{hashlib.sha512(DATA + b'end').hexdigest()}"
        assert response.ChecksumResponse.Suffix == b"end"
    wanted.Suffix = bytes(5000)
    with pytest.raises(SolveError, match="unsupported checksum request"):
        http.resolve_meta(source, yard.context, response, wanted)


@pytest.mark.parametrize(
    ("url", "attrs", "message"),
    [
        ("http://", {}, "names no host"),
        ("http://host/x", {"checksum": "md5:12"}, "unsupported digest"),
        ("http://host/x", {"perm": "rwx"}, "http.perm is no number"),
        ("http://host/x", {"uid": "-1"}, "http.uid is out of range"),
        ("http://host/x", {"sig.pubkey": "x", "sig.signature": "y"}, "http.sig.pubkey is not supported"),
    ],
)
def test_what_is_refused(yard: Any, url: str, attrs: dict[str, str], message: str) -> None:
    with pytest.raises(SolveError, match=message):
        http.cache_key(op(url, **attrs), None, yard.context)


def test_a_stopped_build(yard: Any, web: Web, tmp_path: Path) -> None:
    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(2 * len(DATA)))
        request.end_headers()
        request.wfile.write(DATA)
        yard.context.cancel.set()
        request.wfile.write(DATA)

    web.handle = handle
    with pytest.raises(Cancelled):
        http.snapshot(op(f"{web.url}/x"), None, yard.context)
    assert yard.context.snapshots.ids() == []
