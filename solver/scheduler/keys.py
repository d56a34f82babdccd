"""Cache keys. A definition key follows from ops and sources alone; a content key from what the inputs really hold.

Source: BuildKit's two levels of cache keys (docs/dev/solver), with results named by their snapshots.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

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


def content_key(op_key: str, inputs: Sequence["Input"]) -> str:
    """The key of a vertex by its op and, for each input, the checksum of what it reads, or the snapshot itself."""
    parts = [f"content:{i.checksum}" if i.checksum is not None else f"snapshot:{i.snapshot}" for i in inputs]
    return _digest("content", [op_key, *parts])


def link_key(op_key: str, position: int, key: str, index: int) -> str:
    """A key for an op and one of the inputs that it has read."""
    return _digest("link", [op_key, str(position), f"{key}#{index}"])
