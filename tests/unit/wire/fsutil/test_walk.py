"""What the sending side tells of a folder."""

import os
import socket
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.wire.fsutil import modes
from brickyard.wire.fsutil.disk import DiskReceiver
from brickyard.wire.fsutil.follow import follow
from brickyard.wire.fsutil.walk import WalkError, walk
from brickyard.wire.patterns import Matcher, PatternError
from brickyard.wire.pb.stat_pb2 import Stat
from brickyard.wire.session import FileFilter


def make(root: Path, *paths: str) -> bytes:
    """A tree: `a/` is a folder, `a -> b` a link, anything else a file with its path as content."""
    root.mkdir(exist_ok=True)
    for path in paths:
        name, arrow, target = path.partition(" -> ")
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if arrow:
            place.symlink_to(target)
        elif name.endswith("/"):
            place.mkdir(exist_ok=True)
        else:
            place.write_text(name)
    return os.fsencode(root)


def paths(root: bytes, **wanted: Sequence[str]) -> list[str]:
    """The paths that a filter lets through."""
    return [entry.path for entry in walk(root, FileFilter(**{key: tuple(value) for key, value in wanted.items()}))]


def test_the_order_puts_a_folder_before_names_that_begin_like_it(tmp_path: Path) -> None:
    root = make(tmp_path, "foo/bar", "foo-bar", "foo.d/x", "foo0", "Z", "é")
    assert paths(root) == ["Z", "foo", "foo/bar", "foo-bar", "foo.d", "foo.d/x", "foo0", "é"]


@pytest.mark.parametrize(
    ("include", "exclude", "found"),
    [
        (["bar"], [], ["bar", "bar/foo"]),
        (["bar/foo"], [], ["bar", "bar/foo"]),
        (["**"], ["bar"], ["foo2"]),
        ([], ["bar", "!bar/foo"], ["bar", "bar/foo", "foo2"]),
        ([], ["*", "!foo*"], ["foo2"]),
        ([], ["**", "!**/foo"], ["bar", "bar/foo"]),
        (["b*"], [], ["bar", "bar/foo"]),
        (["b*/f*"], [], ["bar", "bar/foo"]),
        (["b*/x*"], [], []),
        (["bar/*"], ["bar/foo"], []),
        (["none"], [], []),
        (["bar/**", "foo2"], ["**/foo"], ["foo2"]),
    ],
)
def test_include_and_exclude(tmp_path: Path, include: list[str], exclude: list[str], found: list[str]) -> None:
    root = make(tmp_path, "bar/foo", "foo2")
    assert paths(root, include=include, exclude=exclude) == found


def test_folders_of_which_nothing_is_wanted_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path, "a/x/y", "b/x/y", "c/x")
    read: list[bytes] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: read.append(os.path.basename(path)) or scandir(path))
    assert paths(root, exclude=["a", "b", "!b/x/z"]) == ["c", "c/x"]
    assert read[1:] == [b"b", b"x", b"c"]
    read.clear()
    assert paths(root, include=["a/x"]) == ["a", "a/x", "a/x/y"]
    assert read[1:] == [b"a", b"x"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["a"], ["a"]),
        (["link"], ["dir", "dir/file", "link"]),
        (["link/file"], ["dir", "dir/file", "link"]),
        (["up/link"], ["file", "up", "up/link"]),
        (["abs"], ["abs", "dir", "dir/file"]),
        (["out"], ["etc", "etc/passwd", "out"]),
        (["../../link"], ["dir", "dir/file", "link"]),
        (["l*"], ["dir", "dir/file", "link", "loop1", "loop2"]),
        (["loop1"], ["loop1", "loop2"]),
        (["none"], []),
        (["none/*"], []),
        (["."], "a abs dir dir/file etc etc/passwd file link loop1 loop2 out up up/link".split()),
        (["dir/*"], ["dir", "dir/file"]),
    ],
)  # fmt: skip
def test_followed_links(tmp_path: Path, asked: list[str], found: list[str]) -> None:
    root = make(
        tmp_path,
        "a", "dir/file", "file", "etc/passwd", "link -> dir", "up/link -> ../../../file", "abs -> /dir",
        "out -> ../../../../etc/passwd", "loop1 -> loop2", "loop2 -> loop1",
    )  # fmt: skip
    assert paths(root, follow=asked) == found


def test_a_link_that_leads_to_itself_deeper_ends(tmp_path: Path) -> None:
    root = make(tmp_path, "a -> a/b", "c -> d/../c/x")
    assert follow(root, ("a",)) == ["a"]
    assert follow(root, ("c",)) == ["c"]


def test_kinds_of_entries(tmp_path: Path) -> None:
    root = make(tmp_path, "dir/", "file", "link -> no where")
    (tmp_path / "file").chmod(0o6751)
    (tmp_path / "dir").chmod(0o1777)
    os.utime(tmp_path / "file", ns=(1, 1234567890123456789))
    os.link(tmp_path / "file", tmp_path / "second")
    os.mkfifo(tmp_path / "pipe", 0o600)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    server.close()
    found = {entry.path: entry for entry in walk(root)}
    assert found["dir"].mode == modes.DIRECTORY | modes.STICKY | 0o777
    assert (found["dir"].size, found["dir"].linkname) == (0, "")
    assert found["file"].mode == modes.SETUID | modes.SETGID | 0o751
    assert (found["file"].size, found["file"].modTime) == (4, 1234567890123456789)
    assert found["file"].uid == os.geteuid()
    assert (found["second"].linkname, found["second"].mode) == ("file", found["file"].mode)
    assert (found["link"].mode, found["link"].linkname) == (modes.SYMLINK | 0o777, "no where")
    assert found["pipe"].mode == modes.NAMED_PIPE | 0o600
    # A socket goes as an empty file, as no archive has a form for it.
    assert found["socket"].mode & modes.TYPE == 0
    assert found["socket"].size == 0


