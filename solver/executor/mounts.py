"""Bind mounts through the system calls."""

import ctypes
import os
from pathlib import Path

from .base import ExecError

_libc = ctypes.CDLL(None, use_errno=True)
_MS_NODEV, _MS_REMOUNT, _MS_BIND, _MS_REC = 4, 32, 4096, 16384
_MNT_DETACH = 2


def bind_nodev(source: Path, target: Path) -> None:
    """Show a folder at another place, where device files are only names. Raises ExecError."""
    for flags in (_MS_BIND | _MS_REC, _MS_BIND | _MS_REMOUNT | _MS_NODEV):
        if _libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None) != 0:
            raise ExecError(f"cannot mount the root file system: {os.strerror(ctypes.get_errno())}")


def unmount(target: Path) -> None:
    """Unmount, also where something still uses it; no error where nothing is mounted."""
    _libc.umount2(os.fsencode(target), _MNT_DETACH)
