"""`brickyard debug`: a state folder that is whole, damaged, and repaired."""

from pathlib import Path

import pytest

from brickyard.cli.main import run
from brickyard.solver.content.store import ContentStore


def test_fsck(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    command = ["debug", "fsck", "--root", str(root)]
    assert run(command) == 0
    assert capsys.readouterr().err == "everything is in order\n"
    content = ContentStore(root)
    digest = content.put(b"whole")
    assert run(command) == 0
    content.path(digest).write_bytes(b"other")
    capsys.readouterr()
    assert run(command) == 1
    said = capsys.readouterr()
    assert said.out == f"blob {digest}: its content has another digest\n"
    assert said.err == "1 found; --repair drops them\n"
    assert run([*command, "--repair"]) == 0
    assert capsys.readouterr().err == "1 dropped\n"
    assert not content.has(digest)
    assert run(command) == 0


def test_other_actions(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["debug", "dump"]) == 2
    assert "there is no 'dump'" in capsys.readouterr().err
