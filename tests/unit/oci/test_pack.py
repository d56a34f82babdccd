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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.oci import descriptor as d
from brickyard.oci.compression import CompressionError, compressor, decompress, detect
from brickyard.oci.layer import (
    Compression,
    Folder,
    LayerError,
    LayerPacker,
    LayerWriter,
    Stack,
    apply_layer,
    compress,
    of_trees,
    of_upper,
    pack,
)

KINDS: list[Compression] = ["uncompressed", "gzip", "zstd"]


def packed(now: Path, base: Path | None = None, **more: Any) -> bytes:
    """The layer of a directory, as what it changes of another."""
    out = io.BytesIO()
    root = os.fsencode(now)
    pack(of_trees(None if base is None else os.fsencode(base), root), LayerPacker(out, root, **more))
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


@pytest.fixture
def copy(files: Path, tmp_path: Path) -> Path:
    """The same again, to be changed."""
    subprocess.run(["cp", "-a", files, tmp_path / "copy"], check=True)
    return tmp_path / "copy"


def test_kinds_and_order(files: Path) -> None:
    found = members(packed(files))
    assert list(found) == ["a/", "a/b/", "a/b/link", "a/file", "z"]
    assert found["z"].islnk()
    assert found["z"].linkname == "a/file"
    assert found["a/b/link"].linkname == "../file"
    assert (found["a/file"].mode, found["a/file"].mtime, found["a/file"].size) == (0o4755, 1_700_000_000, 4)
    assert {(member.uname, member.gname) for member in found.values()} == {("", "")}


def test_names_are_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    for name in ("a-b", "a", "a/c", "a.d", "\udcff", "\uffff"):
        (tmp_path / name).mkdir()
    assert list(members(packed(tmp_path))) == ["a/", "a/c/", "a-b/", "a.d/", "\uffff/", "\udcff/"]


def test_an_unchanged_tree_has_no_changes(files: Path, copy: Path) -> None:
    assert packed(copy, files) == bytes(1024)
    # A directory's time is none of a layer's business.
    os.utime(copy / "a/b", (9, 9))
    assert packed(copy, files) == bytes(1024)
    os.utime(files / "a/file", (9, 9))
    os.utime(copy / "a/file", (9, 9))
    assert packed(copy, files) == bytes(1024)
    # A time of whole seconds may have been cut by an archive.
    (copy / "a/file").write_text("daTa")
    os.utime(copy / "a/file", (9, 9))
    assert list(members(packed(copy, files))) == ["a/", "a/file", "z"]


def test_deletes(files: Path, copy: Path) -> None:
    shutil.rmtree(copy / "a/b")
    (copy / "z").unlink()
    found = members(packed(copy, files))
    assert list(found) == ["a/", "a/.wh.b", ".wh.z"]
    assert (found["a/.wh.b"].mtime, found["a/.wh.b"].mode) == (0, 0)


def test_one_in_place_of_another(files: Path, copy: Path) -> None:
    shutil.rmtree(copy / "a/b")
    (copy / "a/b").write_text("a file now")
    (copy / "z").unlink()
    (copy / "z/x").mkdir(parents=True)
    assert list(members(packed(copy, files))) == ["a/", "a/b", "z/", "z/x/"]


def test_a_changed_file_brings_its_other_names_along(files: Path, copy: Path) -> None:
    (copy / "z").write_text("changed")
    found = members(packed(copy, files))
    assert list(found) == ["a/", "a/file", "z"]
    assert found["z"].linkname == "a/file"


def test_a_new_name_of_an_old_file(files: Path, copy: Path) -> None:
    os.link(copy / "z", copy / "y")
    found = members(packed(copy, files))
    # The names before it were not written, and are written as links now.
    assert list(found) == ["y", "a/", "a/file", "z"]
    assert {found[name].linkname for name in ("a/file", "z")} == {"y"}


def test_parents_are_written_once(files: Path, copy: Path) -> None:
    (copy / "a").chmod(0o700)
    (copy / "a/b/x").touch()
    (copy / "a/b/y").touch()
    found = members(packed(copy, files))
    assert list(found) == ["a/", "a/b/", "a/b/x", "a/b/y"]
    assert found["a/"].mode == 0o700


