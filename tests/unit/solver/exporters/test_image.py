"""The exporter of images under names and to registries: one of this machine that misbehaves as a test says."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from brickyard.oci.reference import parse
from brickyard.solver.base import Cancelled, Exportable, Result, SolveError
from brickyard.solver.exporters import find
from brickyard.solver.image_store import find_image
from brickyard.solver.layers import get_layer

CONFIG = json.dumps({"architecture": "amd64", "os": "linux"}).encode()
Mood = Callable[[BaseHTTPRequestHandler], bool]


@dataclass
class Hub:
    """A registry to push to; `mood` may answer a request itself, and says whether it did."""

    host: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    repositories: dict[str, set[str]] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    mood: Mood = lambda request: False

    def count(self, text: str) -> int:
        return sum(text in line for line in self.requests)


def reply(request: BaseHTTPRequestHandler, status: int, data: bytes = b"", **headers: str) -> bool:
    request.send_response(status)
    for key, value in {"Content-Length": str(len(data)), **headers}.items():
        request.send_header(key.replace("_", "-"), value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(data)
    return True


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()

    class Handle(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))

        def handle_all(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            if hub.mood(self):
                self.close_connection = True
                return
            parts = urlsplit(self.path)
            repository, _, rest = parts.path.removeprefix("/v2/").partition("/")
            query = parse_qs(parts.query)
            has = hub.repositories.setdefault(repository, set())
            kind, _, name = rest.partition("/")
            if self.command == "HEAD" and kind == "blobs":
                reply(self, 200 if name in has else 404)
            elif self.command == "POST":
                self.body()
                source = query.get("from", [""])[0]
                if source and query["mount"][0] in hub.repositories.get(source, set()):
                    has.add(query["mount"][0])
                    reply(self, 201)
                else:
                    reply(self, 202, Location=f"/v2/{repository}/blobs/uploads/1")
            elif self.command == "PUT" and kind == "blobs":
                data = self.body()
                digest = query["digest"][0]
                if digest != f"sha256:{hashlib.sha256(data).hexdigest()}":
                    reply(self, 400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
                    return
                hub.blobs[digest] = data
                has.add(digest)
                reply(self, 201)
            elif self.command == "PUT" and kind == "manifests":
                data = self.body()
                hub.manifests[f"{repository}:{name}"] = data
                reply(self, 201, Docker_Content_Digest=f"sha256:{hashlib.sha256(data).hexdigest()}")
            else:
                self.body()
                reply(self, 404)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = handle_all

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that goes away is part of some tests."""

    server = Quiet(("127.0.0.1", 0), Handle)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    hub.host = f"127.0.0.1:{server.server_port}"
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long waits between tries."""
    monkeypatch.setattr("brickyard.oci.transport.backoff", lambda failures: 0.001)
    monkeypatch.setattr("brickyard.oci.registry.backoff", lambda failures: 0.001)


@pytest.fixture
def result(yard: Any) -> Exportable:
    below = yard.snapshot({"a": hashlib.shake_256(b"a").digest(200_000)})
    return Exportable({"": (Result(yard.snapshot({"b": b"2"}, below)), CONFIG)})


def export(yard: Any, result: Exportable, **attrs: str) -> dict[str, str]:
    given = {key.replace("_", "-"): value for key, value in attrs.items()}
    return find("image").export(result, "0", given, yard.context)


def test_names(yard: Any, result: Exportable) -> None:
    answer = export(yard, result, name="shop, host.example/x:2", name_canonical="true", dangling_name_prefix="left")
    digest = answer["containerimage.digest"]
    names = ["docker.io/library/shop:latest", "host.example/x:2", f"docker.io/library/left@{digest}"]
    assert answer["image.name"] == ",".join(names)
    for name in [*names, f"host.example/x:2@{digest}"]:
        assert find_image(parse(name), yard.context) == digest
    assert find_image(parse("host.example/x:3"), yard.context) is None
    assert "naming to docker.io/library/shop:latest" in [name for name, _, _ in yard.progress]


def test_a_name_needs_all_of_its_content(yard: Any, result: Exportable) -> None:
    export(yard, result, name="shop")
    layer = get_layer(yard.context, result.refs[""][0].snapshot)
    assert layer is not None
    yard.context.content.remove(layer.descriptor.digest)
    assert find_image(parse("shop"), yard.context) is None


def test_without_names(yard: Any, result: Exportable) -> None:
    assert "image.name" not in export(yard, result)
    answer = export(yard, result, dangling_name_prefix="left", **{"danging-name-empty-only": "true"})
    assert answer["image.name"].startswith("docker.io/library/left@sha256:")
    answer = export(yard, result, name="x", dangling_name_prefix="left", **{"danging-name-empty-only": "true"})
    assert answer["image.name"] == "docker.io/library/x:latest"
    export(yard, result, name="unstored", store="false")
    assert find_image(parse("unstored"), yard.context) is None


def test_the_name_of_the_frontend(yard: Any, result: Exportable) -> None:
    named = replace(result, metadata={"image.name": b"one,two:3"})
    answer = export(yard, named, name="*")
    assert answer["image.name"] == "docker.io/library/one:latest,docker.io/library/two:3"


def test_the_config_of_the_client(yard: Any) -> None:
    given = json.dumps({"architecture": "arm64", "os": "linux"})
    answer = export(yard, Exportable({"": (Result(None), None)}), **{"containerimage.config": given})
    config = json.loads(yard.context.content.read(answer["containerimage.config.digest"]))
    assert config["architecture"] == "arm64"


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"name": "UPPER"}, "must be lower case"),
        ({"push": "true"}, "a push needs a name"),
        ({"push": "perhaps", "name": "x"}, "must be true or false"),
        ({"unpack": "true", "rewrite-timestamp": "true"}, "contradict each other"),
        ({"annotation-index.a": "b"}, "not supported for a result of a single platform"),
        ({"annotation[linux/s390x].a": "b"}, "has no platform linux/s390x"),
        ({"annotation-manifest-descriptor.a": "b", "oci-mediatypes": "false"}, "oci-mediatypes=false"),
    ],
)
def test_what_is_refused(yard: Any, result: Exportable, attrs: dict[str, str], message: str) -> None:
    with pytest.raises(SolveError, match=message):
        find("image").export(result, "0", attrs, yard.context)


def test_annotations(yard: Any, result: Exportable) -> None:
    answer = find("image").export(
        result, "0", {"annotation.a": "1", "annotation-manifest-descriptor[linux/amd64].b": "2"}, yard.context
    )
    assert json.loads(yard.context.content.read(answer["containerimage.digest"]))["annotations"] == {"a": "1"}
    import base64

    assert json.loads(base64.b64decode(answer["containerimage.descriptor"]))["annotations"] == {"b": "2"}


# Pushing


def test_a_push(yard: Any, result: Exportable, hub: Hub) -> None:
    answer = export(yard, result, name=f"{hub.host}/app:1", push="true")
    manifest = hub.manifests["app:1"]
    assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == answer["containerimage.digest"]
    decoded = json.loads(manifest)
    assert {layer["digest"] for layer in decoded["layers"]} | {decoded["config"]["digest"]} == set(hub.blobs)
    names = [name for name, _, _ in yard.progress]
    assert "pushing layers" in names
    assert f"pushing manifest for {hub.host}/app:1@{answer['containerimage.digest']}" in names
    hub.requests.clear()
    export(yard, result, name=f"{hub.host}/app:2", push="true")
    assert [line.partition(" ")[0] for line in hub.requests] == ["HEAD"] * 3 + ["PUT"]


def test_pushed_layers_are_mounted_elsewhere(yard: Any, result: Exportable, hub: Hub) -> None:
    export(yard, result, name=f"{hub.host}/one:1", push="true")
    hub.requests.clear()
    export(yard, result, name=f"{hub.host}/two:1", push="true")
    assert hub.count("mount=sha256") == 2
    assert hub.count("PUT /v2/two/blobs") == 1


def test_by_digest(yard: Any, result: Exportable, hub: Hub) -> None:
    answer = export(yard, result, name=f"{hub.host}/app", push="true", push_by_digest="true")
    assert list(hub.manifests) == [f"app:{answer['containerimage.digest']}"]


def test_several_names(yard: Any, result: Exportable, hub: Hub) -> None:
    export(yard, result, name=f"{hub.host}/a:1,{hub.host}/a:2", push="true")
    assert set(hub.manifests) == {"a:1", "a:2"}
    assert hub.count("PUT /v2/a/blobs") == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_servers_in_trouble(yard: Any, result: Exportable, hub: Hub, status: int) -> None:
    left = {"POST": 1, "PUT": 1, "HEAD": 1}
    lock = threading.Lock()

    def mood(request: BaseHTTPRequestHandler) -> bool:
        with lock:
            left[request.command] -= 1
            trouble = left[request.command] >= 0
        return trouble and reply(request, status, b"{}")

    hub.mood = mood
    answer = export(yard, result, name=f"{hub.host}/app:1", push="true")
    assert f"sha256:{hashlib.sha256(hub.manifests['app:1']).hexdigest()}" == answer["containerimage.digest"]


def test_a_server_that_always_fails(yard: Any, result: Exportable, hub: Hub) -> None:
    hub.mood = lambda r: r.command == "PUT" and reply(r, 500, b'{"errors":[{"code":"X","message":"disk"}]}')
    with pytest.raises(SolveError, match=f"^failed to push {hub.host}/app:1: {hub.host} answered 500 to PUT .*disk"):
        export(yard, result, name=f"{hub.host}/app:1", push="true")
    hub.mood = lambda r: False
    export(yard, result, name=f"{hub.host}/app:1", push="true")


@pytest.mark.parametrize(("status", "message"), [(401, "wants credentials"), (403, "denies access")])
def test_refusals(yard: Any, result: Exportable, hub: Hub, status: int, message: str) -> None:
    hub.mood = lambda r: reply(r, status, b"{}")
    with pytest.raises(SolveError, match=f"failed to push {hub.host}/app:1: .*{message}"):
        export(yard, result, name=f"{hub.host}/app:1", push="true")


def test_a_server_that_stores_something_else(yard: Any, result: Exportable, hub: Hub) -> None:
    other = "sha256:" + "0" * 64
    hub.mood = lambda r: "/manifests/" in r.path and reply(r, 201, Docker_Content_Digest=other)
    with pytest.raises(SolveError, match=f"stored {other} instead of"):
        export(yard, result, name=f"{hub.host}/app:1", push="true")


def test_a_stopped_build_does_not_wait(yard: Any, result: Exportable, hub: Hub) -> None:
    done = threading.Event()

    def mood(request: BaseHTTPRequestHandler) -> bool:
        if request.command == "PUT":
            yard.context.cancel.set()
            done.wait(10)
        return False

    hub.mood = mood
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        export(yard, result, name=f"{hub.host}/app:1", push="true")
    assert time.monotonic() - begun < 1.5
    done.set()
    assert hub.manifests == {}
