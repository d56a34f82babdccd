"""Looks at everything in a state folder: is it there, is it whole, and does it belong to something."""

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .cache.store import CacheStore
from .content.store import ContentStore
from .snapshots.store import Snapshots

_CHUNK = 1 << 20


def fsck(cache: CacheStore, snapshots: Snapshots, content: ContentStore, *, repair: bool = False) -> Iterator[str]:
    """What is wrong, one sentence each. With `repair` it is dropped: builds make again what they need.

    Blobs are read as a whole. No build may run meanwhile.
    """
    yield from snapshots.check()
    if repair:
        snapshots.repair()
    for digest in list(content.digests()):
        with content.open(digest) as file:
            whole = _digest(file) == digest
        if not whole:
            yield f"blob {digest}: its content has another digest"
            if repair:
                content.remove(digest)
    gone = [r for r in cache.records() if any(s is not None and not snapshots.exists(s) for s in r.results)]
    for record in gone:
        yield f"record {record.key}: names a snapshot that is gone"
    if repair:
        cache.remove([record.key for record in gone])


def history(root: Path, *, repair: bool = False) -> Iterator[str]:
    """What is wrong with the history of a daemon, as `fsck`; nothing where there is none."""
    folder = root / "history"
    for path in sorted((folder / "blobs").glob("*")):
        with path.open("rb") as file:
            whole = _digest(file) == f"sha256:{path.name}"
        if not whole:
            yield f"history: blob {path.name}: its content has another digest"
            if repair:
                path.unlink()
    if (folder / "history.db").exists():
        yield from _builds(folder / "history.db", repair)


def _builds(path: Path, repair: bool) -> Iterator[str]:
    from google.protobuf.message import DecodeError

    from ..wire.pb import control_pb2

    db = sqlite3.connect(path, isolation_level=None)
    try:
        for ref, record in db.execute("SELECT ref, record FROM builds ORDER BY ref").fetchall():
            try:
                control_pb2.BuildHistoryRecord.FromString(record)
            except (DecodeError, TypeError):
                yield f"history: build {ref}: its record can't be read"
                if repair:
                    db.execute("DELETE FROM builds WHERE ref = ?", (ref,))
    except sqlite3.DatabaseError as error:
        yield f"history: {error}"
        if repair:
            for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
                path.with_name(name).unlink(missing_ok=True)
    finally:
        db.close()


def _digest(file: BinaryIO) -> str:
    total = hashlib.sha256()
    while data := file.read(_CHUNK):
        total.update(data)
    return f"sha256:{total.hexdigest()}"
