"""Damage to a state folder: found, named, and dropped where that is asked for; what a kill leaves is dropped anyway."""

import os
from typing import Any

from brickyard.solver.fsck import fsck
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
