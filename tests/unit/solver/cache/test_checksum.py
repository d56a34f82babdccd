"""Checksums of content: BuildKit's own figures, what changes them, and what is kept."""

import hashlib
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from brickyard.solver.base import Selection, SolveError
from brickyard.solver.cache import checksum as module
from brickyard.solver.cache.checksum import checksum

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the figures are for files of root")
DATA0 = "sha256:cd8e75bca50f2d695f220d0cb0997d8ead387e4f926e8669a92d7f104cc9885b"
DATA1 = "sha256:c2b5e234f5f38fc5864da7def04782f82501a40d46192e4207d5b3f0c3c4732b"
DATA2 = "sha256:1c67653c3cf95b12a0014e2c4cd1d776b474b3218aee54155d6ae27b9b999c54"
FOLDER = "sha256:d47454417d2c554067fbefe5f5719edc49f3cfe969c36b62e34a187a4da0cc9a"
FOLDER_BY_FILE = "sha256:6b612ad5c13159112ae26357ef7bd34df29916941ba40ec2ce38dfb70c6c60c3"
LINK = "sha256:a2ba571981f48ec34eb79c9a3ab091b6491e825c2f7e9914ea86e8e958be7fae"


@needs_root
@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(("foo",), follow=True), DATA0),
        (Selection(("/bar",)), DATA1),
        (Selection(("abc/aa/foo",)), DATA2),
        (Selection(("x/d0/abc",), follow=True), DATA0),
        (Selection(("x/d0/def",), follow=True), DATA0),
        (Selection(("x/../x//d0/./abc",), follow=True), DATA0),
        (Selection(("x/d0",), follow=True), FOLDER),
        (Selection(("x/d0",)), FOLDER),
        (Selection(("f*o",), wildcard=True), "sha256:" + hashlib.sha256(b"\0foo" + DATA0.encode()).hexdigest()),
        (
            Selection(("f*",), wildcard=True),
            "sha256:0b6731924f0a32a812bf8a729202e55e54ded331f9e4ff2397f681e43694e086",
        ),
        (Selection(("x/d?",), wildcard=True), FOLDER_BY_FILE),
        (Selection(("x/d?/def",), wildcard=True, follow=True), DATA0),
        (
            Selection(("y*",), wildcard=True, follow=True),
            "sha256:982153600b9653a1decb0f961e09e2bc1be335cfcaac9b39dbd1120b65fdf92c",
        ),
        (Selection(("sym",), wildcard=True), LINK),
        (Selection(("links/ghi",)), LINK),
        (
            Selection(("links",), follow=True),
            "sha256:9b761577efcb1239cf4be971914c5d7404914dd32ff436401af1764dc5446b83",
        ),
        (
            Selection(("links",), exclude=("*.git",), follow=True),
            "sha256:9b761577efcb1239cf4be971914c5d7404914dd32ff436401af1764dc5446b83",
        ),
        (Selection(("none*",), wildcard=True), "sha256:" + hashlib.sha256(b"").hexdigest()),
    ],
)
def test_the_figures_of_buildkit(state: Any, selection: Selection, expected: str) -> None:
    snapshot = state.snapshot(
        {
            "bar": b"data1",
            "foo": b"data0",
            "fox": b"data2",
            "abc/aa/foo": b"data2",
            "x/d0/abc": b"data0",
            "x/d0/def": "abc",
            "x/d0/ghi": "nosuchfile",
            "y1": "foo",
            "y2": "fox",
            "sym": "target",
            "links/ghi": "target",
        }
    )
    assert checksum(snapshot, selection, state.context) == expected
    # Kept, and the same from what is kept.
    assert checksum(snapshot, selection, state.context) == expected


@needs_root
def test_more_figures_of_buildkit(state: Any) -> None:
    folder = state.snapshot({"foo/ghi": "target"})
    expected = "sha256:2797e710c6d1a89ff2d91c834b828b1dc500f2982430a58241df8e146f4c4bb4"
    assert checksum(folder, Selection(("fo?",), wildcard=True, follow=True), state.context) == expected
    whole = state.snapshot({"abc": b"data0", "def": "abc", "ghi": "nosuchfile"})
    assert checksum(whole, Selection(), state.context) == FOLDER
    links = state.snapshot(
        {
            "target/file": b"data0",
            "link1/target_file": "../target/file",
            "link1/target_dir_abs": "/target",
            "link2/link1_rel": "../link1",
            "link3/target": "../link2/link1_rel/target_dir_abs",
        }
    )
    for path in ("link1/target_file", "link2/link1_rel/target_file", "link3/target/file"):
        assert checksum(links, Selection((path,), follow=True), state.context) == DATA0
    assert checksum(links, Selection(("link3/target/file",)), state.context) == DATA0
    assert checksum(links, Selection(("link1/target_file",)), state.context) != DATA0


def test_times_and_other_files_do_not_count(state: Any) -> None:
    first = state.snapshot({"d/a": b"1", "d/b": b"2"})
    second = state.snapshot({"d/a": b"1", "d/b": b"2", "more": b""})
    os.utime(state.context.snapshots.own_files(second) / "d/a", ns=(1, 1))
    for selection in (
        Selection(("/d",)),
        Selection(("/d/a",)),
        Selection(("/d/*",), wildcard=True),
        Selection(("/",), include=("d",)),
        Selection(("/",), exclude=("more",)),
    ):
        assert checksum(first, selection, state.context) == checksum(second, selection, state.context)
    assert checksum(first, Selection(), state.context) != checksum(second, Selection(), state.context)


