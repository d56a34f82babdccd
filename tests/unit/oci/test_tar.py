"""Tar archives, against Python's `tarfile` and GNU tar, and damaged ones."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickyard.oci.tar import Entry, Kind, TarError, TarReader, TarWriter

NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=90)
PATHS = st.lists(NAMES, min_size=1, max_size=6).map("/".join).filter(lambda p: not set(p.split("/")) & {".", ".."})
KEYS = st.text("abcdefghijklmnopqrstuvwxyz.", min_size=1, max_size=12)


def written(*entries: Entry, data: bytes = b"") -> bytes:
    out = io.BytesIO()
    writer = TarWriter(out)
    for entry in entries:
        writer.add(entry)
        if entry.size:
            writer.write(data[: entry.size])
    writer.close()
    return out.getvalue()


def read(data: bytes, max_size: int | None = None) -> list[tuple[Entry, bytes]]:
    reader = TarReader(io.BytesIO(data), max_size)
    out = []
    for entry in reader:
        content = bytearray()
        for offset, piece in reader.data():
            content += bytes(offset - len(content)) + piece
        out.append((entry, bytes(content + bytes(entry.size - len(content)))))
    return out


@given(
    PATHS,
    st.sampled_from([Kind.FILE, Kind.SYMLINK, Kind.LINK, Kind.DIRECTORY]),
    st.integers(0, 0o7777),
    st.integers(0, 2**32 - 2),
    st.integers(0, 2**62),
    st.dictionaries(KEYS, st.binary(max_size=40), max_size=3),
    st.binary(max_size=1500),
)
def test_what_is_written_is_read(
    path: str, kind: Kind, mode: int, uid: int, time: int, xattrs: dict[str, bytes], data: bytes
) -> None:
    link = path if kind in (Kind.SYMLINK, Kind.LINK) else ""
    size = len(data) if kind is Kind.FILE else 0
    entry = Entry(path, kind, mode, uid, uid, size, time, link, xattrs=xattrs)
    raw = written(entry, Entry("end", Kind.FIFO), data=data)
    assert len(raw) % 512 == 0
    (found, content), (end, _) = read(raw)
    assert end.name == "end"
    found.name = found.name.removesuffix("/") if kind is Kind.DIRECTORY else found.name
    assert found == entry
    assert content == data[:size]


@given(PATHS, st.integers(0, 2**31), st.binary(max_size=600))
def test_tarfile_reads_what_is_written(path: str, uid: int, data: bytes) -> None:
    raw = written(
        Entry(path, Kind.FILE, 0o640, uid, 7, len(data), 1_500_000_000_123_456_789, xattrs={"user.x": b"\0\xff"}),
        Entry("l" * 130, Kind.SYMLINK, linkname="t" * 130),
        data=data,
    )
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        member, link = tar.getmembers()
        assert (member.name.strip("/"), member.uid, member.gid, member.size, member.mode) == (
            path.strip("/"),
            uid,
            7,
            len(data),
            0o640,
        )
        assert member.pax_headers["mtime"] == "1500000000.123456789"
        content = tar.extractfile(member)
        assert content is not None
        assert content.read() == data
        assert (link.name, link.linkname) == ("l" * 130, "t" * 130)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tarfile_writes_is_read(form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        names = ["plain", "d/" * 60 + "x", "a" * 99] + ([] if form == tarfile.USTAR_FORMAT else ["é" * 200, "b" * 300])
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = 3, 1_600_000_000, 0o755
            if form == tarfile.GNU_FORMAT:
                info.uid = 2**31
            tar.addfile(info, io.BytesIO(b"abc"))
    found = read(out.getvalue())
    assert [entry.name for entry, _ in found] == names
    assert {content for _, content in found} == {b"abc"}
    assert {entry.mtime_ns for entry, _ in found} == {1_600_000_000 * 10**9}
    assert {entry.uid for entry, _ in found} == {2**31 if form == tarfile.GNU_FORMAT else 0}


@pytest.mark.parametrize("form", ["--format=gnu", "0.0", "0.1", "1.0"])
def test_sparse_files_of_gnu_tar(tmp_path: Path, form: str) -> None:
    if shutil.which("tar") is None:
        pytest.skip("needs GNU tar")
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        for place in range(40):
            file.seek(place * 200_000)
            file.write(b"data%d" % place)
        file.truncate(9_000_000)
    option = [form] if form.startswith("--") else ["--format=pax", f"--sparse-version={form}"]
    tar = subprocess.run(["tar", "-cS", *option, "-C", tmp_path, "sparse"], capture_output=True, check=True).stdout
    if len(tar) > 8_000_000:
        pytest.skip("this file system has no sparse files")
    ((entry, content),) = read(tar)
    assert entry.name == "sparse"
    assert entry.pieces
    assert content == source.read_bytes()


def test_the_digest_is_of_the_whole_stream() -> None:
    import hashlib

    raw = written(Entry("a", Kind.FILE)) + b"behind the end" * 1000
    reader = TarReader(io.BytesIO(raw))
    assert [entry.name for entry in reader] == ["a"]
    assert reader.digest == "sha256:" + hashlib.sha256(raw).hexdigest()


def test_an_archive_without_an_end_mark() -> None:
    raw = written(Entry("a", Kind.FILE))
    assert len(read(raw[:-1024])) == 1
    assert len(read(raw[:-512])) == 1
    assert read(b"") == []


def test_names_that_are_no_unicode() -> None:
    raw = written(Entry(os.fsdecode(b"a\xff"), Kind.FILE))
    assert os.fsencode(read(raw)[0][0].name) == b"a\xff"


def test_old_headers_mark_a_directory_by_a_slash() -> None:
    assert read(written(Entry("x/", Kind.FILE)))[0][0].kind is Kind.DIRECTORY


def fixed(block: bytearray) -> bytes:
    """A block with its checksum made right."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


