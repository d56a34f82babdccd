"""One action of a file op, done to a directory that holds a file system."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ...llb.ops import Copy, MkDir, MkFile, Rm, Symlink
from ...oci.rootfs import Root, UnsafePath
from .errors import FileOpError
from .owner import find_owner

__all__ = ["FileOpError", "apply"]


def apply(
    action: Copy | MkFile | MkDir | Rm | Symlink,
    root: Path,
    source: Path | None,
    owner_root: Callable[[int], Path | None],
    check: Callable[[], None] = lambda: None,
    *,
    upper: Path | None = None,
    link: bool = False,
) -> None:
    """Do an action. Paths begin at the root that they belong to, and no link leads out of it.

    Args:
        action: what to do.
        root: the file system to change.
        source: the file system to copy from, for a copy; it is only read.
        owner_root: the file system of an input, in which the names of users and groups are looked up.
        check: called now and then; what it raises ends a long copy.
        upper: for a copy, the upper folder of an overlay that `root` is a read-only view of: it is written to instead.
        link: a copy may share the files of the source, which never change.

    Raises:
        FileOpError: where it can't be done.
        OSError: where the machine fails: a full disk, say.
    """
    try:
        _apply(action, root, source, owner_root, check, upper, link)
    except UnsafePath as error:
        raise FileOpError(str(error)) from error


def _apply(
    action: Copy | MkFile | MkDir | Rm | Symlink,
    root: Path,
    source: Path | None,
    owner_root: Callable[[int], Path | None],
    check: Callable[[], None],
    upper: Path | None,
    link: bool,
) -> None:
    with ExitStack() as stack:
        target = stack.enter_context(Root(root))
        if isinstance(action, Rm):
            from .make import rm

            rm(target, action)
            return
        owner = find_owner(action.owner, owner_root)
        if isinstance(action, Copy):
            from .copy import copy
            from .target import Plain, Upper

            if source is None:
                raise FileOpError(f"{action.src} not found")
            origin = stack.enter_context(Root(source))
            into = Plain(target) if upper is None else Upper(target, stack.enter_context(Root(upper)))
            copy(origin, into, action, owner, check, link=link)
            return
        from .make import mkdir, mkfile, symlink

        if isinstance(action, MkDir):
            mkdir(target, action, owner)
        elif isinstance(action, MkFile):
            mkfile(target, action, owner)
        else:
            symlink(target, action, owner)
