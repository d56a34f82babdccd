"""File ops: actions that build on each other, what is kept of them, and how they are keyed."""

from typing import Any

import pytest

from brickyard.llb.graph import Output, Vertex
from brickyard.llb.ops import ChownOpt, Copy, FileAction, FileOp, MkDir, MkFile, Rm, SourceOp, UserName
from brickyard.solver.base import Cancelled, Result, Selection, SolveError
from brickyard.solver.ops import content_op_key
from brickyard.solver.ops import file as module

Action = Copy | MkFile | MkDir | Rm


def vertex(actions: list[FileAction], inputs: int) -> Vertex:
    return Vertex(FileOp(tuple(actions)), [Output(Vertex(SourceOp(f"local://{n}")), 0) for n in range(inputs)])


def run(state: Any, actions: list[FileAction], inputs: list[str | None]) -> list[str | None]:
    found = module.run(vertex(actions, len(inputs)), [Result(snapshot) for snapshot in inputs], state.context)
    return [result.snapshot for result in found]


def mkfile(path: str, data: bytes = b"") -> MkFile:
    return MkFile(path, 0o644, data)


@pytest.fixture(params=["overlay", "copy"])
def state(request: pytest.FixtureRequest, make_state: Any) -> Any:
    import os

    if request.param == "overlay" and os.geteuid() != 0:
        pytest.skip("needs root: overlays")
    return make_state(request.param)


def test_a_chain_of_actions_is_one_snapshot(state: Any) -> None:
    base = state.snapshot({"a": b"1", "b": b"2"})
    source = state.snapshot({"s": b"S"})
    actions = [
        FileAction(mkfile("/new", b"n"), 0),
        FileAction(Rm("/a"), 2),
        FileAction(Copy("/s", "/d/", create_dest_path=True), 3, 1),
        FileAction(mkfile("/b", b"changed"), 4, output=0),
    ]
    (made,) = run(state, actions, [base, source])
    assert state.files(made) == {"new": b"n", "b": b"changed", "d/s": b"S"}
    assert state.files(base) == {"a": b"1", "b": b"2"}
    assert state.context.snapshots.chain(made) == [base, made]
    assert state.context.snapshots.check() == []


def test_several_outputs_and_actions_that_read_others(state: Any) -> None:
    actions = [
        FileAction(mkfile("/a", b"A"), output=1),
        FileAction(mkfile("/b", b"B"), 0, output=2),
        FileAction(Copy("/a", "/c"), 1, 0, output=0),
    ]
    actions[2] = FileAction(Copy("/a", "/c"), 1, 0, output=0)
    made = run(state, actions, [])
    assert [state.files(snapshot) for snapshot in made] == [
        {"a": b"A", "b": b"B", "c": b"A"},
        {"a": b"A"},
        {"a": b"A", "b": b"B"},
    ]


def test_what_only_was_on_the_way_is_dropped(state: Any) -> None:
    actions = [
        FileAction(mkfile("/scratch", b"S")),
        FileAction(mkfile("/a"), output=0),
        FileAction(Copy("/scratch", "/b"), 1, 0, output=1),
    ]
    made = run(state, actions, [])
    assert [state.files(snapshot) for snapshot in made] == [{"a": b""}, {"a": b"", "b": b"S"}]
    assert set(state.context.snapshots.ids()) == set(made)


def test_a_copy_from_itself(state: Any) -> None:
    base = state.snapshot({"d/a": b"A"})
    (made,) = run(state, [FileAction(Copy("/d", "/e"), 0, 0, output=0)], [base])
    assert state.files(made) == {"d/a": b"A", "e/a": b"A"}
    actions = [FileAction(mkfile("/x", b"X")), FileAction(Copy("/x", "/y"), 0, 0, output=0)]
    (made,) = run(state, actions, [])
    assert state.files(made) == {"x": b"X", "y": b"X"}


def test_names_of_an_action_before(state: Any) -> None:
    actions = [
        FileAction(MkDir("/etc", 0o755)),
        FileAction(mkfile("/etc/passwd", b"me:x:42:43::/:/bin/sh\n"), 0),
        FileAction(MkFile("/f", 0o644, b"", ChownOpt(UserName("me", 1))), 1, output=0),
    ]
    import os

    (made,) = run(state, actions, [])
    with state.context.snapshots.mounted(made) as root:
        found = (root / "f").stat()
    if os.geteuid() == 0:
        assert (found.st_uid, found.st_gid) == (42, 43)


def test_nothing_is_left_of_what_fails(state: Any) -> None:
    base = state.snapshot({"a": b""})
    actions = [FileAction(mkfile("/b"), 0, output=0), FileAction(Rm("/none"), 1, output=1)]
    with pytest.raises(SolveError, match="stat /none: no such file or directory") as caught:
        run(state, actions, [base])
    assert caught.value.action == 1
    assert state.context.snapshots.ids() == [base]
    state.context.cancel.set()
    with pytest.raises(Cancelled):
        run(state, actions[:1], [base])
    assert state.context.snapshots.ids() == [base]
    assert state.context.snapshots.check() == []


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([FileAction(mkfile("/a"))], "no outputs specified"),
        ([FileAction(mkfile("/a"), output=0), FileAction(mkfile("/b"), output=0)], "duplicate output 0"),
        ([FileAction(mkfile("/a"), output=1)], "missing output index 0"),
        ([FileAction(mkfile("/a"), 5, output=0)], "invalid input index 5"),
        ([FileAction(mkfile("/a"), 0, output=0)], "invalid input index 0"),
        ([FileAction(Copy("/a", "/b"), -1, 3, output=0)], "invalid secondary input index 3"),
        ([FileAction(MkDir("/a", 0o755, owner=ChownOpt(UserName("x", 9))), output=0)], "invalid user index 9"),
    ],
)
def test_what_is_refused(state: Any, actions: list[FileAction], message: str) -> None:
    with pytest.raises(SolveError, match=message):
        run(state, actions, [])


def test_what_counts_by_its_content() -> None:
    copy = Copy("/s", "/d", allow_wildcard=True, follow_symlink=True, exclude_patterns=("x",), required_paths=("/s/r",))
    one = vertex([FileAction(copy, 0, 1, output=0)], 2)
    selection = Selection(("/s",), (), ("x",), wildcard=True, follow=True, required=("/s/r",))
    assert module.selections(one) == [None, selection]
    named = Copy("/t", "/d", ChownOpt(UserName("me", 2), UserName("us", 0)))
    actions = [FileAction(copy, 0, 1), FileAction(named, 3, 1, output=0)]
    users = Selection(("/etc/passwd",), follow=True, optional=True)
    both = Selection(("/s",), (), ("x",), True, True, ("/s/r",), also=(Selection(("/t",)),))
    assert module.selections(vertex(actions, 3)) == [None, both, users]
    # What is copied from an input that is changed, too, is all that counts.
    assert module.selections(vertex([FileAction(copy, 1, 1, output=0)], 2)) == [None, None]


def test_keys(state: Any) -> None:
    def both(copy: Copy) -> tuple[str, str]:
        one = vertex([FileAction(copy, 0, 1, output=0)], 2)
        return module.cache_key(one, state.context), content_op_key(one, "never")

    first, moved, renamed = (both(Copy(src, "/d/")) for src in ("/a/x", "/b/x", "/a/y"))
    assert first[0] != moved[0]
    assert first[1] == moved[1] != renamed[1]
