"""Named contexts in the place of stages and images."""

import json
import threading

import pytest

from brickyard.frontend.gateway.status import status_of
from brickyard.grammar.errors import SourceError
from brickyard.llb.bridge import BridgeError
from brickyard.llb.marshal import marshal
from brickyard.llb.state import source
from brickyard.wire.pb import gateway_pb2, ops_pb2

DIGEST = "sha256:" + "a" * 64
COPY = "FROM scratch\nCOPY --from=other x/y z /\n"


def last(gateway) -> ops_pb2.SourceOp:
    """The one source of the result."""
    (found,) = (op.source for op in gateway.ops() if op.WhichOneof("op") == "source")
    return found


def test_an_image(frontend) -> None:
    gateway = frontend.gateway(COPY)
    frontend.build(gateway, **{"context:other": "docker-image://alpine"})
    assert last(gateway).identifier == "docker-image://docker.io/library/alpine:latest"
    assert gateway.resolved[0].LogName == "[context other] load metadata for docker.io/library/alpine:latest"
    assert "[context other] docker.io/library/alpine:latest" in gateway.names()


def test_nothing(frontend) -> None:
    gateway = frontend.gateway("FROM other\nRUN x\n")
    frontend.build(gateway, **{"context:other": "docker-image://scratch"})
    assert gateway.ops()[0].exec.mounts[0].input == -1


def test_a_layout(frontend) -> None:
    gateway = frontend.gateway("FROM other\nRUN x\n", images={"docker.io/library/other@" + DIGEST: b"{}"})
    frontend.build(gateway, **{"context:other": f"oci-layout://store/name:tag@{DIGEST}"})
    found = last(gateway)
    assert found.identifier == f"oci-layout://docker.io/library/other@{DIGEST}"
    assert dict(found.attrs) == {"oci.session": "session", "oci.store": "store/name"}
    asked = gateway.resolved[0].Source
    assert asked.identifier == found.identifier
    assert dict(asked.attrs) == dict(found.attrs)


def test_a_layout_of_an_old_gateway(frontend) -> None:
    gateway = frontend.gateway("FROM other\nRUN x\n", gateway_caps={"solve.base", "return", "proto.refarray"})
    frontend.build(gateway, **{"context:other": f"oci-layout://store@{DIGEST}"})
    asked = gateway.resolved[0]
    assert isinstance(asked, gateway_pb2.ResolveImageConfigRequest)
    assert (asked.ResolverType, asked.SessionID, asked.StoreID) == (1, "session", "store")


def test_a_folder(frontend) -> None:
    text = "FROM alpine AS a\nCOPY --from=other x/y z /\nFROM a\nRUN --mount=from=other,source=/m,target=/m x\n"
    gateway = frontend.gateway(text, files={".dockerignore": "*.o\n"})
    frontend.build(gateway, **{"context:other": "local:dir", "sharedkey:localdir:other": "key"})
    ignore, *found = (s for s in gateway.sources() if s.identifier == "local://dir")
    assert json.loads(ignore.attrs["local.followpaths"]) == [".dockerignore"]
    assert ignore.attrs["local.sharedkeyhint"] == "context:other-.dockerignore"
    for paths, one in zip(['["x/y","z"]', '["m"]'], found, strict=True):
        assert dict(one.attrs) == {
            "local.session": "session",
            "local.followpaths": paths,
            "local.excludepatterns": '["*.o"]',
            "local.sharedkeyhint": "context:other-key",
        }
    assert {"[context other] load .dockerignore", "[context other] load from client"} <= set(gateway.names())
    assert any(request.Evaluate for request in gateway.solved)


def test_a_folder_of_which_all_is_read(frontend) -> None:
    gateway = frontend.gateway("FROM other\nRUN x\n")
    frontend.build(gateway, **{"context:other": "local:dir", "local-sessionid:dir": "elsewhere"})
    assert "local.followpaths" not in last(gateway).attrs
    assert last(gateway).attrs["local.session"] == "elsewhere"


def test_a_context_in_the_place_of_a_stage(frontend) -> None:
    gateway = frontend.gateway("FROM alpine AS other\nRUN never\nFROM scratch\nCOPY --from=other a /\n")
    frontend.build(gateway, **{"context:other": "local:dir"})
    assert not any(op.WhichOneof("op") == "exec" for op in gateway.ops())
    assert last(gateway).identifier == "local://dir"


@pytest.mark.parametrize("key", ["docker.io/library/alpine:3", "alpine:3"])
def test_a_context_in_the_place_of_an_image(frontend, key: str) -> None:
    gateway = frontend.gateway("FROM docker.io/library/alpine:3\nRUN x\n")
    frontend.build(gateway, **{"context:alpine:3": "docker-image://other"})
    assert last(gateway).identifier == "docker-image://docker.io/library/other:latest"
    assert key


