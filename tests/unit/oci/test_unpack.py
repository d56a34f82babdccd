"""Layers laid over directories: what they bring, what they remove, and that nothing hostile leaves the directory."""

import bz2
import io
import lzma
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isal import igzip

from brickyard.oci.layer import LayerError, LayerStats, apply_layer, is_archive
from brickyard.oci.rootfs import Root
from brickyard.oci.tar import Entry, Kind, TarError, TarWriter

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root: owners and devices")
Item = tuple[Entry, bytes]


def file(name: str, data: bytes = b"", mode: int = 0o644, **more: object) -> Item:
    return Entry(name, Kind.FILE, mode, size=len(data), **more), data  # type: ignore[arg-type]


def folder(name: str, mode: int = 0o755, **more: object) -> Item:
    return Entry(name, Kind.DIRECTORY, mode, **more), b""  # type: ignore[arg-type]


def symlink(name: str, target: str) -> Item:
    return Entry(name, Kind.SYMLINK, 0o777, linkname=target), b""


def hardlink(name: str, target: str) -> Item:
    return Entry(name, Kind.LINK, linkname=target), b""


def layer(*items: Item) -> io.BytesIO:
    out = io.BytesIO()
    writer = TarWriter(out)
    for entry, data in items:
        writer.add(entry)
        writer.write(data)
    writer.close()
    out.seek(0)
    return out


def apply(root: Path, *items: Item, overlay: bool = False, owner: bool = False) -> LayerStats:
    return apply_layer(layer(*items), root, overlay=overlay, owner=owner)


def tree(root: Path) -> dict[str, str]:
    """Everything below a directory: kind and content."""
    out = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            out[name] = f"-> {os.readlink(path)}"
        elif path.is_dir():
            out[name] = "/"
        elif path.is_file():
            out[name] = path.read_text(errors="replace")
        else:
            out[name] = f"{stat.S_IFMT(path.lstat().st_mode):o}"
    return out


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "root"
    path.mkdir()
    yield path
    # Some trees here are deeper than what pytest itself can clean up.
    with Root(tmp_path) as above:
        above.remove(above.find("root"))


def test_kinds_modes_and_times(root: Path) -> None:
    mtime = 1_234_567_890_123_456_789
    stats = apply(
        root,
        folder("./", 0o700),
        folder("ro", 0o555, mtime_ns=mtime),
        file("ro/file", b"data", 0o4751, mtime_ns=mtime),
        symlink("ro/link", "/etc/passwd"),
        hardlink("ro/hard", "ro/file"),
        (Entry("ro/pipe", Kind.FIFO, 0o620, mtime_ns=mtime), b""),
    )
    assert (stats.entries, stats.size, stats.skipped) == (5, 4, ())
    assert tree(root) == {
        "ro": "/",
        "ro/file": "data",
        "ro/hard": "data",
        "ro/link": "-> /etc/passwd",
        "ro/pipe": f"{stat.S_IFIFO:o}",
    }
    for name, mode in (("ro", 0o555), ("ro/file", 0o4751), ("ro/pipe", 0o620)):
        found = (root / name).lstat()
        assert stat.S_IMODE(found.st_mode) == mode
        assert found.st_mtime_ns == mtime
    assert (root / "ro/hard").lstat().st_ino == (root / "ro/file").lstat().st_ino
    assert (root / "ro/file").lstat().st_uid == os.geteuid()


@needs_root
def test_owners_and_devices(root: Path) -> None:
    apply(
        root,
        folder("d", uid=1, gid=2),
        file(
            "f",
            b"x",
            0o6755,
            uid=3,
            gid=4,
            xattrs={"user.a": b"\0b", "security.capability": bytes.fromhex("0100000200040000000000000000000000000000")},
        ),
        (Entry("null", Kind.CHAR, 0o666, 5, 6, device=(1, 3)), b""),
        (Entry("l", Kind.SYMLINK, uid=7, gid=8, linkname="nowhere"), b""),
        owner=True,
    )
    assert {name: (root / name).lstat().st_uid for name in "df"} == {"d": 1, "f": 3}
    assert stat.S_IMODE((root / "f").stat().st_mode) == 0o6755
    assert os.getxattr(root / "f", "security.capability")
    assert os.getxattr(root / "f", "user.a") == b"\0b"
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)
    assert (root / "l").lstat().st_gid == 8


