"""What a sandboxed process may do: capabilities, and the paths of /proc and /sys that it can't see or change.

The same as BuildKit's executor gives (containerd's default spec); an insecure process has all that we have ourselves.
"""

import functools
import os

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
)

READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# linux/capability.h, by number
_ALL = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
""".split()


@functools.cache
def own_capabilities() -> frozenset[str]:
    """The effective capabilities of this process."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        bits = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return frozenset(f"CAP_{name}" for number, name in enumerate(_ALL) if bits >> number & 1)


@functools.cache
def all_capabilities() -> frozenset[str]:
    """What an insecure process has: all of ours as root, and in a user namespace all that there are."""
    if os.geteuid() == 0:
        return own_capabilities()
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as last:
        return frozenset(f"CAP_{name}" for name in _ALL[: int(last.read()) + 1])
