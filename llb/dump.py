"""A definition for people and programs: text, JSON, and DOT for Graphviz."""

import json
from typing import Any

from ..wire.pb import ops_pb2
from .graph import Vertex
from .load import load
from .marshal import digest_of
from .ops import SourceOp, type_names
from .state import CUSTOM_NAME

FORMS = ("text", "json", "dot")


def dump(definition: ops_pb2.Definition, form: str = "text") -> str:
    """The definition in one of `FORMS`.

    Raises:
        ValueError: for another form.
        DefinitionError: for a definition that is broken.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}: {', '.join(FORMS)} are known")
    ops = list(getattr(definition, "def"))
    head = digest_of(ops[-1]) if ops else ""
    if form == "json":
        return _json(definition, ops, head)
    graph = load(definition)
    if form == "dot":
        return _dot(graph.digests, head)
    lines = []
    numbers = {vertex: number for number, vertex in enumerate(graph.digests)}
    for vertex, digest in graph.digests.items():
        reads = " ".join(f"{numbers[i.vertex]}" + (f".{i.index}" if i.index else "") for i in vertex.inputs)
        lines.append(f"{numbers[vertex]:>4}  {digest[7:19]}  {_kind(vertex):<6}  {_title(vertex)}")
        if reads:
            lines.append(f"{'':>4}  {'':<12}  {'':<6}  reads {reads}")
    lines.append(f"head  {head[7:19]}" if head else "head  empty")
    return "\n".join(lines) + "\n"


def _kind(vertex: Vertex) -> str:
    return type_names[type(vertex.op)]


def _title(vertex: Vertex) -> str:
    name = vertex.metadata.description.get(CUSTOM_NAME)
    if isinstance(vertex.op, SourceOp):
        return f"{vertex.op.identifier}" + (f"  ({name})" if name else "")
    return name or _kind(vertex)


def _json(definition: ops_pb2.Definition, ops: list[bytes], head: str) -> str:
    from google.protobuf.json_format import MessageToDict

    out: list[dict[str, Any]] = []
    for data in ops:
        digest = digest_of(data)
        entry: dict[str, Any] = {"digest": digest, "op": MessageToDict(ops_pb2.Op.FromString(data))}
        if digest in definition.metadata:
            metadata = definition.metadata[digest]
            entry["metadata"] = {"description": dict(metadata.description), "caps": sorted(metadata.caps)}
        out.append(entry)
    return json.dumps({"head": head, "ops": out}, indent=2, ensure_ascii=False) + "\n"


def _dot(digests: dict[Vertex, str], head: str) -> str:
    shapes = {"source": "ellipse", "exec": "box", "file": "note", "merge": "invtriangle", "diff": "doublecircle"}
    shapes |= {"build": "component", "passthrough": "cds"}
    lines = ["digraph {"]
    for vertex, digest in digests.items():
        label = json.dumps(_title(vertex), ensure_ascii=False)
        lines.append(f'  "{digest}" [label={label} shape="{shapes[_kind(vertex)]}"];')
    for vertex, digest in digests.items():
        lines += [f'  "{digests[i.vertex]}" -> "{digest}" [label="{i.index or ""}"];' for i in vertex.inputs]
    if digests:
        lines.append(f'  "{list(digests.values())[-1]}" -> "{head}";')
        lines.append(f'  "{head}" [label="result" shape="plaintext"];')
    return "\n".join([*lines, "}"]) + "\n"
