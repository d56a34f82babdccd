"""What goes wrong in a file operation, in the words of a user's own file system."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

_OF_THE_MACHINE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)


class FileOpError(Exception):
    """A file operation that can't be done: something is missing, in the way, or not a path."""


@contextmanager
def told(verb: str, path: str) -> Iterator[None]:
    """Errors of the system calls in the block as `FileOpError` about a path; those of the machine itself pass."""
    try:
        yield
    except OSError as error:
        raise as_file_op_error(error, verb, path) from error
    except ValueError as error:
        raise FileOpError(f"{verb} {path}: {error}") from error


def as_file_op_error(error: OSError, verb: str, path: str) -> Exception:
    """The error to raise for one of a system call: a full disk stays what it is."""
    if error.errno in _OF_THE_MACHINE:
        return error
    if isinstance(error, NotADirectoryError) and str(error.filename).startswith("/"):
        # Already found out on the way to the path.
        verb, path = "lstat", str(error.filename)
    reason = os.strerror(error.errno) if error.errno is not None else str(error)
    return FileOpError(f"{verb} {path}: {reason[:1].lower()}{reason[1:]}")
