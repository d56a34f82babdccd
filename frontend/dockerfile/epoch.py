"""The time that SOURCE_DATE_EPOCH takes from a source: a commit's, a download's, or the latest in an archive."""

import io
import re
import tarfile

from ...llb.graph import Output, Vertex
from ...llb.ops import SourceOp
from ...llb.state import source
from ...wire.pb import gateway_pb2, ops_pb2
from ..gateway import caps
from ..gateway.client import Client

_COMMITTER = re.compile(rb"^committer .*> (-?[0-9]+) [+-][0-9]{4}$", re.MULTILINE)


def epoch_of(client: Client, output: Output | None, log_name: str) -> int | None:
    """Seconds since 1970, None where the file system is no remote source or has no time. Raises BridgeError."""
    op = _only_source(output)
    if op is None or caps.SOURCE_META not in client.caps:
        return None
    request = gateway_pb2.ResolveSourceMetaRequest(
        Source=ops_pb2.SourceOp(identifier=op.identifier, attrs=dict(op.attrs)), LogName=log_name
    )
    if op.identifier.startswith("git://"):
        request.Git.ReturnObject = True
    found = client.bridge.resolve_source_meta(request)
    if found.Git.CommitObject:
        match = _COMMITTER.search(found.Git.CommitObject.partition(b"\n\n")[0])
        return int(match[1]) if match is not None else None
    if found.HTTP.HasField("LastModified"):
        return found.HTTP.LastModified.seconds
    name = op.attrs.get("http.filename", "")
    if not op.identifier.startswith(("http://", "https://")) or not name:
        return None
    from ...llb.marshal import marshal

    ref = client.solve_one(marshal(source(op.identifier, op.attrs).output))
    return latest(client.read_file(ref, name))


def _only_source(output: Output | None) -> SourceOp | None:
    """The one source that a file system is made from."""
    if output is None:
        return None
    found: list[SourceOp] = []
    seen: set[Vertex] = set()
    pending = [output.vertex]
    while pending:
        vertex = pending.pop()
        if vertex in seen:
            continue
        seen.add(vertex)
        if isinstance(vertex.op, SourceOp):
            found.append(vertex.op)
        pending.extend(i.vertex for i in vertex.inputs)
    return found[0] if len(found) == 1 else None


def latest(data: bytes) -> int | None:
    """The latest time of the files in an archive, None where it is none or has no files."""
    times = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            times = [int(member.mtime) for member in archive if member.isreg()]
    except (tarfile.TarError, EOFError, OSError, ValueError):
        return None
    return max(times, default=None)
