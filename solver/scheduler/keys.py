"""Cache keys. A definition key follows from ops and sources alone; a content key from what the inputs really hold.

Source: BuildKit's two levels of cache keys (docs/dev/solver), with results named by their snapshots.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...llb.graph import Vertex
from ...llb.ops import ExecOp, FileOp, MountType, PassthroughOp

if TYPE_CHECKING:
    from .explain import Input

VERSION = "1"
"""Part of every key: raised where the same op comes to mean something else."""


def _digest(kind: str, parts: Sequence[str]) -> str:
    total = hashlib.sha256(f"{VERSION}:{kind}".encode())
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        total.update(b"%d:" % len(data) + data)
    return f"{kind}:{total.hexdigest()}"


def definition_key(op_key: str, inputs: Sequence[tuple[str, int]]) -> str:
    """The key of a vertex by its op and, for each input, the definition key and the output's index."""
    return _digest("def", [op_key, *(f"{key}#{index}" for key, index in inputs)])


def plain_op_key(op_key: str) -> str:
    """The key of an op without the times of files, which differ where the same files were checked out anew.

    Only that of a client's folder has any: `local:`, a name of all it holds, `+`, and one without times.
    """
    timed, plus, plain = op_key.partition("+")
    return f"local:{plain}" if plus and timed.startswith("local:") else op_key


def content_key(op_key: str, inputs: Sequence["Input"]) -> str:
    """The key of a vertex by its op and, for each input, the checksum of what it reads, or what it is itself."""
    parts = [f"content:{i.checksum}" if i.checksum is not None else f"result:{i.identity}" for i in inputs]
    return _digest("content", [op_key, *parts])


IDENTITY = "identity"
"""The kind of the notes of what snapshots are, by their names: the same on every machine that made them by the same
keys. It is the digest of the first key that a result was recorded under."""


def record_digest(key: str, output: int, count: int) -> str:
    """What an output of a vertex is called outside of this store, by one of the vertex's keys."""
    tail = f"@{output}/{count}" if count > 1 else ""
    return "sha256:" + hashlib.sha256((key + tail).encode()).hexdigest()


def outputs(vertex: Vertex) -> int:
    """How many results an op has."""
    op = vertex.op
    if isinstance(op, ExecOp):
        kinds = (MountType.BIND, MountType.CACHE)
        return 1 + max((mount.output for mount in op.mounts if mount.type in kinds), default=-1)
    if isinstance(op, FileOp):
        return 1 + max((action.output for action in op.actions), default=-1)
    return len(op.outputs) if isinstance(op, PassthroughOp) else 1


def link_key(op_key: str, position: int, key: str, index: int) -> str:
    """A key for an op and one of the inputs that it has read."""
    return _digest("link", [op_key, str(position), f"{key}#{index}"])
