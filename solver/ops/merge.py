"""Merge ops: inputs laid over each other."""

from collections.abc import Sequence

from ...llb.graph import Vertex
from ...llb.ops import MergeOp
from ..base import Context, Result, Selection


def selections(vertex: Vertex) -> Sequence[Selection | None]:
    """A merge is of whole results, whatever is in them."""
    return (None,) * len(vertex.inputs)


def cache_key(vertex: Vertex, context: Context) -> str:
    """The order of the inputs."""
    return repr(vertex.op)


def run(vertex: Vertex, inputs: Sequence[Result], context: Context) -> Sequence[Result]:
    """Lay them over each other."""
    assert isinstance(vertex.op, MergeOp)
    return (Result(context.snapshots.merge([inputs[position].snapshot for position in vertex.op.inputs])),)
