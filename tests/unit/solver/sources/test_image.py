"""Images of a registry: one of this machine that misbehaves as a test says."""

import hashlib
import io
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from brickyard.llb.ops import SourceOp
from brickyard.oci import descriptor as d
from brickyard.oci.layer import compress
from brickyard.oci.platform import Platform
from brickyard.oci.registry import Registry
from brickyard.oci.tar import Entry, Kind, TarWriter
from brickyard.solver.base import Cancelled, Exportable, Result, SolveError
from brickyard.solver.exporters import find
from brickyard.solver.layers import get_layer, get_sources
from brickyard.solver.sources import image

AMD64, ARM64, ARMV6 = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("linux", "arm", "v6")
Mood = Callable[[BaseHTTPRequestHandler], bool]


@dataclass
class Hub:
    """A registry; `mood` may answer a request itself, and says whether it did."""

    host: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    mood: Mood = lambda request: False

    def image(self, *layers: bytes, platform: Platform = AMD64, name: str = "latest") -> d.Descriptor:
        """Add an image of layer tars, under a tag."""
        described, diffs = [], []
        for tar in layers:
            out = io.BytesIO()
            blob = compress([tar], out, "gzip")
            self.blobs[blob.digest] = out.getvalue()
            described.append(blob.descriptor())
            diffs.append(blob.diff_id)
        config = json.dumps(
            {
                "os": platform.os,
                "architecture": platform.architecture,
                "variant": platform.variant,
                "rootfs": {"type": "layers", "diff_ids": diffs},
            }
        ).encode()
        configured = d.describe(config, d.OCI_CONFIG)
        self.blobs[configured.digest] = config
        manifest = d.Manifest(configured, tuple(described))
        return self.add(manifest, name, platform)

    def add(self, manifest: d.Manifest | d.Index, name: str, platform: Platform | None = None) -> d.Descriptor:
        found = manifest.descriptor(platform)
        for key in (name, found.digest):
            self.manifests[key] = (manifest.media_type, manifest.encode())
        return found

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


@pytest.fixture(autouse=True)
def session(yard: Any) -> None:
    """A session of its own for each test: answers are kept for a session's time, and ports come again."""
    yard.client.id = uuid.uuid4().hex


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()

    class Handle(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            if hub.mood(self):
                return
            kind, name = self.path.split("/")[-2:]
            if kind == "manifests" and name in hub.manifests:
                type, data = hub.manifests[name]
                digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
                reply(self, 200, data, Content_Type=type, Docker_Content_Digest=digest)
            elif kind == "blobs" and name in hub.blobs:
                data, begin = hub.blobs[name], 0
                if match := re.match(r"bytes=(\d+)-", self.headers.get("Range", "")):
                    begin = int(match[1])
                    reply(self, 206, data[begin:], Content_Range=f"bytes {begin}-{len(data) - 1}/{len(data)}")
                else:
                    reply(self, 200, data)
            else:
                reply(self, 404, b'{"errors":[{"code":"UNKNOWN","message":"not here"}]}')

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handle)
    server.daemon_threads = True
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


def tar(**files: bytes) -> bytes:
    out = io.BytesIO()
    writer = TarWriter(out)
    for name, data in files.items():
        writer.add(Entry(name, Kind.FILE, size=len(data)))
        writer.write(data)
    writer.close()
    return out.getvalue()


def op(hub: Hub, name: str = "app:latest", **attrs: str) -> SourceOp:
    return SourceOp(f"docker-image://{hub.host}/{name}", {f"image.{key}": value for key, value in attrs.items()})


def files(yard: Any, op: SourceOp, platform: Platform = AMD64) -> dict[str, bytes]:
    result = image.snapshot(op, platform, yard.context)
    with yard.context.snapshots.mounted(result.snapshot) as root:
        return {path.name: path.read_bytes() for path in root.iterdir()}


NOISE = hashlib.shake_256(b"noise").digest(300_000)


