"""Snapshots in both modes: what they show, what survives, what is cleaned up, and how deep they may be stacked."""

import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brickyard.oci.layer import LayerError
from brickyard.oci.tar import Entry, Kind, TarWriter
from brickyard.solver.snapshots import mounts
from brickyard.solver.snapshots.store import Mode, Snapshots

Tree = dict[str, bytes | None]
MODES: list[Mode] = ["overlay", "copy"] if os.geteuid() == 0 else ["copy"]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    found: Mode = request.param
    return found


@pytest.fixture
def store(tmp_path: Path, mode: Mode) -> Iterator[Snapshots]:
    made = Snapshots(tmp_path, mode=mode)
    assert made.mode == mode
    yield made
    made.close()
    assert not mounts.mounted_below(tmp_path)


def change(store: Snapshots, parent: str | None, write: Callable[[Path], object], *, commit: bool = True) -> str:
    name = store.prepare(parent)
    with store.mounted(name, readonly=False) as root:
        write(root)
    if commit:
        store.commit(name)
    return name


def files(store: Snapshots, name: str | None) -> Tree:
    out: Tree = {}
    with store.mounted(name) as root:
        for folder, names, found in os.walk(root):
            for entry in [*names, *found]:
                path = Path(folder, entry)
                # A mark that shows through can be listed, but not looked at.
                path.lstat()
                out[str(path.relative_to(root))] = path.read_bytes() if path.is_file() else None
    return out


def put(name: str, data: bytes = b"") -> Callable[[Path], object]:
    def write(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)

    return write


def test_changes_are_stacked_and_leave_what_is_below_alone(store: Snapshots) -> None:
    base = change(store, None, lambda root: (put("a", b"1")(root), put("d/b", b"2")(root)))
    child = change(store, base, lambda root: (put("a", b"changed")(root), (root / "d/b").unlink()))
    top = change(store, child, lambda root: ((root / "d").rmdir(), put("d", b"file")(root)))
    assert files(store, base) == {"a": b"1", "d": None, "d/b": b"2"}
    assert files(store, child) == {"a": b"changed", "d": None}
    assert files(store, top) == {"a": b"changed", "d": b"file"}
    assert files(store, None) == {}
    assert store.chain(top) == [base, child, top]
    assert (store.parent(top), store.parent(base)) == (child, None)


def test_the_root_keeps_its_metadata(store: Snapshots) -> None:
    base = change(store, None, lambda root: (root.chmod(0o711), os.utime(root, ns=(5, 5))))
    child = store.prepare(base)
    with store.mounted(child, readonly=False) as root:
        found = root.stat()
    assert (found.st_mode & 0o7777, found.st_mtime_ns) == (0o711, 5)


def test_only_committed_snapshots_survive(tmp_path: Path, mode: Mode) -> None:
    store = Snapshots(tmp_path, mode=mode)
    kept = change(store, None, put("a", b"A"))
    open_one = change(store, kept, put("b"), commit=False)
    # As if the process was killed: nothing is closed.
    again = Snapshots(tmp_path, mode=mode)
    assert again.exists(kept)
    assert not again.exists(open_one)
    assert again.ids() == [kept]
    assert files(again, kept) == {"a": b"A"}
    assert again.check() == []
    assert not (tmp_path / "snapshots" / open_one).exists()
    again.close()
    store.close()


def test_a_start_repairs_what_was_left(tmp_path: Path, mode: Mode) -> None:
    store = Snapshots(tmp_path, mode=mode)
    base = change(store, None, put("a"))
    child = change(store, base, put("b"))
    whole = change(store, None, put("c"))
    if mode == "overlay":
        store._mount(child, readonly=True)
    # A removal that stopped after the folder of a snapshot that others need.
    (tmp_path / "snapshots" / base / "fs" / "a").unlink()
    (tmp_path / "snapshots" / base / "fs").rmdir()
    (tmp_path / "snapshots" / base).rmdir()
    (tmp_path / "snapshots" / "0123").mkdir()
    again = Snapshots(tmp_path, mode=mode)
    assert again.ids() == [whole]
    assert again.check() == []
    assert not mounts.mounted_below(tmp_path)
    again.close()


