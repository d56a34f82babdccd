"""Errors as the statuses that BuildKit's clients read."""

import hashlib
import json

from brickyard.frontend.gateway.status import FrontendError
from brickyard.grammar.errors import Location, SourceError
from brickyard.llb.bridge import BridgeError
from brickyard.llb.marshal import SourceFile
from brickyard.oci.errors import RegistryError
from brickyard.solver.base import Cancelled, SolveError
from brickyard.solver.errdefs import definition_sources, from_status, to_status
from brickyard.wire.pb import errdefs_pb2, ops_pb2, rpc_status_pb2


def details(status: rpc_status_pb2.Status) -> dict[str, object]:
    """The details by the last part of their names."""
    return {detail.type_url.rpartition("/")[2]: json.loads(detail.value) for detail in status.details}


def failed_process() -> SolveError:
    """A process that ended with 3."""
    error = SolveError('process "false" did not complete successfully: exit code: 3', exit_code=3, vertex="sha256:a")
    error.op = ops_pb2.Op(exec=ops_pb2.ExecOp(meta=ops_pb2.Meta(args=["false"]))).SerializeToString()
    error.description = {"llb.customname": "RUN false"}
    place = ops_pb2.Range(start=ops_pb2.Position(line=2), end=ops_pb2.Position(line=3))
    error.sources = [errdefs_pb2.Source(info=ops_pb2.SourceInfo(filename="Dockerfile", data=b"x\ny\n"), ranges=[place])]
    return error


def test_a_failed_process() -> None:
    status = to_status(failed_process(), inputs=["in"], mounts=["m"])
    assert status.code == 2
    found = details(status)
    assert list(found) == [
        "gatewayapi.ExitMessage+json", "errdefs.Vertex+json", "errdefs.Solve+json", "errdefs.Source+json",
    ]  # fmt: skip
    assert found["gatewayapi.ExitMessage+json"] == {"Code": 3}
    assert found["errdefs.Vertex+json"] == {"digest": "sha256:a"}
    assert found["errdefs.Solve+json"] == {
        "inputIDs": ["in"],
        "mountIDs": ["m"],
        "op": {"exec": {"meta": {"args": ["false"]}}},
        "description": {"llb.customname": "RUN false"},
    }
    assert found["errdefs.Source+json"] == {
        "info": {"filename": "Dockerfile", "data": "eAp5Cg=="},
        "ranges": [{"start": {"line": 2}, "end": {"line": 3}}],
    }
    assert all(detail.type_url.startswith("github.com/moby/buildkit/") for detail in status.details)


def test_a_failed_file_action() -> None:
    error = failed_process()
    error.exit_code, error.action = None, 1
    solve = details(to_status(error))["errdefs.Solve+json"]
    assert isinstance(solve, dict)
    assert solve["file"] == {"index": "1"}


def test_a_status_comes_back_as_it_was() -> None:
    status = to_status(failed_process())
    error = from_status(status)
    assert (str(error), error.vertex, error.exit_code) == (status.message, "sha256:a", 3)
    assert [source.info.filename for source in error.sources] == ["Dockerfile"]
    assert to_status(error) == status


def test_a_status_with_details_that_are_broken() -> None:
    status = rpc_status_pb2.Status(code=9, message="no")
    for value in (b"{", b"[]", b'{"digest": 7}', b'{"info": {"data": "*"}}'):
        status.details.add(type_url="github.com/moby/buildkit/errdefs.Source+json", value=value)
        status.details.add(type_url="github.com/moby/buildkit/errdefs.Vertex+json", value=value)
    status.details.add(type_url="type.googleapis.com/other", value=b"\0")
    error = from_status(status)
    assert (error.code, error.vertex, list(error.sources)) == (9, "", [])


def test_codes() -> None:
    assert to_status(Cancelled("x")).code == 1
    assert to_status(Cancelled("x")).message == "context canceled"
    assert to_status(SolveError("x", code=7)).code == 7
    assert to_status(BridgeError("x", 5)).code == 5
    assert to_status(FileNotFoundError("x")).code == 5
    assert to_status(RuntimeError()).message == "RuntimeError"


def test_the_place_in_a_users_file() -> None:
    cause = SourceError("wrong word", Location(2, 2), "write another")
    error = FrontendError(cause, SourceFile("Dockerfile", b"one\ntwo\n"))
    status = to_status(error)
    assert status.message == "wrong word"
    found = details(status)["errdefs.Source+json"]
    assert isinstance(found, dict)
    assert found["ranges"] == [{"start": {"line": 2}, "end": {"line": 2}}]


def test_a_registry_s_error_behind_it() -> None:
    error = SolveError("failed to push")
    error.__cause__ = RegistryError("no", status=401)
    assert to_status(error).message == "failed to push"


def test_what_has_no_place_is_shown_where_it_is_used() -> None:
    download = ops_pb2.Op(source=ops_pb2.SourceOp(identifier="https://example.com/x")).SerializeToString()
    digests = ["sha256:" + hashlib.sha256(download).hexdigest()]
    definition = ops_pb2.Definition(**{"def": [download]})
    for name in ("copy", "run"):
        op = ops_pb2.Op(inputs=[ops_pb2.Input(digest=digests[-1])])
        op.exec.meta.args.append(name)
        data = op.SerializeToString()
        getattr(definition, "def").append(data)
        digests.append("sha256:" + hashlib.sha256(data).hexdigest())
    definition.Source.infos.add(filename="Dockerfile", data=b"FROM a\nADD\nRUN\n")
    for digest, line in zip(digests[1:], (2, 3), strict=True):
        span = definition.Source.locations[digest].locations.add().ranges.add()
        span.start.line = span.end.line = line
    lines = [[one.ranges[0].start.line for one in definition_sources(definition, digest)] for digest in digests]
    assert lines == [[2], [2], [3]]
    assert definition_sources(definition, "sha256:0") == []
