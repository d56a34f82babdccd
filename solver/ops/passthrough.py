"""Passthrough ops: inputs again, once all are there."""

from collections.abc import Sequence

from ...llb.graph import Vertex
from ...llb.ops import PassthroughOp
from ..base import Context, Result, Selection


def selections(vertex: Vertex) -> Sequence[Selection | None]:
    """Whole results, whatever is in them."""
    return (None,) * len(vertex.inputs)


def cache_key(vertex: Vertex, context: Context) -> str:
    """The id, and which inputs are given on."""
    return repr(vertex.op)


def run(vertex: Vertex, inputs: Sequence[Result], context: Context) -> Sequence[Result]:
    """Give them on."""
    assert isinstance(vertex.op, PassthroughOp)
    return [inputs[position] for position in vertex.op.outputs]
