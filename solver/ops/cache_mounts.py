"""Cache mounts: folders that outlive builds, by id; shared, private to a process, or locked while one uses them.

Under `cachemounts` of the state folder each id, with the content that it begins with, has a folder; in it stand the
caches by number, more than one where processes wanted them for themselves at the same time.

Source: BuildKit's solver/llbsolver/mounts.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...llb.ops import CacheSharing, Mount
from ..base import Context, Selection, SolveError
from ..snapshots import trees

FOLDER = "cachemounts"
_NOTE = "note.json"
_NEW = ".new"

_changed = threading.Condition()
_users: dict[Path, int] = {}
"""How many use a cache now; -1 for one that has it for itself, or that removes it."""


class CacheFolders:
    """The caches of one process; mounts of the same id are one for it, however they are shared."""

    def __init__(self, context: Context, user: str, stack: ExitStack) -> None:
        self._context = context
        self._user = user
        self._stack = stack
        self._mine: dict[Path, Path] = {}

    def folder(self, mount: Mount, snapshot: str | None) -> Path:
        """The folder to mount, filled from the input that the mount names; in use until the stack is closed.

        Raises:
            SolveError: where the input has no such file.
            Cancelled: while waiting for a locked one.
        """
        base = self._context.root / FOLDER / _name(mount, snapshot, self._context)
        known = self._mine.get(base)
        if known is None:
            known = self._stack.enter_context(_taken(base, mount.cache_sharing, self._context))
            _fill(known, mount, snapshot, self._context)
            named = f" with id {json.dumps(mount.cache_id)}" if mount.cache_id != mount.dest else ""
            _note(base, known, f"cached mount {mount.dest} from {self._user}{named}", mount.cache_id)
            self._mine[base] = known
        return known


def _name(mount: Mount, snapshot: str | None, context: Context) -> str:
    """What a cache is known by: its id and the content that it begins with, so that it survives a new snapshot."""
    content = ""
    if snapshot is not None:
        from ..cache.checksum import checksum

        content = checksum(snapshot, Selection((mount.selector or "/",), follow=True), context)
    return sha256(f"{mount.cache_id}\0{content}".encode("utf-8", "surrogateescape")).hexdigest()[:32]


@contextmanager
def _taken(base: Path, sharing: CacheSharing, context: Context) -> Iterator[Path]:
    """A cache of an id: one that is free, or a new one; locked ones are waited for instead."""
    alone = sharing is not CacheSharing.SHARED
    with _changed:
        while (found := _choose(base, sharing)) is None:
            _changed.wait(0.1)
            context.check()
        _users[found] = -1 if alone else _users.get(found, 0) + 1
    try:
        yield found
    finally:
        with _changed:
            left = 0 if alone else _users[found] - 1
            if left:
                _users[found] = left
            else:
                del _users[found]
            _changed.notify_all()


def _choose(base: Path, sharing: CacheSharing) -> Path | None:
    numbers = sorted(int(name) for name in os.listdir(base) if name.isdigit()) if base.is_dir() else []
    places = {number: base / str(number) for number in numbers}
    # One that is being made is not there yet, but taken.
    numbers = sorted({*numbers, *(int(place.name) for place in _users if place.parent == base)})
    places.update((number, base / str(number)) for number in numbers)
    if sharing is CacheSharing.SHARED:
        for place in places.values():
            if _users.get(place, 0) > 0:
                return place
    for number in numbers:
        if places[number] not in _users:
            return places[number]
    if numbers and sharing is CacheSharing.LOCKED:
        return None
    return base / str(next(number for number in range(len(numbers) + 1) if number not in places))


_filling = threading.Lock()


def _fill(folder: Path, mount: Mount, snapshot: str | None, context: Context) -> None:
    """Make a cache that is not there yet, as a copy of the input's files or empty; whole or not at all."""
    with _filling:
        if folder.exists():
            return
        making = folder.with_suffix(_NEW)
        trees.remove(making)
        making.mkdir(parents=True)
        if snapshot is None:
            making.chmod(0o755)
        else:
            from .exec import selected

            with context.snapshots.mounted(snapshot) as root:
                source = selected(root, mount.selector)
                if not source.is_dir():
                    raise SolveError(f"the source of the cache mount at {mount.dest} is not a directory")
                trees.copy_tree(os.fsencode(source), os.fsencode(making))
        making.rename(folder)


def _note(base: Path, folder: Path, description: str, id: str) -> None:
    """Write down what a cache is and that it was used; a lost note costs nothing but its words."""
    path = base / f"{folder.name}.{_NOTE}"
    now = time.time()
    before = _read_note(path)
    note = {
        "id": id,
        "description": description,
        "created": before.get("created", now),
        "used": now,
        "uses": int(before.get("uses", 0)) + 1,
    }
    new = base / f"{folder.name}.{threading.get_ident()}{_NEW}"
    new.write_text(json.dumps(note), encoding="utf-8", errors="surrogateescape")
    new.replace(path)


def _read_note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache, for the report of what the state folder holds. Times are seconds since 1970."""

    name: str
    folder: Path
    description: str
    created: float
    used: float
    uses: int
    in_use: bool


def caches(root: Path) -> list[Cache]:
    """Every cache of a state folder."""
    out: list[Cache] = []
    base = root / FOLDER
    for group in sorted(base.iterdir()) if base.is_dir() else []:
        for folder in sorted(group.iterdir()):
            if not folder.name.isdigit():
                continue
            note = _read_note(group / f"{folder.name}.{_NOTE}")
            with suppress(OSError):
                changed = folder.stat().st_mtime
                out.append(
                    Cache(
                        name=f"{group.name}-{folder.name}",
                        folder=folder,
                        description=str(note.get("description", f"cached mount {group.name}")),
                        created=float(note.get("created", changed)),
                        used=float(note.get("used", changed)),
                        uses=int(note.get("uses", 0)),
                        in_use=folder in _users,
                    )
                )
    return out


def remove(cache: Cache) -> bool:
    """Remove a cache; False for one that is in use."""
    with _changed:
        if cache.folder in _users:
            return False
        _users[cache.folder] = -1
    try:
        gone = cache.folder.with_suffix(".gone" + _NEW)
        with suppress(FileNotFoundError):
            cache.folder.rename(gone)
        (cache.folder.parent / f"{cache.folder.name}.{_NOTE}").unlink(missing_ok=True)
        trees.remove(gone)
        with suppress(OSError):
            cache.folder.parent.rmdir()
    finally:
        with _changed:
            del _users[cache.folder]
            _changed.notify_all()
    return True


def clean(root: Path) -> None:
    """Drop what an earlier process has left half made; only while no build runs."""
    for left in (root / FOLDER).glob(f"*/*{_NEW}"):
        if left.is_dir() and not left.is_symlink():
            trees.remove(left)
        else:
            left.unlink(missing_ok=True)
