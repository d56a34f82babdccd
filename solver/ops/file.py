"""File ops: actions on a file system, one after the other.

Source: BuildKit's solver/llbsolver/ops/file.go.
"""

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from ...llb.graph import Vertex
from ...llb.ops import ChownOpt, Copy, FileAction, FileOp, Rm, SourceOp, UserName
from ...oci.rootfs import from_root
from ..base import Context, Result, Selection, SolveError
from ..fileops.apply import FileOpError, apply

_PASSWD, _GROUP = "/etc/passwd", "/etc/group"
_SHARED = "shared"
"""The kind of the cache's notes of where the files of a client's folder are shared."""


def _op(vertex: Vertex) -> FileOp:
    assert isinstance(vertex.op, FileOp)
    return vertex.op


def selections(vertex: Vertex) -> Sequence[Selection | None]:
    """An input that is only copied from, or asked for names, counts by the content that is read of it."""
    op = _op(vertex)
    inputs = len(vertex.inputs)
    whole: set[int] = set()
    found: dict[int, list[Selection]] = {}
    for action in op.actions:
        whole.add(action.input)
        if isinstance(action.action, Copy) and 0 <= action.secondary_input < inputs:
            found.setdefault(action.secondary_input, []).append(_selection(action.action))
        for user, path in _named(action):
            found.setdefault(user.input, []).append(Selection((path,), follow=True, optional=True))
    return [None if position in whole else _joined(found.get(position, [])) for position in range(inputs)]


def _joined(found: Sequence[Selection]) -> Selection | None:
    first, *more = dict.fromkeys(found) or [None]
    return first if first is None or not more else replace(first, also=tuple(one for one in more if one is not None))


def _selection(copy: Copy) -> Selection:
    return Selection(
        (copy.src,),
        copy.include_patterns,
        copy.exclude_patterns,
        wildcard=copy.allow_wildcard,
        follow=copy.follow_symlink,
        required=copy.required_paths,
    )


def cache_key(vertex: Vertex, context: Context) -> str:
    """All of the op."""
    return repr(_op(vertex))


def content_op_key(vertex: Vertex) -> str:
    """All of the op but where in an input that counts by its content a copy comes from; its last name may stay."""
    op = _op(vertex)
    by_content = [selection is not None for selection in selections(vertex)]
    actions = []
    for action in op.actions:
        position = action.secondary_input
        if isinstance(action.action, Copy) and 0 <= position < len(by_content) and by_content[position]:
            copy = action.action
            action = replace(action, action=replace(copy, src=posixpath.basename(posixpath.normpath(copy.src))))
        actions.append(action)
    return repr(replace(op, actions=tuple(actions)))


def run(vertex: Vertex, inputs: Sequence[Result], context: Context) -> Sequence[Result]:
    """Apply the actions; a file system that one action alone goes on with is changed in place."""
    op = _op(vertex)
    _check(op, len(inputs))
    work = _Work(vertex, op, [result.snapshot for result in inputs], context)
    try:
        for number in range(len(op.actions)):
            context.check()
            work.do(number)
        outputs = work.finish()
    except BaseException:
        work.drop()
        raise
    return [Result(snapshot) for snapshot in outputs]


def _check(op: FileOp, count: int) -> None:
    """Refuse what is no sequence of actions. Raises SolveError."""
    outputs = [action.output for action in op.actions if action.output >= 0]
    if not outputs:
        raise SolveError("no outputs specified")
    if len(set(outputs)) != len(outputs):
        raise SolveError(f"duplicate output {next(o for o in outputs if outputs.count(o) > 1)}")
    if sorted(outputs) != list(range(len(outputs))):
        missing = next(number for number in range(len(outputs)) if number not in outputs)
        raise SolveError(f"missing output index {missing}")
    for number, action in enumerate(op.actions):
        known = count + number
        for name, position in (("", action.input), ("secondary ", action.secondary_input)):
            if not -1 <= position < known:
                raise SolveError(f"invalid {name}input index {position}, {known} provided", action=number)
        for user, _ in _named(action):
            if not 0 <= user.input < known:
                raise SolveError(f"invalid user index {user.input}", action=number)


def _named(action: FileAction) -> Iterator[tuple[UserName, str]]:
    """The users and groups that an action names, with the files that they are looked up in."""
    owner: ChownOpt | None = None if isinstance(action.action, Rm) else action.action.owner
    if owner is not None:
        if isinstance(owner.user, UserName):
            yield owner.user, _PASSWD
        if isinstance(owner.group, UserName):
            yield owner.group, _GROUP


