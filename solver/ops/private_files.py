"""Files with secrets, in memory only: on a file system of their own that the next start would unmount."""

import os
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from ...llb.ops import FileOpt
from ..snapshots.mounts import mount_tmpfs

FOLDER = "mounts/private"
"""Where it is mounted below the state folder."""

_lock = threading.Lock()


@contextmanager
def secret_file(data: bytes, option: FileOpt, root: Path) -> Iterator[Path]:
    """A file with this owner and mode for the time of the block. Raises OSError."""
    with _lock:
        path = _folder(root) / secrets.token_hex(16)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            if os.geteuid() == 0:
                os.fchown(descriptor, option.uid, option.gid)
            os.fchmod(descriptor, option.mode & 0o777)
        yield path
    finally:
        with _lock:
            path.unlink(missing_ok=True)
            if path.parent == _memory_folder(root):
                # Gone with the last file; others may still have theirs in it.
                with suppress(OSError):
                    path.parent.rmdir()


def _folder(root: Path) -> Path:
    folder = root / FOLDER
    if os.geteuid() == 0:
        if os.path.ismount(folder):
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            mount_tmpfs(folder)
            # Processes reach their own file only, by its mount, also from another user namespace.
            folder.chmod(0o711)
            return folder
    return _of_the_machine(root)


def _memory_folder(root: Path) -> Path:
    name = sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    memory = Path("/dev/shm")
    if not memory.is_dir() or not os.access(memory, os.W_OK):
        memory = root / "mounts"
    return memory / f"brickyard-{os.geteuid()}-{name}"


def _of_the_machine(root: Path) -> Path:
    """A folder of the machine's shared memory, for who may not mount one."""
    folder = _memory_folder(root)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(folder):
        raise PermissionError(f"{folder} belongs to somebody else")
    folder.chmod(0o700)
    return folder


def _is_ours(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def wipe(root: Path) -> None:
    """Drop what a process that was killed has left; only while no build runs."""
    folder = _memory_folder(root)
    if folder.exists() and _is_ours(folder):
        shutil.rmtree(folder, ignore_errors=True)
