"""What this process may be to the kernel: root, root of a user namespace, or a plain user."""

import functools
import os
from dataclasses import dataclass

from .confinement import own_capabilities

# A range of ids: its first one here, its first one outside, how many.
Range = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether this process can mount and become other users, and the ids that exist for it.

    `sets_groups` says whether it may choose supplementary groups.
    """

    privileged: bool
    uids: tuple[Range, ...]
    gids: tuple[Range, ...]
    sets_groups: bool = True

    @property
    def real_root(self) -> bool:
        """Root of the machine: privileged, and in no user namespace but the first."""
        return self.privileged and self.uids == ((0, 0, 0xFFFFFFFF),)

    def can_become(self, uid: int, gid: int) -> bool:
        """Whether a process can be given these ids without a user namespace of its own."""
        return self.privileged and _within(uid, self.uids) and _within(gid, self.gids)

    def groups(self, wanted: tuple[int, ...]) -> tuple[int, ...]:
        """The supplementary groups out of these that a process can be given."""
        if not (self.privileged and self.sets_groups):
            return ()
        return tuple(gid for gid in wanted if _within(gid, self.gids))


@functools.cache
def standing() -> Standing:
    """That of this process."""
    needed = {"CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID"}
    privileged = os.geteuid() == 0 and needed <= own_capabilities()
    try:
        with open("/proc/self/setgroups", encoding="ascii") as file:
            sets_groups = file.read().strip() != "deny"
    except OSError:
        sets_groups = True
    return Standing(privileged, _ranges("/proc/self/uid_map"), _ranges("/proc/self/gid_map"), sets_groups)


def _ranges(path: str) -> tuple[Range, ...]:
    with open(path, encoding="ascii") as table:
        rows = [tuple(int(field) for field in line.split()) for line in table]
    return tuple((row[0], row[1], row[2]) for row in rows if len(row) == 3)


def _within(number: int, ranges: tuple[Range, ...]) -> bool:
    return any(first <= number < first + count for first, _, count in ranges)
