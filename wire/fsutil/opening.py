"""Opening files for reading."""

import os
import stat


def open_to_read(path: str | bytes, flags: int, *, dir_fd: int | None = None) -> int:
    """`os.open` for reading, also of a regular file of this user that the user may not read. Raises OSError."""
    try:
        return os.open(path, flags, dir_fd=dir_fd)
    except PermissionError:
        if os.geteuid() == 0:
            raise
        handle = os.open(path, os.O_PATH | (flags & (os.O_NOFOLLOW | os.O_CLOEXEC)), dir_fd=dir_fd)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise
            # Few images have such files.
            from .unreadable import helper

            found = helper.open(handle)
            if found is None:
                raise
            return found
        finally:
            os.close(handle)
