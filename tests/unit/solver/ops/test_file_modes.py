"""Copies come out the same whether files are written into a whole tree or into the upper folder of an overlay."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickyard.llb.graph import Output, Vertex
from brickyard.llb.ops import ChownOpt, Copy, FileAction, FileOp, MkFile, Rm, SourceOp
from brickyard.solver.base import Result, SolveError
from brickyard.solver.ops import file as module

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: overlays")

Files = dict[str, bytes | str | None]
names = st.sampled_from(["a", "b", "c", "d"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
contents = st.one_of(st.binary(max_size=3), st.none(), st.sampled_from(["a", "/b", "../c", "b/c"]))
trees = st.dictionaries(paths, contents, max_size=7)
copies = st.builds(
    Copy,
    src=st.one_of(st.just("/"), paths),
    dest=st.one_of(st.just("/"), paths, paths.map(lambda path: path + "/")),
    owner=st.sampled_from([None, None, ChownOpt(5, 6)]),
    mode=st.sampled_from([-1, -1, 0o751]),
    follow_symlink=st.booleans(),
    dir_copy_contents=st.booleans(),
    create_dest_path=st.sampled_from([True, True, False]),
    timestamp=st.sampled_from([-1, -1, 10**9]),
    exclude_patterns=st.sampled_from([(), ("b",), ("*/c",)]),
    include_patterns=st.sampled_from([(), (), ("*/c",)]),
    always_replace_existing_dest_paths=st.booleans(),
)


def write(root: Path, files: Files) -> None:
    for path, content in sorted(files.items()):
        place = root
        for part in path.split("/")[:-1]:
            place = place / part
            if not os.path.lexists(place):
                place.mkdir()
                os.utime(place, ns=(7, 7))
            if place.is_symlink() or not place.is_dir():
                break
        else:
            place = root / path
            if os.path.lexists(place):
                continue
            if content is None:
                place.mkdir()
            elif isinstance(content, str):
                place.symlink_to(content)
            else:
                place.write_bytes(content)
            os.utime(place, ns=(7, 7), follow_symlinks=False)
    for folder, _, _ in os.walk(root, topdown=False):
        os.utime(folder, ns=(7, 7))


def snapshot(state: Any, files: Files, parent: str | None = None) -> str:
    name: str = state.context.snapshots.prepare(parent)
    with state.context.snapshots.mounted(name, readonly=False) as root:
        write(root, files)
    state.context.snapshots.commit(name)
    return name


def look(state: Any, name: str | None) -> dict[str, tuple[object, ...]]:
    """Everything that a layer would hold, but for the times of directories that were written to just now."""
    out: dict[str, tuple[object, ...]] = {}
    with state.context.snapshots.mounted(name) as root:
        for folder, folders, found in os.walk(root):
            for entry in [*folders, *found]:
                path = Path(folder, entry)
                status = path.lstat()
                content: object = None
                if path.is_symlink():
                    content = os.readlink(path)
                elif path.is_file():
                    content = path.read_bytes()
                time = status.st_mtime_ns if status.st_mtime_ns < 10**15 else "now"
                mode = 0 if path.is_symlink() else stat.S_IMODE(status.st_mode)
                key = str(path.relative_to(root))
                out[key] = (stat.S_IFMT(status.st_mode), mode, status.st_uid, status.st_gid, time, content)
    return out


def outcome(state: Any, layers: list[Files], source: Files, actions: list[Copy | Rm | MkFile], scheme: str) -> object:
    base: str | None = None
    for layer in layers:
        base = snapshot(state, layer, base)
    given_files = snapshot(state, source)
    steps = []
    for number, action in enumerate(actions):
        secondary = 1 if isinstance(action, Copy) else -1
        last = number == len(actions) - 1
        steps.append(FileAction(action, 1 + number if number else 0, secondary, 0 if last else -1))
    inputs = [Output(Vertex(SourceOp(f"{scheme}://{n}")), 0) for n in range(2)]
    vertex = Vertex(FileOp(tuple(steps)), inputs)
    before = look(state, base), look(state, given_files)
    try:
        (made,) = module.run(vertex, [Result(base), Result(given_files)], state.context)
        found: object = look(state, made.snapshot)
    except SolveError as error:
        found = str(error)
    assert (look(state, base), look(state, given_files)) == before
    assert state.context.snapshots.check() == []
    return found


@pytest.fixture
def both(make_state: Callable[[str], Any]) -> tuple[Any, Any]:
    return make_state("overlay"), make_state("copy")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layers=st.lists(trees, min_size=1, max_size=2),
    source=trees,
    actions=st.lists(copies, min_size=1, max_size=3),
    scheme=st.sampled_from(["local", "docker-image"]),
)
def test_copies_come_out_the_same(
    both: tuple[Any, Any], layers: list[Files], source: Files, actions: list[Copy | Rm | MkFile], scheme: str
) -> None:
    overlay, copy = (outcome(state, layers, source, actions, scheme) for state in both)
    assert overlay == copy


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layers=st.lists(trees, min_size=1, max_size=2),
    source=trees,
    actions=st.lists(
        st.one_of(
            copies,
            st.builds(Rm, path=paths, allow_not_found=st.just(True)),
            st.builds(MkFile, path=paths, mode=st.just(0o644), data=st.just(b"made"), timestamp=st.just(10**9)),
        ),
        min_size=2,
        max_size=4,
    ),
)
def test_other_actions_between_them(
    both: tuple[Any, Any], layers: list[Files], source: Files, actions: list[Copy | Rm | MkFile]
) -> None:
    overlay, copy = (outcome(state, layers, source, actions, "local") for state in both)
    assert overlay == copy


def test_files_are_shared_once(both: tuple[Any, Any]) -> None:
    state = both[0]
    whole = Copy("/", "/src/", dir_copy_contents=True, create_dest_path=True)

    def inodes(copy: Copy) -> tuple[bool, int]:
        given_files = snapshot(state, {"a": b"A"})
        inputs = [Output(Vertex(SourceOp("local://context")), 0)] * 2
        vertex = Vertex(FileOp((FileAction(copy, 0, 1, 0),)), inputs)
        (made,) = module.run(vertex, [Result(snapshot(state, {"x": b""})), Result(given_files)], state.context)
        own = (state.context.snapshots.own_files(made.snapshot) / copy.dest[1:] / "a").stat()
        return own.st_ino == (state.context.snapshots.own_files(given_files) / "a").stat().st_ino, own.st_nlink

    assert inodes(whole) == (True, 2)
    assert inodes(whole) == (True, 2)
    elsewhere = Copy("/", "/other/", dir_copy_contents=True, create_dest_path=True)
    assert inodes(elsewhere) == (False, 1)
    changed = Copy("/", "/src/", dir_copy_contents=True, create_dest_path=True, mode=0o700)
    assert inodes(changed) == (False, 1)
    assert inodes(Copy("/a", "/src/", create_dest_path=True)) == (False, 1)