def test_a_context_for_a_platform_wins(frontend) -> None:
    gateway = frontend.gateway("FROM alpine\nRUN x\n")
    opts = {"context:alpine::linux/arm64": "docker-image://arm", "context:alpine": "docker-image://any"}
    frontend.build(gateway, platform="linux/arm64", **opts)
    assert last(gateway).identifier == "docker-image://docker.io/library/arm:latest"
    frontend.build(gateway, platform="linux/amd64", **opts)
    assert last(gateway).identifier == "docker-image://docker.io/library/any:latest"


def test_a_repository(frontend) -> None:
    gateway = frontend.gateway(COPY)
    frontend.build(gateway, **{"context:other": "https://example.com/r.git#v1:sub"})
    assert last(gateway).identifier == "git://example.com/r.git#v1:sub"
    frontend.build(gateway, **{"context:other": "git@example.com:r.git"})
    assert last(gateway).attrs["git.fullurl"] == "git@example.com:r.git"


def test_a_download(frontend) -> None:
    gateway = frontend.gateway(COPY)
    frontend.build(gateway, **{"context:other": "https://example.com/f"})
    assert last(gateway).identifier == "https://example.com/f"
    assert last(gateway).attrs["http.filename"] == "context"
    assert "[context other] https://example.com/f" in gateway.names()


def test_an_input(frontend) -> None:
    given = marshal(source("docker-image://docker.io/library/made:latest").output).to_pb()
    gateway = frontend.gateway(COPY, given={"in": given})
    frontend.build(gateway, **{"context:other": "input:in"})
    assert last(gateway).identifier == "docker-image://docker.io/library/made:latest"


def test_a_policy_makes_something_else_of_an_image(frontend) -> None:
    moved = gateway_pb2.ResolveSourceMetaResponse(Source=ops_pb2.SourceOp(identifier="https://example.com/f"))
    gateway = frontend.gateway(COPY, metadata={"docker-image://docker.io/library/alpine:latest": moved})
    frontend.build(gateway, **{"context:other": "docker-image://alpine"})
    assert last(gateway).identifier == "https://example.com/f"
    circle = gateway_pb2.ResolveSourceMetaResponse(Source=ops_pb2.SourceOp(identifier="docker-image://alpine"))
    gateway = frontend.gateway(COPY, metadata={"docker-image://docker.io/library/alpine:latest": circle})
    with pytest.raises(SourceError, match="context recursion limit exceeded"):
        frontend.build(gateway, **{"context:other": "docker-image://alpine"})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x", "invalid context specifier x for other"),
        ("ftp://x", "unsupported context source ftp for other"),
        ("oci-layout://name", "it has no digest"),
        ("oci-layout://@" + DIGEST, "it has no name"),
        ("input:none", "invalid input none for other"),
        ("docker-image://UPPER", "must be lower case"),
    ],
)
def test_contexts_that_are_none(frontend, value: str, message: str) -> None:
    with pytest.raises(SourceError) as raised:
        frontend.build(frontend.gateway(COPY), **{"context:other": value})
    assert message in str(raised.value)
    assert raised.value.location is not None


def test_a_context_that_fails(frontend) -> None:
    failed = BridgeError("denied", 7)
    gateway = frontend.gateway(COPY, failing={"docker-image://docker.io/library/alpine:latest": failed})
    with pytest.raises(SourceError) as raised:
        frontend.build(gateway, **{"context:other": "docker-image://alpine"})
    assert status_of(raised.value).code == 7


def test_images_in_the_place_of_others_are_looked_up_at_once(frontend) -> None:
    """Together with the ignore file; each of them once."""
    gateway = frontend.gateway("FROM one\nCOPY --from=two a /\n")
    met = threading.Barrier(3, timeout=10)
    answer, read = gateway.resolve_source_meta, gateway.read_file

    def slow(request: gateway_pb2.ResolveSourceMetaRequest) -> gateway_pb2.ResolveSourceMetaResponse:
        met.wait()
        return answer(request)

    def slow_read(request: gateway_pb2.ReadFileRequest) -> gateway_pb2.ReadFileResponse:
        if request.FilePath == ".dockerignore":
            met.wait()
        return read(request)

    gateway.resolve_source_meta, gateway.read_file = slow, slow_read
    contexts = {"one": "docker-image://alpine", "two": f"oci-layout://store@{DIGEST}"}
    frontend.build(gateway, **{f"context:{name}": value for name, value in contexts.items()})
    assert len(gateway.resolved) == 2
