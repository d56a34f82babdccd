"""Layer tars from changes: what they hold, that they are deterministic, and that they lead back to the same tree."""

import gzip
import hashlib
import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.oci import descriptor as d
from brickyard.oci.compression import CompressionError, compressor, decompress, detect
from brickyard.oci.layer import Change, Compression, LayerError, LayerWriter, apply_layer, compress, write_layer

KINDS: list[Compression] = ["uncompressed", "gzip", "zstd"]


def packed(*changes: Change, **more: object) -> bytes:
    out = io.BytesIO()
    write_layer(changes, out, **more)  # type: ignore[arg-type]
    return out.getvalue()


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name + "/" * member.isdir(): member for member in tar.getmembers()}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    (root / "a/b").mkdir(parents=True)
    (root / "a/file").write_text("data")
    (root / "a/file").chmod(0o4755)
    (root / "a/b/link").symlink_to("../file")
    os.link(root / "a/file", root / "z")
    os.utime(root / "a/file", ns=(10**9, 1_700_000_000_999_999_999))
    os.utime(root / "a/b", ns=(10**9, 5 * 10**9))
    return root


def test_kinds_and_order(files: Path) -> None:
    paths = ["z", "a/b/link", "/a/file", "a", "./a/b"]
    found = members(packed(*(Change(path, "add", files / path.strip("/")) for path in paths)))
    assert list(found) == ["a/", "a/b/", "a/b/link", "a/file", "z"]
    assert found["z"].islnk()
    assert found["z"].linkname == "a/file"
    assert found["a/b/link"].linkname == "../file"
    assert (found["a/file"].mode, found["a/file"].mtime, found["a/file"].size) == (0o4755, 1_700_000_000, 4)
    assert {(member.uname, member.gname) for member in found.values()} == {("", "")}


def test_directories_come_before_their_content(tmp_path: Path) -> None:
    for name in ("a-b", "a", "a/c", "a.d"):
        (tmp_path / name).mkdir()
    changes = [Change(name, "add", tmp_path / name) for name in ("a.d", "a/c", "a-b", "a")]
    assert list(members(packed(*changes))) == ["a/", "a/c/", "a-b/", "a.d/"]


def test_deletes(files: Path) -> None:
    data = packed(Change("a/gone", "delete"), Change("gone", "delete"), Change("a", "add", files / "a"))
    assert list(members(data)) == ["a/", "a/.wh.gone", ".wh.gone"]
    assert members(data)["a/.wh.gone"].mtime == 0


def test_a_directory_in_place_of_another(files: Path) -> None:
    new = [Change("a", "delete"), Change("a", "add", files / "a"), Change("a/file", "add", files / "a/file")]
    assert list(members(packed(*new))) == ["a/", "a/.wh..wh..opq", "a/file"]
    # A file replaces by itself.
    assert list(members(packed(Change("z", "delete"), Change("z", "add", files / "z")))) == ["z"]


def test_parents_are_added_from_the_root(files: Path) -> None:
    (files / "a").chmod(0o700)
    data = packed(Change("a/b/link", "add", files / "a/b/link"), Change("a/b/y", "delete"), root=files)
    assert list(members(data)) == ["a/", "a/b/", "a/b/link", "a/b/.wh.y"]
    with pytest.raises(LayerError, match="No such file"):
        packed(Change("none/y", "delete"), root=files)
    assert members(data)["a/"].mode == 0o700


def test_times_and_owners(files: Path) -> None:
    changes = [Change("a/file", "add", files / "a/file"), Change("a/b", "add", files / "a/b")]
    found = members(packed(*changes, timestamp=100, owner=(7, 8)))
    assert {name: member.mtime for name, member in found.items()} == {"a/b/": 5, "a/file": 100}
    assert {(member.uid, member.gid) for member in found.values()} == {(7, 8)}


