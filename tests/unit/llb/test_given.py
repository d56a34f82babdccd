"""Definitions that come from outside and go into other ones."""

import pytest

from brickyard.llb import caps
from brickyard.llb.caps import CapError, CapSet
from brickyard.llb.graph import LinuxResources
from brickyard.llb.load import DefinitionError, given, load
from brickyard.llb.marshal import SourceFile, digest_of, marshal
from brickyard.llb.ops import Copy
from brickyard.llb.state import CopyFrom, Notes, State, source
from brickyard.oci.platform import Platform
from brickyard.wire.pb import ops_pb2

AMD64 = Platform("linux", "amd64")


def test_the_bytes_stay_as_they_are() -> None:
    image = ops_pb2.Op()
    image.source.identifier = "docker-image://docker.io/library/x:1"
    # Another field order than ours, and one that this version does not know.
    data = image.SerializeToString() + b"\xfa\x3f\x01x"
    last = ops_pb2.Op(inputs=[ops_pb2.Input(digest=digest_of(data))]).SerializeToString()
    definition = ops_pb2.Definition()
    getattr(definition, "def").extend([data, last])
    definition.metadata[digest_of(data)].description["a"] = "b"
    state = State(output=given(definition), platform=AMD64)
    made = marshal(State(platform=AMD64).file([CopyFrom(state, Copy("/", "/"))]).output)
    assert made.ops[0] == data
    assert made.metadata[digest_of(data)].description == {"a": "b"}
    assert marshal(state.output).ops == (data, last)


def test_nothing_is_given() -> None:
    assert given(ops_pb2.Definition()) is None


def test_a_broken_definition() -> None:
    definition = ops_pb2.Definition()
    getattr(definition, "def").append(b"\xff")
    with pytest.raises(DefinitionError):
        given(definition)


def test_limits_travel_beside_the_op() -> None:
    limits = LinuxResources(memory=5, memory_swap=-1, cpu_shares=2, cpu_period=3, cpu_quota=4, cpuset_cpus="0-1")
    base = source("docker-image://docker.io/library/x:1", platform=AMD64)
    plain, limited = (marshal(base.run(["x"], notes=notes).output) for notes in (Notes(), Notes(resources=limits)))
    assert plain.ops == limited.ops
    message = limited.to_pb()
    asked = [entry.caps for entry in message.metadata.values() if caps.EXEC_META_LINUX_RESOURCES in entry.caps]
    assert len(asked) == 1
    found = load(message)
    assert found.result is not None
    assert found.result.vertex.metadata.resources == limits


def test_the_result_of_another_mount() -> None:
    from brickyard.llb.state import RunMount

    state = State(platform=AMD64).run(["x"], mounts=[RunMount("/out"), RunMount("/a", readonly=True)], result_of="/out")
    assert state.output is not None
    mounts = {mount.dest: mount.output for mount in state.output.vertex.op.mounts}  # type: ignore[union-attr]
    assert mounts == {"/": 0, "/a": -1, "/out": 1}
    assert state.output.index == 1


def test_a_file_tells_where_it_was_read_from() -> None:
    folder = marshal(source("local://dockerfile").output)
    info = SourceFile("Dockerfile", b"FROM x\n", definition=folder).to_pb()
    assert list(getattr(info.definition, "def")) == list(folder.ops)


def test_capabilities_that_are_missing() -> None:
    known = CapSet(frozenset({"a"}), {"b": "because"})
    assert "a" in known
    known.require(["a"])
    with pytest.raises(CapError, match="requested feature c is not supported by the build server"):
        known.require(["a", "c"])
    with pytest.raises(CapError, match="requested feature b has been disabled on the build server: because"):
        known.require(["b"])
