"""A file of a root file system, its links followed as a process with that root would."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from ...oci.rootfs import Root, UnsafePath

_MAX_LINKS = 40


def open_inside(rootfs: Path, name: str, flags: int = os.O_RDONLY | os.O_NONBLOCK) -> int:
    """Open a path of a root file system; nothing outside of it is ever reached.

    Raises:
        OSError, UnsafePath: where it can't be.
    """
    with Root(rootfs) as root:
        name = name.strip("/")
        for _ in range(_MAX_LINKS):
            place = root.find(name)
            try:
                return os.open(place.name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.directory)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
            target = os.readlink(place.name, dir_fd=place.directory)
            above = place.path.rpartition("/")[0]
            name = target.strip("/") if target.startswith("/") or not above else f"{above}/{target}"
    raise UnsafePath(f"/{name}: too many symbolic links")


def is_inside(rootfs: Path, name: str) -> bool:
    """Whether there is a file at a path of a root file system."""
    with suppress(OSError, UnsafePath):
        os.close(open_inside(rootfs, name))
        return True
    return False
