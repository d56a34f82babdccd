"""Diff ops: what one file system has that another has not."""

from collections.abc import Sequence

from ...llb.graph import Vertex
from ...llb.ops import DiffOp
from ..base import Context, Result, Selection


def selections(vertex: Vertex) -> Sequence[Selection | None]:
    """A diff is of whole results."""
    return (None,) * len(vertex.inputs)


def cache_key(vertex: Vertex, context: Context) -> str:
    """Which input is which."""
    return repr(vertex.op)


def run(vertex: Vertex, inputs: Sequence[Result], context: Context) -> Sequence[Result]:
    """Take the difference."""
    assert isinstance(vertex.op, DiffOp)
    lower, upper = (None if p < 0 else inputs[p].snapshot for p in (vertex.op.lower, vertex.op.upper))
    return (Result(context.snapshots.diff_snapshot(lower, upper)),)