def test_an_image(yard: Any, hub: Hub) -> None:
    digest = hub.image(tar(a=b"1", b=NOISE), tar(a=b"2")).digest
    assert files(yard, op(hub)) == {"a": b"2", "b": NOISE}
    result = image.snapshot(op(hub), AMD64, yard.context)
    assert hub.count("GET /v2/app/blobs/") == 3
    assert hub.count("HEAD /v2/app/manifests/latest") == 1
    layer = get_layer(yard.context, result.snapshot)
    assert layer is not None
    assert get_sources(yard.context, layer.descriptor.digest) == (f"{hub.host}/app",)
    pinned, found, _ = image.resolve_config(f"{hub.host}/app", AMD64, "", yard.context)
    assert (pinned, found) == (f"{hub.host}/app:latest@{digest}", digest)
    names = [name for name, _, _ in yard.progress]
    assert layer.descriptor.digest in names
    assert f"extracting {layer.descriptor.digest}" in names


def test_a_digest_that_is_here_needs_no_registry(yard: Any, hub: Hub) -> None:
    digest = hub.image(tar(a=b"1")).digest
    files(yard, op(hub))
    hub.requests.clear()
    yard.client.id = "another"
    assert files(yard, op(hub, f"app@{digest}")) == {"a": b"1"}
    assert hub.requests == []
    files(yard, op(hub))
    assert hub.requests == ["HEAD /v2/app/manifests/latest"]


def test_images_share_layers(yard: Any, hub: Hub) -> None:
    hub.image(tar(a=b"1"), tar(b=b"2"), name="one")
    hub.image(tar(a=b"1"), tar(c=b"3"), name="two")
    first = image.snapshot(op(hub, "app:one"), AMD64, yard.context)
    second = image.snapshot(op(hub, "app:two"), AMD64, yard.context)
    chains = [yard.context.snapshots.chain(result.snapshot) for result in (first, second)]
    assert chains[0][0] == chains[1][0]
    assert hub.count("GET /v2/app/blobs/") == 2 + 3


def test_many_at_once(yard: Any, hub: Hub) -> None:
    hub.image(*(tar(**{f"f{n}": str(n).encode()}) for n in range(9)))
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(image.snapshot(op(hub), AMD64, yard.context))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    assert len(results) == 4
    assert hub.count("GET /v2/app/blobs/") == 10
    assert len(yard.context.snapshots.ids()) == 9


def test_platforms(yard: Any, hub: Hub) -> None:
    platforms = [AMD64, ARM64, ARMV6, Platform("linux", "arm", "v7")]
    parts = [hub.image(tar(a=str(p).encode()), platform=p, name="part") for p in platforms]
    attestation = d.Descriptor(d.OCI_MANIFEST, "sha256:" + "0" * 64, 1, platform=Platform("unknown", "unknown"))
    hub.add(d.Index((*parts, attestation)), "latest")
    for platform in platforms:
        assert files(yard, op(hub), platform) == {"a": str(platform).encode()}
    assert files(yard, op(hub), Platform("linux", "arm", "v8")) == {"a": b"linux/arm/v7"}
    assert files(yard, op(hub), Platform("linux", "amd64", "v3")) == {"a": b"linux/amd64"}
    with pytest.raises(SolveError, match="no image for linux/riscv64; there are: linux/amd64, linux/arm/v6, "):
        files(yard, op(hub), Platform("linux", "riscv64"))


def test_layer_limits_and_checksums(yard: Any, hub: Hub) -> None:
    digest = hub.image(tar(a=b"1"), tar(b=b"2")).digest
    assert files(yard, op(hub, layerlimit="1")) == {"a": b"1"}
    assert files(yard, op(hub, checksum=digest)) == {"a": b"1", "b": b"2"}
    other = "sha256:" + "0" * 64
    with pytest.raises(SolveError, match=f"the image is {digest}, not {other}"):
        files(yard, op(hub, checksum=other))
    for limit in ("0", "-1", "x"):
        with pytest.raises(SolveError, match="is no positive number"):
            files(yard, op(hub, layerlimit=limit))


def test_no_layers(yard: Any, hub: Hub) -> None:
    hub.image()
    assert image.snapshot(op(hub), AMD64, yard.context) == Result(None)
    assert image.cache_key(op(hub), AMD64, yard.context) == "image:empty"


# Faults