def test_a_database_that_is_no_database(tmp_path: Path, mode: Mode) -> None:
    store = Snapshots(tmp_path, mode=mode)
    change(store, None, put("a"))
    store.close()
    (tmp_path / "snapshots" / "snapshots.db").write_bytes(b"garbage" * 1000)
    again = Snapshots(tmp_path, mode=mode)
    assert again.ids() == []
    assert again.check() == []
    assert files(again, change(again, None, put("b"))) == {"b": b""}
    again.close()


def test_what_was_made_just_before_a_loss_of_power_is_forgotten(
    tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    store = Snapshots(tmp_path, mode=mode)
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3600 * 10**9)
    old = change(store, None, put("old"))
    monkeypatch.undo()
    change(store, old, put("new"))
    store.close()
    monkeypatch.setattr("brickyard.solver.cache.database.boot_id", lambda: "another")
    again = Snapshots(tmp_path, mode=mode)
    assert again.ids() == [old]
    assert again.check() == []
    again.close()


def test_what_others_need_is_not_removed(store: Snapshots) -> None:
    base = change(store, None, put("a"))
    child = store.prepare(base)
    with pytest.raises(ValueError, match="still needed"):
        store.remove(base)
    store.commit(child)
    with pytest.raises(ValueError, match="still needed"):
        store.remove(base)
    store.remove(child)
    store.remove(base)
    store.remove(base)
    assert store.ids() == []
    assert store.check() == []
    with pytest.raises(KeyError):
        store.prepare(base)


def test_what_is_mounted_is_not_removed(store: Snapshots) -> None:
    base = change(store, None, put("a"))
    child = change(store, base, put("b"))
    # Nothing is mounted in copy mode: there a reader finds its files gone.
    if store.mode != "copy":
        with store.mounted(child), pytest.raises(ValueError, match="still needed"):
            store.remove(child)
    store.remove(child)
    assert child not in store.ids()


def test_merges_lay_layers_over_each_other(store: Snapshots) -> None:
    first = change(store, None, lambda root: (put("a", b"1")(root), put("d/x", b"1")(root)))
    second = change(store, None, lambda root: (put("b", b"2")(root), put("d/x", b"2")(root)))
    third = change(store, second, put("c", b"3"))
    merged = store.merge([first, None, third])
    assert files(store, merged) == {"a": b"1", "b": b"2", "c": b"3", "d": None, "d/x": b"2"}
    assert store.chain(merged) == [first, second, third]
    child = change(store, merged, lambda root: (root / "a").unlink())
    assert files(store, child) == {"b": b"2", "c": b"3", "d": None, "d/x": b"2"}
    assert store.merge([first]) == first
    assert store.merge([None, None]) is None
    assert merged is not None
    assert store.needs([child]) == {child, merged, first, second, third}
    for needed in (first, second, third, merged):
        with pytest.raises(ValueError, match="still needed"):
            store.remove(needed)


def test_differences_of_one_built_on_the_other(store: Snapshots) -> None:
    base = change(store, None, lambda root: (put("a", b"1")(root), put("d/x")(root), put("gone/y")(root)))
    middle = change(store, base, lambda root: (put("b", b"2")(root), (root / "d/x").unlink()))
    top = change(store, middle, lambda root: ((root / "gone/y").unlink(), (root / "gone").rmdir()))
    found = store.diff_snapshot(base, top)
    # What is gone shows nowhere in the difference itself, but counts where it is laid over something.
    assert {name: data for name, data in files(store, found).items() if data is not None} == {"b": b"2"}
    assert store.diff_snapshot(top, top) is None
    assert store.diff_snapshot(None, base) == base
    other = change(store, None, lambda root: (put("d/x", b"o")(root), put("d/z")(root), put("gone/y")(root)))
    assert files(store, store.merge([other, found])) == {"b": b"2", "d": None, "d/z": b""}
    assert files(store, store.merge([base, found])) == files(store, top)
    child = change(store, found, put("e"))
    assert {n for n, data in files(store, child).items() if data is not None} == {"b", "e"}


