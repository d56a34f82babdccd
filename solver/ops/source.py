"""Source ops: handed to the scheme's module in `sources/`."""

from collections.abc import Sequence

from ...llb.graph import Vertex
from ...llb.ops import SourceOp
from ..base import Context, Result, Selection
from ..sources import find


def _op(vertex: Vertex) -> SourceOp:
    assert isinstance(vertex.op, SourceOp)
    return vertex.op


def selections(vertex: Vertex) -> Sequence[Selection | None]:
    """A source has no inputs."""
    return ()


def cache_key(vertex: Vertex, context: Context) -> str:
    """What the source says of what it would fetch."""
    op = _op(vertex)
    return find(op.identifier).cache_key(op, vertex.platform, context)


def run(vertex: Vertex, inputs: Sequence[Result], context: Context) -> Sequence[Result]:
    """Fetch it."""
    op = _op(vertex)
    return (find(op.identifier).snapshot(op, vertex.platform, context),)
