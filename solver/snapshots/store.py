"""Snapshots: file systems as stacks of changes. A committed one never changes; others are gone after a restart.

In overlay mode a snapshot's folder holds what it changes of its parent, in overlayfs's form. In copy mode it holds the
whole tree. A merge, and a difference whose upper side is built on the lower one, takes no files of its own: it is a
list of the layers of others, and only becomes a folder where those can't be mounted over one another.

What holds after a crash: a snapshot is there once its record is committed, with all its files where the process was
killed. Nothing is forced to the disk, so after a loss of power the snapshots of the last minute are forgotten.
"""

import errno
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Literal

from ...oci.layer import LayerError, apply_layer, free_space
from . import layers, mounts, trees
from .records import Record, Records
from .spread import spread

Mode = Literal["overlay", "copy"]
_FILES, _FLAT, _WORK = "fs", "flat", "work"
_NEW = ".new"


class Snapshots:
    """The snapshots below a folder; may be used by several threads.

    `mode` None takes overlays where they can be mounted. A folder keeps the mode that it was made with. `clean` says
    whether the process before closed it.
    """

    def __init__(self, root: Path, *, mode: Mode | None = None) -> None:
        self._root = root / "snapshots"
        self._mounts = root / "mounts"
        self._lock = threading.RLock()
        self._open: dict[str, str | None] = {}
        self._children: dict[str, int] = {}
        self._views: dict[str, tuple[Path, int]] = {}
        self._making: dict[str, threading.Lock] = {}
        for folder in (self._root, self._mounts):
            folder.mkdir(parents=True, exist_ok=True)
        spread(self._root)
        self._unmount_left()
        self.mode: Mode = self._settle_mode(mode)
        self._records = Records(self._root / "snapshots.db")
        self.clean = self._records.clean
        if not self.clean:
            self.repair()
        self._empty = self._root / "empty"
        self._empty.mkdir(exist_ok=True)
        # A short name for the folder, for mounts with many layers.
        self._handle = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _unmount_left(self) -> None:
        for left in mounts.mounted_below(self._mounts):
            with suppress(OSError):
                mounts.unmount(left)
        with os.scandir(self._mounts) as entries:
            for entry in entries:
                with suppress(OSError):
                    os.rmdir(entry.path)

    def _settle_mode(self, wanted: Mode | None) -> Mode:
        note = self._root / "mode"
        kept = note.read_text().strip() if note.exists() else ""
        usable: Mode = "copy"
        if wanted is not None:
            usable = wanted
        elif kept != "copy" and mounts.overlay_works(self._root):
            usable = "overlay"
        if kept and kept != usable:
            # Folders of the other form can't be read: start anew.
            trees.remove(self._root)
            self._root.mkdir()
        if kept != usable:
            note.write_text(usable)
        return usable

    def repair(self) -> None:
        """Drop what a process that was killed left half made or half removed; only while nothing is open."""
        with os.scandir(self._root) as entries:
            folders = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        self._records.repair(folders)
        for name in folders.difference(self._records.ids(), ["empty"]):
            trees.remove(self._root / name)

    def _folder(self, name: str) -> Path:
        return self._root / name / _FILES

    def own_files(self, name: str) -> Path:
        """Where a snapshot keeps its own files: what it changes, or in copy mode its whole tree.

        They are never written to after it is committed, and may be written to before in one on nothing.
        """
        return self._folder(name)

    def folders(self, name: str) -> list[Path]:
        """What an overlay of a snapshot is mounted of: folders in overlayfs's form, the top first. Raises KeyError."""
        return [self._root / lower for lower in self._lowers(name)]

    def ids(self) -> list[str]:
        """The committed snapshots, the oldest first."""
        return self._records.ids()

    def exists(self, name: str) -> bool:
        """Whether a snapshot is there and committed."""
        return self._records.get(name) is not None

    def _record(self, name: str) -> Record:
        record = self._records.get(name)
        if record is None:
            with self._lock:
                return Record(name, self._open[name])
        return record

    def created(self, name: str) -> int:
        """When a snapshot was committed, in nanoseconds since 1970. Raises KeyError."""
        return self._record(name).created

    def parent(self, name: str) -> str | None:
        """The snapshot that this one changes. Raises KeyError."""
        return self._record(name).parent

    def chain(self, name: str | None) -> list[str]:
        """The layers of a snapshot: those that have files of their own, the lowest first. Raises KeyError."""
        out: list[str] = []
        while name is not None:
            record = self._record(name)
            out += record.layers[::-1] or (name,)
            name = record.parent
        return out[::-1]

    def parents(self, name: str) -> list[str]:
        """The snapshots that one is made of directly, what it changes first. Raises KeyError."""
        record = self._record(name)
        return list(dict.fromkeys([*([record.parent] if record.parent is not None else []), *record.layers]))

    def needs(self, names: Iterable[str]) -> set[str]:
        """Snapshots with all that they are made of; those that are gone are left as they are."""
        found: set[str] = set()
        pending = list(names)
        while pending:
            name = pending.pop()
            if name in found:
                continue
            found.add(name)
            with suppress(KeyError):
                pending += self._record(name).needs()
        return found

    def prepare(self, parent: str | None = None, *, share: bool = False) -> str:
        """A new snapshot that can be written to. Raises KeyError for a parent that is gone, OSError.

        With `share` its writer replaces files and never changes one in place, so that in copy mode the parent's need
        no copying.
        """
        name = secrets.token_hex(10)
        base = self._root / name
        with self._lock:
            record = None if parent is None else self._record(parent)
            self._open[name] = parent
            if parent is not None:
                self._children[parent] = self._children.get(parent, 0) + 1
        try:
            base.mkdir(mode=0o711)
            files = base / _FILES
            files.mkdir()
            if record is None:
                files.chmod(0o755)
            elif self.mode == "overlay":
                top = os.fsencode(self._root / self._folders(record)[0])
                trees.copy_metadata(top, os.fsencode(files), os.lstat(top))
            else:
                trees.copy_tree(os.fsencode(self._tree(record.id)), os.fsencode(files), share=share)
        except BaseException:
            self.remove(name)
            raise
        return name

    def commit(self, name: str) -> None:
        """Make a snapshot final; it is there after a restart. Raises KeyError for one that is not open."""
        # What was written over nothing has nothing to hide, but in the form of an archive's layer.
        self._commit(name, None if self._open[name] is not None else False)

    def _commit(self, name: str, marks: bool | None) -> None:
        with self._lock:
            parent = self._open[name]
        trees.remove(self._root / name / _WORK)
        self._records.add(Record(name, parent, created=time.time_ns()), marks)
        with self._lock:
            del self._open[name]
            self._leave(parent)

    def _leave(self, parent: str | None) -> None:
        if parent is not None:
            left = self._children[parent] - 1
            if left:
                self._children[parent] = left
            else:
                del self._children[parent]

    def remove(self, name: str) -> None:
        """Drop a snapshot; one that is gone already is no error. Raises ValueError while others are built on it."""
        with self._lock:
            record = self._records.get(name)
            if record is None and name not in self._open:
                return
            if name in self._children or name in self._views or (record is not None and self._records.needed(name)):
                raise ValueError(f"the snapshot {name} is still needed by others")
            if record is None:
                self._leave(self._open.pop(name))
            else:
                # From here on it is not there; what is left of its folder goes with the next start at the latest.
                self._records.remove_all([name])
            for made in (name, f"view {name}"):
                self._making.pop(made, None)
        trees.remove(self._root / name)

    @contextmanager
    def mounted(self, name: str | None, *, readonly: bool = True) -> Iterator[Path]:
        """A snapshot's whole file system as a folder for the time of the block; None is an empty one.

        Raises:
            KeyError: for one that is gone.
            OSError: where it can't be mounted.
        """
        if name is None:
            yield self._empty
            return
        if self.mode == "copy":
            yield self._tree(name)
            return
        if not readonly:
            if self._record(name).parent is None:
                yield self._folder(name)
                return
            target = self._mount(name, readonly=False)
            try:
                yield target
            finally:
                self._unmount(target)
            return
        folders = self._lowers(name)
        if len(folders) == 1:
            yield self._root / folders[0]
            return
        view = self._take_view(name)
        try:
            yield view
        finally:
            self._drop_view(name)

    def _take_view(self, name: str) -> Path:
        """The place where a snapshot is mounted read-only; mounted once for all that look at it."""
        with self._making_of(f"view {name}"):
            with self._lock:
                found = self._views.get(name)
                if found is not None:
                    self._views[name] = (found[0], found[1] + 1)
                    return found[0]
            target = self._mount(name, readonly=True)
            with self._lock:
                self._views[name] = (target, 1)
            return target

    def _drop_view(self, name: str) -> None:
        with self._lock:
            target, users = self._views[name]
            if users > 1:
                self._views[name] = (target, users - 1)
                return
            del self._views[name]
        self._unmount(target)

    def _lowers(self, name: str) -> list[str]:
        """The folders to mount over one another for a snapshot, the top first, relative to the root."""
        out: list[str] = []
        at: str | None = name
        while at is not None:
            record = self._record(at)
            out += self._folders(record)
            at = record.parent
        # A layer that comes twice has all that it holds on top: below there is nothing more of it to see.
        return list(dict.fromkeys(out))

    def _folders(self, record: Record) -> list[str]:
        """The folders that a snapshot itself lays over its parent, the top first."""
        if record.loose:
            self._flatten(record)
            return [f"{record.id}/{_FLAT}"]
        return [f"{layer}/{_FILES}" for layer in reversed(record.layers)] or [f"{record.id}/{_FILES}"]

    def _mount(self, name: str, *, readonly: bool) -> Path:
        lowers = self._lowers(name)
        base = f"/proc/self/fd/{self._handle}"
        upper = work = ""
        if not readonly:
            upper, work = f"{base}/{lowers.pop(0)}", f"{base}/{name}/{_WORK}"
            trees.remove(self._root / name / _WORK)
            (self._root / name / _WORK).mkdir()
        lowers = self._few(lowers, mounts.limit())
        target = self._mounts / secrets.token_hex(8)
        target.mkdir()
        try:
            try:
                mounts.mount_overlay([f"{base}/{lower}" for lower in lowers], target, upper, work)
            except OSError as error:
                if error.errno != errno.E2BIG:
                    raise
                lowers = self._few(lowers, mounts.FEW)
                mounts.mount_overlay([f"{base}/{lower}" for lower in lowers], target, upper, work)
        except BaseException:
            target.rmdir()
            raise
        return target

    def _few(self, lowers: list[str], limit: int) -> list[str]:
        """At most so many folders: where there are more, lower ones are made one in groups, from below."""
        if len(lowers) <= limit:
            return lowers
        size = max(limit // 4, 2)
        rest = len(lowers) % size
        out = lowers[:rest]
        for start in range(rest, len(lowers), size):
            out.append(self._group(lowers[start : start + size]))
        return self._few(out, limit)

    def _group(self, lowers: Sequence[str]) -> str:
        """Several layers as one, kept beside the top one's files."""
        top = lowers[0].partition("/")[0]
        place = f"{top}/group-{sha256(':'.join(lowers).encode()).hexdigest()[:16]}"
        with self._making_of(top):
            if not (self._root / place).exists():
                making = self._root / (place + _NEW)
                trees.remove(making)
                making.mkdir()
                for folder in reversed(lowers):
                    layers.lay_over(os.fsencode(self._root / folder), os.fsencode(making))
                making.rename(self._root / place)
        return place

    def _making_of(self, name: str) -> threading.Lock:
        """A lock for what is made of a snapshot when it is first needed."""
        with self._lock:
            return self._making.setdefault(name, threading.Lock())

    def _unmount(self, target: Path) -> None:
        mounts.unmount(target)
        with suppress(OSError):
            target.rmdir()

    def _tree(self, name: str) -> Path:
        """The whole tree of a snapshot in copy mode."""
        record = self._record(name)
        if not record.layers:
            return self._folder(name)
        self._flatten(record)
        return self._root / name / _FLAT

    def _flatten(self, record: Record) -> None:
        """Make a folder of a list of layers: a whole tree, or one layer for what is below it."""
        place = self._root / record.id / _FLAT
        if place.exists():
            return
        # Only ever one after the other from a snapshot down to those that it needs.
        with self._making_of(record.id):
            if place.exists():
                return
            making = place.with_name(_FLAT + _NEW)
            trees.remove(making)
            making.mkdir(parents=True)
            if self.mode == "overlay":
                for layer in record.layers:
                    layers.lay_over(os.fsencode(self._folder(layer)), os.fsencode(making))
                with self.mounted(record.parent) as below:
                    layers.settle(os.fsencode(making), os.fsencode(below))
            else:
                if record.parent is not None:
                    trees.copy_tree(os.fsencode(self._tree(record.parent)), os.fsencode(making), share=True)
                for layer in record.layers:
                    self._apply(layer, making)
            making.rename(place)

    def _apply(self, layer: str, target: Path) -> None:
        """Do to a whole tree what a layer changed of its parent."""
        from ...oci.diff import of_trees

        parent = self._record(layer).parent
        base = None if parent is None else os.fsencode(self._tree(parent))
        files = os.fsencode(self._folder(layer))
        layers.apply(of_trees(base, files), files, os.fsencode(target), overlay=False)

    def apply_layer(self, parent: str | None, open_stream: Callable[[], BinaryIO], *, diff_id: str = "") -> str:
        """A committed snapshot of a layer's archive over a parent.

        Raises:
            LayerError: for a hostile or broken one, or one whose tar has another digest than a given `diff_id`.
        """
        name = self.prepare(parent, share=True)
        try:
            # Over nothing there is nothing to hide, and no mark of it must be seen.
            marked = self.mode == "overlay" and parent is not None
            below = [self._root / folder for folder in self._lowers(parent)] if marked and parent is not None else []
            with open_stream() as stream:
                found = apply_layer(
                    stream,
                    self._folder(name),
                    overlay=marked,
                    owner=os.geteuid() == 0,
                    parents=below,
                    max_size=free_space(self._root),
                )
            if diff_id and found.diff_id != diff_id:
                raise LayerError(f"the layer's tar has the digest {found.diff_id} instead of {diff_id}")
            if marked and found.hides:
                with self.mounted(parent) as base:
                    layers.settle(os.fsencode(self._folder(name)), os.fsencode(base))
            self._commit(name, marked and found.hides)
        except BaseException:
            self.remove(name)
            raise
        return name

    def diff_snapshot(self, lower: str | None, upper: str | None) -> str | None:
        """A committed snapshot on nothing with what `upper` has that `lower` has not; None where that is nothing."""
        if upper is None or upper == lower:
            return None
        if lower is None:
            return upper
        chain, base = self.chain(upper), self.chain(lower)
        more = chain[len(base) :] if chain[: len(base)] == base else self._compared(lower, upper)
        return self._stack(None, more) if more else None

    def _compared(self, lower: str, upper: str) -> list[str]:
        """A layer that makes of one snapshot the other; none where they are the same."""
        from ...oci.diff import of_trees

        name = self.prepare(lower, share=True)
        try:
            with self.mounted(lower) as before, self.mounted(upper) as after:
                old, new = os.fsencode(before), os.fsencode(after)
                found = [difference for difference in of_trees(old, new) if not difference.unchanged]
                layers.apply(iter(found), new, os.fsencode(self._folder(name)), overlay=self.mode == "overlay")
            if not found:
                self.remove(name)
                return []
            self._commit(name, None)
        except BaseException:
            self.remove(name)
            raise
        return [name]

    def merge(self, names: Sequence[str | None]) -> str | None:
        """A committed snapshot with the file systems laid over each other, later ones on top."""
        given = [name for name in names if name is not None]
        if len(given) < 2:
            return given[0] if given else None
        return self._stack(given[0], [layer for name in given[1:] for layer in self.chain(name)])

    def _stack(self, parent: str | None, names: Sequence[str]) -> str:
        """A snapshot that has no files of its own: layers of others over a parent."""
        loose = self.mode == "copy" or any(self._has_marks(name) for name in names)
        record = Record(secrets.token_hex(10), parent, tuple(names), loose, time.time_ns())
        with self._lock:
            for name in record.needs():
                if not self.exists(name):
                    raise KeyError(name)
            self._records.add(record)
        return record.id

    def _has_marks(self, layer: str) -> bool:
        known = self._records.marks(layer)
        if known is None:
            known = layers.has_marks(os.fsencode(self._folder(layer)))
            self._records.set_marks(layer, known)
        return known

    def usage(self, name: str) -> int:
        """The bytes that a snapshot takes on the disk, without its parents."""
        return self.usages([name])[name]

    def usages(self, names: Sequence[str]) -> dict[str, int]:
        """The bytes that snapshots take on the disk, each without its parents. Counted once, then noted."""
        known = self._records.sizes()
        fresh: list[tuple[str, int]] = []
        for name in names:
            if name not in known:
                try:
                    known[name] = trees.size(os.fsencode(self._root / name))
                except OSError:
                    known[name] = 0
                record = self._records.get(name)
                # What has no files of its own may still get some.
                if record is not None and not record.layers:
                    fresh.append((name, known[name]))
        if fresh:
            self._records.set_sizes(fresh)
        return {name: known[name] for name in names}

    def check(self) -> list[str]:
        """What is wrong with the folder, one sentence each; nothing while all is in order."""
        out: list[str] = []
        for name in self.ids():
            record = self._record(name)
            out += [f"snapshot {name}: needs {n}, which is gone" for n in record.needs() if not self.exists(n)]
            if not record.layers and not stat.S_ISDIR(_mode(self._folder(name))):
                out.append(f"snapshot {name}: has no files")
        with self._lock:
            known = {*self.ids(), *self._open, "empty"}
        with os.scandir(self._root) as entries:
            out += [f"{e.name}: belongs to no snapshot" for e in entries if e.is_dir() and e.name not in known]
        return out

    def close(self) -> None:
        """Unmount what is still mounted, and drop what was not committed."""
        self._unmount_left()
        with self._lock:
            self._views.clear()
            left = list(self._open)
        while left:
            # Those on top of others go first.
            for name in reversed(left):
                with suppress(ValueError):
                    self.remove(name)
            with self._lock:
                if len(self._open) == len(left):
                    break
                left = list(self._open)
        os.close(self._handle)
        self._records.close()


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError:
        return 0
