"""What was built from what: one SQLite database in WAL mode, whose records are written after what they name.

A record maps a key (of an op with its inputs, by definition or by content) to snapshots. A record whose snapshot is
gone counts as none.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .database import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    key TEXT PRIMARY KEY, results TEXT NOT NULL, vertex TEXT NOT NULL, description TEXT NOT NULL,
    created REAL NOT NULL, used REAL NOT NULL, uses INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (
    kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Record:
    """The results under a key: snapshot ids, None for an empty file system."""

    key: str
    results: tuple[str | None, ...]
    vertex: str
    description: str
    created: float
    used: float
    uses: int


class CacheStore:
    """The database of one state folder; may be used by several threads."""

    def __init__(self, root: Path) -> None:
        """Open it. Raises OSError where the folder can't be written."""
        root.mkdir(parents=True, exist_ok=True)
        self._db = Database(root / "cache.db", _SCHEMA)

    def find(self, keys: Sequence[str]) -> dict[str, Record]:
        """The records under these keys."""
        out: dict[str, Record] = {}
        with self._db.lock:
            for start in range(0, len(keys), 500):
                part = list(keys[start : start + 500])
                marks = ",".join("?" * len(part))
                for row in self._db.connection.execute(f"SELECT * FROM records WHERE key IN ({marks})", part):
                    out[row[0]] = Record(row[0], tuple(json.loads(row[1])), *row[2:])
        return out

    def add(
        self,
        keys: Sequence[str],
        results: Sequence[str | None],
        vertex: str,
        description: str,
        values: Sequence[tuple[str, str, bytes]] = (),
    ) -> None:
        """Record results, which must be durable already, under every key; `values` (kind, key, value) go with them."""
        now = time.time()
        text = json.dumps(list(results))
        with self._db.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, 1)",
                [(key, text, vertex, description, now, now) for key in keys],
            )
            if values:
                db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", values)

    def touch(self, keys: Sequence[str]) -> None:
        """Count a use of records."""
        now = time.time()
        with self._db.transaction() as db:
            db.executemany("UPDATE records SET used = ?, uses = uses + 1 WHERE key = ?", [(now, key) for key in keys])

    def records(self) -> list[Record]:
        """All records, the least recently used first."""
        with self._db.lock:
            rows = self._db.connection.execute("SELECT * FROM records ORDER BY used").fetchall()
        return [Record(row[0], tuple(json.loads(row[1])), *row[2:]) for row in rows]

    def keys_of(self, results: Sequence[tuple[str | None, ...]]) -> dict[tuple[str | None, ...], list[str]]:
        """The keys of the records with these results, sorted."""
        wanted = {json.dumps(list(found)): found for found in results}
        out: dict[tuple[str | None, ...], list[str]] = {found: [] for found in results}
        with self._db.lock:
            for key, text in self._db.connection.execute("SELECT key, results FROM records ORDER BY key"):
                if text in wanted:
                    out[wanted[text]].append(key)
        return out

    def remove(self, keys: Sequence[str]) -> None:
        """Forget records."""
        with self._db.transaction() as db:
            db.executemany("DELETE FROM records WHERE key = ?", [(key,) for key in keys])

    def get_value(self, kind: str, key: str) -> bytes | None:
        """A value kept beside the records."""
        with self._db.lock:
            row = self._db.connection.execute(
                "SELECT value FROM items WHERE kind = ? AND key = ?", (kind, key)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def get_values(self, kind: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Those values of a kind that are there, by key."""
        out: dict[str, bytes] = {}
        with self._db.lock:
            for start in range(0, len(keys), 500):
                part = list(keys[start : start + 500])
                marks = ",".join("?" * len(part))
                rows = self._db.connection.execute(
                    f"SELECT key, value FROM items WHERE kind = ? AND key IN ({marks})", [kind, *part]
                )
                out.update((key, bytes(value)) for key, value in rows)
        return out

    def set_value(self, kind: str, key: str, value: bytes) -> None:
        """Keep a value."""
        with self._db.transaction() as db:
            db.execute("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", (kind, key, value))

    def remove_value(self, kind: str, key: str) -> None:
        """Forget a value."""
        with self._db.transaction() as db:
            db.execute("DELETE FROM items WHERE kind = ? AND key = ?", (kind, key))

    def remove_values(self, kind: str, keys: Sequence[str]) -> None:
        """Forget values of a kind."""
        if keys:
            with self._db.transaction() as db:
                db.executemany("DELETE FROM items WHERE kind = ? AND key = ?", [(kind, key) for key in keys])

    def values(self, kind: str) -> list[tuple[str, bytes]]:
        """All values of a kind with their keys."""
        with self._db.lock:
            rows = self._db.connection.execute(
                "SELECT key, value FROM items WHERE kind = ? ORDER BY key", (kind,)
            ).fetchall()
        return [(key, bytes(value)) for key, value in rows]

    def close(self) -> None:
        """Close the database."""
        self._db.close()
