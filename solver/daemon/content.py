"""`containerd.services.content.v1.Content`, read-only: what build records name, and what the store holds."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ...wire import errors
from ...wire.h2.server import BothStreams, Call, ServerStream, StatusError, Unary
from ...wire.pb import content_pb2
from .handlers import Methods, under

SERVICE = "containerd.services.content.v1.Content"
_CHUNK = 1 << 20

Find = Callable[[str], Path | None]


def content_service(find: Find) -> Methods:
    """The service over a function that gives the file of a digest."""

    def opened(digest: str) -> Path:
        path = find(digest)
        if path is None:
            raise StatusError(errors.NOT_FOUND, f"content {digest}: not found")
        return path

    def info(request: content_pb2.InfoRequest, call: Call) -> content_pb2.InfoResponse:
        status = opened(request.digest).stat()
        found = content_pb2.Info(digest=request.digest, size=status.st_size)
        found.created_at.FromNanoseconds(status.st_mtime_ns)
        found.updated_at.FromNanoseconds(status.st_mtime_ns)
        return content_pb2.InfoResponse(info=found)

    def read(request: content_pb2.ReadContentRequest, call: Call) -> Iterator[content_pb2.ReadContentResponse]:
        with opened(request.digest).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            at = request.offset
            end = size if request.size <= 0 else min(at + request.size, size)
            if at < 0 or at > size:
                raise StatusError(errors.OUT_OF_RANGE, f"read past object length {size} bytes")
            file.seek(at)
            while at < end and (data := file.read(min(_CHUNK, end - at))):
                yield content_pb2.ReadContentResponse(offset=at, data=data)
                at += len(data)

    def write(requests: object, call: Call) -> Iterator[bytes]:
        raise StatusError(errors.PERMISSION_DENIED, "read-only content store")

    return under(
        SERVICE,
        {
            "Info": Unary(content_pb2.InfoRequest, info),
            "Read": ServerStream(content_pb2.ReadContentRequest, read),
            "Write": BothStreams(None, write),
        },
    )