def test_attributes(files: Path) -> None:
    os.setxattr(files / "z", "user.note", b"\0\xff")
    os.setxattr(files / "z", "user.overlay.origin", b"x")
    data = packed(Change("z", "add", files / "z"))
    assert b"SCHILY.xattr.user.note=\0\xff\n" in data
    assert b"overlay" not in data


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: capabilities and devices")
def test_capabilities_and_devices(files: Path) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(files / "z", "security.capability", capability)
    os.mknod(files / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    data = packed(Change("z", "add", files / "z"), Change("null", "add", files / "null"))
    assert b"SCHILY.xattr.security.capability=" + capability in data
    assert (members(data)["null"].devmajor, members(data)["null"].devminor) == (1, 3)


def test_sockets_are_left_out(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert members(packed(Change("socket", "add", files / "socket"))) == {}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Change("x", "add"), "without a source"),
        (Change("x", "add", Path("/nowhere/x")), "No such file"),
        (Change("a/.wh.x", "add", Path("/dev/null")), "begins with"),
        (Change(".wh.x", "delete"), "begins with"),
        (Change("../x", "delete"), "leaves the root"),
    ],
)
def test_refused(change: Change, reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        packed(change)


TREE = st.recursive(
    st.one_of(st.binary(max_size=2000), st.text("ab/.", min_size=1, max_size=9)),
    lambda below: st.dictionaries(st.sampled_from(["a", "b", "é", "n" * 120]), below, max_size=3),
    max_leaves=8,
)


def grow(path: Path, tree: object) -> None:
    match tree:
        case dict():
            path.mkdir()
            for name, below in tree.items():
                grow(path / name, below)
        case bytes():
            path.write_bytes(tree)
        case str():
            path.symlink_to(tree)


def look(root: Path) -> dict[str, tuple[object, ...]]:
    out: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        found = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        time = 0 if path.is_symlink() else found.st_mtime_ns // 10**9
        out[str(path.relative_to(root))] = (found.st_mode, content, time)
    return out


@settings(max_examples=60, deadline=None)
@given(tree=st.dictionaries(st.sampled_from("xyz"), TREE, max_size=3), kind=st.sampled_from(KINDS))
def test_a_tree_survives(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object], kind: Compression) -> None:
    base = tmp_path_factory.mktemp("tree")
    grow(base / "from", tree)
    (base / "to").mkdir()
    out = io.BytesIO()
    writer = LayerWriter(out, kind)
    paths = list((base / "from").rglob("*"))
    write_layer([Change(str(path.relative_to(base / "from")), "add", path) for path in paths], writer)
    blob = writer.close()
    out.seek(0)
    assert apply_layer(out, base / "to", overlay=False, owner=False).diff_id == blob.diff_id
    assert look(base / "to") == look(base / "from")
    shutil.rmtree(base)


# Blobs


def unpacked(stream: io.BytesIO) -> bytes:
    content = decompress(stream)
    return b"".join(iter(lambda: content.read(1 << 16), b""))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 300_000, 1 << 20])
def test_blobs(kind: Compression, size: int) -> None:
    data = (os.urandom(1000) + bytes(3000)) * (size // 4000 + 1)
    data = data[:size]
    first, second = io.BytesIO(), io.BytesIO()
    blob = compress(io.BytesIO(data), first, kind)
    # However the content is cut, the bytes are the same.
    cuts = (data[at : at + 777] for at in range(0, len(data), 777))
    assert compress(cuts, second, kind) == blob
    assert first.getvalue() == second.getvalue()
    assert blob.diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert blob.digest == f"sha256:{hashlib.sha256(first.getvalue()).hexdigest()}"
    assert blob.size == len(first.getvalue())
    first.seek(0)
    assert unpacked(first) == data


@pytest.mark.parametrize(("kind", "levels"), [("gzip", range(10)), ("zstd", (1, 3, 22)), ("uncompressed", (None,))])
def test_levels(kind: Compression, levels: list[int | None]) -> None:
    for level in levels:
        out = io.BytesIO()
        compress([b"data" * 1000], out, kind, level)
        out.seek(0)
        assert unpacked(out) == b"data" * 1000


@pytest.mark.parametrize(("kind", "level"), [("gzip", 10), ("gzip", -1), ("zstd", 0), ("zstd", 23), ("lz4", None)])
def test_wrong_levels(kind: Compression, level: int | None) -> None:
    with pytest.raises(ValueError, match=str(level) if level is not None else kind):
        compressor(kind, level)


def test_gzip_names_no_time_and_no_system() -> None:
    out = io.BytesIO()
    compress([b"data"], out, "gzip")
    assert out.getvalue()[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    assert gzip.decompress(out.getvalue()) == b"data"


def test_other_programs_read_our_blobs() -> None:
    for kind, command in (("gzip", "gzip"), ("zstd", "zstd")):
        program = shutil.which(command)
        if program is None:
            pytest.skip(f"needs {command}")
        out = io.BytesIO()
        compress([b"data" * 100_000], out, kind)  # type: ignore[arg-type]
        done = subprocess.run([program, "-dc"], input=out.getvalue(), capture_output=True, check=True)
        assert done.stdout == b"data" * 100_000


def test_descriptors() -> None:
    blob = compress([b""], io.BytesIO(), "gzip")
    assert blob.descriptor() == d.Descriptor(d.OCI_LAYER_GZIP, blob.digest, blob.size)
    assert blob.descriptor(docker=True).media_type == d.DOCKER_LAYER_GZIP
    assert compress([], io.BytesIO(), "zstd").descriptor().media_type == d.OCI_LAYER_ZSTD


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0.01, 0.99))
def test_no_cut_goes_unseen(kind: Compression, cut: float) -> None:
    out = io.BytesIO()
    compress([bytes(1000), os.urandom(1000)], out, kind)
    data = out.getvalue()[: max(6, int(len(out.getvalue()) * cut))]
    with pytest.raises(CompressionError):
        unpacked(io.BytesIO(data))


def test_detection() -> None:
    assert [detect(head) for head in (b"", b"BZh9..", b"\xfd7zXZ\0", b"\x5f\x2a\x4d\x18..", b"text..")] == [
        "uncompressed",
        "bzip2",
        "xz",
        "zstd",
        "uncompressed",
    ]
