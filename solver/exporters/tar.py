"""Exporter `tar`: the files of the result as an archive; those of several platforms in a folder for each.

Source: BuildKit's exporter/tar and fsutil's tar writer.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

from ...oci.tar import Entry, Kind, TarError, TarWriter
from ...wire.fsutil import modes, tree
from ...wire.pb.stat_pb2 import Stat
from ...wire.reasons import reason
from ...wire.session import FileFilter, FileTree
from ..base import Context, Exportable, Result, SolveError
from .oci import sending
from .options import epoch_of, metadata_epoch
from .owners import owners
from .statements import with_statements
from .writer import is_multi, platforms_of

_KINDS = {
    0: Kind.FILE,
    modes.DIRECTORY: Kind.DIRECTORY,
    modes.SYMLINK: Kind.SYMLINK,
    modes.DEVICE: Kind.BLOCK,
    modes.DEVICE | modes.CHAR_DEVICE: Kind.CHAR,
    modes.NAMED_PIPE: Kind.FIFO,
}
_CHUNK = 1 << 20
_SECOND = 10**9
_OVERLAY = ("trusted.overlay.", "user.overlay.")


def export(result: Exportable, id: str, attrs: Mapping[str, str], context: Context) -> dict[str, str]:
    """Send the archive to the client.

    Raises:
        SolveError: where it cannot be written.
    """
    wanted = epoch_of(attrs)
    prefix = attrs.get("attestation-prefix", "")
    multi = is_multi(result)
    with ExitStack() as stack:
        trees: dict[str, FileTree] = {}
        newest = wanted or 0
        for key, platform in platforms_of(result):
            epoch = wanted if wanted is not None else metadata_epoch(result.metadata, key or str(platform))
            newest = max(newest, epoch or 0)
            ref = result.refs.get(key, (Result(None), None))[0]
            root = stack.enter_context(context.snapshots.mounted(ref.snapshot))
            files: FileTree = tree.folder(root, FileFilter(), owners())
            found = result.attestations.get(key, ())
            files = with_statements(files, found, context, prefix=prefix, epoch=epoch)
            trees[key.replace("/", "_")] = _Timed(files, epoch) if epoch is not None else files
        whole = tree.Below(trees, newest * _SECOND) if multi else next(iter(trees.values()))
        with context.step("sending tarball"), sending(id, {}, context) as out:
            try:
                write_tar(whole, TarWriter(out))
            except (OSError, TarError) as error:
                raise SolveError(f"failed to export files: {reason(error)}") from error
    return {}


class _Timed:
    """A tree with one time for everything."""

    def __init__(self, files: FileTree, seconds: int) -> None:
        self._files = files
        self._time = seconds * _SECOND
        self.open = files.open

    def entries(self) -> Iterator[Stat]:
        """The entries."""
        for entry in self._files.entries():
            entry.modTime = self._time
            yield entry


def write_tar(files: FileTree, tar: TarWriter) -> None:
    """Write a tree as an archive, and end it. Raises OSError, and TarError where a file changes meanwhile."""
    for stat in files.entries():
        kind = _KINDS.get(stat.mode & modes.TYPE)
        if kind is None:
            # A socket means nothing without the process that listens.
            continue
        # Whole seconds, rounded as Go's archives are.
        mtime = (stat.modTime + _SECOND // 2) // _SECOND * _SECOND
        entry = Entry(stat.path, kind, modes.permissions(stat.mode), stat.uid, stat.gid, mtime_ns=mtime)
        entry.device = (stat.devmajor, stat.devminor)
        entry.xattrs = {name: value for name, value in stat.xattrs.items() if not name.startswith(_OVERLAY)}
        if stat.linkname:
            entry.linkname = stat.linkname
            entry.kind = Kind.SYMLINK if kind is Kind.SYMLINK else Kind.LINK
        if entry.kind is not Kind.FILE:
            tar.add(entry)
            continue
        with files.open(stat.path) as file:
            entry.size = stat.size
            tar.add(entry)
            while chunk := file.read(_CHUNK):
                tar.write(chunk)
    tar.close()