def cut(request: BaseHTTPRequestHandler, data: bytes, size: int) -> bool:
    """Promise all and send a part."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data[:size])
    request.close_connection = True
    return True


def test_cut_connections(yard: Any, hub: Hub) -> None:
    hub.image(tar(b=NOISE))
    cuts = iter([1000, 2000, 100_000])

    def mood(request: BaseHTTPRequestHandler) -> bool:
        data = hub.blobs.get(request.path.split("/")[-1], b"")
        if len(data) < 100_000:
            return False
        if "Range" in request.headers:
            begin = int(request.headers["Range"][6:-1])
            size = next(cuts, 0)
            if not size:
                return False
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            request.send_header("Content-Length", str(len(data) - begin))
            request.end_headers()
            request.wfile.write(data[begin : begin + size])
            request.close_connection = True
            return True
        return cut(request, data, next(cuts))

    hub.mood = mood
    assert files(yard, op(hub)) == {"b": NOISE}
    assert hub.count("GET /v2/app/blobs/") == 1 + 4


def test_a_connection_that_is_always_cut(yard: Any, hub: Hub) -> None:
    hub.image(tar(b=NOISE))
    hub.mood = lambda r: len(hub.blobs.get(r.path.split("/")[-1], b"")) > 100_000 and cut(r, NOISE, 0)
    with pytest.raises(SolveError, match=f"{hub.host}/app:latest: .*the connection broke after 0 of"):
        files(yard, op(hub))
    assert yard.context.snapshots.ids() == []
    hub.mood = lambda r: False
    assert files(yard, op(hub)) == {"b": NOISE}


def test_stalls(yard: Any, hub: Hub) -> None:
    hub.image(tar(b=NOISE))
    done = threading.Event()
    stalled = []

    def mood(request: BaseHTTPRequestHandler) -> bool:
        data = hub.blobs.get(request.path.split("/")[-1], b"")
        if len(data) < 100_000 or stalled:
            return False
        stalled.append(request.path)
        cut(request, data, 1000)
        done.wait(10)
        return True

    hub.mood = mood
    with Registry(timeout=0.2, retries=2) as registry:
        context = replace(yard.context, registry=lambda: registry)
        assert image.snapshot(op(hub), AMD64, context).snapshot
    done.set()


def test_a_stopped_build_does_not_wait(yard: Any, hub: Hub) -> None:
    hub.image(tar(b=NOISE))
    done = threading.Event()

    def mood(request: BaseHTTPRequestHandler) -> bool:
        if "/blobs/" in request.path:
            yard.context.cancel.set()
            done.wait(10)
        return False

    hub.mood = mood
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        image.snapshot(op(hub), AMD64, yard.context)
    assert time.monotonic() - begun < 1.5
    done.set()


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_servers_in_trouble(yard: Any, hub: Hub, status: int) -> None:
    hub.image(tar(a=b"1"))
    left = {"manifests": 1, "blobs": 2}

    def mood(request: BaseHTTPRequestHandler) -> bool:
        kind = request.path.split("/")[-2]
        left[kind] -= 1
        return left[kind] >= 0 and reply(request, status, b"{}")

    hub.mood = mood
    assert files(yard, op(hub)) == {"a": b"1"}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "wants credentials for app"),
        (403, "denies access to app"),
        (404, "has no image app:latest"),
        (429, "answers no more requests for now"),
        (500, "answered 500 to"),
    ],
)
def test_refusals_say_which_image(yard: Any, hub: Hub, status: int, message: str) -> None:
    hub.mood = lambda r: reply(r, status, b'{"errors":[{"code":"SOME","message":"reason"}]}')
    with pytest.raises(SolveError, match=f"^{hub.host}/app:latest: {hub.host} {message}"):
        image.cache_key(op(hub), AMD64, yard.context)


def test_nobody_there(yard: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        name = f"127.0.0.1:{probe.getsockname()[1]}/app:1"
        with pytest.raises(SolveError, match=f"^{name}: cannot reach the registry 127.0.0.1"):
            image.cache_key(SourceOp(f"docker-image://{name}", {}), AMD64, yard.context)


def test_wrong_content(yard: Any, hub: Hub) -> None:
    digest = hub.image(tar(a=b"1")).digest
    honest = dict(hub.blobs)
    layer = next(name for name, data in hub.blobs.items() if data[:2] == b"\x1f\x8b")
    hub.blobs[layer] = honest[layer][:-1] + b"x"
    with pytest.raises(SolveError, match=f"{hub.host}/app:latest: .*does not match its digest"):
        files(yard, op(hub))
    hub.blobs[layer] = honest[layer] + b"more"
    with pytest.raises(SolveError, match="does not match its digest"):
        files(yard, op(hub))
    assert not yard.context.content.has(layer)
    hub.blobs = honest
    assert files(yard, op(hub)) == {"a": b"1"}
    type, data = hub.manifests[digest]
    hub.manifests[digest] = (type, data + b" ")
    for name in list(yard.context.content.digests()):
        yard.context.content.remove(name)
    with pytest.raises(SolveError, match="does not match its digest"):
        image.cache_key(op(hub, f"app@{digest}"), AMD64, yard.context)


def test_a_config_that_lies_about_its_layers(yard: Any, hub: Hub) -> None:
    hub.image(tar(a=b"1"))
    manifest = d.decode(hub.manifests["latest"][1])
    assert isinstance(manifest, d.Manifest)
    config = json.loads(hub.blobs[manifest.config.digest])

    def lie(diffs: list[str]) -> None:
        text = json.dumps({**config, "rootfs": {"type": "layers", "diff_ids": diffs}}).encode()
        described = d.describe(text, d.OCI_CONFIG)
        hub.blobs[described.digest] = text
        hub.add(replace(manifest, config=described), "lie")
        yard.client.id += "x"

    lie(["sha256:" + "0" * 64])
    with pytest.raises(SolveError, match="instead of sha256:0000"):
        files(yard, op(hub, "app:lie"))
    assert yard.context.snapshots.ids() == []
    lie([])
    with pytest.raises(SolveError, match="the manifest has 1 layers, the config 0"):
        files(yard, op(hub, "app:lie"))
    lie(["nothing"])
    with pytest.raises(SolveError, match="is not a digest"):
        files(yard, op(hub, "app:lie"))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"[]", "expected an object"),
        (b'{"schemaVersion":1,"fsLayers":[]}', "schema 1 is not supported"),
        (b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}', "manifest.config: missing"),
        (b"{" * 10000, "not a JSON document"),
    ],
)
def test_broken_manifests(yard: Any, hub: Hub, document: bytes, message: str) -> None:
    for name in ("latest", f"sha256:{hashlib.sha256(document).hexdigest()}"):
        hub.manifests[name] = (d.OCI_MANIFEST, document)
    with pytest.raises(SolveError, match=message):
        files(yard, op(hub))


def test_hostile_layers(yard: Any, hub: Hub) -> None:
    out = io.BytesIO()
    writer = TarWriter(out)
    writer.add(Entry("../../escape", Kind.FILE))
    writer.close()
    hub.image(out.getvalue(), name="up")
    with pytest.raises(SolveError, match="leaves the root"):
        files(yard, op(hub, "app:up"))
    assert yard.context.snapshots.ids() == []


def test_indexes_of_indexes_end(yard: Any, hub: Hub) -> None:
    found = hub.image(tar(a=b"1"))
    for _ in range(20):
        found = hub.add(d.Index((found,)), "latest", AMD64)
    with pytest.raises(SolveError, match="nested too deep"):
        files(yard, op(hub))


# Images that were built here


def test_an_image_built_here(yard: Any, hub: Hub) -> None:
    config = json.dumps({"os": "linux", "architecture": "amd64"}).encode()
    name = f"{hub.host}/mine:1"
    result = Exportable({"": (Result(yard.snapshot({"a": b"here"})), config)})
    find("image").export(result, "0", {"name": name}, yard.context)
    assert files(yard, op(hub, "mine:1")) == {"a": b"here"}
    with pytest.raises(SolveError, match="has no image mine:1"):
        files(yard, op(hub, "mine:1", resolvemode="pull"))
    hub.image(tar(a=b"there"), name="1")
    yard.client.id = "another"
    assert files(yard, op(hub, "mine:1")) == {"a": b"there"}
    assert files(yard, op(hub, "mine:1", resolvemode="local")) == {"a": b"here"}
    with pytest.raises(SolveError, match="unknown image resolve mode 'x'"):
        files(yard, op(hub, "mine:1", resolvemode="x"))


@pytest.mark.parametrize("reference", ["UPPER/case", "a b", "", "name@sha256:12", "0" * 64])
def test_no_references(yard: Any, reference: str) -> None:
    with pytest.raises(SolveError):
        image.cache_key(SourceOp(f"docker-image://{reference}", {}), AMD64, yard.context)
