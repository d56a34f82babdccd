"""Looks at everything in a state folder: is it there, is it whole, and does it belong to something."""

import hashlib
from collections.abc import Iterator

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
        total = hashlib.sha256()
        with content.open(digest) as file:
            while data := file.read(_CHUNK):
                total.update(data)
        if f"sha256:{total.hexdigest()}" != digest:
            yield f"blob {digest}: its content has another digest"
            if repair:
                content.remove(digest)
    gone = [r for r in cache.records() if any(s is not None and not snapshots.exists(s) for s in r.results)]
    for record in gone:
        yield f"record {record.key}: names a snapshot that is gone"
    if repair:
        cache.remove([record.key for record in gone])
