"""`local://NAME`: a folder of the client, transferred anew for every build, though only what changed in it.

Source: BuildKit's source/local; the attributes are those of solver/pb/attr.go.
"""

import hashlib
import json
import time
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ...llb.ops import SourceOp
from ...oci.platform import Platform
from ...wire.fsutil.errors import describe
from ...wire.patterns import Matcher, PatternError
from ...wire.session import FileFilter, Session
from ..base import Context, Result, SolveError
from ..localsync.index import Index, Indexes
from ..localsync.metadata import MetadataReceiver
from ..localsync.receiver import FolderReceiver

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..snapshots.leases import Lease

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False", "")

_transferred: "WeakKeyDictionary[Session, dict[str, Index]]" = WeakKeyDictionary()
"""What `cache_key` transferred and `snapshot` has not asked for yet, by session and request."""
_lock = Lock()


@dataclass(frozen=True, slots=True)
class Request:
    """What a local source op asks for: the folder's name, the session that has it, and how to transfer it."""

    name: str
    session: str = ""
    filter: FileFilter = field(default_factory=FileFilter)
    hint: str = ""
    compare: bool = True

    @classmethod
    def of(cls, op: SourceOp) -> "Request":
        """Read an op. Raises SolveError for an attribute that makes no sense; unknown ones are ignored."""
        attrs = op.attrs
        name = op.identifier.partition("://")[2]
        session = attrs.get("local.session", "")
        prefix, colon, rest = session.partition(":")
        if colon:
            name, session = f"{prefix}-{name}", rest
        differ = attrs.get("local.differ", "")
        if differ not in ("", "metadata", "none"):
            raise SolveError(f"local source {name}: unknown local.differ {differ!r}: known are metadata and none")
        return cls(
            name,
            session,
            FileFilter(
                _list(attrs, "local.includepattern"),
                _list(attrs, "local.excludepatterns"),
                _list(attrs, "local.followpaths"),
                _flag(attrs, "local.metadatatransfer"),
                _list(attrs, "local.metadatatransferexclude"),
            ),
            attrs.get("local.sharedkeyhint", ""),
            differ != "none",
        )

    def key(self) -> str:
        """Everything in it as one text."""
        return json.dumps([self.name, self.session, _texts(self.filter), self.hint, self.compare])


def _list(attrs: "Mapping[str, str]", name: str) -> tuple[str, ...]:
    if name not in attrs:
        return ()
    try:
        found = json.loads(attrs[name])
    except ValueError:
        found = 0
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise SolveError(f"{name} must be a JSON list of texts, not {attrs[name][:80]!r}")
    return tuple(found)


def _flag(attrs: "Mapping[str, str]", name: str) -> bool:
    value = attrs.get(name, "")
    if value not in _TRUE + _FALSE:
        raise SolveError(f"{name} must be true or false, not {value[:80]!r}")
    return value in _TRUE


def _texts(wanted: FileFilter) -> list[object]:
    return [wanted.include, wanted.exclude, wanted.follow, wanted.metadata_only, wanted.metadata_only_except]


def cache_key(op: SourceOp, platform: Platform | None, context: Context) -> str:
    """Transfer the folder; the key names all that it holds, times of files included, and then without them."""
    request = Request.of(op)
    index = _transfer(request, context)
    with _lock:
        _transferred.setdefault(context.session, {})[request.key()] = index
    return f"local:{index.content}+{index.plain}"


def snapshot(op: SourceOp, platform: Platform | None, context: Context) -> Result:
    """The folder as a snapshot: what `cache_key` transferred, else it is transferred now."""
    request = Request.of(op)
    with _lock:
        index = _transferred.get(context.session, {}).pop(request.key(), None)
    if index is None or not context.snapshots.exists(index.snapshot):
        index = _transfer(request, context)
    return Result(index.snapshot)


def _transfer(request: Request, context: Context) -> Index:
    """The folder as it is now.

    Raises:
        SolveError: where the client has no such folder, or it can't be transferred.
        Cancelled: where the build was stopped.
    """
    session = context.session
    if request.session and request.session != session.id:
        session = session.other(request.session)
    indexes = Indexes(context.root)
    shared = session.shared_key()
    # A client that says nothing of itself begins with what any of its kind sent last.
    anyone = shared == session.id
    group, key = _keys(request, "" if anyone else shared)
    lease = context.leases.open()
    try:
        base = _usable(indexes.load(key), lease) or _usable(indexes.newest(group), lease)
        label = f"transferring {request.name}:"
        context.progress(label, 0, 0)
        index, news = _receive(request, session, base, anyone, label, context)
        if news:
            indexes.save(key, index)
    except PatternError as error:
        raise SolveError(f"local source {request.name}: {error}") from None
    except OSError as error:
        raise SolveError(f"local source {request.name}: {describe(error)}") from error
    finally:
        lease.release()
    return index


def _usable(index: Index | None, lease: "Lease") -> Index | None:
    """An index whose snapshot is there, and stays for the time of the lease."""
    return index if index is not None and lease.add([index.snapshot]) else None


def _keys(request: Request, shared: str) -> tuple[str, str]:
    """The names of what is kept of a client's folder, and of it with this filter."""
    kind = "metadata" if request.filter.metadata_only else "files"
    group = _digest(request.name, request.hint, shared, kind)
    return group, f"{group}-{_digest(*map(repr, _texts(request.filter)))}"


def _digest(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]


def _receive(
    request: Request, session: Session, base: Index | None, anyone: bool, label: str, context: Context
) -> tuple[Index, bool]:
    began = time.time_ns()
    receiver = FolderReceiver(
        context.snapshots,
        base,
        began,
        context.check,
        lambda size: context.progress(label, size, 0),
        differ=request.compare,
        strict=anyone,
        state=context.root,
    )
    try:
        metadata = (
            MetadataReceiver(receiver, Matcher(request.filter.metadata_only_except))
            if request.filter.metadata_only
            else None
        )
        try:
            session.receive(request.name, request.filter, metadata or receiver)
        except KeyError as error:
            if error.args != (request.name,):
                raise
            raise SolveError(f"the client offers no local source {request.name!r}") from None
        if metadata is not None:
            metadata.finish()
        index, news = receiver.finish(request.name)
    except BaseException:
        receiver.discard()
        raise
    context.progress(label, receiver.size, 0)
    context.progress(label, -1, 0)
    return index, news


def digests(snapshot: str, context: Context) -> "Mapping[str, bytes] | None":
    """The checksums of a snapshot's files, as `cache.filehash` makes them, by path; None for other snapshots.

    A file with several names is listed under the first only. Found without reading the files.
    """
    from ...wire.pb.stat_pb2 import Stat

    index = Indexes(context.root).of(snapshot)
    if index is None:
        return None
    return {Stat.FromString(entry).path: digest for entry, digest in index.files.items() if any(digest)}