def test_differences_of_two_strangers(store: Snapshots) -> None:
    first = change(store, None, lambda root: (put("a", b"1")(root), put("d/x")(root), put("same", b"s")(root)))
    second = change(store, None, lambda root: (put("a", b"2")(root), put("d", b"f")(root), put("same", b"s")(root)))
    for name in (first, second):
        os.utime(store.own_files(name) / "same", ns=(7, 7))
    found = store.diff_snapshot(first, second)
    assert files(store, found) == {"a": b"2", "d": b"f"}
    assert files(store, store.merge([first, found])) == files(store, second)
    back = store.diff_snapshot(second, first)
    assert files(store, store.merge([second, back])) == files(store, first)


def test_a_folder_that_was_made_anew_hides_the_old_one(store: Snapshots) -> None:
    def replace(root: Path) -> None:
        (root / "d/old").unlink()
        (root / "d").rmdir()
        put("d/new")(root)

    base = change(store, None, put("d/old"))
    top = change(store, base, replace)
    found = store.diff_snapshot(base, top)
    assert files(store, found) == {"d": None, "d/new": b""}
    other = change(store, None, lambda root: (put("d/old")(root), put("d/kept")(root)))
    assert "d/old" not in files(store, store.merge([other, found]))
    assert files(store, store.merge([base, found])) == {"d": None, "d/new": b""}


def archive(*entries: Entry) -> io.BytesIO:
    out = io.BytesIO()
    writer = TarWriter(out)
    for entry in entries:
        writer.add(entry)
        writer.write(b"x" * entry.size)
    writer.close()
    out.seek(0)
    return out


def test_layers_of_archives(store: Snapshots) -> None:
    base = store.apply_layer(
        None, lambda: archive(Entry("d/a", Kind.FILE, 0o644, size=1), Entry("b", Kind.FILE, 0o600))
    )
    top = store.apply_layer(base, lambda: archive(Entry("d/.wh.a", Kind.FILE, 0), Entry("c", Kind.FILE, 0o644)))
    assert files(store, base) == {"d": None, "d/a": b"x", "b": b""}
    assert files(store, top) == {"d": None, "b": b"", "c": b""}
    stray = store.apply_layer(None, lambda: archive(Entry(".wh.none", Kind.FILE, 0), Entry("e", Kind.FILE, 0o644)))
    assert files(store, stray) == {"e": b""}
    odd = store.apply_layer(top, lambda: archive(Entry("n/.wh.none", Kind.FILE, 0), Entry("n/f", Kind.FILE, 0o644)))
    assert files(store, odd) == {"d": None, "b": b"", "c": b"", "n": None, "n/f": b""}
    found = store.ids()
    with pytest.raises(LayerError):
        store.apply_layer(top, lambda: archive(Entry("../../x", Kind.FILE, 0o644)))
    with pytest.raises(LayerError, match="digest"):
        store.apply_layer(top, lambda: archive(Entry("x", Kind.FILE, 0o644)), diff_id="sha256:" + "0" * 64)
    assert store.ids() == found
    assert store.check() == []


