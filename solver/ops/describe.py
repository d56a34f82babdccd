"""The name of a vertex in the progress, where its definition gives none.

Source: BuildKit's solver/llbsolver/vertex.go.
"""

from collections.abc import Sequence

from ...llb.graph import Vertex
from ...llb.ops import (
    EMPTY,
    BuildOp,
    Copy,
    DiffOp,
    ExecOp,
    FileOp,
    MergeOp,
    MkDir,
    MkFile,
    PassthroughOp,
    Rm,
    SourceOp,
    Symlink,
)
from ...llb.state import CUSTOM_NAME

_LONGEST = 240
"""The most that is shown of the names of inputs, which may hold those of theirs."""


def name_of(vertex: Vertex) -> str:
    """The custom name, or one made of the op."""
    given = vertex.metadata.description.get(CUSTOM_NAME)
    if given:
        return given
    op = vertex.op
    match op:
        case SourceOp():
            return op.identifier
        case ExecOp():
            return " ".join(op.meta.args)
        case FileOp():
            return ", ".join(_action(step.action) for step in op.actions)
        case MergeOp():
            return f"merge ({_names(vertex, op.inputs)})"
        case DiffOp():
            lower, upper = (_names(vertex, [side]) if side != EMPTY else "" for side in (op.lower, op.upper))
            return f"diff {f'({lower})' if lower else 'scratch'} -> {f'({upper})' if upper else 'scratch'}"
        case BuildOp():
            return "build"
        case PassthroughOp():
            return f"passthrough {op.id}"


def _names(vertex: Vertex, positions: Sequence[int]) -> str:
    """The names of inputs, as far as they are short."""
    out = ""
    for position in positions:
        if len(out) > _LONGEST:
            return f"{out[:_LONGEST]}…"
        below = vertex.inputs[position].vertex
        plain = below.metadata.description.get(CUSTOM_NAME) or not isinstance(below.op, MergeOp | DiffOp)
        name = name_of(below) if plain else "merge" if isinstance(below.op, MergeOp) else "diff"
        out += f", {name}" if out else name
    return out if len(out) <= _LONGEST else f"{out[:_LONGEST]}…"


def _action(action: Copy | MkFile | MkDir | Rm | Symlink) -> str:
    match action:
        case Copy():
            return f"copy {action.src} {action.dest}"
        case MkFile():
            return f"mkfile {action.path}"
        case MkDir():
            return f"mkdir {action.path}"
        case Rm():
            return f"rm {action.path}"
        case Symlink():
            return f"symlink {action.newpath} -> {action.oldpath}"
