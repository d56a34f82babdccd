"""Why a vertex was not cached: the first thing that differs from when the same step last ran.

Every run leaves a note under the step's name and under what it followed. A later run of the step that is no hit is
compared with it.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...llb.graph import Vertex
from ...llb.ops import type_names
from ...wire.pb import ops_pb2
from ..base import Context, Selection
from ..ops.describe import name_of

if TYPE_CHECKING:
    from ..cache.store import CacheStore

KIND = "step"
"""The kind of the notes in the cache store."""
_LARGEST_OP = 64 << 10
_SHOWN = 120
_OF_SESSION = ("local.session", "oci.session", "oci.store")


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was found out about one vertex.

    `outcome` is `hit` (by its definition), `content` (a hit by the content of its inputs) or `miss`. `reason` says
    of a miss what changed, in a sentence without a full stop; `causes` are the digests of the inputs that it comes
    from, where it comes from inputs.
    """

    vertex: str
    name: str
    outcome: str
    reason: str = ""
    causes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The explanation as a JSON object."""
        return {**asdict(self), "causes": list(self.causes)}


@dataclass(frozen=True, slots=True)
class Input:
    """An input as the key of a vertex sees it: its vertex's name and key, its snapshot and what that is on any
    machine, and the checksum of what is read of it (None where all of it counts)."""

    name: str
    digest: str
    key: str
    snapshot: str | None
    identity: str
    checksum: str | None
    selection: Selection | None


def notes(vertex: Vertex, data: bytes, inputs: Sequence[Input], key: str) -> list[tuple[str, str, bytes]]:
    """What a run leaves behind, as values for the cache store."""
    note = {
        "name": name_of(vertex),
        "key": key,
        "op": _stripped(data),
        "inputs": [[i.name, i.key, i.snapshot, i.checksum] for i in inputs],
    }
    encoded = zlib.compress(json.dumps(note).encode(), 1)
    places = [_by_name(vertex)]
    if inputs:
        places.append(_by_place(vertex, inputs[0]))
    return [(KIND, place, encoded) for place in places]


def explain(
    vertex: Vertex, digest: str, data: bytes, inputs: Sequence[Input], key: str, context: Context
) -> Explanation:
    """Why a vertex has to run."""
    name = name_of(vertex)
    if vertex.metadata.ignore_cache:
        return Explanation(digest, name, "miss", "the cache is not used for it")
    before = _load(context.cache, _by_name(vertex))
    if before is None:
        before = _load(context.cache, _by_place(vertex, inputs[0])) if inputs else None
        if before is None:
            return Explanation(digest, name, "miss", "it never ran before")
        return Explanation(digest, name, "miss", f"the step is another one: it was {_quoted(str(before['name']))}")
    changed = _op_change(str(before["op"]), _stripped(data))
    if changed:
        return Explanation(digest, name, "miss", changed)
    old = before["inputs"]
    if len(old) != len(inputs):
        return Explanation(digest, name, "miss", f"it reads {len(inputs)} inputs instead of {len(old)}")
    for now, (_, old_key, old_snapshot, old_checksum) in zip(inputs, old, strict=True):
        if now.checksum is not None and old_checksum is not None:
            if now.checksum != old_checksum:
                reason = _content_change(now, old_snapshot, context)
                return Explanation(digest, name, "miss", reason, (now.digest,))
        elif now.snapshot != old_snapshot:
            how = "was made anew" if now.key == old_key else "changed"
            return Explanation(digest, name, "miss", f"what it is built on {how}: {_quoted(now.name)}", (now.digest,))
    if not inputs and before["key"] != key:
        return Explanation(digest, name, "miss", "what it fetches changed")
    return Explanation(digest, name, "miss", "its result is not in the cache any more")


def _by_name(vertex: Vertex) -> str:
    return _digest("name", name_of(vertex), type_names[type(vertex.op)], str(vertex.platform))


def _by_place(vertex: Vertex, first: Input) -> str:
    return _digest("after", first.key, type_names[type(vertex.op)])


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _load(cache: "CacheStore", key: str) -> Mapping[str, Any] | None:
    data = cache.get_value(KIND, key)
    if data is None:
        return None
    try:
        found = json.loads(zlib.decompress(data))
    except (ValueError, zlib.error):
        return None
    return found if isinstance(found, dict) else None


def _stripped(data: bytes) -> str:
    """An op without its inputs and the name of the client's session, as text; of a large one the digest."""
    op = ops_pb2.Op.FromString(data)
    op.ClearField("inputs")
    if op.HasField("source"):
        for key in _OF_SESSION:
            op.source.attrs.pop(key, None)
    bare = op.SerializeToString(deterministic=True)
    return bare.hex() if len(bare) <= _LARGEST_OP else "digest:" + hashlib.sha256(bare).hexdigest()