def test_a_hard_link_whose_first_name_is_left_out_is_a_file(tmp_path: Path) -> None:
    root = make(tmp_path, "a")
    os.link(tmp_path / "a", tmp_path / "b")
    os.link(tmp_path / "a", tmp_path / "c")
    assert [(entry.path, entry.linkname) for entry in walk(root, FileFilter(exclude=("a",)))] == [("b", ""), ("c", "b")]


def test_devices_and_attributes(tmp_path: Path) -> None:
    root = make(tmp_path, "file")
    try:
        os.setxattr(tmp_path / "file", "user.note", b"\x00\xff")
        os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(8, 1))
    except OSError:
        pytest.skip("this user or file system has no devices or attributes")
    found = {entry.path: entry for entry in walk(root)}
    assert dict(found["file"].xattrs) == {"user.note": b"\x00\xff"}
    assert found["null"].mode & modes.TYPE == modes.DEVICE | modes.CHAR_DEVICE
    assert (found["null"].devmajor, found["null"].devminor) == (1, 3)
    assert found["disk"].mode & modes.TYPE == modes.DEVICE
    assert (found["disk"].devmajor, found["disk"].devminor) == (8, 1)


def test_entries_are_changed_before_they_are_sent(tmp_path: Path) -> None:
    def change(entry: Stat) -> None:
        entry.uid = 42

    root = make(tmp_path, "a/b")
    assert {entry.uid for entry in walk(root, FileFilter(include=("a/b",)), change)} == {42}


def test_what_cannot_be_sent(tmp_path: Path) -> None:
    root = make(tmp_path, "x")
    with pytest.raises(WalkError, match="No such file"):
        list(walk(root + b"/none"))
    with pytest.raises(PatternError, match="invalid exclude patterns"):
        list(walk(root, FileFilter(exclude=("[",))))
    with open(root + b"/\xff\xfe", "wb"):
        pass
    with pytest.raises(WalkError, match="not UTF-8"):
        list(walk(root))
    assert paths(root, include=["x"]) == ["x"]


def test_files_that_vanish_meanwhile_are_left_out(tmp_path: Path) -> None:
    root = make(tmp_path, "a", "b", "c/d")
    entries = walk(root)
    assert next(entries).path == "a"
    (tmp_path / "b").unlink()
    assert [entry.path for entry in entries] == ["c", "c/d"]


@given(st.integers(0, 0o7777), st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFBLK, stat.S_IFIFO]))
def test_modes_there_and_back(bits: int, kind: int) -> None:
    assert modes.to_kernel(modes.to_go(kind | bits)) == kind | bits


def test_a_deep_tree(tmp_path: Path) -> None:
    root = make(tmp_path / "t")
    here, depth = root, 1010
    for _ in range(depth):
        here += b"/d"
        os.mkdir(here)
    assert len(paths(root)) == depth
    assert paths(root, exclude=["d", "!**/x"]) == []
    assert paths(root, exclude=["d", "!d/d/d"]) == paths(root)
    receiver = DiskReceiver(tmp_path, delete=True)
    receiver.finish()
    assert os.listdir(tmp_path) == []


_NAMES = st.sampled_from(["a", "b", "ab", "a.b"])
_TREES = st.lists(st.lists(_NAMES, min_size=1, max_size=3).map("/".join), max_size=8)
_PATTERNS = st.lists(
    st.tuples(
        st.sampled_from(["", "", "!", "**/", "!**/"]),
        st.lists(st.sampled_from(["a", "b", "ab", "a*", "*", "**", "?"]), min_size=1, max_size=3).map("/".join),
        st.sampled_from(["", "", "/*", "/**"]),
    ).map("".join),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(_TREES, _PATTERNS, _PATTERNS)
def test_a_filter_gives_what_a_look_at_every_path_gives(
    tree: list[str], include: list[str], exclude: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for path in tree:
            place = root / path
            if not any(parent.is_file() for parent in place.parents) and not place.is_dir():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text("")
        found = paths(os.fsencode(root), include=include, exclude=exclude)
        assert found == _reference(os.fsencode(root), include, exclude)


def _reference(root: bytes, include: list[str], exclude: list[str]) -> list[str]:
    """The same without any shortcut."""
    states: dict[str, tuple[int, int]] = {"": (0, 0)}
    wanted: set[str] = set()
    everything = paths(root)
    first, second = Matcher(include), Matcher(exclude)
    for path in everything:
        above, _, name = path.rpartition("/")
        included, state = first.step(path, name, states[above][0])
        excluded, other = second.step(path, name, states[above][1])
        states[path] = (state, other)
        if (included or not first) and not excluded:
            wanted.add(path)
            while path := path.rpartition("/")[0]:
                wanted.add(path)
    return [path for path in everything if path in wanted]
