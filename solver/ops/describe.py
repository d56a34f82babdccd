"""The name of a vertex in the progress, where its definition gives none."""

from ...llb.graph import Vertex
from ...llb.ops import Copy, DiffOp, ExecOp, FileOp, MergeOp, MkDir, MkFile, Rm, SourceOp
from ...llb.state import CUSTOM_NAME


def name_of(vertex: Vertex) -> str:
    """The custom name, or one made of the op."""
    given = vertex.metadata.description.get(CUSTOM_NAME)
    if given:
        return given
    op = vertex.op
    if isinstance(op, SourceOp):
        return op.identifier
    if isinstance(op, ExecOp):
        return " ".join(op.meta.args)
    if isinstance(op, MergeOp):
        return "merge"
    if isinstance(op, DiffOp):
        return "diff"
    return ", ".join(_action(step.action) for step in op.actions) if isinstance(op, FileOp) else "solve"


def _action(action: object) -> str:
    if isinstance(action, Copy):
        return f"copy {action.src} {action.dest}"
    if isinstance(action, MkFile):
        return f"mkfile {action.path}"
    if isinstance(action, MkDir):
        return f"mkdir {action.path}"
    if isinstance(action, Rm):
        return f"rm {action.path}"
    return "symlink"