class _Work:
    """The snapshots of a run. Each action has one, which it may take over from the one before."""

    def __init__(self, vertex: Vertex, op: FileOp, inputs: list[str | None], context: Context) -> None:
        self._vertex = vertex
        self._op = op
        self._inputs = inputs
        self._context = context
        self._made: list[str] = []
        self._committed: set[str] = set()
        self._of_action: list[str] = []
        self._uses = [0] * len(op.actions)
        for action in op.actions:
            read = {action.input, action.secondary_input, *(user.input for user, _ in _named(action))}
            for position in read:
                if position >= len(inputs):
                    self._uses[position - len(inputs)] += 1
        self._touched: set[str] = set()
        # The one that is written to stays mounted from action to action.
        self._stack = ExitStack()
        self._at = ""
        self._folder = Path()

    def do(self, number: int) -> None:
        """One action."""
        action = self._op.actions[number]
        snapshot = self._begin(action)
        self._of_action.append(snapshot)
        context = self._context
        with ExitStack() as stack:

            def reading(position: int) -> Path | None:
                return None if position < 0 else stack.enter_context(self._reading(position, snapshot))

            source = None
            if isinstance(action.action, Copy):
                source = reading(action.secondary_input) or stack.enter_context(context.snapshots.mounted(None))
            owners = {user.input: reading(user.input) for user, _ in _named(action)}
            upper = None
            if self._may_add(number, snapshot):
                upper = context.snapshots.own_files(snapshot)
                root = stack.enter_context(self._view(snapshot))
            else:
                root = self._writing(snapshot)
            self._touched.add(snapshot)
            link = isinstance(action.action, Copy) and self._may_link(action)
            try:
                apply(action.action, root, source, owners.get, context.check, upper=upper, link=link)
            except FileOpError as error:
                raise SolveError(str(error), action=number) from error

    def _may_add(self, number: int, snapshot: str) -> bool:
        """Whether an action only adds to an overlay, so that its upper folder need not be mounted for it."""
        snapshots = self._context.snapshots
        action = self._op.actions[number]
        if not isinstance(action.action, Copy) or action.action.attempt_unpack:
            return False
        if snapshots.mode != "overlay" or snapshots.parent(snapshot) is None:
            return False
        if any(isinstance(before.action, Rm) for before in self._op.actions[:number]):
            return False
        read = [action.secondary_input, *(user.input for user, _ in _named(action))]
        mine = {i + len(self._inputs) for i, name in enumerate(self._of_action) if name == snapshot}
        return mine.isdisjoint(read)

    def _view(self, snapshot: str) -> AbstractContextManager[Path]:
        """What an open snapshot shows now."""
        self._release()
        snapshots = self._context.snapshots
        return snapshots.mounted(snapshot if snapshot in self._touched else snapshots.parent(snapshot))

    def _may_link(self, action: FileAction) -> bool:
        """Whether a copy may share the files of its source instead of copying them.

        Names that show together must not be one file unless they were in the source. So this is only for the client's
        own files, which no file system holds itself, and for one place of the whole of them.
        """
        copy, position = action.action, action.secondary_input
        assert isinstance(copy, Copy)
        if self._context.snapshots.mode != "overlay" or not 0 <= position < len(self._inputs):
            return False
        op = self._vertex.inputs[position].vertex.op
        if not isinstance(op, SourceOp) or not op.identifier.startswith("local://"):
            return False
        if from_root(copy.src) != "/" or not copy.dir_copy_contents:
            return False
        place = from_root(copy.dest)
        before = self._context.cache.get_value(_SHARED, op.identifier)
        if before is None:
            self._context.cache.set_value(_SHARED, op.identifier, place.encode("utf-8", "surrogateescape"))
            return True
        return before.decode("utf-8", "surrogateescape") == place

    def _begin(self, action: FileAction) -> str:
        position = action.input - len(self._inputs)
        if position >= 0:
            before = self._of_action[position]
            if self._uses[position] == 1 and self._op.actions[position].output < 0 and before not in self._committed:
                return before
            self._commit(before)
            parent: str | None = before
        else:
            parent = self._inputs[action.input] if action.input >= 0 else None
        made = self._context.snapshots.prepare(parent, share=True)
        self._made.append(made)
        return made

    def _release(self) -> None:
        """Unmount what was written to."""
        self._stack.close()
        self._at = ""

    def _writing(self, snapshot: str) -> Path:
        if self._at != snapshot:
            self._release()
            self._folder = self._stack.enter_context(self._context.snapshots.mounted(snapshot, readonly=False))
            self._at = snapshot
        return self._folder

    @contextmanager
    def _reading(self, position: int, writing: str) -> Iterator[Path]:
        """The file system of an input, or of an action before."""
        if position < len(self._inputs):
            snapshot = self._inputs[position]
        else:
            snapshot = self._of_action[position - len(self._inputs)]
            if snapshot == writing:
                yield self._writing(writing)
                return
            self._commit(snapshot)
        with self._context.snapshots.mounted(snapshot) as folder:
            yield folder

    def _commit(self, snapshot: str) -> None:
        if snapshot in self._made and snapshot not in self._committed:
            if self._at == snapshot:
                self._release()
            self._context.snapshots.commit(snapshot)
            self._committed.add(snapshot)

    def finish(self) -> list[str]:
        """Commit the outputs and drop what only was on the way."""
        numbered = {a.output: self._of_action[i] for i, a in enumerate(self._op.actions) if a.output >= 0}
        outputs = [numbered[number] for number in range(len(numbered))]
        self._release()
        for snapshot in outputs:
            self._commit(snapshot)
        if not set(outputs).issuperset(self._made):
            needed = self._context.snapshots.needs(outputs)
            for snapshot in reversed(self._made):
                if snapshot not in needed:
                    self._context.snapshots.remove(snapshot)
        return outputs

    def drop(self) -> None:
        """Remove everything after an error."""
        self._release()
        for snapshot in reversed(self._made):
            self._context.snapshots.remove(snapshot)
