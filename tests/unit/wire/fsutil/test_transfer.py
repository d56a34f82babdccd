"""Both ends of a transfer: against each other, and against peers that break the rules."""

import io
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.wire.fsutil.direct import transfer
from brickyard.wire.fsutil.errors import TransferError
from brickyard.wire.fsutil.modes import DIRECTORY, NAMED_PIPE, SYMLINK
from brickyard.wire.fsutil.receive import WINDOW, receive
from brickyard.wire.fsutil.send import CHUNK, send
from brickyard.wire.fsutil.tree import Below, Made, Merged, MergeError, folder
from brickyard.wire.pb.stat_pb2 import Stat
from brickyard.wire.pb.wire_pb2 import Packet
from brickyard.wire.session import FileTree

STAT, REQ, DATA, FIN, ERR = range(5)


class Kept:
    """A receiver that keeps everything in memory; `wants` says which files it asks for."""

    def __init__(self, wants: Callable[[str], bool] = lambda path: True) -> None:
        self.entries: list[Stat] = []
        self.files: dict[str, bytes] = {}
        self.ended: list[str] = []
        self._wants = wants

    def entry(self, stat: Stat) -> bool:
        kept = Stat()
        kept.CopyFrom(stat)
        self.entries.append(kept)
        return self._wants(stat.path)

    def data(self, path: str, data: bytes) -> None:
        self.files[path] = self.files.get(path, b"") + data

    def end(self, path: str) -> None:
        self.files.setdefault(path, b"")
        self.ended.append(path)


