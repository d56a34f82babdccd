"""What can go wrong in a transfer."""

import errno


class TransferError(OSError):
    """The other side reported an error, broke the protocol, or went away."""


def is_gone(error: OSError) -> bool:
    """Whether a file is no longer what it was when its entry was sent (or a socket): it is sent as an empty one."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ELOOP)
