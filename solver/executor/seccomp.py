"""The seccomp profile of a sandboxed process, equal in what it allows to the Docker Engine's default profile.

Everything is refused with EPERM but what is listed here. Some calls come with a capability, some only with certain
arguments. The profile is used in two forms: as the `linux.seccomp` object of an OCI runtime's config
(runtime-spec's config-linux.md), and as a classic BPF program (`program`), which bubblewrap loads as it is.
"""

import base64
import functools
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

EPERM = 1
ENOSYS = 38

Comparison = Literal["LT", "EQ", "GT", "MASKED_EQ"]

_NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What an argument must be; `MASKED_EQ` is `argument & value == 0`."""

    index: int
    op: Comparison
    value: int


@dataclass(frozen=True, slots=True)
class Rule:
    """Calls that are allowed, or answered with `errno`, where the condition holds.

    `capability` is one that the process must have, `without` one that it must not have; `machines` are the
    architectures (as `uname -m` names them) that it is for, or, where `on` is False, not for.
    """

    names: str
    condition: Condition | None = None
    errno: int | None = None
    capability: str = ""
    without: str = ""
    machines: tuple[str, ...] = ()
    on: bool = True

    def applies(self, capabilities: Set[str], machine: str) -> bool:
        """Whether it is for a process with these capabilities on this machine."""
        if self.machines and (machine in self.machines) is not self.on:
            return False
        if self.capability and self.capability not in capabilities:
            return False
        return not self.without or self.without not in capabilities


_S390 = ("s390x", "s390")

_ALWAYS = """
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64
close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat
faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs
fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer
getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit
get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid getuid32 getxattr
getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents
io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule
landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier
memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr
mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl
msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat
openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl
pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead
readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat
rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity
sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval
sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp
select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid
setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32
setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid setsockopt
set_thread_area set_tid_address setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack
signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx
symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe
utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
process_vm_readv process_vm_writev ptrace
"""

_RULES = (
    Rule(_ALWAYS),
    # Sockets of every family but AF_ALG (38) and AF_VSOCK (40).
    Rule("socket", Condition(0, "LT", 38)),
    Rule("socket", Condition(0, "EQ", 39)),
    Rule("socket", Condition(0, "GT", 40)),
    # PER_LINUX, PER_LINUX32, both with UNAME26, and the question which is set.
    Rule("personality", Condition(0, "EQ", 0x0)),
    Rule("personality", Condition(0, "EQ", 0x8)),
    Rule("personality", Condition(0, "EQ", 0x20000)),
    Rule("personality", Condition(0, "EQ", 0x20008)),
    Rule("personality", Condition(0, "EQ", 0xFFFFFFFF)),
    Rule("sync_file_range2 swapcontext", machines=("ppc64le",)),
    Rule(
        "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
        machines=("aarch64", "armv7l", "armv6l"),
    ),
    Rule("arch_prctl", machines=("x86_64",)),
    Rule("modify_ldt", machines=("x86_64", "i686")),
    Rule("s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr", machines=_S390),
    Rule("riscv_flush_icache", machines=("riscv64",)),
    Rule("open_by_handle_at", capability="CAP_DAC_READ_SEARCH"),
    Rule(
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr "
        "lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl "
        "quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
        capability="CAP_SYS_ADMIN",
    ),
    # Without that capability: processes and threads, but no new namespaces. clone3's flags are in memory, where a
    # filter can't look, so it seems not to be there and the C library falls back to clone.
    Rule("clone", Condition(0, "MASKED_EQ", _NAMESPACE_FLAGS), without="CAP_SYS_ADMIN", machines=_S390, on=False),
    Rule("clone", Condition(1, "MASKED_EQ", _NAMESPACE_FLAGS), without="CAP_SYS_ADMIN", machines=_S390),
    Rule("clone3", errno=ENOSYS, without="CAP_SYS_ADMIN"),
    Rule("reboot", capability="CAP_SYS_BOOT"),
    Rule("chroot", capability="CAP_SYS_CHROOT"),
    Rule("delete_module init_module finit_module", capability="CAP_SYS_MODULE"),
    Rule("acct", capability="CAP_SYS_PACCT"),
    Rule("kcmp pidfd_getfd process_madvise", capability="CAP_SYS_PTRACE"),
    Rule("iopl ioperm", capability="CAP_SYS_RAWIO"),
    Rule("settimeofday stime clock_settime clock_settime64", capability="CAP_SYS_TIME"),
    Rule("vhangup", capability="CAP_SYS_TTY_CONFIG"),
    Rule("get_mempolicy mbind set_mempolicy set_mempolicy_home_node", capability="CAP_SYS_NICE"),
    Rule("syslog", capability="CAP_SYSLOG"),
    Rule("bpf", capability="CAP_BPF"),
    Rule("perf_event_open", capability="CAP_PERFMON"),
)

MACHINES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "x86_64": ("x86_64", "x86", "x32"),
        "aarch64": ("aarch64", "arm"),
        "riscv64": ("riscv64",),
        "s390x": ("s390x", "s390"),
        "ppc64le": ("ppc64le",),
        "loongarch64": ("loongarch64",),
    }
)
"""The architectures whose programs run on a machine, its own first."""


def rules(capabilities: Set[str], machine: str | None = None) -> list[Rule]:
    """The rules for a process with these capabilities in its bounding set."""
    machine = machine or os.uname().machine
    return [rule for rule in _RULES if rule.applies(capabilities, machine)]


@functools.lru_cache(maxsize=8)
def oci_profile(capabilities: frozenset[str], machine: str | None = None) -> dict[str, Any]:
    """The profile as an OCI runtime reads it; the runtime leaves out what its libseccomp has not heard of."""
    machine = machine or os.uname().machine
    profile: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "syscalls": [_oci_rule(rule) for rule in rules(capabilities, machine)],
    }
    if machine in MACHINES:
        profile["architectures"] = [f"SCMP_ARCH_{name.upper()}" for name in MACHINES[machine]]
    return profile


def _oci_rule(rule: Rule) -> dict[str, Any]:
    form: dict[str, Any] = {"names": rule.names.split(), "action": "SCMP_ACT_ALLOW"}
    if rule.errno is not None:
        form |= {"action": "SCMP_ACT_ERRNO", "errnoRet": rule.errno}
    if rule.condition is not None:
        condition = rule.condition
        form["args"] = [{"index": condition.index, "value": condition.value, "op": f"SCMP_CMP_{condition.op}"}]
    return form


@functools.cache
def has_program(machine: str | None = None) -> bool:
    """Whether `program` knows the calls of this machine."""
    from .syscalls import ARCHITECTURES

    names = MACHINES.get(machine or os.uname().machine, ())
    return bool(names) and all(name in ARCHITECTURES for name in names)


@functools.lru_cache(maxsize=8)
def program(capabilities: frozenset[str], machine: str | None = None) -> bytes:
    """The profile as a classic BPF program over `struct seccomp_data`: an array of `struct sock_filter`.

    Calls that are newer than the tables are answered with ENOSYS, so that a C library falls back to older ones.

    Raises:
        KeyError: for a machine that `has_program` does not know.
    """
    from .bpf import assemble
    from .syscalls import LAST, numbers

    machine = machine or os.uname().machine
    chosen = rules(capabilities, machine)
    actions: dict[str, dict[int, int | tuple[Condition, ...]]] = {}
    for architecture in MACHINES[machine]:
        table: dict[int, int | tuple[Condition, ...]] = {}
        known = numbers(architecture)
        for rule in chosen:
            for number in (known[name] for name in rule.names.split() if name in known):
                table[number] = _action(rule, table.get(number))
        actions[architecture] = table
    return assemble(actions, EPERM, ENOSYS, LAST)


@functools.lru_cache(maxsize=8)
def encoded_program(capabilities: frozenset[str]) -> str:
    """`program` for this machine in base64, as crun takes it in an annotation."""
    return base64.b64encode(program(capabilities)).decode("ascii")


def _action(rule: Rule, before: "int | tuple[Condition, ...] | None") -> "int | tuple[Condition, ...]":
    """An errno (0: allowed), or conditions one of which must hold."""
    if rule.condition is None:
        return rule.errno or 0
    earlier: Sequence[Condition] = before if isinstance(before, tuple) else ()
    return before if isinstance(before, int) else (*earlier, rule.condition)
