"""Which blobs a snapshot stands for, and which snapshot a stack of layers: kept beside the cache's records.

Items of kind `layer` have the key `SNAPSHOT:FORM`, where the form `first` is the blob that a snapshot was made from or
was first exported as, and others are named by compression and level; `chain` maps a chain id to its snapshot, `sources`
a blob's digest to the repositories that are known to hold it.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..oci.descriptor import Descriptor
from .base import Context

FIRST = "first"
"""The form under which the blob stands that is exported unless another compression is forced."""


_SOURCES = 16


@dataclass(frozen=True, slots=True)
class Layer:
    """A blob of a snapshot; `own` says that its tar was made here, and would come out the same again."""

    descriptor: Descriptor
    diff_id: str
    own: bool = False

    def to_json(self) -> bytes:
        """The stored form; `digest` names the blob for whoever drops unused ones."""
        value = self.descriptor.to_json() | {"diff_id": self.diff_id, "own": self.own}
        return json.dumps(value, separators=(",", ":")).encode()

    @staticmethod
    def from_json(data: bytes) -> "Layer":
        """Read the stored form. Raises ValueError."""
        value = json.loads(data)
        return Layer(Descriptor.from_json(value), str(value["diff_id"]), bool(value["own"]))


def get_layer(context: Context, snapshot: str, form: str = FIRST) -> Layer | None:
    """A blob of a snapshot in a form, where one was noted; the blob itself may be gone from the content store."""
    data = context.cache.get_value("layer", f"{snapshot}:{form}")
    try:
        return None if data is None else Layer.from_json(data)
    except (ValueError, LookupError):
        return None


def set_layer(context: Context, snapshot: str, layer: Layer, form: str = FIRST) -> None:
    """Note a blob of a snapshot."""
    context.cache.set_value("layer", f"{snapshot}:{form}", layer.to_json())


def get_sources(context: Context, digest: str) -> tuple[str, ...]:
    """The repositories (`domain/path`) that are known to hold a blob: a push to the same registry can mount it."""
    data = context.cache.get_value("sources", digest)
    return tuple(data.decode().split()) if data else ()


def add_source(context: Context, digest: str, repository: str) -> None:
    """Note one more repository that holds a blob."""
    known = get_sources(context, digest)
    if repository not in known:
        context.cache.set_value("sources", digest, " ".join([*known, repository][-_SOURCES:]).encode())


def snapshot_of_chain(context: Context, chain_id: str) -> str | None:
    """The snapshot of a stack of layers, where it is there."""
    data = context.cache.get_value("chain", chain_id)
    if data is None or not context.snapshots.exists(data.decode()):
        return None
    return data.decode()


def set_chain(context: Context, chain_id: str, snapshot: str) -> None:
    """Note the snapshot of a stack of layers."""
    context.cache.set_value("chain", chain_id, snapshot.encode())


_locks: dict[tuple[int, str], tuple[threading.Lock, int]] = {}
_guard = threading.Lock()


@contextmanager
def exclusively(context: Context, key: str) -> Iterator[None]:
    """One thread at a time for a key, such as the digest of a blob that is being fetched. Raises Cancelled."""
    name = (id(context.content), key)
    with _guard:
        lock, users = _locks.get(name, (threading.Lock(), 0))
        _locks[name] = (lock, users + 1)
    try:
        while not lock.acquire(timeout=0.1):
            context.check()
        try:
            yield
        finally:
            lock.release()
    finally:
        with _guard:
            lock, users = _locks[name]
            if users == 1:
                del _locks[name]
            else:
                _locks[name] = (lock, users - 1)
