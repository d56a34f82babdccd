"""A definition as text, JSON and DOT."""

import json

import pytest

from brickyard.llb.dump import FORMS, dump
from brickyard.llb.marshal import marshal
from brickyard.llb.state import Notes, source
from brickyard.wire.pb import ops_pb2

STATE = source("docker-image://docker.io/library/alpine:latest", {}, wanted=["source.image"]).run(
    ["true"], notes=Notes("RUN true")
)


def test_text_names_every_vertex_and_what_it_reads() -> None:
    definition = marshal(STATE.output)
    lines = dump(definition.to_pb()).splitlines()
    assert lines[0].split()[0] == "0"
    assert lines[0].endswith("docker-image://docker.io/library/alpine:latest")
    assert lines[1].endswith("RUN true")
    assert lines[2].split() == ["reads", "0"]
    assert lines[3] == f"head  {definition.head[7:19]}"


def test_json_has_the_ops() -> None:
    definition = marshal(STATE.output)
    found = json.loads(dump(definition.to_pb(), "json"))
    assert found["head"] == definition.head
    assert found["ops"][1]["op"]["exec"]["meta"]["args"] == ["true"]
    assert "source.image" in found["ops"][0]["metadata"]["caps"]


def test_dot_is_a_graph() -> None:
    text = dump(marshal(STATE.output).to_pb(), "dot")
    assert text.startswith("digraph {\n")
    assert text.count("->") == 2


def test_nothing_at_all() -> None:
    assert dump(ops_pb2.Definition()) == "head  empty\n"
    assert set(FORMS) == {"text", "json", "dot"}
    with pytest.raises(ValueError, match="unknown form 'svg'"):
        dump(ops_pb2.Definition(), "svg")
