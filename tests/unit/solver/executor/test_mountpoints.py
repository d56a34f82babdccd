"""Places of mounts: made inside of the root file system only, and taken away again."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickyard.solver.executor.base import BindMount, ExecError
from brickyard.solver.executor.mountpoints import Mountpoints


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    made = tmp_path / "rootfs"
    (made / "etc").mkdir(parents=True)
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    (made / "file").write_text("x")
    return made


def tree(root: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(root)): (p.lstat().st_mode, p.lstat().st_mtime_ns) for p in (root, *root.rglob("*"))}


def test_places_are_made_and_removed(rootfs: Path, source: Path) -> None:
    os.utime(rootfs / "etc", (5, 5))
    os.utime(rootfs, (6, 6))
    before = tree(rootfs)
    places = Mountpoints(rootfs)
    assert places.add(BindMount("etc/hosts", source / "file")) == "etc/hosts"
    assert places.add(BindMount("new", source)) == "new"
    assert places.add(BindMount("tmp", None)) == "tmp"
    assert (rootfs / "etc/hosts").is_file()
    assert (rootfs / "new").is_dir()
    assert (rootfs / "tmp").stat().st_mode & 0o7777 == 0o1777
    places.close()
    places.close()
    assert tree(rootfs) == before


def test_what_was_there_stays(rootfs: Path, source: Path) -> None:
    (rootfs / "etc/hosts").touch()
    (rootfs / "data").mkdir(mode=0o700)
    places = Mountpoints(rootfs)
    places.add(BindMount("etc/hosts", source / "file"))
    places.add(BindMount("data", source))
    assert places.modes == {"data": 0o700}
    places.close()
    assert sorted(os.listdir(rootfs)) == ["data", "etc"]
    assert os.listdir(rootfs / "etc") == ["hosts"]


def test_folders_above_stay_unless_told_otherwise(rootfs: Path, source: Path) -> None:
    places = Mountpoints(rootfs)
    places.add(BindMount("a/b/c", source))
    places.close()
    assert [str(p.relative_to(rootfs / "a")) for p in (rootfs / "a").rglob("*")] == ["b"]
    places = Mountpoints(rootfs, recursive=True)
    places.add(BindMount("x/y/z", source))
    places.add(BindMount("a/b/z", source))
    places.close()
    assert sorted(os.listdir(rootfs)) == ["a", "etc"]
    assert os.listdir(rootfs / "a/b") == []


def test_what_was_filled_stays(rootfs: Path, source: Path) -> None:
    places = Mountpoints(rootfs, recursive=True)
    places.add(BindMount("a/b", source))
    places.add(BindMount("f", source / "file"))
    (rootfs / "a/b/x").touch()
    (rootfs / "f").write_text("x")
    places.close()
    assert (rootfs / "a/b/x").exists()
    assert (rootfs / "f").exists()


def test_places_stay_until_the_last_process_has_ended(rootfs: Path, source: Path) -> None:
    first, second = Mountpoints(rootfs), Mountpoints(rootfs)
    first.add(BindMount("m", source))
    second.add(BindMount("m", source))
    first.close()
    assert (rootfs / "m").is_dir()
    second.close()
    assert not (rootfs / "m").exists()


def test_links_are_resolved_in_the_root_file_system(rootfs: Path, source: Path, tmp_path: Path) -> None:
    (rootfs / "abs").symlink_to("/etc")
    (rootfs / "up").symlink_to("../../../../etc")
    (rootfs / "etc/alternatives").symlink_to("hosts")
    (rootfs / "dangling").symlink_to("/var/run/x")
    places = Mountpoints(rootfs)
    assert places.add(BindMount("abs/one", source)) == "etc/one"
    assert places.add(BindMount("up/two", source)) == "etc/two"
    assert places.add(BindMount("abs/alternatives", source / "file")) == "etc/hosts"
    assert places.add(BindMount("dangling", source / "file")) == "var/run/x"
    assert places.add(BindMount("./a//b/../c", source)) == "a/c"
    places.close()
    assert sorted(os.listdir(tmp_path)) == ["rootfs", "source"]


def test_links_in_circles_are_refused(rootfs: Path, source: Path) -> None:
    (rootfs / "a").symlink_to("b")
    (rootfs / "b").symlink_to("a")
    places = Mountpoints(rootfs)
    with pytest.raises(ExecError, match="cannot make /a/x in the container: Too many levels of symbolic links"):
        places.add(BindMount("a/x", source))
    places.close()


@pytest.mark.parametrize("dest", ["x/" * 5000, "x" * 5000, "a\0b"])
def test_what_is_no_path_is_refused(rootfs: Path, source: Path, dest: str) -> None:
    places = Mountpoints(rootfs)
    with pytest.raises(ExecError, match="File name too long"):
        places.add(BindMount(dest, source))
    places.close()
    assert os.listdir(rootfs) == ["etc"]


@pytest.mark.parametrize("dest", ["", "/", ".", "etc/..", "link"])
def test_the_root_itself_is_refused(rootfs: Path, source: Path, dest: str) -> None:
    (rootfs / "link").symlink_to("/")
    places = Mountpoints(rootfs)
    with pytest.raises(ExecError, match="it is the root"):
        places.add(BindMount(dest, source))
    places.close()


def test_files_and_folders_do_not_mix(rootfs: Path, source: Path) -> None:
    (rootfs / "file").touch()
    places = Mountpoints(rootfs)
    with pytest.raises(ExecError, match="cannot make /file in the container: a part of it is not a folder"):
        places.add(BindMount("file", source))
    with pytest.raises(ExecError, match="not a folder"):
        places.add(BindMount("file/below", source))
    with pytest.raises(ExecError, match="it is a folder"):
        places.add(BindMount("etc", source / "file"))
    with pytest.raises(ExecError, match="cannot mount at /m: No such file"):
        places.add(BindMount("m", source / "nothing"))
    places.close()


def test_places_in_other_mounts(rootfs: Path, source: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (source / "out").symlink_to("/etc")
    (source / "back").symlink_to("..")
    places = Mountpoints(rootfs)
    places.add(BindMount("m", source))
    assert places.add(BindMount("m/deep/er", inner)) == "m/deep/er"
    assert (source / "deep/er").is_dir()
    assert places.add(BindMount("m/out/x", inner)) == "etc/x"
    assert places.add(BindMount("m/back/y", inner)) == "y"
    assert places.add(BindMount("m/deep/er/z", inner)) == "m/deep/er/z"
    assert (inner / "z").is_dir()
    assert places.add(BindMount("t", None)) == "t"
    assert places.add(BindMount("t/a/b", inner)) == "t/a/b"
    assert os.listdir(rootfs / "t") == []
    assert places.is_temporary("t/a")
    assert not places.is_temporary("t/a/b")
    assert not places.is_temporary("m/deep")
    places.add(BindMount("m", None))
    assert places.is_temporary("m/deep/er")
    places.close()
    assert sorted(os.listdir(rootfs)) == ["etc"]


def test_a_working_folder(rootfs: Path, source: Path) -> None:
    places = Mountpoints(rootfs)
    me = (os.getuid(), os.getgid())
    assert places.folder("/w/x", me) == "w/x"
    assert places.folder("/", me) == ""
    places.close()
    assert (rootfs / "w/x").is_dir()


def test_system_folders(rootfs: Path, source: Path) -> None:
    (rootfs / "sys").symlink_to("etc")
    places = Mountpoints(rootfs)
    places.system("proc")
    places.system("dev")
    with pytest.raises(ExecError, match="/sys of the root file system is a symbolic link"):
        places.system("sys")
    assert places.add(BindMount("dev/shm", None)) == "dev/shm"
    places.close()
    assert sorted(os.listdir(rootfs)) == ["dev", "etc", "proc", "sys"]
    assert os.listdir(rootfs / "dev") == []


NAMES = st.sampled_from(["a", "b", "c", "..", ".", ""])
PATHS = st.lists(NAMES, min_size=1, max_size=6).map("/".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    links=st.dictionaries(st.sampled_from(["a", "b", "a/b", "b/c", "c"]), st.tuples(st.booleans(), PATHS)),
    dests=st.lists(PATHS, max_size=4),
)
def test_nothing_outside_is_touched(
    tmp_path_factory: pytest.TempPathFactory, links: dict[str, tuple[bool, str]], dests: list[str]
) -> None:
    base = tmp_path_factory.mktemp("tree")
    rootfs, source = base / "x/y/rootfs", base / "source"
    rootfs.mkdir(parents=True)
    source.mkdir()
    for name, (absolute, target) in links.items():
        link = rootfs / name
        if not link.parent.is_symlink() and not os.path.lexists(link):
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(f"/{target}" if absolute else target or ".")
    before = tree(rootfs)
    places = Mountpoints(rootfs, recursive=True)
    for dest in dests:
        try:
            path = places.add(BindMount(dest, source))
        except ExecError:
            continue
        assert not any(part in ("..", ".", "") for part in path.split("/"))
    places.close()
    outside = sorted(str(p.relative_to(base)) for p in base.rglob("*") if not p.is_relative_to(rootfs))
    assert [name for name in outside if not name.startswith("source/")] == ["source", "x", "x/y"]
    assert tree(rootfs) == before
