"""Errors of a frontend as statuses with typed details, for clients that print the place in the file."""

from ...grammar.errors import SourceError, excerpt
from ...llb.bridge import BridgeError
from ...llb.caps import CapError
from ...llb.marshal import SourceFile
from ...wire import errors
from ...wire.pb import errdefs_pb2, ops_pb2, rpc_status_pb2
from .client import UNIMPLEMENTED


class FrontendError(SourceError):
    """An error with the file that it is in."""

    def __init__(self, cause: SourceError, file: SourceFile) -> None:
        super().__init__(cause.message, cause.location, cause.hint)
        self.file = file
        self.__cause__ = cause.__cause__

    @property
    def source(self) -> bytes:
        """The file's content."""
        return self.file.data

    @property
    def filename(self) -> str:
        """The file's name."""
        return self.file.filename

    def excerpt(self) -> str:
        """File, line, caret and hint."""
        return excerpt(self, self.source.decode(errors="replace"), self.filename)

    def details(self) -> list[errdefs_pb2.Source]:
        """The place in the file, as BuildKit's clients print it; none where it has no place."""
        if self.location is None or self.location.start < 1:
            return []
        return [errdefs_pb2.Source(info=self.file.to_pb(), ranges=line_ranges(self.location.start, self.location.end))]


def line_ranges(start: int, end: int) -> list[ops_pb2.Range]:
    """Lines `start` to `end`, one range a line."""
    return [
        ops_pb2.Range(start=ops_pb2.Position(line=line), end=ops_pb2.Position(line=line))
        for line in range(start, max(start, end) + 1)
    ]


def text_of(error: SourceError) -> str:
    """The message with its hint, on one line."""
    return f"{error.message} ({error.hint})" if error.hint else error.message


def status_of(error: Exception) -> rpc_status_pb2.Status:
    """The status of what a frontend raised; that of a call that failed is kept, with the place added to it."""
    cause = error if isinstance(error, BridgeError) else error.__cause__
    status = rpc_status_pb2.Status()
    if isinstance(cause, BridgeError):
        if cause.status:
            status.ParseFromString(cause.status)
        status.code = cause.code
        status.message = str(error)
    elif isinstance(error, CapError):
        return errors.make_status(UNIMPLEMENTED, str(error))
    else:
        status = errors.make_status(errors.UNKNOWN, str(error))
    if isinstance(error, SourceError):
        status.message = text_of(error)
    if isinstance(error, FrontendError):
        errors.add_details(status, error.details())
    return status