@pytest.mark.parametrize("change", ["content", "mode", "name", "xattr", "link"])
def test_what_counts(state: Any, change: str) -> None:
    found = []
    for changed in (False, True):
        snapshot = state.snapshot({"d/a": b"1", "d/l": "x"})
        place: Path = state.context.snapshots.own_files(snapshot) / "d/a"
        if changed:
            match change:
                case "content":
                    place.write_bytes(b"2")
                case "mode":
                    place.chmod(0o600)
                case "name":
                    place.rename(place.with_name("c"))
                case "xattr":
                    os.setxattr(place, "user.note", b"n")
                case "link":
                    place.with_name("l").unlink()
                    place.with_name("l").symlink_to("y")
        kinds = (Selection(("/d",)), Selection(("/d",), exclude=("z",)), Selection(("/*",), wildcard=True))
        found.append([checksum(snapshot, selection, state.context) for selection in kinds])
    assert all(before != after for before, after in zip(*found, strict=True))


def test_an_excluded_file_does_not_count(state: Any) -> None:
    selection = Selection(("/d",), exclude=("*.log", "deep/**", "!deep/kept"))
    sums = set()
    for number in range(3):
        files = {"d/a": b"1", "d/x.log": b"%d" % number, f"d/deep/n{number}": b"", "d/deep/kept": b"k"}
        sums.add(checksum(state.snapshot(files), selection, state.context))
    assert len(sums) == 1
    other = {"d/a": b"1", "d/deep/kept": b"changed"}
    assert checksum(state.snapshot(other), selection, state.context) not in sums


@pytest.mark.parametrize(
    ("selection", "path"),
    [
        (Selection(("/missing",)), "/missing"),
        (Selection(("d/../gone/x",)), "/gone/x"),
        (Selection(("/a/b",)), "/a/b"),
        (Selection(("/broken",), follow=True), "/broken"),
        (Selection(("/d",), exclude=("x",)), None),
        (Selection(("/",), include=("d",), required=("/d/x", "/nothing")), "/nothing"),
        (Selection(("/none",), include=("x",)), "/none"),
    ],
)
def test_what_is_missing_is_named(state: Any, selection: Selection, path: str | None) -> None:
    snapshot = state.snapshot({"a": b"", "d/x": b"", "broken": "nowhere"})
    if path is None:
        assert checksum(snapshot, selection, state.context)
        return
    with pytest.raises(SolveError) as caught:
        checksum(snapshot, selection, state.context)
    assert str(caught.value) == (
        f'failed to compute cache key: failed to calculate checksum of ref {snapshot}: "{path}": not found'
    )


def test_parts_and_optional_ones(state: Any) -> None:
    first = state.snapshot({"a": b"1", "b": b"2"})
    second = state.snapshot({"a": b"1", "b": b"3"})
    users = Selection(("/etc/passwd",), follow=True, optional=True)
    both = Selection(("/a",), also=(Selection(("/b",)), users))
    assert checksum(first, Selection(("/a",)), state.context) == checksum(second, Selection(("/a",)), state.context)
    assert checksum(first, both, state.context) != checksum(second, both, state.context)
    assert checksum(None, both, state.context) == "empty"


def test_links_never_lead_out(state: Any, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"data0")
    snapshot = state.snapshot({"up": "../../../../../../../outside", "abs": f"{tmp_path}/outside"})
    for name in ("up", "abs"):
        with pytest.raises(SolveError, match="not found"):
            checksum(snapshot, Selection((name,), follow=True), state.context)


def test_files_are_read_once(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = state.snapshot({f"d/{number}": b"x" for number in range(20)})
    opened: list[Any] = []
    real = os.open

    def counted(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if isinstance(path, bytes):
            opened.append(path)
        return real(path, flags, *args, **more)

    monkeypatch.setattr(module.os, "open", counted)
    selections = [Selection(("/d",)), Selection(("/d/1",)), Selection(("/d/*",), wildcard=True), Selection()]
    threads = [
        threading.Thread(target=checksum, args=(snapshot, selection, state.context)) for selection in selections * 2
    ]
    for selection in selections:
        checksum(snapshot, selection, state.context)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 20


def test_given_checksums_are_used_unseen(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = state.snapshot({"a": b"1"})
    given = {"a": hashlib.sha256(b"given").digest()}
    monkeypatch.setattr("brickyard.solver.sources.local.digests", lambda name, context: given)
    found = checksum(snapshot, Selection(("/a",)), state.context)
    assert found == "sha256:" + hashlib.sha256(b"given").hexdigest()


def test_a_tree_deeper_than_pythons_stack(state: Any) -> None:
    snapshot = state.context.snapshots.prepare(None)
    at = os.open(state.context.snapshots.own_files(snapshot), os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    state.context.snapshots.commit(snapshot)
    try:
        assert checksum(snapshot, Selection(), state.context).startswith("sha256:")
        assert checksum(snapshot, Selection(("/d*",), wildcard=True), state.context).startswith("sha256:")
    finally:
        # Pytest's own cleaning up of old folders can't go that deep.
        subprocess.run(["rm", "-rf", state.context.snapshots.own_files(snapshot) / "d"], check=True)
    state.context.snapshots.remove(snapshot)
    assert state.context.snapshots.check() == []
