"""The system calls a machine may make: a deny-by-default list in the OCI form.

Three answers. Listed calls are allowed. Calls that give power over the kernel or the host (`REFUSED`) fail with EPERM.
All others, also those of kernels yet to come, fail with ENOSYS, so that libraries fall back to what they used before.

What is let through is what Debian's packages need (shells, compilers, Python, Node, Go, databases, sshd, strace, gdb).
Tracing is allowed: a machine's root has no CAP_SYS_PTRACE and process 1 is not dumpable. `clone3` is allowed because the guest uses it;
the guest refuses it to commands, whose flags a filter could not see, and also prlimit64 on process 1: the OCI form has no way to say that the
low half of an argument, all that the kernel looks at of a pid, is not 1. Old asynchronous I/O (io_setup) is missing because its quota,
fs.aio-max-nr, is one for the whole kernel: a machine could use up that of its neighbours. mbind is missing because the policies it
hangs on a file are counted by no cgroup, and huge pages because the host's pool of them is not either. Only the native architecture
is let in.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Any

_FILES = """
    access chdir chmod chown chroot close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 fallocate
    fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr file_getattr file_setattr flistxattr flock
    fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch
    inotify_init inotify_init1 inotify_rm_watch ioctl lchown lgetxattr link linkat listxattr listxattrat llistxattr
    lremovexattr lseek lsetxattr lstat mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64
    pwritev pwritev2 read readahead readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile
    setxattr setxattrat splice stat statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink
    unlinkat utime utimensat utimes vmsplice write writev
"""
_MEMORY = """
    brk cachestat futex futex_requeue futex_wait futex_waitv futex_wake get_mempolicy get_robust_list madvise map_shadow_stack
    membarrier memfd_secret migrate_pages mincore mlock mlock2 mlockall move_pages mprotect mremap mseal
    msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_madvise process_mrelease remap_file_pages
    set_mempolicy set_robust_list
"""
_PROCESSES = """
    arch_prctl capget capset clone3 execve execveat exit exit_group fork getcpu getegid geteuid getgid getgroups getitimer getpgid
    getpgrp getpid getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid getuid ioprio_get ioprio_set kcmp kill
    landlock_add_rule landlock_create_ruleset landlock_restrict_self pidfd_open pidfd_send_signal prctl prlimit64
    process_vm_readv process_vm_writev ptrace restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp set_tid_address setfsgid setfsuid setgid setgroups setpgid setpriority
    setregid setresgid setresuid setreuid setrlimit setsid setuid sigaltstack tgkill time times tkill uname vfork wait4 waitid
"""
_WAITING = """
    alarm adjtimex clock_adjtime clock_getres clock_gettime clock_nanosleep epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
    epoll_wait epoll_wait_old eventfd eventfd2 gettimeofday nanosleep pause pipe pipe2 poll ppoll pselect6 select setitimer signalfd signalfd4 sysinfo timer_create timer_delete
    timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime getrandom
"""
_TALKING = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg sendto
    setsockopt shutdown socketpair mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv
    msgsnd semctl semget semop semtimedop shmat shmctl shmdt
"""
ALLOWED = frozenset(f"{_FILES} {_MEMORY} {_PROCESSES} {_WAITING} {_TALKING}".split())

_REFUSED = """
    acct add_key bpf clock_settime create_module delete_module fanotify_init fanotify_mark finit_module
    fsconfig fsmount fsopen fspick get_kernel_syms init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl
    kexec_file_load kexec_load keyctl listmount lookup_dcookie lsm_set_self_attr mount mount_setattr move_mount
    nfsservctl open_by_handle_at open_tree open_tree_attr perf_event_open pidfd_getfd pivot_root
    query_module quotactl quotactl_fd reboot request_key setdomainname sethostname setns settimeofday statmount swapoff
    swapon syslog umount umount2 unshare uselib userfaultfd ustat vhangup vserver
"""
REFUSED = frozenset(_REFUSED.split())

_NEW_NAMESPACES = (0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000)
"""CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}; NEWTIME has no room in the flags of clone(2)."""

_AF_UNIX = 1
_INET_FAMILIES = (2, 10)
_INET_PROTOCOLS = {0: "the type's own", 1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 255: "raw"}
_OTHER_INET_PROTOCOLS = {33: "DCCP", 46: "RSVP", 115: "L2TP", 132: "SCTP", 136: "UDP-Lite", 256: "SMC", 262: "MPTCP"}
"""A socket of one of these makes the host's kernel load a module that its administrator may never have meant to use."""
_AF_NETLINK = 16
_HIGHEST_KNOWN_FAMILY = 16

