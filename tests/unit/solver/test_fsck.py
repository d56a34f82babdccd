"""Damage to a state folder: found, named, and dropped where that is asked for; what a kill leaves is dropped anyway."""

import os
import sqlite3
from pathlib import Path
from typing import Any

from brickyard.oci.digest import of_bytes
from brickyard.solver.fsck import fsck, history
from brickyard.solver.leftovers import clean
from brickyard.solver.snapshots import trees


def test_damage_is_named_and_dropped(state: Any) -> None:
    context = state.context
    parts = (context.cache, context.snapshots, context.content)
    whole, broken = state.snapshot({"a": b""}), state.snapshot({"b": b""})
    top = state.snapshot({"c": b""}, broken)
    context.cache.add(["def:whole"], [whole], "v", "whole")
    context.cache.add(["def:top"], [top, None], "v", "top")
    good, bad = context.content.put(b"good"), context.content.put(b"bad")
    assert list(fsck(*parts)) == []
    trees.remove(context.root / "snapshots" / broken)
    context.content.path(bad).write_bytes(b"changed")
    (context.root / "snapshots" / "stray").mkdir()
    found = list(fsck(*parts))
    assert found == [
        f"snapshot {broken}: has no files",
        "stray: belongs to no snapshot",
        f"blob {bad}: its content has another digest",
    ]
    assert list(fsck(*parts, repair=True)) == [*found, "record def:top: names a snapshot that is gone"]
    assert list(fsck(*parts)) == []
    assert context.snapshots.ids() == [whole]
    assert list(context.content.digests()) == [good]
    assert context.cache.find(["def:whole", "def:top"]).keys() == {"def:whole"}


def test_leftovers_of_a_kill(state: Any) -> None:
    root = state.context.root
    group = root / "cachemounts" / "group"
    for name in ("0", "1.new", "0.gone.new"):
        (group / name).mkdir(parents=True)
        (group / name / "file").write_bytes(b"")
    (group / "0.123.new").write_bytes(b"{")
    (root / "local").mkdir()
    (root / "local" / "x.new").write_bytes(b"")
    clean(root)
    assert sorted(os.listdir(group)) == ["0"]
    assert os.listdir(root / "local") == []


def test_damage_to_the_history(tmp_path: Path) -> None:
    assert list(history(tmp_path)) == []
    folder = tmp_path / "history"
    (folder / "blobs").mkdir(parents=True)
    good, bad = (of_bytes(data).removeprefix("sha256:") for data in (b"good", b"bad"))
    (folder / "blobs" / good).write_bytes(b"good")
    (folder / "blobs" / bad).write_bytes(b"changed")
    with sqlite3.connect(folder / "history.db") as db:
        db.execute("CREATE TABLE builds (ref TEXT PRIMARY KEY, record BLOB NOT NULL)")
        db.executemany("INSERT INTO builds VALUES (?, ?)", [("a", b""), ("b", b"\xff\xff")])
    db.close()
    found = [
        f"history: blob {bad}: its content has another digest",
        "history: build b: its record can't be read",
    ]
    assert list(history(tmp_path)) == found
    assert list(history(tmp_path, repair=True)) == found
    assert list(history(tmp_path)) == []
    assert os.listdir(folder / "blobs") == [good]
    (folder / "history.db").write_bytes(b"no database" * 100)
    assert list(history(tmp_path, repair=True)) == ["history: file is not a database"]
    assert list(history(tmp_path)) == []
