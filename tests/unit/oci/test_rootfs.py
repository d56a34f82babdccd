"""Paths below a root: where they lead, and that nothing outside is ever reached."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickyard.oci import rootfs
from brickyard.oci.rootfs import Root, UnsafePath, clean, from_root, open_below


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with links of every kind, below a directory with something to reach."""
    (tmp_path / "secret").write_text("outside")
    root = tmp_path / "root"
    (root / "d/sub").mkdir(parents=True)
    (root / "d/sub/file").write_text("inside")
    (root / "secret").write_text("inside")
    for name, target in {
        "abs": "/d/sub",
        "rel": "d/sub",
        "up": "../../../../secret",
        "d/back": "../secret",
        "d/chain": "../rel/../back",
        "loop": "loop",
        "a": "b",
        "b": "a",
        "dangling": "nowhere/else",
        "outside": str(tmp_path / "secret"),
        "dots": "d/./sub/../../d",
        "top": "/",
    }.items():
        (root / name).symlink_to(target)
    return root


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", ""),
        ("/", ""),
        ("..", ""),
        ("d//sub/./file", "d/sub/file"),
        ("../../d/../d/sub", "d/sub"),
        ("abs/file", "d/sub/file"),
        ("rel/file", "d/sub/file"),
        ("abs", "d/sub"),
        ("up", "secret"),
        ("d/back", "secret"),
        ("d/chain", "secret"),
        ("dangling", "nowhere/else"),
        ("dangling/more", "nowhere/else/more"),
        ("dots/sub", "d/sub"),
        ("top/top/d", "d"),
        ("new/path", "new/path"),
        ("d/new/../sub", "d/sub"),
        ("d/sub/file", "d/sub/file"),
    ],
)
def test_where_paths_lead(tree: Path, path: str, expected: str) -> None:
    with Root(tree) as root:
        assert root.locate(path) == expected
        assert root.resolve(path) == (tree / expected if expected else tree)


def test_the_last_link_may_stay(tree: Path) -> None:
    with Root(tree) as root:
        assert root.locate("abs", follow=False) == "abs"
        assert root.locate("abs/", follow=False) == "abs"
        assert root.locate("top/abs", follow=False) == "abs"
        assert root.locate("abs/file", follow=False) == "d/sub/file"


@pytest.mark.parametrize("path", ["loop", "a/x", "x\0y", "n" * 5000])
def test_what_is_no_path(tree: Path, path: str) -> None:
    with Root(tree) as root, pytest.raises(UnsafePath):
        root.locate(path)


def test_what_is_not_there(tree: Path) -> None:
    with Root(tree) as root:
        with pytest.raises(NotADirectoryError):
            root.locate("d/sub/file/below/more")
        with pytest.raises(FileNotFoundError):
            root.open("outside")
        with pytest.raises(FileNotFoundError):
            root.open("dangling")


def read(root: Root, path: str) -> str:
    with open(root.open(path)) as file:
        return file.read()


def test_files_are_opened_inside(tree: Path) -> None:
    with Root(tree) as root:
        assert [read(root, path) for path in ("up", "d/chain", "abs/file")] == ["inside"] * 3


@pytest.mark.parametrize("modern", [True, False])
def test_opening_below_follows_nothing(tree: Path, modern: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootfs, "_openat2", modern)
    with Root(tree) as root:
        fd = open_below(root.fileno(), "d/sub/file", os.O_RDONLY)
        assert os.read(fd, 10) == b"inside"
        os.close(fd)
        os.close(open_below(root.fileno(), "", os.O_RDONLY | os.O_DIRECTORY))
        os.close(open_below(root.fileno(), "d/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
        assert (tree / "d/new").stat().st_mode & 0o777 == 0o640
        for path in ("abs", "abs/file", "up", "top/secret", "d/back"):
            with pytest.raises(OSError, match=r"symbolic links|Not a directory") as caught:
                open_below(root.fileno(), path, os.O_RDONLY)
            assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)
        with pytest.raises(FileNotFoundError):
            open_below(root.fileno(), "d/none/file", os.O_RDONLY)


def test_a_directory_that_is_swapped_for_a_link_leads_nowhere(tree: Path, tmp_path: Path) -> None:
    """A process of a build may exchange names while we walk along them."""
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "file").write_text("outside")
    (tree / "swap").mkdir()
    (tree / "swap" / "file").write_text("inside")
    (tree / "link").symlink_to(tmp_path / "evil")

    script = (
        "import os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "while True:\n"
        "    os.rename('swap', 'held'); os.rename('link', 'swap')\n"
        "    os.rename('swap', 'link'); os.rename('held', 'swap')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, tree])
    seen = set()
    try:
        with Root(tree) as root:
            for _ in range(3000):
                try:
                    seen.add(read(root, "swap/file"))
                except OSError:
                    seen.add("missing")
    finally:
        process.kill()
        process.wait()
    assert "outside" not in seen
    assert "inside" in seen


names = st.sampled_from(["a", "b", "..", ".", "", "abs", "rel", "up", "top", "d", "sub", "file", "outside"])
paths = st.lists(names, max_size=8).map("/".join)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=paths)
def test_resolved_paths_are_inside_and_final(tree: Path, path: str) -> None:
    with Root(tree) as root:
        try:
            found = root.locate(path)
        except (UnsafePath, NotADirectoryError):
            return
        assert root.locate(found) == found
        assert ".." not in found.split("/")
        assert Path(os.path.realpath(root.resolve(path))).is_relative_to(tree)


@given(st.text(alphabet="ab./", max_size=20))
def test_from_root_is_what_a_shell_says(path: str) -> None:
    found = from_root(path)
    assert found == "/" or (found.startswith("/") and not found.endswith("/"))
    assert from_root(found) == found
    assert not {"", ".", ".."} & set(found.split("/")[1:]) or found == "/"
    try:
        assert found == "/" + clean(path)
    except UnsafePath:
        assert ".." in path
