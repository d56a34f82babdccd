"""Files that a user names for what a build gives: they appear whole or not at all, and devices and pipes stay what
they are."""

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from .errors import ClientError

_DEVICES = ("/dev/", "/proc/")


def is_stream(name: str) -> bool:
    """Whether a name stands for a device, a pipe or an open file (`/dev/stdout`): something to write to in place."""
    if os.path.abspath(name).startswith(_DEVICES):
        return True
    try:
        return not stat.S_ISREG(os.stat(name).st_mode)
    except OSError:
        return False


def check(name: str, what: str) -> None:
    """Refuse a destination that cannot be written, before anything is built. Folders that are missing will be made.

    Raises:
        ClientError: for a folder in its way, or one that this user can't write to.
    """
    if is_stream(name):
        if os.path.isdir(name):
            raise ClientError(f"{what} {name!r} is a folder")
        return
    check_folder(os.path.dirname(os.path.realpath(name)), f"{what} {name!r}")


def check_folder(folder: str, what: str) -> None:
    """The same for a folder. Raises ClientError."""
    place = os.path.realpath(folder)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise ClientError(f"{what}: {place} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ClientError(f"{what}: {place} cannot be written to")


def forget(name: str) -> None:
    """Remove what an earlier build has left there. Raises ClientError."""
    if is_stream(name):
        return
    try:
        Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritten(name, error) from error


def write(name: str, data: bytes) -> None:
    """Write a whole file. Raises ClientError where that is not possible; then what was there stays."""
    try:
        if is_stream(name):
            with open(name, "wb") as stream:
                stream.write(data)
            return
        target = os.path.realpath(name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(target)}.", dir=os.path.dirname(target))
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            settle(temporary, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise _unwritten(name, error) from error


def settle(temporary: str | Path, target: str | Path) -> None:
    """Put a file that is written in its place, with the mode of a new file. Raises OSError."""
    mask = os.umask(0o022)
    os.umask(mask)
    os.chmod(temporary, 0o666 & ~mask)
    os.replace(temporary, target)


def _unwritten(name: str, error: OSError) -> ClientError:
    said = error.strerror or str(error)
    return ClientError(f"cannot write {name}: {said}", "free some space" if error.errno == errno.ENOSPC else "")
