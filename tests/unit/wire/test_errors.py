"""Typed error details: BuildKit's type URLs and JSON forms, there and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.wire import errors
from brickyard.wire.pb import errdefs_pb2, gateway_pb2, ops_pb2, rpc_status_pb2, stack_pb2


def source() -> errdefs_pb2.Source:
    info = ops_pb2.SourceInfo(filename="Dockerfile", data=b"FROM scratch\n", language="Dockerfile")
    place = ops_pb2.Range(start=ops_pb2.Position(line=1, character=0), end=ops_pb2.Position(line=1, character=4))
    return errdefs_pb2.Source(info=info, ranges=[place])


def test_details_have_the_form_that_go_reads():
    status = errors.make_status(
        errors.UNKNOWN, "failed", [errdefs_pb2.Vertex(digest="sha256:1"), source(), gateway_pb2.ExitMessage(Code=3)]
    )
    vertex, place, code = status.details
    assert vertex.type_url == "github.com/moby/buildkit/errdefs.Vertex+json"
    assert json.loads(vertex.value) == {"digest": "sha256:1"}
    assert place.type_url == "github.com/moby/buildkit/errdefs.Source+json"
    assert json.loads(place.value) == {
        "info": {"filename": "Dockerfile", "data": "RlJPTSBzY3JhdGNoCg==", "language": "Dockerfile"},
        "ranges": [{"start": {"line": 1}, "end": {"line": 1, "character": 4}}],
    }
    assert code.type_url == "github.com/moby/buildkit/gatewayapi.ExitMessage+json"
    assert json.loads(code.value) == {"Code": 3}


def test_a_solve_detail_is_protobuf_json():
    solve = errdefs_pb2.Solve(inputIDs=["a"], op=ops_pb2.Op(merge=ops_pb2.MergeOp()), description={"k": "v"})
    (detail,) = errors.make_status(2, "x", [solve]).details
    assert json.loads(detail.value) == {"inputIDs": ["a"], "op": {"merge": {}}, "description": {"k": "v"}}


def test_details_come_back():
    frames = [stack_pb2.Frame(Name="main", File="main.go", Line=7)]
    sent = [
        errdefs_pb2.Vertex(digest="sha256:1"),
        source(),
        errdefs_pb2.Solve(mountIDs=["m"], file=errdefs_pb2.FileAction(index=4)),
        stack_pb2.Stack(frames=frames, cmdline=["buildkitd"], pid=7),
        gateway_pb2.ExitMessage(Code=127),
        errdefs_pb2.Subrequest(name="frontend.outline"),
    ]
    assert list(errors.read_details(errors.make_status(2, "x", sent))) == sent


def test_a_type_buildkit_does_not_know_is_refused():
    with pytest.raises(KeyError):
        errors.make_status(2, "x", [ops_pb2.MergeOp()])


@given(st.sampled_from(list(errors._TYPES)), st.one_of(st.binary(), st.text().map(str.encode)))
def test_broken_details_are_left_out(url: str, value: bytes):
    status = rpc_status_pb2.Status()
    status.details.add(type_url=url, value=value)
    for message in errors.read_details(status):
        assert message.IsInitialized()


def test_unknown_and_deep_details_are_left_out():
    status = rpc_status_pb2.Status()
    status.details.add(type_url="type.googleapis.com/google.rpc.BadRequest", value=b"\x00")
    status.details.add(
        type_url="github.com/moby/buildkit/errdefs.Source+json", value=b'{"info":' * 5000 + b"1" + b"}" * 5000
    )
    assert list(errors.read_details(status)) == []
