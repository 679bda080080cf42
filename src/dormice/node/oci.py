"""The OCI side of a machine: its configuration, and the runtime program that carries it out (crun, else runc)."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from dormice.node import seccomp

GUEST_PATH = "/dev/.dormice/guest"
"""In a directory that no start finds bent by what root did inside before."""

CAPABILITIES = (
    "CAP_AUDIT_WRITE",  # sshd and sudo try to leave an audit record
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",  # without power over a network that belongs to the node, but Debian's ping does not start without it
    "CAP_SETFCAP",  # dpkg unpacks files that carry capabilities
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",  # sshd and dpkg change their root
)
"""What root inside may do to what its own user namespace owns. Missing on purpose: SYS_ADMIN (mounts, namespaces), SYS_PTRACE (process 1),
NET_ADMIN, SYS_MODULE, SYS_BOOT, SYS_TIME, SYS_RAWIO, SYSLOG, BPF, PERFMON, MKNOD."""

_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/cmdline",  # of the host's kernel; some hosts have passwords in it
    "/proc/config.gz",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/ioports",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_SECCOMP = seccomp.profile()
_FILTER_ANNOTATION = "run.oci.seccomp_bpf_data"
"""crun(1). Runtimes that do not know it compile the profile, which therefore always goes along."""
_MFD_EXEC = 0x10
_MOST_TERMINALS = 256  # the kernel has one quota for all machines


@dataclass(frozen=True, slots=True)
class Bundle:
    """What differs between one machine's configuration and another's."""

    hostname: str
    boot_id: str
    memory_mib: int
    rootfs: Path
    guest: Path
    userns: Path
    cgroup: str
    """Absolute in every hierarchy; for runtimes that insist on one of their own."""
    owner: int
    """First uid and gid of the machine on the host; 65,536 follow."""
    compiled_filter: bytes | None = None
    """What the runtime made of the same system call filter before, if that is known: compiling it takes a fifth of a start."""


def configuration(bundle: Bundle) -> dict[str, Any]:
    """The `config.json` of a machine."""
    mapping = [{"containerID": 0, "hostID": bundle.owner, "size": 65536}]
    ready = {_FILTER_ANNOTATION: b64encode(bundle.compiled_filter).decode()} if bundle.compiled_filter else {}
    private = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]
    # No network and no cgroup namespace: the runtime is started inside those that the machine shall have.
    joined = [{"type": "user", "path": str(bundle.userns)}]
    return {
        "ociVersion": "1.0.2",
        "hostname": bundle.hostname,
        "root": {"path": str(bundle.rootfs)},
        "process": _process(bundle.boot_id),
        "mounts": _mounts(bundle),
        "annotations": ready,
        "linux": {
            "namespaces": private + joined,
            "cgroupsPath": bundle.cgroup,
            "uidMappings": mapping,
            "gidMappings": mapping,
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
            "rootfsPropagation": "private",
            "seccomp": _SECCOMP,
        },
    }


def _process(boot_id: str) -> dict[str, Any]:
    sets = ("bounding", "effective", "permitted")
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": [GUEST_PATH, boot_id],
        "cwd": "/",
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        # Process 1 has SYS_ADMIN to install a seccomp filter in its children without NO_NEW_PRIVS. It takes it out of its
        # bounding set before it does anything else, so no command ever has it.
        "capabilities": {name: [*CAPABILITIES, "CAP_SYS_ADMIN"] for name in sets},
        # sudo and su must work inside; what they can reach is bounded by the user namespace and the capabilities above.
        "noNewPrivileges": False,
        "oomScoreAdj": 0,
    }


def _mounts(bundle: Bundle) -> list[dict[str, Any]]:
    guarded = ["nosuid", "nodev", "noexec"]
    return [
        _mount("/proc", "proc", guarded),
        _mount("/dev", "tmpfs", ["nosuid", "noexec", "strictatime", "mode=755", "size=64k"]),
        _mount(
            "/dev/pts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5", f"max={_MOST_TERMINALS}"],
        ),
        _mount("/dev/shm", "tmpfs", ["nosuid", "nodev", "mode=1777", f"size={bundle.memory_mib // 2}m"]),  # noqa: S108 - inside the machine
        _mount("/dev/mqueue", "mqueue", guarded),
        # A real sysfs would show the host's devices and, in the names of loop devices, the other machines.
        _mount("/sys", "tmpfs", [*guarded, "ro", "mode=755", "size=64k"]),
        _bind("/sys/devices/system/cpu", Path("/sys/devices/system/cpu"), [*guarded, "ro"]),
        _bind(GUEST_PATH, bundle.guest, ["nosuid", "nodev", "ro"]),
    ]


def _mount(target: str, fstype: str, options: Sequence[str]) -> dict[str, Any]:
    return {"destination": target, "type": fstype, "source": fstype, "options": list(options)}


def _bind(target: str, source: Path, options: Sequence[str]) -> dict[str, Any]:
    return {"destination": target, "type": "bind", "source": str(source), "options": ["bind", *options]}


@dataclass(frozen=True, slots=True)
class OciRuntime:
    """The program that starts containers. It keeps its own records below `state`, one directory per container."""

    program: str
    opened: int
    """An fd to run it by, of a copy that nobody can write to. Run from elsewhere, these programs make such a copy at every start,
    so that what they start cannot overwrite them, and begin again from it: that takes longer than all their mounts. A newer version
    of the program is used by the next node.
    """
    state: Path

    @classmethod
    def find(cls, state: Path, names: Sequence[str] = ("crun", "runc")) -> OciRuntime:
        """The first of the runtimes that this host has. Raises FileNotFoundError when it has none."""
        for name in names:
            if path := shutil.which(name):
                return cls(path, _open(Path(path)), state)
        raise FileNotFoundError(f"not installed: {' or '.join(names)}")

    def command(self, name: str, bundle: Path, pid_file: Path, log: Path) -> list[str]:
        """The command that starts a container in the background and passes fds 3 and 4 on to it."""
        # crun can be told to leave the cgroups alone that it is started in; runc makes its own, inside them by `cgroupsPath`.
        disabled = ["--cgroup-manager=disabled"] if self._is_crun else []
        run = ["run", "--detach", "--preserve-fds=2", "--pid-file", str(pid_file), "--bundle", str(bundle), name]
        return [self.program, *disabled, "--root", str(self.state), "--log", str(log), *run]

    def compiled_filter(self, name: str) -> bytes | None:
        """The system call filter of a container that runs, as the runtime compiled it; None if it keeps none."""
        try:
            return (self.state / name / "seccomp.bpf").read_bytes() or None
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Let go of the program."""
        os.close(self.opened)

    def forget(self, name: str) -> None:
        """Drop the runtime's record of a container whose processes are gone, and the cgroups that only runc makes."""
        if not self._is_crun and (self.state / name).exists():
            delete = [self.program, "--root", str(self.state), "delete", "--force", name]
            subprocess.run(delete, check=False, stdin=subprocess.DEVNULL, capture_output=True)
        shutil.rmtree(self.state / name, ignore_errors=True)

    @property
    def _is_crun(self) -> bool:
        return Path(self.program).name == "crun"


def _open(program: Path) -> int:
    """A sealed copy, or the file itself where copies may not be run or it is a script."""
    content = program.read_bytes()
    fd = _memory_file(program.name) if content.startswith(b"\x7fELF") else None
    if fd is None:
        return os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    with open(fd, "wb", closefd=False) as copy:
        copy.write(content)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return fd


def _memory_file(name: str) -> int | None:
    """An empty file in memory that may hold a program; None where the host forbids that (`vm.memfd_noexec`)."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_EXEC)
    except OSError as error:
        if error.errno == errno.EACCES:
            return None
        if error.errno != errno.EINVAL:
            raise
    return os.memfd_create(name, flags)  # a kernel before 6.3, which knows no such flag and runs any


def write_bundle(directory: Path, bundle: Bundle) -> None:
    """Write `config.json` into `directory`."""
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "config.json").write_bytes(msgspec.json.encode(configuration(bundle)))
