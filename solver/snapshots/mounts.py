"""Mounts through the system calls: overlays of any depth that the kernel takes, and file systems in memory.

Source: the kernel's documentation of overlayfs and of the mount API (fsopen, fsconfig, fsmount, move_mount).
"""

import ctypes
import errno
import functools
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..cache.database import boot_id

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MNT_DETACH = 2
_PAGE = 4096
_SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 429, 430, 431, 432
_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_ATTR_RDONLY = 1
_MOVE_EMPTY_PATH = 4
_AT_FDCWD = -100

MOST = 128
"""The most lower folders that are named one by one. The kernel takes 500, but each costs time at every mount."""
FEW = 80
"""The most lower folders that fit into the one page of options that older kernels take."""

_OPTIONS = (("redirect_dir", "nofollow"), ("index", "off"), ("metacopy", "off"))
"""What makes an upper folder mean the same over other lower ones: no trace of what was below it."""


@functools.cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


@functools.cache
def _quick() -> ctypes.PyDLL:
    """The same for calls that are so short that letting other threads run meanwhile takes longer than they do."""
    library = ctypes.PyDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _call(what: str, number: int, *args: object) -> int:
    library = _quick() if number == _SYS_FSCONFIG and args[1] == _SET_STRING else _libc()
    return _check(int(library.syscall(ctypes.c_long(number), *args)), what)


_modern: bool | None = None
"""Whether the kernel takes lower folders one by one (since 6.8); None before the first try."""


def limit() -> int:
    """How many lower folders one overlay may have here."""
    return FEW if _modern is False else MOST


def mount_overlay(lowers: Sequence[str], target: Path, upper: str = "", work: str = "") -> None:
    """Mount an overlay: `lowers` from the top down, read-only without `upper`.

    Paths should be short, without `:`, `,` and backslashes. Writes are not forced to the disk: an upper folder is of
    no use after a crash.

    Raises:
        OSError: where it is refused; E2BIG for more lower folders than `limit` says.
    """
    global _modern
    if len(lowers) > limit():
        raise OSError(errno.E2BIG, f"mount an overlay at {target}: too many layers")
    if _modern is not False:
        try:
            _mount_modern(lowers, target, upper, work)
            _modern = True
            return
        except OSError as error:
            if _modern or error.errno not in (errno.ENOSYS, errno.EINVAL, errno.EPERM):
                raise
    _mount_classic(lowers, target, upper, work)
    _modern = False


def _mount_modern(lowers: Sequence[str], target: Path, upper: str, work: str) -> None:
    what = f"mount an overlay at {target}"
    context = _call(what, _SYS_FSOPEN, b"overlay", ctypes.c_uint(_CLOEXEC))
    try:
        pairs = [("source", "overlay"), *_OPTIONS, *(("lowerdir+", lower) for lower in lowers)]
        if upper:
            pairs += [("upperdir", upper), ("workdir", work)]
        for key, value in pairs:
            _call(what, _SYS_FSCONFIG, context, _SET_STRING, key.encode(), os.fsencode(value), 0)
        if upper:
            _call(what, _SYS_FSCONFIG, context, _SET_FLAG, b"volatile", None, 0)
        _call(what, _SYS_FSCONFIG, context, _CREATE, None, None, 0)
        made = _call(what, _SYS_FSMOUNT, context, ctypes.c_uint(_CLOEXEC), ctypes.c_uint(0 if upper else _ATTR_RDONLY))
        try:
            _call(what, _SYS_MOVE_MOUNT, made, b"", _AT_FDCWD, os.fsencode(target), ctypes.c_uint(_MOVE_EMPTY_PATH))
        finally:
            os.close(made)
    finally:
        os.close(context)


def _mount_classic(lowers: Sequence[str], target: Path, upper: str, work: str) -> None:
    options = "".join(f"{key}={value}," for key, value in _OPTIONS) + "lowerdir=" + ":".join(lowers)
    if upper:
        options += f",upperdir={upper},workdir={work},volatile"
    if len(os.fsencode(options)) >= _PAGE:
        raise OSError(errno.E2BIG, f"mount an overlay at {target}: too many layers")
    try:
        _mount("overlay", target, 0 if upper else _MS_RDONLY, options)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # Kernels before 5.10 have no `volatile`.
        _mount("overlay", target, 0 if upper else _MS_RDONLY, options.removesuffix(",volatile"))


def _mount(kind: str, target: Path, flags: int, options: str) -> None:
    name = kind.encode()
    _check(
        _libc().mount(name, os.fsencode(target), name, ctypes.c_ulong(flags), os.fsencode(options)),
        f"mount {kind} at {target}",
    )


def mount_tmpfs(target: Path) -> None:
    """Mount a file system in memory for files that only we make. Raises OSError."""
    _mount("tmpfs", target, _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "mode=0700")


def unmount(target: Path) -> None:
    """Unmount, also where something still uses it. Raises OSError."""
    _check(_libc().umount2(os.fsencode(target), _MNT_DETACH), f"unmount {target}")


def mounted_below(root: Path) -> list[Path]:
    """The mount points below a folder, the deepest first."""
    prefix = str(root.resolve()) + "/"
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            point = line.split(" ")[4]
            if "\\" in point:
                raw = point.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1")
                point = raw.decode("utf-8", "surrogateescape")
            if point.startswith(prefix):
                found.append(Path(point))
    return found[::-1]


def overlay_works(root: Path) -> bool:
    """Whether an overlay can be mounted on this folder's file system: tried with a small one, once in a boot."""
    if os.geteuid() != 0:
        return False
    note = root / "overlay"
    boot = boot_id()
    with suppress(OSError, ValueError):
        known, answer = note.read_text().split()
        if boot and known == boot:
            return answer == "yes"
    works = _try_overlay(root)
    note.write_text(f"{boot} {'yes' if works else 'no'}")
    return works


def _try_overlay(root: Path) -> bool:
    with tempfile.TemporaryDirectory(dir=root, prefix="probe-") as folder:
        base = Path(folder)
        for name in ("l", "u", "w", "m"):
            (base / name).mkdir()
        (base / "l" / "file").write_bytes(b"")
        try:
            mount_overlay([f"{base}/l"], base / "m", f"{base}/u", f"{base}/w")
        except OSError:
            return False
        try:
            (base / "m" / "file").unlink()
            return not (base / "m" / "file").exists()
        except OSError:
            return False
        finally:
            unmount(base / "m")
