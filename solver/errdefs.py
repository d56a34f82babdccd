"""Errors of builds as `google.rpc.Status` with BuildKit's typed details, which its clients print and act on.

Source: BuildKit's solver/errdefs and frontend/gateway/pb/exit.go for which detail stands for what.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..grammar.errors import SourceError
from ..llb.bridge import BridgeError
from ..wire import errors
from ..wire.pb import errdefs_pb2, gateway_pb2, ops_pb2, rpc_status_pb2
from .base import Cancelled, SolveError

if TYPE_CHECKING:
    from google.protobuf.message import Message


def to_status(error: BaseException, *, inputs: Sequence[str] = (), mounts: Sequence[str] = ()) -> rpc_status_pb2.Status:
    """The status of an error.

    `inputs` and `mounts` are the ids by which a client can reach the file systems that a failed process had.
    """
    # Errors of registries have a status that is a number.
    found = (getattr(one, "status", None) for one in chain(error))
    given = next((status for status in found if status and isinstance(status, bytes)), b"")
    if given:
        return rpc_status_pb2.Status.FromString(given)
    return errors.make_status(code_of(error), message_of(error), _details(error, inputs, mounts))


def code_of(error: BaseException) -> int:
    """gRPC's number for an error."""
    for one in chain(error):
        if isinstance(one, Cancelled):
            return errors.CANCELLED
        if isinstance(one, SolveError | BridgeError) and one.code:
            return one.code
        if isinstance(one, SourceError):
            return errors.UNKNOWN
        if isinstance(one, FileNotFoundError):
            return errors.NOT_FOUND
    return errors.UNKNOWN


def message_of(error: BaseException) -> str:
    """What a client prints."""
    if isinstance(error, Cancelled):
        return "context canceled"
    if isinstance(error, SourceError):
        return error.message
    return str(error) or type(error).__name__


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _details(error: BaseException, inputs: Sequence[str], mounts: Sequence[str]) -> Iterator["Message"]:
    for one in chain(error):
        if isinstance(one, SolveError):
            yield from _of_solve(one, inputs, mounts)
            return
        if isinstance(one, SourceError):
            yield from sources_of(one)
            return


def _of_solve(error: SolveError, inputs: Sequence[str], mounts: Sequence[str]) -> Iterator["Message"]:
    """The outermost first: a client unwraps them in this order."""
    if error.exit_code is not None:
        yield gateway_pb2.ExitMessage(Code=error.exit_code)
    if error.vertex:
        yield errdefs_pb2.Vertex(digest=error.vertex)
    if error.op:
        solve = errdefs_pb2.Solve(
            inputIDs=inputs, mountIDs=mounts, op=ops_pb2.Op.FromString(error.op), description=error.description
        )
        if error.action is not None:
            solve.file.index = error.action
        yield solve
    yield from error.sources


def sources_of(error: BaseException) -> list[errdefs_pb2.Source]:
    """The places in the user's files that an error is about."""
    for one in chain(error):
        if isinstance(one, SolveError) and one.sources:
            return list(one.sources)
        details = getattr(one, "details", None)
        if isinstance(one, SourceError) and callable(details):
            return list(details())
    return []


def definition_sources(definition: ops_pb2.Definition, digest: str) -> list[errdefs_pb2.Source]:
    """Where in the user's files a vertex of a definition comes from; for one of no place, such as the download of an
    ADD, what needs it."""
    known = definition.Source.locations
    if digest not in known:
        digest = next((user for user in _users(definition, digest) if user in known), "")
        if not digest:
            return []
    infos = definition.Source.infos
    out = []
    for location in known[digest].locations:
        if 0 <= location.sourceIndex < len(infos):
            info = ops_pb2.SourceInfo()
            info.CopyFrom(infos[location.sourceIndex])
            info.ClearField("definition")
            out.append(errdefs_pb2.Source(info=info, ranges=location.ranges))
    return out


def _users(definition: ops_pb2.Definition, digest: str) -> Iterator[str]:
    """What is built on a vertex, the nearest first."""
    inputs = {
        f"sha256:{hashlib.sha256(data).hexdigest()}": [one.digest for one in ops_pb2.Op.FromString(data).inputs]
        for data in getattr(definition, "def")
    }
    seen = {digest}
    level = [digest]
    while level:
        level = [user for user, found in inputs.items() if user not in seen and not seen.isdisjoint(found)]
        seen.update(level)
        yield from level


def from_status(status: rpc_status_pb2.Status) -> SolveError:
    """The error that another process's status stands for, which keeps it as it came."""
    error = SolveError(status.message or "the frontend failed", code=status.code)
    error.status = status.SerializeToString()
    sources = []
    for detail in errors.read_details(status):
        if isinstance(detail, errdefs_pb2.Source) and detail.info.data:
            sources.append(detail)
        elif isinstance(detail, errdefs_pb2.Vertex):
            error.vertex = detail.digest
        elif isinstance(detail, gateway_pb2.ExitMessage):
            error.exit_code = detail.Code
    error.sources = sources
    return error