def test_devices_are_skipped_without_owners(root: Path) -> None:
    stats = apply(root, (Entry("sda", Kind.BLOCK, device=(8, 0)), b""), file("f"))
    assert stats.skipped == ("sda",)
    assert tree(root) == {"f": ""}


@needs_root
def test_one_owner_for_all(root: Path) -> None:
    apply_layer(layer(file("f", uid=5)), root, overlay=False, owner=True, chown=(11, 12))
    assert ((root / "f").stat().st_uid, (root / "f").stat().st_gid) == (11, 12)


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        igzip.compress,
        lambda data: igzip.compress(data[:700]) + igzip.compress(data[700:]),
        lambda data: zstandard.compress(data[:700]) + zstandard.compress(data[700:]),
        lambda data: b"\x50\x2a\x4d\x18\x04\0\0\0skip" + zstandard.compress(data),
        bz2.compress,
        lzma.compress,
    ],
)
def test_compressions(root: Path, pack: Callable[[bytes], bytes]) -> None:
    plain = layer(file("f", b"data" * 1000)).getvalue()
    stats = apply_layer(io.BytesIO(pack(plain)), root, overlay=False, owner=False)
    assert stats.diff_id == apply_layer(io.BytesIO(plain), root, overlay=False, owner=False).diff_id
    assert tree(root) == {"f": "data" * 1000}


