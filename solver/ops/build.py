"""Build ops: a definition that is a file of an input, solved as a part of the same build.

Source: BuildKit's solver/llbsolver/ops/build.go.
"""

from collections.abc import Sequence

from ...llb.graph import Vertex
from ...llb.ops import BuildOp
from ...wire.pb import ops_pb2
from ..base import Context, Result, Selection, SolveError


def _op(vertex: Vertex) -> BuildOp:
    assert isinstance(vertex.op, BuildOp)
    return vertex.op


def selections(vertex: Vertex) -> Sequence[Selection | None]:
    """Whole results, whatever is in them."""
    return (None,) * len(vertex.inputs)


def cache_key(vertex: Vertex, context: Context) -> str:
    """All of the op."""
    return repr(_op(vertex))


def run(vertex: Vertex, inputs: Sequence[Result], context: Context) -> Sequence[Result]:
    """Read the definition and solve it."""
    from ..gateway.files import read_file

    op = _op(vertex)
    with context.snapshots.mounted(inputs[op.definition].snapshot) as folder:
        try:
            data = read_file(folder, op.filename)
        except (FileNotFoundError, ValueError) as error:
            raise SolveError(f"the definition to build: {error}") from None
    try:
        definition = ops_pb2.Definition.FromString(data)
    except Exception as error:
        raise SolveError(f"{op.filename} is not an encoded definition: {error}") from None
    return [context.solve(definition, context.cancel)]
