"""What can go wrong in a transfer."""

import errno
import os


class TransferError(OSError):
    """The other side reported an error, broke the protocol, or went away."""


def is_gone(error: OSError) -> bool:
    """Whether a file is no longer what it was when its entry was sent (or a socket): it is sent as an empty one."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ELOOP)


def shown(path: str | bytes) -> str:
    """A path as text, whatever its bytes are."""
    return os.fsencode(path).decode(errors="backslashreplace")


def describe(error: BaseException) -> str:
    """What went wrong and where, in words."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    places = [shown(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return f"{' -> '.join(places)}: {error.strerror}" if places else error.strerror