def _op_change(old: str, new: str) -> str:
    if old == new:
        return ""
    if old.startswith("digest:") or new.startswith("digest:"):
        return "the step itself changed"
    from google.protobuf.json_format import MessageToDict

    before, after = (
        MessageToDict(ops_pb2.Op.FromString(bytes.fromhex(text)), preserving_proto_field_name=True)
        for text in (old, new)
    )
    path, was, now = _first_difference(before, after, ())
    if path[:3] == ("exec", "meta", "args"):
        return f"the command changed: it was {_quoted(was)}"
    if path[:3] == ("exec", "meta", "env"):
        return f"its environment changed: {_quoted(now or was)}"
    return f"{'.'.join(path)} changed: it was {_quoted(was)}"


def _first_difference(old: Any, new: Any, path: tuple[str, ...]) -> tuple[tuple[str, ...], Any, Any]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key):
                return _first_difference(old.get(key), new.get(key), (*path, key))
    if isinstance(old, list) and isinstance(new, list):
        for position in range(max(len(old), len(new))):
            was = old[position] if position < len(old) else None
            now = new[position] if position < len(new) else None
            if was != now:
                return _first_difference(was, now, (*path, str(position)))
    return path, old, new


def _quoted(value: Any) -> str:
    text = "not there" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _content_change(now: Input, old_snapshot: str | None, context: Context) -> str:
    paths = _changed_paths(now, old_snapshot, context)
    if not paths:
        return f"what it reads of {_quoted(now.name)} changed"
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0]} changed{more}, in {_quoted(now.name)}"


def _changed_paths(now: Input, old_snapshot: str | None, context: Context) -> list[str]:
    """The files that differ between two states of a client's folder, as far as the step selects them."""
    if now.snapshot is None or old_snapshot is None:
        return []
    from ..sources import local

    new = local.digests(now.snapshot, context)
    if new is None:
        return []
    old = local.digests(old_snapshot, context)
    if old is None:
        found = _other_files(list(new), now.snapshot, old_snapshot, context)
    else:
        found = sorted(path for path in {*new, *old} if new.get(path) != old.get(path))
    return [path for path in found if _selected(path, now.selection)]


def _other_files(paths: Sequence[str], new: str, old: str, context: Context) -> list[str]:
    """Those of the new files that are not the old one's: what has not changed is one file in both snapshots."""
    if not context.snapshots.exists(old):
        return []
    before, after = context.snapshots.own_files(old), context.snapshots.own_files(new)
    found = []
    for path in paths:
        try:
            same = os.path.samestat(os.lstat(before / path), os.lstat(after / path))
        except OSError:
            same = False
        if not same:
            found.append(path)
    return sorted(found)


def _selected(path: str, selection: Selection | None) -> bool:
    if selection is None or not selection.paths:
        return True
    if any(_selected(path, other) for other in selection.also):
        return True
    if selection.wildcard:
        from ...wire.patterns import Matcher, PatternError

        try:
            return Matcher([part.strip("/") or "**" for part in selection.paths]).matches(path)
        except PatternError:
            return True
    roots = [part.strip("/") for part in selection.paths]
    return any(root in ("", ".") or path == root or path.startswith(root + "/") for root in roots)