@pytest.mark.parametrize(
    "pack",
    [igzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress, bz2.compress, lzma.compress],
)
def test_damaged_compression(root: Path, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(layer(file("f", os.urandom(5000))).getvalue())
    for broken in (packed[: len(packed) // 2], packed[:50] + b"nonsense" * 3 + packed[74:]):
        with pytest.raises(LayerError):
            apply_layer(io.BytesIO(broken), root, overlay=False, owner=False)


def test_a_bomb(root: Path) -> None:
    bomb = zstandard.compress(layer(file("f", bytes(50_000_000))).getvalue())
    with pytest.raises(LayerError, match="limit"):
        apply_layer(io.BytesIO(bomb), root, overlay=False, owner=False, max_size=1_000_000)


def test_later_entries_replace_earlier_ones(root: Path) -> None:
    apply(root, file("a", b"1"), folder("d"), file("d/x"), symlink("l", "d"))
    apply(root, folder("a"), file("a/y"), file("d", b"2"), folder("l"))
    assert tree(root) == {"a": "/", "a/y": "", "d": "2", "l": "/"}


def test_directories_are_merged(root: Path) -> None:
    apply(root, folder("d"), file("d/x", b"1"))
    apply(root, folder("d", 0o711), file("d/y", b"2"))
    assert tree(root) == {"d": "/", "d/x": "1", "d/y": "2"}
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o711


def test_directories_that_are_not_listed(root: Path, tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    (lower / "a/b").mkdir(parents=True)
    (lower / "a").chmod(0o2750)
    os.setxattr(lower / "a", "user.note", b"x")
    apply_layer(layer(file("a/b/c"), file("n/m")), root, overlay=False, owner=ROOT, parents=[tmp_path, lower])
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o2750
    assert os.getxattr(root / "a", "user.note") == b"x"
    assert stat.S_IMODE((root / "n").stat().st_mode) == 0o755


def test_whiteouts_remove(root: Path) -> None:
    apply(root, folder("d"), file("d/x"), folder("d/e"), file("d/e/y"), file("z"), symlink("l", "d"))
    apply(root, file(".wh.z"), file("d/.wh.e"), file("d/.wh.none"), file("nowhere/.wh.x"), file(".wh.l"))
    assert tree(root) == {"d": "/", "d/x": ""}


def test_an_opaque_directory_keeps_what_its_layer_brings(root: Path) -> None:
    apply(root, folder("d"), file("d/old"), folder("d/e"), file("d/e/old"), folder("d/f"), file("d/f/old"))
    apply(root, folder("d"), file("d/new"), folder("d/e"), file("d/e/new"), file("d/.wh..wh..opq"), file("d/later"))
    assert tree(root) == {"d": "/", "d/new": "", "d/e": "/", "d/e/new": "", "d/later": ""}


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_spares_its_own_layer(root: Path, first: bool) -> None:
    apply(root, file("f", b"old"), folder("d"), file("d/old"))
    white, new = [file(".wh.f"), file(".wh.d")], [file("f", b"new"), folder("d"), file("d/new")]
    apply(root, *(white + new if first else new + white))
    assert tree(root) == {"f": "new", "d": "/", "d/new": ""}


@needs_root
@pytest.mark.parametrize("userxattr", [False, True])
def test_overlay_whiteouts(root: Path, userxattr: bool) -> None:
    items = [
        folder("d"),
        file("d/.wh..wh..opq"),
        file("d/new"),
        file("d/.wh.x"),
        file("a/b/.wh.y"),
        file(".wh.n"),
        folder("n"),
    ]
    apply_layer(layer(*items), root, overlay=True, owner=True, userxattr=userxattr)
    key = f"{'user' if userxattr else 'trusted'}.overlay.opaque"
    char = f"{stat.S_IFCHR:o}"
    assert tree(root) == {"a": "/", "a/b": "/", "a/b/y": char, "d": "/", "d/new": "", "d/x": char, "n": "/"}
    assert (root / "d/x").stat().st_rdev == 0
    assert os.getxattr(root / "d", key) == b"y"
    assert os.getxattr(root / "n", key) == b"y"
    assert key not in os.listxattr(root / "a")


def test_directories_that_are_closed(root: Path) -> None:
    apply(root, folder("d"), file("d/x"), file("d/y"), folder("d", 0o555, mtime_ns=5 * 10**9))
    apply(root, file("d/.wh.x"), file("d/z"))
    assert tree(root) == {"d": "/", "d/y": "", "d/z": ""}
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o555


def test_whiteouts_as_plain_names(root: Path) -> None:
    apply_layer(layer(file(".wh.x", b"1"), file(".wh..wh..opq")), root, overlay=False, owner=False, whiteouts=False)
    assert tree(root) == {".wh.x": "1", ".wh..wh..opq": ""}


def test_overlay_attributes_are_not_taken_from_layers(root: Path) -> None:
    keys = {f"{space}.overlay.{name}": b"/etc" for space in ("trusted", "user") for name in ("redirect", "opaque")}
    apply(root, folder("d", xattrs=keys), file("f", xattrs=keys), overlay=True, owner=ROOT)
    assert os.listxattr(root / "d") == os.listxattr(root / "f") == []


def test_entries_go_through_links_inside_the_root(root: Path, tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    apply(
        root, folder("usr/lib"), symlink("lib", "/usr/lib"), symlink("up", "../../../usr"), symlink("new", "made/here")
    )
    apply(root, file("lib/a", b"1"), file("up/b", b"2"), file("new/c", b"3"))
    assert tree(root) == {
        "lib": "-> /usr/lib",
        "made": "/",
        "made/here": "/",
        "made/here/c": "3",
        "new": "-> made/here",
        "up": "-> ../../../usr",
        "usr": "/",
        "usr/b": "2",
        "usr/lib": "/",
        "usr/lib/a": "1",
    }
    assert list((tmp_path / "usr").iterdir()) == []


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([file("../x")], "leaves the root"),
        ([file("a/../../x")], "leaves the root"),
        ([hardlink("x", "../outside")], "leaves the root"),
        ([hardlink("x", "/")], "root directory"),
        ([hardlink("x", "none")], "No such file"),
        ([folder("d"), hardlink("x", "d")], "not permitted"),
        ([file("f"), file("f/x")], "Not a directory"),
        ([symlink("a", "b"), symlink("b", "a"), file("a/x")], "too many symbolic links"),
        ([file("a" * 300)], "too long"),
        ([file("a/" * 3000 + "b")], "too long"),
        ([file(".wh.")], "not a whiteout"),
        ([file(".wh...")], "not a whiteout"),
        ([file("d/.wh..wh.plnk")], "not a whiteout"),
    ],
)
def test_refused(root: Path, items: list[Item], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        apply(root, *items)


def test_absolute_names_are_below_the_root(root: Path) -> None:
    apply(root, file("/abs/x", b"1"), file("a/../y", b"2"), file("//z", b"3"))
    assert tree(root) == {"abs": "/", "abs/x": "1", "y": "2", "z": "3"}


@pytest.mark.parametrize(
    "items",
    [
        [symlink("a", "d/" * 1000), symlink("a/b", "d/" * 1100), file("a/b/x")],
        [folder("d/" * 1000), symlink("l", "d/" * 1000 + "x/../" * 300), file("l/y")],
    ],
)
def test_links_that_make_long_paths(root: Path, items: list[Item]) -> None:
    with pytest.raises(LayerError, match="longer than a path"):
        apply(root, *items)


def test_deep_trees_are_removed(root: Path) -> None:
    apply(root, folder("d/" * 1900))
    apply(root, file(".wh.d"))
    assert tree(root) == {}


def names(words: str) -> st.SearchStrategy[str]:
    part = st.sampled_from([*words.split(), "..", ".", ""])
    return st.lists(part, min_size=1, max_size=4).map("/".join)


@st.composite
def hostile(draw: st.DrawFn) -> Item:
    name = draw(names("a b c .wh.a .wh..wh..opq"))
    kind = draw(st.sampled_from([Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.LINK, Kind.CHAR]))
    slash = draw(st.sampled_from(["", "/"]))
    target = slash + draw(names("a b c outside secret"))
    link = target if kind in (Kind.SYMLINK, Kind.LINK) else ""
    data = b"changed" if kind is Kind.FILE else b""
    mode = draw(st.sampled_from([0o755, 0o4000, 0o777]))
    return Entry(slash + name, kind, mode, size=len(data), linkname=link, device=(1, 3)), data


def outside(base: Path) -> Iterator[tuple[str, object]]:
    for path in sorted(base.rglob("*")):
        if path.is_relative_to(base / "x/root"):
            continue
        found = path.lstat()
        yield str(path), (found.st_mode, found.st_nlink, found.st_mtime_ns, found.st_uid, found.st_size)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(hostile(), min_size=1, max_size=8), overlay=st.booleans(), reference=st.booleans())
def test_nothing_outside_of_the_root_changes(
    tmp_path_factory: pytest.TempPathFactory, items: list[Item], overlay: bool, reference: bool
) -> None:
    base = tmp_path_factory.mktemp("hostile")
    root = base / "x/root"
    root.mkdir(parents=True)
    (base / "outside").mkdir()
    (base / "x/secret").write_text("secret")
    (base / "x/a").mkdir()
    before = dict(outside(base))
    # One link out of the root is there already, as an earlier layer may have left it.
    (root / "c").symlink_to("../../outside" if reference else base / "outside")
    try:
        apply(root, *items, overlay=overlay and ROOT, owner=ROOT)
    except LayerError:
        pass
    assert dict(outside(base)) == before


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=2000))
def test_noise_is_a_layer_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = tmp_path_factory.mktemp("noise")
    for head in (b"", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\0"):
        try:
            apply_layer(io.BytesIO(head + data), root, overlay=False, owner=False)
        except LayerError:
            pass


def test_recognising_archives() -> None:
    assert is_archive(layer(file("a")))
    assert is_archive(io.BytesIO(igzip.compress(layer(file("a")).getvalue())))
    for other in (b"", b"text", b"\x1f\x8b\x08\0nonsense", bytes(1024), b"x" * 5000):
        assert not is_archive(io.BytesIO(other))


def test_layers_of_tarfile(root: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("é" * 70)
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    out.seek(0)
    apply_layer(out, root, overlay=False, owner=False)
    assert tree(root) == {"é" * 70: "abc"}


def test_the_writer_is_strict() -> None:
    with pytest.raises(TarError):
        layer((Entry("a", Kind.FILE, size=1), b""), file("b"))
