"""Which snapshots are whole: one SQLite database. What it does not name is left over, and never served."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..cache.database import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS snapshots (
    id TEXT PRIMARY KEY, parent TEXT, layers TEXT NOT NULL, loose INTEGER NOT NULL, marks INTEGER,
    created INTEGER NOT NULL, size INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS needs (needed TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (needed, id)) WITHOUT ROWID;
"""
_ONE_BY_ONE = 64
"""So many records are looked up singly before all are read at once."""
_UNWRITTEN_NS = 60 * 10**9


@dataclass(slots=True)
class Record:
    """A committed snapshot: files of its own over a `parent`, or, with `layers`, those of other snapshots over it.

    The layers of a `loose` one can't be mounted over one another as they are. `created` is in nanoseconds since 1970.
    """

    id: str
    parent: str | None
    layers: tuple[str, ...] = ()
    loose: bool = False
    created: int = 0

    def needs(self) -> set[str]:
        """The snapshots without which this one is nothing."""
        return {*self.layers, *([self.parent] if self.parent is not None else [])}


class Records:
    """The database of a folder. May be used by several threads.

    `clean` says whether whoever had it open before closed it: else folders may be left over.
    """

    def __init__(self, path: Path) -> None:
        """Open it. Raises OSError where the folder can't be written."""
        self._db = Database(path, _SCHEMA)
        self.clean = self._db.clean
        self._known: dict[str, Record | None] = {}
        self._looked = 0
        self._all = False
        if self._db.unwritten_since is not None:
            # After the machine went down, the files of what was made last may not be on the disk.
            newest = self._db.connection.execute("SELECT max(created) FROM snapshots").fetchone()[0] or 0
            since = max(self._db.unwritten_since, newest - _UNWRITTEN_NS)
            rows = self._db.connection.execute("SELECT id FROM snapshots WHERE created > ?", (since,)).fetchall()
            self.remove_all([row[0] for row in rows])

    def get(self, name: str) -> Record | None:
        """A record, None where the snapshot is not committed."""
        with self._db.lock:
            try:
                return self._known[name]
            except KeyError:
                pass
            if self._all:
                return None
            self._looked += 1
            if self._looked > _ONE_BY_ONE:
                self._read_all()
                return self._known.get(name)
            row = self._db.connection.execute(
                "SELECT id, parent, layers, loose, created FROM snapshots WHERE id = ?", (name,)
            ).fetchone()
            found = None if row is None else _record(row)
            self._known[name] = found
            return found

    def _read_all(self) -> None:
        for row in self._db.connection.execute("SELECT id, parent, layers, loose, created FROM snapshots"):
            self._known[row[0]] = _record(row)
        self._all = True

    def ids(self) -> list[str]:
        """All committed snapshots, the oldest first."""
        with self._db.lock:
            return [row[0] for row in self._db.connection.execute("SELECT id FROM snapshots ORDER BY created")]

    def add(self, record: Record, marks: bool | None = None) -> None:
        """Commit a snapshot; from here on it is there. `marks` says whether its layer hides something below."""
        with self._db.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?, ?, NULL)",
                (
                    record.id,
                    record.parent,
                    json.dumps(record.layers) if record.layers else "",
                    record.loose,
                    marks,
                    record.created,
                ),
            )
            db.executemany("INSERT OR REPLACE INTO needs VALUES (?, ?)", [(n, record.id) for n in record.needs()])
        with self._db.lock:
            self._known[record.id] = record

    def needed(self, name: str) -> bool:
        """Whether another snapshot needs this one."""
        with self._db.lock:
            return (
                self._db.connection.execute("SELECT 1 FROM needs WHERE needed = ? LIMIT 1", (name,)).fetchone()
                is not None
            )

    def remove_all(self, names: Iterable[str]) -> None:
        """Forget snapshots, all at once."""
        gone = [(name,) for name in names]
        with self._db.transaction() as db:
            db.executemany("DELETE FROM snapshots WHERE id = ?", gone)
            db.executemany("DELETE FROM needs WHERE id = ?", gone)
        with self._db.lock:
            for (name,) in gone:
                self._known[name] = None

    def marks(self, name: str) -> bool | None:
        """Whether a layer hides something below; None where nobody has looked."""
        return self._value("marks", name, bool)

    def set_marks(self, name: str, marks: bool) -> None:
        """Note what was found."""
        with self._db.transaction() as db:
            db.execute("UPDATE snapshots SET marks = ? WHERE id = ?", (marks, name))

    def sizes(self) -> dict[str, int]:
        """The sizes on disk that were noted."""
        with self._db.lock:
            return dict(self._db.connection.execute("SELECT id, size FROM snapshots WHERE size IS NOT NULL").fetchall())

    def set_sizes(self, sizes: Sequence[tuple[str, int]]) -> None:
        """Note sizes of snapshots on disk."""
        with self._db.transaction() as db:
            db.executemany("UPDATE snapshots SET size = ? WHERE id = ?", [(size, name) for name, size in sizes])

    def _value(self, column: str, name: str, kind: type[bool]) -> bool | None:
        with self._db.lock:
            row = self._db.connection.execute(f"SELECT {column} FROM snapshots WHERE id = ?", (name,)).fetchone()
        return None if row is None or row[0] is None else kind(row[0])

    def repair(self, folders: set[str]) -> None:
        """Forget snapshots without the folder of their files, and those that need others that are not there."""
        records = {}
        for row in self._db.connection.execute("SELECT id, parent, layers, loose, created FROM snapshots"):
            records[row[0]] = _record(row)
        broken = {name for name, record in records.items() if not record.layers and name not in folders}
        while True:
            more = {
                name
                for name, record in records.items()
                if name not in broken and any(n not in records or n in broken for n in record.needs())
            }
            if not more:
                break
            broken |= more
        if broken:
            self.remove_all(broken)

    def close(self) -> None:
        """Close the database: everything is in order."""
        self._db.close()


def _record(row: tuple[str, str | None, str, int, int]) -> Record:
    name, parent, layers, loose, created = row
    return Record(name, parent, tuple(json.loads(layers)) if layers else (), bool(loose), created)