def changed(raw: bytes, at: int, value: bytes) -> bytes:
    block = bytearray(raw)
    block[at : at + len(value)] = value
    return fixed(block)


PLAIN = written(Entry("a", Kind.FILE, size=3), data=b"abc")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"nonsense", "cut short"),
        (b"n" * 512, "not a tar archive"),
        (PLAIN[:600], "cut short"),
        (PLAIN[:513], "cut short"),
        (PLAIN[:50] + b"x" + PLAIN[51:], "checksum"),
        (changed(PLAIN, 156, b"M"), "unsupported type"),
        (changed(PLAIN, 124, b"77777777777"), "cut short"),
        (changed(PLAIN, 124, b"\xff" * 12), "negative"),
        (changed(PLAIN, 124, b"abc"), "damaged header"),
        (changed(PLAIN, 108, b"\x80" + b"\xff" * 7), "out of range"),
        (changed(PLAIN, 156, b"x"), "damaged extended header"),
        (changed(changed(PLAIN, 156, b"x"), 124, b"\x80" + b"\0" * 6 + b"\xff" * 5), "larger than the limit"),
        (bytes(512) + PLAIN, "zeros between"),
        (PLAIN[:1024] + b"x" * 512, "checksum"),
    ],
)
def test_damaged_archives(data: bytes, reason: str) -> None:
    with pytest.raises(TarError, match=reason):
        read(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [("size", b"-1"), ("size", b"9" * 30), ("uid", b"x"), ("uid", b"4294967295"), ("mtime", b"x"), ("path", b"a\0b")],
)
def test_damaged_records(key: str, value: bytes) -> None:
    body = b" " + key.encode() + b"=" + value + b"\n"
    record = str(len(body) + 2).encode() + body
    header = changed(PLAIN[:512], 156, b"x")
    raw = changed(header, 124, b"%011o" % len(record)) + record.ljust(512, b"\0") + PLAIN
    with pytest.raises(TarError):
        read(raw)


@given(st.binary(max_size=40), st.integers(0, 1500))
def test_no_damage_raises_anything_else(noise: bytes, at: int) -> None:
    raw = written(Entry("é" * 60, Kind.FILE, size=5, xattrs={"user.a": b"b"}), data=b"abcde")
    try:
        read(raw[:at] + noise + raw[at + len(noise) :], 1 << 20)
    except TarError:
        pass


def test_limits() -> None:
    big = written(Entry("a", Kind.FILE, size=100_000), data=bytes(100_000))
    assert len(read(big, 110_000)) == 1
    with pytest.raises(TarError, match="larger than the limit"):
        read(big, 50_000)


def test_the_writer_keeps_count() -> None:
    writer = TarWriter(io.BytesIO())
    writer.add(Entry("a", Kind.FILE, size=2))
    with pytest.raises(TarError, match="more content"):
        writer.write(b"abc")
    with pytest.raises(TarError, match="missing"):
        writer.add(Entry("b", Kind.FILE))
    with pytest.raises(TarError, match="missing"):
        writer.close()
