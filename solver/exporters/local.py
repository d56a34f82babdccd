"""Exporter `local`: the files of the result into a folder of the client; those of several platforms in one each.

Source: BuildKit's exporter/local, and "Local directory" of its README for `platform-split` and `mode`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

from ...wire.fsutil import tree
from ...wire.fsutil.errors import describe
from ...wire.fsutil.modes import DIRECTORY
from ...wire.pb.stat_pb2 import Stat
from ...wire.session import FileFilter, FileTree
from ..base import Context, Exportable, SolveError
from .options import boolean, epoch_of, metadata_epoch
from .statements import with_statements
from .writer import is_multi

_SECOND = 10**9
_CHUNK = 1 << 20
_COMPLETE = "buildkit-exporter-multi-platform"
_OVERLAY = ("trusted.overlay.", "user.overlay.")


def export(result: Exportable, id: str, attrs: Mapping[str, str], context: Context) -> dict[str, str]:
    """Send the files to the client.

    With `mode=delete` everything goes in one transfer, so that the client can remove what else is there.

    Raises:
        SolveError: for options that make no sense, and where files cannot be read or sent.
    """
    multi = is_multi(result)
    split = boolean("platform-split", attrs["platform-split"]) if "platform-split" in attrs else multi
    mode = attrs.get("mode", "")
    if mode not in ("", "copy", "delete"):
        raise SolveError(f"unknown mode {mode!r} of the local exporter: known are copy and delete")
    if multi and not result.platforms:
        raise SolveError("unable to export multiple refs, missing platforms mapping")
    keys = [key for key, _ in result.platforms] if multi else [""]
    wanted = epoch_of(attrs)
    with ExitStack() as mounted:
        parts: list[tuple[str, FileTree]] = []
        for key in keys:
            if key not in result.refs:
                raise SolveError(f"failed to find ref for ID {key}")
            epoch = wanted if wanted is not None else metadata_epoch(result.metadata, key)
            part = _files(result, key, epoch, attrs, multi and not split, mounted, context)
            if split:
                part = tree.Below({key.replace("/", "_"): part}, (epoch or 0) * _SECOND)
            parts.append((key, part))
        try:
            if not split and len(parts) > 1:
                _check_apart(parts)
            if mode == "delete":
                whole = parts[0][1] if len(parts) == 1 else tree.Merged(*(files for _, files in parts))
                _send("copying files", whole, id, {_COMPLETE: "1"}, context)
            else:
                for key, files in parts:
                    _send(f"copying files {key}" if split else "copying files", files, id, {}, context)
        except (OSError, tree.MergeError) as error:
            raise SolveError(f"failed to export files: {describe(error)}") from error
    return {}


def _files(
    result: Exportable,
    key: str,
    epoch: int | None,
    attrs: Mapping[str, str],
    named: bool,
    mounted: ExitStack,
    context: Context,
) -> FileTree:
    """The files of one platform, with its attestations beside them; `named` puts the platform into their names."""
    root = mounted.enter_context(context.snapshots.mounted(result.refs[key][0].snapshot))
    files = tree.folder(root, FileFilter(), _changes(epoch))
    return with_statements(
        files,
        result.attestations.get(key, ()),
        context,
        prefix=attrs.get("attestation-prefix", ""),
        platform=key if named else "",
        epoch=epoch,
    )


def _changes(epoch: int | None) -> Callable[[Stat], None]:
    def change(entry: Stat) -> None:
        if epoch is not None:
            entry.modTime = epoch * _SECOND
        if entry.xattrs:
            for name in list(entry.xattrs):
                if name.startswith(_OVERLAY):
                    del entry.xattrs[name]

    return change


def _check_apart(parts: list[tuple[str, FileTree]]) -> None:
    """Raises SolveError where two platforms have a file of one name."""
    seen: dict[str, str] = {}
    for key, files in parts:
        for entry in files.entries():
            if entry.mode & DIRECTORY:
                continue
            first = seen.setdefault(entry.path, key)
            if first != key:
                raise SolveError(f"cannot overwrite {entry.path} from {first} with {key} when split option is disabled")


def _send(label: str, files: FileTree, id: str, metadata: Mapping[str, str], context: Context) -> None:
    counted = _Counted(files, label, context)
    context.progress(label, 0, 0)
    context.session.output_dir(id, counted, metadata)
    context.progress(label, counted.size, 0)
    context.progress(label, -1, 0)


@dataclass(slots=True)
class _Counted:
    """A tree that shows how much of it was read."""

    files: FileTree
    label: str
    context: Context
    size: int = 0

    def entries(self) -> Iterator[Stat]:
        """The tree's entries; raises Cancelled where the build was stopped."""
        for entry in self.files.entries():
            self.context.check()
            self.size += entry.ByteSize() + (entry.size if not entry.mode & DIRECTORY else 0)
            self.context.progress(self.label, self.size, 0)
            yield entry

    def open(self, path: str) -> BinaryIO:
        """A file's content."""
        self.context.check()
        return self.files.open(path)

    def place(self, path: str) -> bytes | None:
        """Where a file is on this machine."""
        return tree.place_in(self.files, path)