class Pipe:
    """Packets from one thread to another, encoded as on the wire."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | None] = queue.Queue(16)

    def put(self, packets: Iterable[Packet]) -> None:
        try:
            for packet in packets:
                self._queue.put(packet.SerializeToString())
        finally:
            self._queue.put(None)

    def __iter__(self) -> Iterator[Packet]:
        while (data := self._queue.get(timeout=10)) is not None:
            yield Packet.FromString(data)


def exchange(tree: FileTree, receiver: Kept) -> None:
    """A whole transfer between two threads."""
    there, back = Pipe(), Pipe()
    failed: list[BaseException] = []

    def sender() -> None:
        try:
            there.put(send(tree, back))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=sender)
    thread.start()
    try:
        back.put(receive(there, receiver))
    finally:
        thread.join(10)
    assert not thread.is_alive()
    if failed:
        raise failed[0]


def files(**contents: bytes) -> Made:
    """Regular files."""
    return Made(tuple((Stat(path=path, mode=0o644), data) for path, data in sorted(contents.items())))


def test_a_transfer(tmp_path: Path) -> None:
    big = bytes(range(256)) * (CHUNK // 64)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/big").write_bytes(big)
    (tmp_path / "a/empty").touch()
    (tmp_path / "b").write_bytes(b"b")
    (tmp_path / "hard").hardlink_to(tmp_path / "b")
    (tmp_path / "link").symlink_to("b")
    receiver = Kept(lambda path: path != "a/empty")
    exchange(folder(tmp_path), receiver)
    assert [entry.path for entry in receiver.entries] == ["a", "a/big", "a/empty", "b", "hard", "link"]
    assert receiver.files == {"a/big": big, "b": b"b"}
    assert receiver.ended == ["a/big", "b"]


def test_more_files_than_are_asked_for_at_once() -> None:
    tree = files(**{f"f{number:05}": b"%d" % number for number in range(3 * WINDOW)})
    receiver = Kept()
    exchange(tree, receiver)
    assert receiver.files == {entry.path: data for entry, data in tree.files}


def test_nothing_at_all() -> None:
    receiver = Kept()
    exchange(Made(()), receiver)
    assert receiver.entries == []


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text("ab", min_size=1, max_size=4), st.binary(max_size=200), max_size=12), st.sets(st.text("ab"))
)
def test_any_files(contents: dict[str, bytes], unwanted: set[str]) -> None:
    receiver = Kept(lambda path: path not in unwanted)
    exchange(files(**contents), receiver)
    assert receiver.files == {path: data for path, data in contents.items() if path not in unwanted}
    direct = Kept(lambda path: path not in unwanted)
    transfer(files(**contents), direct)
    assert direct.files == receiver.files
    assert direct.entries == receiver.entries


def test_what_vanished_is_empty_and_what_is_locked_is_an_error(tmp_path: Path) -> None:
    class Gone(Made):
        def open(self, path: str) -> BinaryIO:
            raise FileNotFoundError(2, "gone", path)

    class Locked(Made):
        def open(self, path: str) -> BinaryIO:
            raise PermissionError(13, "Permission denied", path)

    one = files(x=b"1").files
    receiver = Kept()
    exchange(Gone(one), receiver)
    assert receiver.files == {"x": b""}
    with pytest.raises(TransferError, match=r"error from the sender: .*Permission denied"):
        exchange(Locked(one), Kept())


# A sender whose peer breaks the rules.


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([Packet(type=REQ, ID=7)], "asks for file 7, which is none"),
        ([Packet(type=REQ, ID=0), Packet(type=REQ, ID=0)], "or was sent already"),
        ([Packet(type=ERR, data=b"disk full")], "error from the receiver: disk full"),
        ([Packet(type=STAT)], "packet of type 0"),
        ([Packet(type=DATA, data=b"x")], "packet of type 2"),
        ([], "went away"),
    ],
)
def test_a_receiver_that_breaks_the_rules(answers: list[Packet], said: str) -> None:
    packets: list[Packet] = []
    with pytest.raises(TransferError, match=said):
        packets.extend(send(files(x=b"1"), iter(answers)))
    assert packets[-1].type == ERR


def test_a_carrier_that_breaks_is_an_error() -> None:
    def broken() -> Iterator[Packet]:
        raise RuntimeError("reset")
        yield

    with pytest.raises(TransferError, match="went away: reset"):
        list(send(files(x=b"1"), broken()))


# A receiver whose peer breaks the rules.


def entry(path: str, mode: int = 0o644, **fields: object) -> Packet:
    return Packet(type=STAT, stat=Stat(path=path, mode=mode, **fields))  # type: ignore[arg-type]


LAST = Packet(type=STAT)
D = DIRECTORY | 0o755


@pytest.mark.parametrize(
    ("packets", "said"),
    [
        ([entry("../x")], "no clean relative path"),
        ([entry("..")], "no clean relative path"),
        ([entry(".")], "no clean relative path"),
        ([entry("")], "no clean relative path"),
        ([entry("/etc/passwd")], "absolute path"),
        ([entry("a", D), entry("a/../b")], "without its folder|no clean relative path"),
        ([entry("a", D), entry("a/./b")], "no clean relative path"),
        ([entry("a", D), entry("a//b")], "no clean relative path|absolute"),
        ([entry("a", D), entry("a/")], "no clean relative path"),
        ([entry("a\0b")], "no clean relative path"),
        ([entry("a/b")], "without its folder"),
        ([entry("a"), entry("a/b")], "without its folder"),
        ([entry("a", SYMLINK | 0o777, linkname="/etc"), entry("a/b")], "without its folder"),
        ([entry("a", D), entry("b", D), entry("a/x")], "without its folder"),
        ([entry("b"), entry("a")], "out of order"),
        ([entry("a"), entry("a")], "out of order"),
        ([entry("a", D), entry("a/b"), entry("a", D)], "out of order"),
        ([entry("a-"), entry("a", D)], "out of order"),
        ([entry("a", linkname="b")], "which is no file before it"),
        ([entry("a", D), entry("b", linkname="a")], "which is no file before it"),
        ([entry("a", SYMLINK, linkname="x"), entry("b", linkname="a")], "which is no file before it"),
        ([entry("a"), entry("b", linkname="../a")], "which is no file before it"),
        ([entry("a", NAMED_PIPE), entry("b", NAMED_PIPE, linkname="/etc/passwd")], "which is no file before it"),
        ([entry("a", SYMLINK | 0o777)], "no usable target"),
        ([entry("a", SYMLINK, linkname="x\0y")], "no usable target"),
        ([entry("a", 1 << 30)], None),
        ([entry("a", DIRECTORY | SYMLINK)], "not a type of file"),
        ([entry("a", 1 << 19)], "not a type of file"),
        ([entry("a", size=-1)], "negative size"),
        ([entry("x" * 256)], "too long"),
        ([entry("a", xattrs={"user.x": bytes(70000)})], "unusable extended attribute"),
        ([entry("a", xattrs={"": b"1"})], "unusable extended attribute"),
        ([entry("a", xattrs={f"user.{n}": b"1" for n in range(300)})], "too many extended"),
        ([LAST, LAST], "after the last one|after the end"),
        ([Packet(type=DATA, ID=0, data=b"x")], "not asked for"),
        ([entry("a", D), Packet(type=DATA, ID=0, data=b"x")], "not asked for"),
        ([entry("a"), Packet(type=DATA, ID=1, data=b"x")], "not asked for"),
        ([entry("a"), Packet(type=DATA, ID=0), Packet(type=DATA, ID=0)], "not asked for"),
        ([Packet(type=REQ, ID=0)], "packet of type 1"),
        ([Packet(type=FIN)], "packet of type 3"),
        ([entry("a"), LAST, Packet(type=FIN)], "packet of type 3"),
        ([LAST, Packet(type=FIN), Packet(type=FIN)], "after its last packet"),
        ([LAST, entry("a")], "after the end"),
        ([Packet(type=ERR, data=b"no such file")], "error from the sender: no such file"),
        ([LAST, Packet(type=ERR, data=b"late")], "error from the sender: late"),
        ([LAST], "went away"),
        ([entry("a")], "went away"),
        ([], "went away"),
    ],
)
def test_a_sender_that_breaks_the_rules(packets: list[Packet], said: str | None) -> None:
    receiver = Kept()
    answers: list[Packet] = []
    with pytest.raises(TransferError, match=said or "went away"):
        answers.extend(receive(iter(packets), receiver))
    assert answers[-1].type == ERR


def test_a_receiver_that_fails_tells_the_sender() -> None:
    class Full(Kept):
        def entry(self, stat: Stat) -> bool:
            raise OSError(28, "No space left on device")

    answers: list[Packet] = []
    with pytest.raises(OSError, match="No space left"):
        answers.extend(receive(iter([entry("a")]), Full()))
    assert (answers[-1].type, b"No space left" in answers[-1].data) == (ERR, True)


_ANY = st.lists(
    st.builds(
        lambda kind, path, mode, link, id, data: (
            Packet(type=STAT, stat=Stat(path=path, mode=mode, linkname=link))
            if kind == STAT
            else Packet(type=kind, ID=id, data=data)
        ),
        st.integers(0, 6),
        st.lists(st.sampled_from(["a", "b", "..", ".", "", "c"]), max_size=4).map("/".join),
        st.sampled_from([0o644, D, SYMLINK, 1 << 31 | 1 << 27]),
        st.sampled_from(["", "a", "../../x", "/x"]),
        st.integers(0, 3),
        st.sampled_from([b"", b"x"]),
    ),
    max_size=12,
)


@settings(max_examples=300)
@given(_ANY)
def test_whatever_comes_only_clean_entries_get_through(packets: list[Packet]) -> None:
    receiver = Kept()
    try:
        for _ in receive(iter(packets), receiver):
            pass
    except TransferError:
        pass
    folders = {""}
    seen: set[str] = set()
    for stat in receiver.entries:
        parent, _, name = stat.path.rpartition("/")
        assert parent in folders
        assert name not in ("", ".", "..")
        assert stat.path not in seen
        seen.add(stat.path)
        if stat.mode & DIRECTORY:
            folders.add(stat.path)
        elif stat.linkname and not stat.mode & SYMLINK:
            assert stat.linkname in seen
    assert set(receiver.files) <= seen - folders


# Trees.


def listing(tree: FileTree) -> list[tuple[str, str]]:
    """Paths with their link names."""
    return [(entry.path, entry.linkname) for entry in tree.entries()]


def test_trees_below_and_merged(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / name).write_text(name)
    (tmp_path / "one/abs").symlink_to("/bin/one")
    (tmp_path / "one/hard").hardlink_to(tmp_path / "one/bin/one")
    below = Below({"linux_amd64": folder(tmp_path / "one"), "linux_386": folder(tmp_path / "two")}, 5)
    assert listing(below) == [
        ("linux_386", ""),
        ("linux_386/bin", ""),
        ("linux_386/bin/two", ""),
        ("linux_amd64", ""),
        ("linux_amd64/abs", "/linux_amd64/bin/one"),
        ("linux_amd64/bin", ""),
        ("linux_amd64/bin/one", ""),
        ("linux_amd64/hard", "linux_amd64/bin/one"),
    ]
    assert below.open("linux_386/bin/two").read() == b"two"
    with pytest.raises(FileNotFoundError):
        below.open("other/x")
    merged = Merged(folder(tmp_path / "one"), folder(tmp_path / "two"), files(**{"z.json": b"{}", "hard": b"new"}))
    assert [path for path, _ in listing(merged)] == ["abs", "bin", "bin/one", "bin/two", "hard", "z.json"]
    assert merged.open("bin/two").read() == b"two"
    assert merged.open("z.json").read() == b"{}"
    assert merged.open("hard").read() == b"new"
    with pytest.raises(FileNotFoundError):
        merged.open("nothing")
    with pytest.raises(MergeError, match="bin is a folder in one part"):
        list(Merged(folder(tmp_path / "one"), files(bin=b"")).entries())


def test_content_that_is_made_up() -> None:
    made = files(x=b"abc")
    assert [entry.size for entry in made.entries()] == [3]
    assert isinstance(made.open("x"), io.BytesIO)
    with pytest.raises(FileNotFoundError):
        made.open("y")
