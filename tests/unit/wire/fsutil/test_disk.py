"""Received files on a client's disk: over what is there, never through a link."""

import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.wire.fsutil.direct import transfer
from brickyard.wire.fsutil.disk import DiskReceiver
from brickyard.wire.fsutil.modes import DIRECTORY, NAMED_PIPE, SETUID, SYMLINK
from brickyard.wire.fsutil.tree import Made, folder
from brickyard.wire.pb.stat_pb2 import Stat

SECOND = 10**9


def put(where: Path, entries: Iterable[Stat], *, delete: bool = False) -> None:
    """Entries whose files hold their own path."""
    receiver = DiskReceiver(where, delete=delete)
    transfer(
        Made(tuple((entry, b"" if entry.mode & DIRECTORY else entry.path.encode()) for entry in entries)), receiver
    )
    receiver.finish()
    receiver.discard()


def look(where: Path) -> dict[str, str]:
    """Every path with what is there."""
    out = {}
    for path in sorted(where.rglob("*")):
        name = str(path.relative_to(where))
        if path.is_symlink():
            out[name] = f"-> {os.readlink(path)}"
        else:
            out[name] = "/" if path.is_dir() else path.read_text() if path.is_file() else "?"
    return out


def test_everything(tmp_path: Path) -> None:
    put(
        tmp_path,
        [
            Stat(path="d", mode=DIRECTORY | 0o550, modTime=SECOND),
            Stat(path="d/f", mode=SETUID | 0o755, uid=4242, gid=4242, modTime=2 * SECOND),
            Stat(path="d/g", mode=0o400),
            Stat(path="hard", mode=SETUID | 0o755, linkname="d/f"),
            Stat(path="link", mode=SYMLINK | 0o777, linkname="../../x", modTime=3 * SECOND),
            Stat(path="pipe", mode=NAMED_PIPE | 0o600),
        ],
    )
    assert look(tmp_path) == {
        "d": "/", "d/f": "d/f", "d/g": "d/g", "hard": "d/f", "link": "-> ../../x", "pipe": "?",
    }  # fmt: skip
    found = (tmp_path / "d/f").stat()
    assert (found.st_mode & 0o7777, found.st_mtime, found.st_uid) == (0o4755, 2, os.geteuid())
    assert (tmp_path / "d").stat().st_mode & 0o7777 == 0o550
    assert (tmp_path / "d").stat().st_mtime == 1
    assert (tmp_path / "link").lstat().st_mtime == 3
    assert (tmp_path / "hard").stat().st_ino == found.st_ino
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    # Once more over itself: folders without write permission are no hindrance.
    put(tmp_path, [Stat(path="d", mode=DIRECTORY | 0o550), Stat(path="d/f", mode=0o600)])
    assert (tmp_path / "d/f").stat().st_mode & 0o7777 == 0o600
    assert (tmp_path / "hard").read_text() == "d/f"


def test_links_that_are_there_are_replaced_and_never_followed(tmp_path: Path) -> None:
    outside, where = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    where.mkdir()
    (outside / "file").write_text("mine")
    (where / "dir").symlink_to(outside)
    (where / "file").symlink_to(outside / "file")
    (where / "hard").hardlink_to(outside / "file")
    (where / "sub").symlink_to(outside)
    put(
        where,
        [
            Stat(path="dir", mode=DIRECTORY | 0o755),
            Stat(path="dir/file", mode=0o644),
            Stat(path="file", mode=0o644),
            Stat(path="hard", mode=0o600),
            Stat(path="sub", mode=SYMLINK | 0o777, linkname="dir"),
        ],
    )
    assert look(outside) == {"file": "mine"}
    assert look(where) == {"dir": "/", "dir/file": "dir/file", "file": "file", "hard": "hard", "sub": "-> dir"}


def test_kinds_that_change(tmp_path: Path) -> None:
    put(tmp_path, [Stat(path="a", mode=DIRECTORY | 0o755), Stat(path="a/x", mode=0o644), Stat(path="b", mode=0o644)])
    put(tmp_path, [Stat(path="a", mode=0o644), Stat(path="b", mode=DIRECTORY | 0o755), Stat(path="b/y", mode=0o644)])
    assert look(tmp_path) == {"a": "a", "b": "/", "b/y": "b/y"}
    put(tmp_path, [Stat(path="b", mode=SYMLINK, linkname="a")])
    assert look(tmp_path) == {"a": "a", "b": "-> a"}


def test_delete_removes_what_was_not_named(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    where = tmp_path / "out"
    (where / "old/deep").mkdir(parents=True)
    (where / "old/deep/file").touch()
    (where / "kept").mkdir()
    (where / "kept/stale").touch()
    (where / "link").symlink_to(outside)
    put(where, [Stat(path="kept", mode=DIRECTORY | 0o755), Stat(path="kept/new", mode=0o644)], delete=True)
    assert look(where) == {"kept": "/", "kept/new": "kept/new"}
    assert look(outside) == {"file": "mine"}


def test_half_a_transfer_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    receiver = DiskReceiver(tmp_path)
    assert receiver.entry(Stat(path="f", mode=0o644))
    receiver.data("f", b"ne")
    receiver.discard()
    assert look(tmp_path) == {"f": "old"}


def test_files_of_this_machine_are_copied_with_their_content(tmp_path: Path) -> None:
    source, where = tmp_path / "source", tmp_path / "out"
    (source / "d").mkdir(parents=True)
    where.mkdir()
    data = os.urandom(3 << 20)
    (source / "d/big").write_bytes(data)
    (source / "empty").touch()
    (where / "empty").write_text("old")
    (source / "hard").hardlink_to(source / "d/big")
    receiver = DiskReceiver(where)
    transfer(folder(source), receiver)
    receiver.finish()
    assert (where / "d/big").read_bytes() == data
    assert (where / "hard").stat().st_ino == (where / "d/big").stat().st_ino != (source / "d/big").stat().st_ino
    assert (where / "empty").read_bytes() == b""


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    where = tmp_path / "out"
    where.mkdir()
    receiver = DiskReceiver(where)
    entry = Stat(path="f", mode=0o644)
    assert receiver.entry(entry)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        receiver.take(entry, os.fsencode(tmp_path / "folder"))
    receiver.discard()
    assert look(where) == {}


_KINDS = st.sampled_from(["file", "folder", "link"])
_TREES = st.dictionaries(st.sampled_from(["a", "b", "a/a", "a/b", "a/a/a", "b/a"]), _KINDS, max_size=6)


def entries_of(tree: dict[str, str]) -> list[Stat]:
    """The tree's entries; what is not in a folder is left out."""
    out = []
    for path in sorted(tree, key=lambda text: text.split("/")):
        parent = path.rpartition("/")[0]
        if parent and not any(entry.path == parent and entry.mode & DIRECTORY for entry in out):
            continue
        kind = tree[path]
        mode = {"file": 0o644, "folder": DIRECTORY | 0o755, "link": SYMLINK | 0o777}[kind]
        out.append(Stat(path=path, mode=mode, linkname="../../elsewhere" if kind == "link" else ""))
    return out


@settings(max_examples=100, deadline=None)
@given(_TREES, _TREES)
def test_any_tree_over_any_other(before: dict[str, str], after: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        where, fresh = Path(name, "out"), Path(name, "fresh")
        where.mkdir()
        fresh.mkdir()
        put(where, entries_of(before))
        put(where, entries_of(after), delete=True)
        put(fresh, entries_of(after))
        assert look(where) == look(fresh)
        assert sorted(os.listdir(name)) == ["fresh", "out"]