def test_a_layer_that_would_fill_the_disk(store: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = archive(*(Entry(str(number), Kind.FILE, 0o644, size=1) for number in range(100))).read()
    monkeypatch.setattr("brickyard.solver.snapshots.store.free_space", lambda folder: len(layer))
    name = store.apply_layer(None, lambda: io.BytesIO(layer))
    monkeypatch.setattr("brickyard.solver.snapshots.store.free_space", lambda folder: len(layer) - 1)
    with pytest.raises(LayerError, match="larger than the limit"):
        store.apply_layer(None, lambda: io.BytesIO(layer))
    assert store.ids() == [name]


def test_stacks_deeper_than_the_kernel_takes(store: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "MOST", 12)
    top: str | None = None
    expected: Tree = {}
    for number in range(60 if store.mode == "overlay" else 6):
        top = change(store, top, put(f"f{number % 40}", b"%d" % number))
        expected[f"f{number % 40}"] = b"%d" % number
        if number % 7 == 6:
            top = change(store, top, lambda root, gone=number: (root / f"f{gone % 40}").unlink())
            del expected[f"f{number % 40}"]
    assert files(store, top) == expected


@pytest.mark.skipif("overlay" not in MODES, reason="needs overlays")
def test_a_thousand_layers_are_one_file_system(tmp_path: Path) -> None:
    store = Snapshots(tmp_path, mode="overlay")
    top = change(store, None, put("base"))
    for number in range(1000):
        layer = store.prepare(None)
        (store.own_files(layer) / f"f{number}").write_bytes(b"")
        store.commit(layer)
        merged = store.merge([top, layer])
        assert merged is not None
        top = merged
    assert len(store.chain(top)) == 1001
    assert len(files(store, top)) == 1001
    child = change(store, top, put("more"))
    assert len(files(store, child)) == 1002
    store.close()


@pytest.mark.skipif("overlay" not in MODES, reason="needs overlays")
def test_older_kernels_mount_with_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_modern", False)
    store = Snapshots(tmp_path / "with, strange: name\\", mode="overlay")
    top: str | None = None
    for number in range(mounts.FEW + 20):
        layer = store.prepare(None)
        (store.own_files(layer) / f"f{number}").write_bytes(b"")
        store.commit(layer)
        top = store.merge([top, layer])
    assert len(files(store, change(store, top, put("more")))) == mounts.FEW + 21
    store.close()
    assert not mounts.mounted_below(tmp_path)


def test_many_threads(store: Snapshots) -> None:
    base = change(store, None, put("base"))
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            mine = base
            for step in range(8):
                child = change(store, mine, put(f"{number}-{step}"))
                assert len(files(store, child)) == step + 2
                mine = child
            merged = store.merge([base, mine])
            assert merged is not None
            assert len(files(store, merged)) == 9
            store.remove(merged)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.check() == []


def test_sharing_in_copy_mode_never_changes_what_is_below(tmp_path: Path) -> None:
    store = Snapshots(tmp_path, mode="copy")
    base = change(store, None, put("a", b"A"))
    shared = store.prepare(base, share=True)
    alone = store.prepare(base)
    inode = (store.own_files(base) / "a").stat().st_ino
    assert (store.own_files(shared) / "a").stat().st_ino == inode
    assert (store.own_files(alone) / "a").stat().st_ino != inode
    store.close()


def test_usage_counts_what_is_on_the_disk(store: Snapshots) -> None:
    base = change(store, None, put("a", b"x" * 100_000))
    child = change(store, base, put("b", b"x" * 50_000))
    sizes = store.usages([base, child])
    assert 100_000 <= sizes[base] < 150_000
    assert sizes[child] >= 50_000
    assert store.usage(base) == sizes[base]


def test_another_mode_begins_anew(tmp_path: Path) -> None:
    if "overlay" not in MODES:
        pytest.skip("needs overlays")
    store = Snapshots(tmp_path, mode="overlay")
    change(store, None, put("a"))
    store.close()
    store = Snapshots(tmp_path, mode="copy")
    assert store.ids() == []
    kept = change(store, None, put("b"))
    store.close()
    store = Snapshots(tmp_path)
    assert (store.mode, store.ids()) == ("copy", [kept])
    store.close()
