"""Owners of exported files."""

import os

import pytest

from brickyard.solver.exporters.owners import owners
from brickyard.wire.pb.stat_pb2 import Stat


def test_owners_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert owners() is None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    change = owners()
    assert change is not None
    entry = Stat(path="a", uid=1000, gid=1000)
    change(entry)
    assert (entry.uid, entry.gid) == (0, 0)