_NETLINK_PROTOCOLS = {0: "NETLINK_ROUTE", 4: "NETLINK_SOCK_DIAG"}
"""Interfaces and sockets, of the machine's own network namespace. Another, NETLINK_KOBJECT_UEVENT, tells of the host's devices in
every network namespace of the host's root, which a machine's is."""
_HIGHEST_KNOWN_NETLINK_PROTOCOL = 22

_PERSONALITIES = (0x0, 0x0040000, 0xFFFFFFFF)
"""Linux; without address randomization (gdb, sanitizers); a question."""

_HUGE_PAGES = {"mmap": (3, 0x4_0000), "memfd_create": (1, 0x4), "shmget": (2, 0o4000)}
"""Which argument of these calls has the flag that asks for huge pages, and the flag."""

_EPERM, _ENOMEM, _ENOSYS, _EPROTONOSUPPORT, _EAFNOSUPPORT = 1, 12, 38, 93, 97

_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}

Rule = dict[str, Any]


def _argument(index: int, value: int, op: str = "SCMP_CMP_EQ", value_two: int = 0) -> Rule:
    return {"index": index, "value": value, "valueTwo": value_two, "op": op}


def _allow(name: str, *arguments: Rule) -> Rule:
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": list(arguments)}


def _fail(names: list[str], errno: int, *arguments: Rule) -> Rule:
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": list(arguments)}


def _ordinary_pages() -> Iterator[Rule]:
    for name, (index, flag) in _HUGE_PAGES.items():
        yield _allow(name, _argument(index, flag, "SCMP_CMP_MASKED_EQ", 0))
        yield _fail([name], _ENOMEM, _argument(index, flag, "SCMP_CMP_MASKED_EQ", flag))


def _inet() -> Iterator[Rule]:
    for family in _INET_FAMILIES:
        for protocol in _INET_PROTOCOLS:
            yield _allow("socket", _argument(0, family), _argument(2, protocol))
        for protocol in _OTHER_INET_PROTOCOLS:
            yield _fail(["socket"], _EPROTONOSUPPORT, _argument(0, family), _argument(2, protocol))


def _netlink() -> list[Rule]:
    family, highest = _argument(0, _AF_NETLINK), _HIGHEST_KNOWN_NETLINK_PROTOCOL
    others = [protocol for protocol in range(highest + 1) if protocol not in _NETLINK_PROTOCOLS]
    return [
        *(_allow("socket", family, _argument(2, protocol)) for protocol in _NETLINK_PROTOCOLS),
        *(_fail(["socket"], _EPROTONOSUPPORT, family, _argument(2, protocol)) for protocol in others),
        _fail(["socket"], _EPROTONOSUPPORT, family, _argument(2, highest, "SCMP_CMP_GT")),
    ]


def profile(machine: str = platform.machine()) -> Rule:
    """The `linux.seccomp` object of an OCI configuration for a CPU type as `uname -m` names it."""
    unknown = [family for family in range(_AF_NETLINK) if family not in (_AF_UNIX, *_INET_FAMILIES)]
    no_family = [_fail(["socket"], _EAFNOSUPPORT, _argument(0, family)) for family in unknown]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _ENOSYS,
        "architectures": [_ARCHITECTURES[machine]],
        "syscalls": [
            {"names": sorted(ALLOWED), "action": "SCMP_ACT_ALLOW"},
            _fail(sorted(REFUSED), _EPERM),
            _allow("clone", _argument(0, sum(_NEW_NAMESPACES), "SCMP_CMP_MASKED_EQ", 0)),
            *(_fail(["clone"], _EPERM, _argument(0, flag, "SCMP_CMP_MASKED_EQ", flag)) for flag in _NEW_NAMESPACES),
            *(_allow("personality", _argument(0, value)) for value in _PERSONALITIES),
            *_ordinary_pages(),
            _allow("socket", _argument(0, _AF_UNIX)),
            *_inet(),
            *_netlink(),
            *no_family,
            _fail(["socket"], _EAFNOSUPPORT, _argument(0, _HIGHEST_KNOWN_FAMILY, "SCMP_CMP_GT")),
        ],
    }
