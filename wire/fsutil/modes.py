"""File modes as the protocol sends them: Go's `os.FileMode`, whose type bits are not the kernel's."""

import stat

DIRECTORY = 1 << 31
SYMLINK = 1 << 27
DEVICE = 1 << 26
NAMED_PIPE = 1 << 25
SOCKET = 1 << 24
SETUID = 1 << 23
SETGID = 1 << 22
CHAR_DEVICE = 1 << 21
STICKY = 1 << 20
IRREGULAR = 1 << 19

TYPE = DIRECTORY | SYMLINK | DEVICE | NAMED_PIPE | SOCKET | CHAR_DEVICE | IRREGULAR
"""The bits that say what an entry is; with none of them set it has content."""

_TYPES = {
    stat.S_IFREG: 0,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFBLK: DEVICE,
    stat.S_IFCHR: DEVICE | CHAR_DEVICE,
    stat.S_IFIFO: NAMED_PIPE,
    stat.S_IFSOCK: SOCKET,
}
_KINDS = {bits: kind for kind, bits in _TYPES.items()}


def to_go(mode: int) -> int:
    """The protocol's form of a kernel's `st_mode`."""
    out = (mode & 0o777) | _TYPES.get(mode & 0o170000, IRREGULAR)
    if mode & 0o7000:
        out |= (SETUID if mode & 0o4000 else 0) | (SETGID if mode & 0o2000 else 0) | (STICKY if mode & 0o1000 else 0)
    return out


def permissions(mode: int) -> int:
    """The permission bits of a mode in the protocol's form, with setuid, setgid and sticky where `chmod` has them."""
    special = (0o4000 if mode & SETUID else 0) | (0o2000 if mode & SETGID else 0) | (0o1000 if mode & STICKY else 0)
    return (mode & 0o777) | special


def to_kernel(mode: int) -> int:
    """The kernel's `st_mode` of a mode in the protocol's form. Raises ValueError for a type that it has not."""
    kind = _KINDS.get(mode & TYPE)
    if kind is None:
        raise ValueError(f"mode {mode:#o}: not a type of file")
    return kind | permissions(mode)
