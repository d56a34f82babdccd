"""File actions: what merges, what is replaced, what is refused, and that no link leads out of a root."""

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickyard.llb.ops import ChownOpt, Copy, MkDir, MkFile, Rm, Symlink, UserName
from brickyard.solver.fileops.apply import FileOpError, apply

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root: owners and devices")
Tree = dict[str, str | bytes | None]


def build(root: Path, tree: Tree) -> Path:
    """A tree of files (bytes), links (text) and directories (None)."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
    return root


def read(root: Path) -> Tree:
    out: Tree = {}
    for folder, names, files in os.walk(root):
        for name in [*names, *files]:
            path = Path(folder, name)
            key = str(path.relative_to(root))
            if path.is_symlink():
                out[key] = os.readlink(path)
            elif path.is_dir():
                if not any(path.iterdir()):
                    out[key] = None
            elif path.is_file():
                out[key] = path.read_bytes()
    return out


class Case:
    """A source and a destination."""

    def __init__(self, base: Path) -> None:
        self.source = build(base / "source", {})
        self.dest = build(base / "dest", {})

    def copy(self, src: str, dest: str, **more: object) -> Tree:
        action = Copy(src, dest, **{"create_dest_path": True, **more})  # type: ignore[arg-type]
        apply(action, self.dest, self.source, lambda position: self.dest)
        return read(self.dest)

    def do(self, action: MkDir | MkFile | Rm | Symlink) -> Tree:
        apply(action, self.dest, None, lambda position: self.dest)
        return read(self.dest)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.mark.parametrize(
    ("src", "dest", "more", "expected"),
    [
        ("/a", "/b", {}, {"b": b"A"}),
        ("a", "/x/y/", {}, {"x/y/a": b"A"}),
        ("/a", "/x/.", {}, {"x/a": b"A"}),
        ("/a", "/", {}, {"a": b"A"}),
        ("../../a", "/../b", {}, {"b": b"A"}),
        ("/d", "/new", {}, {"new/f": b"F", "new/sub/g": b"G"}),
        ("/d", "/new", {"dir_copy_contents": True}, {"new/f": b"F", "new/sub/g": b"G"}),
        ("/d", "/new/", {}, {"new/d/f": b"F", "new/d/sub/g": b"G"}),
        ("/d", "/new/", {"dir_copy_contents": True}, {"new/f": b"F", "new/sub/g": b"G"}),
        ("/d", "/", {"dir_copy_contents": True}, {"f": b"F", "sub/g": b"G"}),
        ("/d", "/", {}, {"d/f": b"F", "d/sub/g": b"G"}),
        ("/d/*", "/o/", {"allow_wildcard": True}, {"o/f": b"F", "o/sub/g": b"G"}),
        ("/d/*", "/o/", {"allow_wildcard": True, "dir_copy_contents": True}, {"o/f": b"F", "o/g": b"G"}),
        ("/*/su?/[g-h]", "/o/", {"allow_wildcard": True}, {"o/g": b"G"}),
        ("/nothing*", "/o", {"allow_wildcard": True, "allow_empty_wildcard": True}, {}),
        ("/d", "/o", {"include_patterns": ("sub/g",)}, {"o/sub/g": b"G"}),
        ("/d", "/o", {"exclude_patterns": ("**/g",)}, {"o/f": b"F", "o/sub": None}),
        ("/d", "/o", {"exclude_patterns": ("sub", "!sub/g")}, {"o/f": b"F", "o/sub/g": b"G"}),
        ("/d", "/o", {"include_patterns": ("sub",), "exclude_patterns": ("sub/g",)}, {"o/sub": None}),
        ("/link", "/o", {}, {"o": "d/f"}),
        ("/link", "/o", {"follow_symlink": True}, {"o": b"F"}),
        ("/dirlink/g", "/o", {}, {"o": b"G"}),
        ("/dirlink/*", "/o/", {"allow_wildcard": True, "follow_symlink": True}, {"o/g": b"G"}),
        ("/up", "/o", {"follow_symlink": True}, {"o": b"A"}),
    ],
)
def test_copies_by_the_rules(
    case: Case, src: str, dest: str, more: dict[str, object], expected: dict[str, object]
) -> None:
    build(
        case.source,
        {
            "a": b"A",
            "d/f": b"F",
            "d/sub/g": b"G",
            "link": "d/f",
            "dirlink": "/d/sub",
            "up": "../../../../a",
        },
    )
    assert case.copy(src, dest, **more) == expected


def test_a_directory_merges_into_one_that_is_there(case: Case) -> None:
    build(case.source, {"d/a": b"new", "d/sub/b": b"b"})
    build(case.dest, {"o/a": b"old", "o/kept": b"k", "o/sub/c": b"c"})
    assert case.copy("/d", "/o", dir_copy_contents=True) == {
        "o/a": b"new",
        "o/kept": b"k",
        "o/sub/b": b"b",
        "o/sub/c": b"c",
    }


@pytest.mark.parametrize(
    ("source", "dest", "action", "message"),
    [
        ({}, {}, ("/missing", "/o"), "lstat /missing: no such file or directory"),
        ({}, {}, ("/missing*", "/o"), "/missing* not found"),
        ({"d/a": b""}, {"o": b""}, ("/d/.", "/o"), "cannot copy to non-directory: /o"),
        ({"a": b""}, {"o/a/b": b""}, ("/a", "/o/"), "cannot replace to directory /o/a with file"),
        ({"d/x/a": b""}, {"o/x": b""}, ("/d", "/o"), "cannot copy to non-directory: /o/x"),
        ({"a": b""}, {"o": b""}, ("/a", "/o/p/"), "lstat /o/p: not a directory"),
        ({"a/b": "x", "x": "a/b"}, {}, ("/x/c", "/o"), "lstat /x/c: no such file or directory"),
        ({"x": "y", "y": "x"}, {}, ("/x/c", "/o"), "too many symbolic links"),
        ({"a": b""}, {}, ("/a/b", "/o"), "lstat /a/b: not a directory"),
    ],
)
def test_refuses_with_the_path_of_the_file_system(
    case: Case, source: Tree, dest: Tree, action: tuple[str, str], message: str
) -> None:
    build(case.source, source)
    build(case.dest, dest)
    with pytest.raises(FileOpError) as caught:
        case.copy(*action, dir_copy_contents=True, allow_wildcard="*" in action[0])
    assert message in str(caught.value)
    assert str(case.dest) not in str(caught.value)


def test_replaces_what_is_in_the_way_where_that_is_wanted(case: Case) -> None:
    build(case.source, {"d/a": b"A", "d/b/c": b"C", "d/l": "there"})
    build(case.dest, {"a/x": b"", "b": "/etc", "l/y": b""})
    more = {"dir_copy_contents": True, "always_replace_existing_dest_paths": True}
    assert case.copy("/d", "/", **more) == {"a": b"A", "b/c": b"C", "l": "there"}


def test_the_destination_must_be_there_unless_it_may_be_made(case: Case) -> None:
    build(case.source, {"a": b""})
    with pytest.raises(FileOpError, match="failed to stat /x/y"):
        apply(Copy("/a", "/x/y"), case.dest, case.source, lambda position: None)


def test_keeps_modes_times_links_and_attributes(case: Case) -> None:
    build(case.source, {"d/a": b"A" * 300_000, "d/sub/b": b""})
    os.link(case.source / "d/a", case.source / "d/sub/again")
    (case.source / "d/a").chmod(0o4751)
    (case.source / "d/sub").chmod(0o1700)
    os.setxattr(case.source / "d/a", "user.note", b"n")
    os.setxattr(case.source / "d/sub", "user.note", b"s")
    for name, stamp in (("d/a", 1), ("d/sub/b", 2), ("d/sub", 3), ("d", 4)):
        os.utime(case.source / name, ns=(stamp, stamp * 10**9 + 7))
    case.copy("/d", "/o")
    first, again = (case.dest / "o/a").stat(), (case.dest / "o/sub/again").stat()
    assert (first.st_ino, first.st_nlink) == (again.st_ino, 2)
    assert (stat.S_IMODE(first.st_mode), first.st_size) == (0o4751, 300_000)
    assert stat.S_IMODE((case.dest / "o/sub").stat().st_mode) == 0o1700
    assert [(case.dest / n).stat().st_mtime_ns for n in ("o/a", "o/sub/b", "o/sub", "o")] == [
        stamp * 10**9 + 7 for stamp in (1, 2, 3, 4)
    ]
    assert os.getxattr(case.dest / "o/a", "user.note") == b"n"
    assert os.getxattr(case.dest / "o/sub", "user.note") == b"s"


def test_a_directory_that_is_there_takes_the_time_but_not_the_mode_of_the_copied_one(case: Case) -> None:
    build(case.source, {"d/a": b""})
    (case.source / "d").chmod(0o700)
    os.utime(case.source / "d", ns=(5, 5))
    build(case.dest, {"o": None})
    (case.dest / "o").chmod(0o711)
    case.copy("/d", "/o", dir_copy_contents=True)
    found = (case.dest / "o").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o711, 5)


def test_a_mode_and_a_time_are_for_all_of_the_copy(case: Case) -> None:
    build(case.source, {"d/a": b"", "d/s/b": b""})
    case.copy("/d", "/p/o", mode=0o640, timestamp=10**9)
    for name in ("p", "p/o", "p/o/a", "p/o/s", "p/o/s/b"):
        found = (case.dest / name).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o640, 10**9), name


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("u=rwx,g=rx,o=r", 0o600, 0o754),
        ("a+X", 0o644, 0o644),
        ("a+X", 0o744, 0o755),
        ("go-w", 0o666, 0o644),
        ("+x", 0o644, 0o755),
        ("go=u", 0o640, 0o666),
        ("u+s,g+s,+t", 0o755, 0o7755),
        ("=", 0o7777, 0o1000),
        ("u=rw,go=u-w", 0o777, 0o644),
        ("o+s", 0o755, 0o755),
        ("755", 0o600, 0o755),
    ],
)
def test_symbolic_modes(case: Case, text: str, before: int, after: int) -> None:
    build(case.source, {"a": b""})
    (case.source / "a").chmod(before)
    case.copy("/a", "/b", mode_str=text, mode=0)
    assert oct(stat.S_IMODE((case.dest / "b").stat().st_mode)) == oct(after)


@pytest.mark.parametrize("text", ["u", "u=q", "8", "77777", "u=rw,", "x", "u+rw;g"])
def test_modes_that_are_none(case: Case, text: str) -> None:
    build(case.source, {"a": b""})
    with pytest.raises(FileOpError, match="invalid mode"):
        case.copy("/a", "/b", mode_str=text)


@needs_root
def test_owners_by_name_and_number(case: Case) -> None:
    build(case.source, {"d/a": b""})
    os.chown(case.source / "d/a", 7, 8)
    build(case.dest, {"etc/passwd": b"broken\nsvc:x:42:43::/:/bin/sh\n", "etc/group": b"staff:x:50:\n"})

    def owner(user: UserName | int | None, group: UserName | int | None = None) -> tuple[int, int]:
        case.copy("/d", "/o", owner=ChownOpt(user, group), dir_copy_contents=True)
        found = (case.dest / "o/a").stat()
        return found.st_uid, found.st_gid

    assert owner(UserName("svc", 0)) == (42, 43)
    assert owner(UserName("svc", 0), UserName("staff", 0)) == (42, 50)
    assert owner(UserName("nobody-knows", 0)) == (0, 0)
    assert owner(1000) == (1000, 1000)
    assert owner(1000, 5) == (1000, 5)
    assert owner(None, UserName("staff", 0)) == (0, 50)
    case.copy("/d", "/kept")
    assert (case.dest / "kept/a").stat().st_uid == 7
    with pytest.raises(FileOpError, match="invalid user index"):
        owner(UserName("svc", -1))


@needs_root
def test_devices_pipes_and_sockets(case: Case) -> None:
    build(case.source, {"d/a": b""})
    os.mknod(case.source / "d/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(case.source / "d/pipe", 0o640)
    os.mknod(case.source / "d/sock", stat.S_IFSOCK | 0o600)
    case.copy("/d", "/o")
    kinds = {name: (case.dest / "o" / name).lstat() for name in ("null", "pipe", "sock")}
    assert stat.S_ISCHR(kinds["null"].st_mode)
    assert kinds["null"].st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO(kinds["pipe"].st_mode)
    assert stat.S_IMODE(kinds["pipe"].st_mode) == 0o640
    assert stat.S_ISREG(kinds["sock"].st_mode)


def archive(*names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 2
            tar.addfile(info, io.BytesIO(b"hi"))
    return out.getvalue()


def test_unpacks_archives_and_copies_the_rest(case: Case, tmp_path: Path) -> None:
    import bz2
    import gzip
    import lzma

    plain = archive("x/.wh.name", "x/y")
    for name, data in {
        "t.tar": plain,
        "t.gz": gzip.compress(plain),
        "t.bz2": bz2.compress(plain),
        "t.xz": lzma.compress(plain),
        "t.zst": zstandard.compress(plain),
    }.items():
        build(case.source, {name: data})
        tree = case.copy(f"/{name}", f"/{name}-out", attempt_unpack=True)
        assert tree[f"{name}-out/x/y"] == b"hi"
        assert tree[f"{name}-out/x/.wh.name"] == b"hi"
    build(case.source, {"text": b"no archive"})
    assert case.copy("/text", "/plain", attempt_unpack=True)["plain"] == b"no archive"


def test_a_hostile_archive_stays_inside(case: Case, tmp_path: Path) -> None:
    for number, name in enumerate(("../../../escaped", "/etc/../../escaped")):
        build(case.source, {f"evil{number}.tar": archive(name)})
        with pytest.raises(FileOpError, match="leaves the root"):
            case.copy(f"/evil{number}.tar", "/o/", attempt_unpack=True)
    assert not list(tmp_path.rglob("escaped"))


def test_an_archive_that_would_fill_the_disk(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    build(case.source, {"t.tar": archive("a", "b")})
    monkeypatch.setattr("brickyard.oci.layer.free_space", lambda folder: 600)
    with pytest.raises(FileOpError, match=r"failed to unpack /t\.tar: .*larger than the limit"):
        case.copy("/t.tar", "/o/", attempt_unpack=True)


def test_a_damaged_archive_is_an_error(case: Case) -> None:
    build(case.source, {"t.tar": archive("a", "b")[:1100]})
    with pytest.raises(FileOpError, match=r"failed to unpack /t\.tar"):
        case.copy("/t.tar", "/o/", attempt_unpack=True)


def test_makes_directories(case: Case) -> None:
    assert case.do(MkDir("/a/b/c", 0o750, make_parents=True, timestamp=10**9)) == {"a/b/c": None}
    found = (case.dest / "a/b").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o750, 10**9)
    assert case.do(MkDir("/a/b", 0o700)) == {"a/b/c": None}
    assert stat.S_IMODE((case.dest / "a/b").stat().st_mode) == 0o750
    with pytest.raises(FileOpError, match="mkdir /x/y: no such file or directory"):
        case.do(MkDir("/x/y", 0o755))
    case.do(MkFile("/f", 0o644, b""))
    with pytest.raises(FileOpError, match="lstat /f/g: not a directory"):
        case.do(MkDir("/f/g", 0o755, make_parents=True))


def test_writes_files(case: Case) -> None:
    assert case.do(MkFile("/f", 0o640, b"one", timestamp=10**9)) == {"f": b"one"}
    assert stat.S_IMODE((case.dest / "f").stat().st_mode) == 0o640
    assert case.do(MkFile("f", 0o777, b"two"))["f"] == b"two"
    assert stat.S_IMODE((case.dest / "f").stat().st_mode) == 0o640
    build(case.dest, {"l": "/f"})
    assert case.do(MkFile("/l", 0o644, b"three"))["f"] == b"three"
    for bad, message in (("/", "file exists"), ("/no/f", "open /no/f: no such file or directory")):
        with pytest.raises(FileOpError, match=message):
            case.do(MkFile(bad, 0o644, b""))
    build(case.dest, {"dir": None})
    with pytest.raises(FileOpError, match="open /dir: is a directory"):
        case.do(MkFile("/dir", 0o644, b""))


def test_a_file_that_is_written_anew_leaves_its_other_names_alone(case: Case, tmp_path: Path) -> None:
    build(case.dest, {"f": b"shared"})
    os.link(case.dest / "f", tmp_path / "elsewhere")
    case.do(MkFile("/f", 0o644, b"mine"))
    assert (tmp_path / "elsewhere").read_bytes() == b"shared"


def test_makes_symbolic_links(case: Case) -> None:
    build(case.dest, {"d": None})
    assert case.do(Symlink("../../anywhere", "/d/l", timestamp=10**9))["d/l"] == "../../anywhere"
    assert (case.dest / "d/l").lstat().st_mtime_ns == 10**9
    build(case.dest, {"f": b""})
    with pytest.raises(FileOpError, match=r"symlink x /f: file exists"):
        case.do(Symlink("x", "/f"))


def test_removes(case: Case) -> None:
    tree: Tree = {"a": b"", "b/c/d": b"", "keep": b"", "x1": b"", "x2/y": b"", "broken": "nowhere"}
    build(case.dest, tree)
    case.do(Rm("/a"))
    case.do(Rm("b"))
    case.do(Rm("/broken"))
    assert case.do(Rm("/x*", allow_wildcard=True)) == {"keep": b""}
    with pytest.raises(FileOpError, match="stat /gone: no such file or directory"):
        case.do(Rm("/gone"))
    with pytest.raises(FileOpError, match="stat /gone/er: no such file or directory"):
        case.do(Rm("/gone/er"))
    case.do(Rm("/gone", allow_not_found=True))
    with pytest.raises(FileOpError, match="root"):
        case.do(Rm("/a/.."))


names = st.sampled_from(["a", "b", "c", "..", ".", "", "d"])
paths = st.lists(names, min_size=1, max_size=5).map("/".join).flatmap(lambda p: st.sampled_from([p, "/" + p]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    links=st.dictionaries(st.sampled_from(["a", "b", "c", "d/a", "d/b"]), paths, max_size=4),
    action=st.one_of(
        st.builds(
            Copy,
            src=paths,
            dest=paths,
            follow_symlink=st.booleans(),
            dir_copy_contents=st.booleans(),
            create_dest_path=st.booleans(),
            always_replace_existing_dest_paths=st.booleans(),
        ),
        st.builds(MkDir, path=paths, mode=st.just(0o755), make_parents=st.booleans()),
        st.builds(MkFile, path=paths, mode=st.just(0o644), data=st.just(b"x")),
        st.builds(Symlink, oldpath=paths, newpath=paths),
        st.builds(Rm, path=paths, allow_not_found=st.booleans()),
    ),
)
def test_nothing_outside_of_the_roots_is_ever_touched(
    tmp_path_factory: pytest.TempPathFactory, links: dict[str, str], action: Copy | MkDir | MkFile | Symlink | Rm
) -> None:
    base = tmp_path_factory.mktemp("case")
    outside = {"a": b"outside", "b/c": b"outside", "d/a/b": b"outside"}
    build(base, outside)
    source = build(base / "s/o/u/r", {"d/f": b"inside", "c/x/y": b"inside"})
    dest = build(base / "t/o/u/r", {"d/f": b"inside", "c/x/y": b"inside"})
    for root in (source, dest):
        for name, target in links.items():
            # Not through a link that is there already: this is where the test itself could get out.
            if (root / name).parent in (root, root / "d") and not os.path.lexists(root / name):
                (root / name).symlink_to(target or "/")
    before = read(source)
    said = ""
    try:
        apply(action, dest, source, lambda position: None)
    except FileOpError as error:
        said = str(error)
    assert str(base) not in said
    after = read(base)
    assert {name: after.get(name) for name in outside} == outside
    assert read(source) == before
    assert b"outside" not in [value for name, value in after.items() if name.startswith(("s/", "t/"))]
    assert {name.split("/")[0] for name in after} == {"a", "b", "d", "s", "t"}
