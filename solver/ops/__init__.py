"""The kinds of op, one file each."""

from importlib import import_module
from types import ModuleType

from ...llb.graph import Vertex
from ...llb.ops import BuildOp, DiffOp, ExecOp, FileOp, MergeOp, OpKind, PassthroughOp, SourceOp

_MODULES: dict[type[OpKind], str] = {
    BuildOp: "build",
    DiffOp: "diff",
    ExecOp: "exec",
    FileOp: "file",
    MergeOp: "merge",
    PassthroughOp: "passthrough",
    SourceOp: "source",
}


class _Table(dict[type[OpKind], ModuleType]):
    """Imports a module when the first op of its kind comes."""

    def __missing__(self, kind: type[OpKind]) -> ModuleType:
        self[kind] = import_module(f".{_MODULES[kind]}", __name__)
        return self[kind]


TABLE = _Table()
"""The module of each kind, an `OpSolver`."""


def content_op_key(vertex: Vertex, op_key: str) -> str:
    """The op's own part of a content-based key: of its `op_key` what does not say where in an input content is."""
    own = getattr(TABLE[type(vertex.op)], "content_op_key", None)
    return op_key if own is None else str(own(vertex))
