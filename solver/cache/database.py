"""SQLite as the state folder uses it: write-ahead log, transactions that a killed process cannot tear, and a note of
whether the last process closed it.

Nothing is forced to the disk. A database survives a loss of power as it was a moment before; what files it names
may not be written by then, so its users forget what is younger than `Database.unwritten_since`.
"""

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATE = "CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
_UNWRITTEN_NS = 60 * 10**9
"""Linux writes what was changed to the disk within about half a minute."""


def boot_id() -> str:
    """A name of this run of the kernel; empty where it can't be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Database:
    """One database file; one that is damaged is replaced by an empty one.

    `connection` is only used while `lock` is held. `clean` says whether who had it open before closed it;
    `unwritten_since` is set where the machine has gone down since: a time in nanoseconds.
    """

    def __init__(self, path: Path, schema: str) -> None:
        """Open it. Raises OSError where the folder can't be written."""
        self._path = path
        self.lock = threading.Lock()
        try:
            self.connection = self._open(schema)
            state = self._state()
            self.clean = state.get("open") == "no"
            if not self.clean and self.connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("damaged")
        except sqlite3.OperationalError as error:
            raise _as_os_error(error, path) from error
        except sqlite3.DatabaseError:
            for broken in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
                broken.unlink(missing_ok=True)
            self.connection = self._open(schema)
            state, self.clean = {}, False
        self.unwritten_since: int | None = None
        boot = state.get("boot", "")
        if boot and boot != boot_id():
            self.clean = False
            self.unwritten_since = int(state.get("alive", "0")) - _UNWRITTEN_NS
        with self.transaction():
            self._note(open="yes", boot=boot_id(), alive=str(time.time_ns()))

    def _open(self, schema: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, cached_statements=64)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(schema + _STATE)
        except BaseException:
            connection.close()
            raise
        return connection

    def _state(self) -> dict[str, str]:
        return dict(self.connection.execute("SELECT key, value FROM state"))

    def _note(self, **state: str) -> None:
        self.connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", list(state.items()))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block, or nothing of it. Raises OSError for a full disk."""
        with self.lock:
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self.connection
                    self.connection.execute("COMMIT")
                except BaseException:
                    if self.connection.in_transaction:
                        self.connection.execute("ROLLBACK")
                    raise
            except sqlite3.OperationalError as error:
                raise _as_os_error(error, self._path) from error

    def close(self) -> None:
        """Close it: everything is in order."""
        try:
            with self.transaction():
                self._note(open="no", alive=str(time.time_ns()))
        except OSError:
            # On a full disk the next start looks at everything instead.
            pass
        with self.lock:
            self.connection.close()


def _as_os_error(error: sqlite3.OperationalError, path: Path) -> Exception:
    """The error of the system behind one of SQLite."""
    numbers = {
        "SQLITE_FULL": errno.ENOSPC,
        "SQLITE_READONLY": errno.EROFS,
        "SQLITE_CANTOPEN": errno.EACCES,
        "SQLITE_IOERR": errno.EIO,
    }
    name = getattr(error, "sqlite_errorname", "")
    for known, number in numbers.items():
        if name.startswith(known):
            if known == "SQLITE_IOERR" and _is_full(path):
                number = errno.ENOSPC
            return OSError(number, os.strerror(number), str(path))
    return error


def _is_full(path: Path) -> bool:
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < 1 << 20
