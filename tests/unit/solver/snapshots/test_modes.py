"""Whatever is done to snapshots comes out the same with overlays as with whole trees."""

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickyard.solver.snapshots.store import Snapshots

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: overlays")

Step = tuple[Any, ...]
names = st.sampled_from(["a", "b", "c"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
edits = st.lists(
    st.one_of(
        st.tuples(st.just("write"), paths, st.binary(max_size=2)),
        st.tuples(st.just("link"), paths, names),
        st.tuples(st.just("mkdir"), paths),
        st.tuples(st.just("remove"), paths),
        st.tuples(st.just("rename"), paths, paths),
        st.tuples(st.just("chmod"), paths, st.sampled_from([0o700, 0o755])),
    ),
    max_size=6,
)
which = st.integers(0, 20)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.one_of(st.none(), which), edits),
        st.tuples(st.just("merge"), st.lists(which, min_size=1, max_size=3)),
        st.tuples(st.just("diff"), which, which),
    ),
    min_size=2,
    max_size=9,
)


moments = count(10**18 + 1, 1_000_003)


def edit(root: Path, action: Step) -> None:
    """One change as a process makes it; what is impossible is left alone."""
    place = root / action[1]
    for above in place.relative_to(root).parents:
        if os.path.lexists(root / above) and ((root / above).is_symlink() or not (root / above).is_dir()):
            return
    if action[0] in ("write", "link", "mkdir"):
        place.parent.mkdir(parents=True, exist_ok=True)
    is_folder = place.is_dir() and not place.is_symlink()
    match action[0]:
        case "write" if not is_folder:
            place.unlink(missing_ok=True)
            place.write_bytes(action[2])
            stamp(place)
        case "link" if not is_folder:
            place.unlink(missing_ok=True)
            place.symlink_to(action[2])
            stamp(place)
        case "mkdir" if not os.path.lexists(place):
            place.mkdir()
        case "remove" if is_folder:
            shutil.rmtree(place)
        case "remove":
            place.unlink(missing_ok=True)
        case "chmod" if place.exists() and not place.is_symlink():
            place.chmod(action[2])
        case "rename" if os.path.lexists(place) and not (action[2] + "/").startswith(action[1] + "/"):
            target = root / action[2]
            if (
                target.parent.is_dir()
                and not any(p.is_symlink() for p in target.parents)
                and not os.path.lexists(target)
            ):
                # As `mv` does where a file system can't rename a folder.
                shutil.move(place, target)


def stamp(place: Path) -> None:
    """A time of its own: what changes twice within a tick of the clock, to the same size, counts as unchanged."""
    moment = next(moments)
    os.utime(place, ns=(moment, moment), follow_symlinks=False)


def look(store: Snapshots, name: str | None) -> dict[str, tuple[object, ...]]:
    out: dict[str, tuple[object, ...]] = {}
    with store.mounted(name) as root:
        for folder, names_, files in os.walk(root):
            for entry in [*names_, *files]:
                path = Path(folder, entry)
                status = path.lstat()
                content: object = None
                if path.is_symlink():
                    content = os.readlink(path)
                elif path.is_file():
                    content = path.read_bytes()
                out[str(path.relative_to(root))] = (0 if path.is_symlink() else status.st_mode, content)
    return out


def run(store: Snapshots, what: list[Step]) -> list[str | None]:
    made: list[str | None] = [None]

    def pick(number: int | None) -> str | None:
        return None if number is None else made[number % len(made)]

    for step in what:
        match step:
            case ("change", parent, actions):
                name = store.prepare(pick(parent))
                with store.mounted(name, readonly=False) as root:
                    for action in actions:
                        edit(root, action)
                store.commit(name)
                made.append(name)
            case ("merge", parts):
                made.append(store.merge([pick(part) for part in parts]))
            case ("diff", lower, upper):
                made.append(store.diff_snapshot(pick(lower), pick(upper)))
    return made


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Callable[[], tuple[Snapshots, Snapshots]]]:
    made: list[Snapshots] = []

    def make() -> tuple[Snapshots, Snapshots]:
        for store in made:
            store.close()
        made.clear()
        for mode in ("overlay", "copy"):
            shutil.rmtree(tmp_path / mode, ignore_errors=True)
            made.append(Snapshots(tmp_path / mode, mode=mode))  # type: ignore[arg-type]
        return made[0], made[1]

    yield make
    for store in made:
        store.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(what=steps)
def test_both_modes_agree(stores: Callable[[], tuple[Snapshots, Snapshots]], what: list[Step]) -> None:
    overlay, copy = stores()
    both = [run(store, what) for store in (overlay, copy)]
    for number, (left, right) in enumerate(zip(*both, strict=True)):
        assert look(overlay, left) == look(copy, right), number
        # Again, now that some of them are folders.
        assert look(overlay, left) == look(copy, right), number
    # A difference, laid over what it is from, makes what it is to.
    for lower in both[0]:
        for upper in both[0]:
            if lower is not None and upper is not None:
                merged = overlay.merge([lower, overlay.diff_snapshot(lower, upper)])
                found, wanted = look(overlay, merged), look(overlay, upper)
                assert {n: v[1] for n, v in found.items()} == {n: v[1] for n, v in wanted.items()}
    for store in (overlay, copy):
        assert store.check() == []
