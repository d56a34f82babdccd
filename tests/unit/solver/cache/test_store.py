"""The cache's database: what it keeps, also over kills, damage and losses of power."""

import errno
import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from brickyard.solver.cache import database
from brickyard.solver.cache.database import Database
from brickyard.solver.cache.store import CacheStore

SCHEMA = "CREATE TABLE IF NOT EXISTS t (k TEXT PRIMARY KEY, v TEXT) WITHOUT ROWID;"


def test_records_and_values(tmp_path: Path) -> None:
    cache = CacheStore(tmp_path / "new")
    cache.add(["a", "b"], ["s1", None], "sha256:v", "step", [("kind", "x", b"X")])
    cache.set_value("kind", "y", b"Y")
    cache.set_value("kind", "y", b"Z")
    cache.touch(["a"])
    found = cache.find(["a", "b", "c", *map(str, range(2000))])
    assert found.keys() == {"a", "b"}
    assert (found["a"].results, found["a"].uses, found["b"].uses) == (("s1", None), 2, 1)
    assert found["a"].used >= found["b"].used
    cache.close()
    cache = CacheStore(tmp_path / "new")
    assert [record.key for record in cache.records()] == ["b", "a"]
    assert cache.values("kind") == [("x", b"X"), ("y", b"Z")]
    assert (cache.get_value("kind", "y"), cache.get_value("other", "y")) == (b"Z", None)
    assert cache.get_values("kind", ["x", "q"]) == {"x": b"X"}
    cache.remove(["a"])
    cache.remove_value("kind", "x")
    cache.remove_values("kind", ["y", "z"])
    assert cache.find(["a", "b"]).keys() == {"b"}
    assert cache.values("kind") == []
    cache.close()


def test_a_note_of_whether_it_was_closed(tmp_path: Path) -> None:
    first = Database(tmp_path / "db", SCHEMA)
    assert not first.clean
    second = Database(tmp_path / "db", SCHEMA)
    assert not second.clean
    second.close()
    third = Database(tmp_path / "db", SCHEMA)
    assert third.clean
    assert third.unwritten_since is None


def test_a_loss_of_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Database(tmp_path / "db", SCHEMA).close()
    monkeypatch.setattr(database, "boot_id", lambda: "another")
    again = Database(tmp_path / "db", SCHEMA)
    assert not again.clean
    assert again.unwritten_since is not None
    again.close()
    assert Database(tmp_path / "db", SCHEMA).unwritten_since is None


@pytest.mark.parametrize("damage", ["header", "pages", "empty", "text"])
def test_damage(tmp_path: Path, damage: str) -> None:
    made = Database(tmp_path / "db", SCHEMA)
    with made.transaction() as db:
        db.executemany("INSERT INTO t VALUES (?, ?)", [(str(n), "v" * 500) for n in range(500)])
    made.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    made.connection.close()
    data = bytearray((tmp_path / "db").read_bytes())
    match damage:
        case "header":
            data[:100] = os.urandom(100)
        case "pages":
            data[8192:40960] = os.urandom(32768)
        case "empty":
            data = bytearray()
        case "text":
            data = bytearray(b"not a database, but long enough to be looked at" * 30)
    (tmp_path / "db").write_bytes(data)
    again = Database(tmp_path / "db", SCHEMA)
    assert again.connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    with again.transaction() as db:
        db.execute("INSERT INTO t VALUES ('a', 'b')")
    again.close()


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    made = Database(tmp_path / "db", SCHEMA)
    with pytest.raises(sqlite3.IntegrityError), made.transaction() as db:
        db.executemany("INSERT INTO t VALUES (?, 'v')", [("a",), ("b",), ("a",)])
    assert made.connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    made.close()


def _fill(path: Path, ready: Any) -> None:
    made = Database(path, SCHEMA)
    for number in range(10**9):
        with made.transaction() as db:
            db.execute("INSERT INTO t VALUES (?, 'v')", (f"a{number}",))
            db.execute("INSERT INTO t VALUES (?, 'v')", (f"b{number}",))
        if number == 20:
            ready.set()


def test_a_kill_tears_no_transaction(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    for _ in range(3):
        (tmp_path / "db").unlink(missing_ok=True)
        ready = spawn.Event()
        process = spawn.Process(target=_fill, args=(tmp_path / "db", ready))
        process.start()
        assert ready.wait(20)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        again = Database(tmp_path / "db", SCHEMA)
        names = [row[0] for row in again.connection.execute("SELECT k FROM t")]
        assert len(names) >= 40
        assert {n[1:] for n in names if n[0] == "a"} == {n[1:] for n in names if n[0] == "b"}
        again.connection.close()


def test_errors_are_those_of_the_system(tmp_path: Path) -> None:
    made = Database(tmp_path / "db", SCHEMA)
    made.connection.execute("PRAGMA max_page_count = 10")
    with pytest.raises(OSError, match="No space left") as caught, made.transaction() as db:
        db.executemany("INSERT INTO t VALUES (?, ?)", [(str(n), "v" * 3000) for n in range(100)])
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(sqlite3.IntegrityError), made.transaction() as db:
        db.executemany("INSERT INTO t VALUES (?, 'v')", [("a",), ("a",)])
    made.close()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r".*"):
        Database(tmp_path / "folder", SCHEMA)