def test_times_and_owners(files: Path) -> None:
    found = members(packed(files, timestamp=100, owner=(7, 8)))
    assert {name: member.mtime for name, member in found.items() if name.startswith("a/b/")} == {
        "a/b/": 5,
        "a/b/link": 100,
    }
    assert found["a/file"].mtime == 100
    assert {(member.uid, member.gid) for member in found.values()} == {(7, 8)}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: capabilities and devices")
def test_capabilities_and_devices(files: Path) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(files / "a/file", "security.capability", capability)
    os.setxattr(files / "a/file", "user.note", b"x")
    os.mknod(files / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    data = packed(files)
    assert b"SCHILY.xattr.security.capability=" + capability in data
    assert b"user.note" not in data
    assert (members(data)["null"].devmajor, members(data)["null"].devminor) == (1, 3)


def test_sockets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "files").mkdir()
    monkeypatch.chdir(tmp_path / "files")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert members(packed(tmp_path / "files")) == {}


@pytest.mark.parametrize("name", [".wh.x", ".wh..wh..opq"])
def test_names_of_whiteouts_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).touch()
    with pytest.raises(LayerError, match="begins with"):
        packed(tmp_path)


def test_a_file_that_vanishes(files: Path) -> None:
    packer = LayerPacker(io.BytesIO(), os.fsencode(files))
    status = os.lstat(files / "z")
    (files / "z").unlink()
    with pytest.raises(LayerError, match="'z': cannot be read"):
        packer.add(b"z", status)


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[tuple[Path, Path, Path]]:
    """A directory, an upper one over it, and the two as one file system."""
    if os.geteuid() != 0:
        pytest.skip("needs root: an overlay")
    below, upper, view = (tmp_path / name for name in ("below", "upper", "view"))
    for folder in (below / "d/e", below / "gone", below / "kept", upper, view, tmp_path / "work"):
        folder.mkdir(parents=True)
    for name in ("d/1", "d/2", "d/e/3", "gone/4", "file", "same"):
        (below / name).write_text(name)
    options = f"lowerdir={below},upperdir={upper},workdir={tmp_path / 'work'}"
    if subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, view], check=False).returncode:
        pytest.skip("needs overlay mounts")
    yield below, upper, view
    subprocess.run(["umount", view], check=True)


def upper_layer(below: Path, upper: Path) -> dict[str, tarfile.TarInfo]:
    out = io.BytesIO()
    root = os.fsencode(upper)
    pack(of_upper(root, Folder(os.fsencode(below))), LayerPacker(out, root))
    again = io.BytesIO()
    pack(of_upper(root, Stack([os.fsencode(below)])), LayerPacker(again, root))
    assert again.getvalue() == out.getvalue()
    return members(out.getvalue())


def test_an_overlay(overlay: tuple[Path, Path, Path]) -> None:
    below, upper, view = overlay
    shutil.rmtree(view / "gone")
    (view / "file").unlink()
    (view / "new").touch()
    (view / "new").unlink()
    (view / "d/1").write_text("other")
    (view / "d/e/x").touch()
    # Copied up without a change.
    os.chmod(view / "same", 0o600)
    os.chmod(view / "same", 0o644)
    (view / "kept").chmod(0o700)
    (view / "kept").chmod(0o755)
    expected = ["d/", "d/1", "d/e/", "d/e/x", ".wh.file", ".wh.gone"]
    assert list(upper_layer(below, upper)) == expected
    assert sorted(members(packed(view, below))) == sorted(expected)


def test_an_opaque_directory_is_told_in_whiteouts(overlay: tuple[Path, Path, Path]) -> None:
    below, upper, view = overlay
    shutil.rmtree(view / "d")
    (view / "d/n").mkdir(parents=True)
    (view / "d/2").write_text("new")
    assert list(upper_layer(below, upper)) == ["d/", "d/.wh.1", "d/2", "d/.wh.e", "d/n/"]
    assert list(members(packed(view, below))) == ["d/", "d/.wh.1", "d/2", "d/.wh.e", "d/n/"]


def test_a_directory_in_place_of_a_file(overlay: tuple[Path, Path, Path]) -> None:
    below, upper, view = overlay
    (view / "file").unlink()
    (view / "file").mkdir()
    (view / "file/x").touch()
    (view / "d/e/3").unlink()
    (view / "d/e").rmdir()
    (view / "d/e").touch()
    assert list(upper_layer(below, upper)) == ["d/", "d/e", "file/", "file/x"]


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
    writer.write(packed(base / "from"))
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
