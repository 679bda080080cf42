"""Resource limits of machines, on cgroup v1, v2 and hybrid hosts alike.

Every machine has a directory of its own in cgroup2, where kill and delegation live, and one in each v1 hierarchy that holds a
controller which cgroup2 lacks here. A machine's processes can leave neither: they see no cgroup file system, and the
directory they are handed (cgroup2, without its limit files) only lets them make children.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dormice.node import syscalls
from dormice.node.meters import CgroupMeter, figures
from dormice.node.records import ProcessIdentity
from dormice.node.runtime import MachineSpec

_CPU_PERIOD_US = 100_000
_SOCKET_SHARE = 4
_DELEGATED = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
_CONTROLLERS = ("cpu", "memory", "pids")
_DISK = {"v1": "blkio", "v2": "io"}
"""The controller of disks. A host may lack it: machines then share the disk as the host's scheduler has it."""
_INIT = "init"
"""Where the guest looks for itself (guest/src/cgroups.c)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """vcpu in cores, memory in MiB (no swap on top), pids counts tasks, threads included."""

    vcpu: float
    memory_mib: int
    pids: int


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Where the controllers are. `v1` maps those that cgroup2 lacks to their mount points."""

    unified: Path
    v1: dict[str, Path]
    disk_on_v2: bool = False
    others: frozenset[Path] = frozenset()
    """Mount points of v1 hierarchies that limit nothing of ours, but in which an OCI runtime may leave directories."""

    @property
    def v1_roots(self) -> list[Path]:
        return sorted(set(self.v1.values()))


def discover(unified: Path, mountinfo: str) -> Hierarchies:
    """Find a hierarchy for each controller. `unified` is a mount of cgroup2; `mountinfo` the text of the proc file.

    Raises OSError (ENOTSUP) naming the controllers that the host offers nowhere.
    """
    on_v2 = (unified / "cgroup.controllers").read_text().split()
    on_v1 = dict(_v1_mounts(mountinfo))
    missing = [name for name in _CONTROLLERS if name not in on_v2 and name not in on_v1]
    if missing:
        raise OSError(errno.ENOTSUP, f"no cgroup controller: {', '.join(missing)}")
    used = {name: on_v1[name] for name in _CONTROLLERS if name not in on_v2}
    if _DISK["v2"] not in on_v2 and _DISK["v1"] in on_v1:
        used[_DISK["v1"]] = on_v1[_DISK["v1"]]
    return Hierarchies(unified, used, _DISK["v2"] in on_v2, frozenset(on_v1.values()) - set(used.values()))


def _v1_mounts(mountinfo: str) -> Iterator[tuple[str, Path]]:
    for line in mountinfo.splitlines():
        mount, _, filesystem = line.partition(" - ")
        fstype, _, options = filesystem.split(" ", 2)
        if fstype == "cgroup":
            point = Path(mount.split(" ")[4])
            yield from ((name, point) for name in options.split(","))


def hybrid_mount(mountinfo: str) -> Path | None:
    """The cgroup2 mount beside v1 ones, if the host has both. OCI runtimes of Debian 12 refuse to run when they see it."""
    points = [line.split(" ")[4] for line in mountinfo.splitlines() if " - cgroup2 " in line]
    inside = [point for point in points if point.startswith("/sys/fs/cgroup/")]
    return Path(inside[0]) if inside else None


class Cgroups:
    """The cgroups of machines, below one parent in every hierarchy."""

    def __init__(self, hierarchies: Hierarchies, parent: str = "dormice") -> None:
        self._unified = hierarchies.unified / parent
        self._v1 = {name: root / parent for name, root in hierarchies.v1.items()}
        self._roots = [root / parent for root in hierarchies.v1_roots]
        self._others = [root / parent for root in hierarchies.others]
        self._v2 = [name for name in _CONTROLLERS if name not in self._v1]
        if hierarchies.disk_on_v2:
            self._v2.append(_DISK["v2"])
        self._mount = hierarchies.unified

    def open(self) -> None:
        """Make the parents and hand the controllers down to them. Raises OSError."""
        for directory in (self._unified, *self._roots):
            directory.mkdir(parents=True, exist_ok=True)
        if self._v2:
            enable = " ".join(f"+{name}" for name in self._v2)
            depth = len(self._unified.relative_to(self._mount).parts)
            for directory in (*reversed(self._unified.parents[:depth]), self._unified):
                (directory / "cgroup.subtree_control").write_text(enable)

    def leave(self) -> None:
        """Remove the parents that hold no machine."""
        for directory in (self._unified, *self._roots, *self._others):
            with contextlib.suppress(OSError):  # in use, or never made
                directory.rmdir()

    def exists(self) -> bool:
        """Whether there is any parent."""
        return any(directory.is_dir() for directory in (self._unified, *self._roots, *self._others))

    def names(self) -> set[str]:
        """The machines that have a directory in any hierarchy."""
        parents = [parent for parent in (self._unified, *self._roots) if parent.is_dir()]
        return {entry.name for parent in parents for entry in parent.iterdir() if entry.is_dir()}

    def create(self, name: str, owner: int) -> None:
        """Make a machine's directories, without limits yet, and give the cgroup2 ones to `owner` (the machine's root)."""
        for directory in self._directories(name):
            directory.mkdir(exist_ok=True)
        for unified in (self._unified / name, self._unified / name / _INIT):
            unified.mkdir(exist_ok=True)
            for path in (unified, *(unified / file for file in _DELEGATED)):
                os.chown(path, owner, owner)

    def apply(self, name: str, limits: Limits) -> None:
        """Set limits, also those of a machine that runs. Raises OSError (EBUSY) when more memory is in use on v1."""
        quota = max(1_000, int(limits.vcpu * _CPU_PERIOD_US))
        memory = limits.memory_mib << 20
        if cpu := self._v1.get("cpu"):
            _write(cpu / name / "cpu.cfs_period_us", _CPU_PERIOD_US)
            _write(cpu / name / "cpu.cfs_quota_us", quota)
            _write(cpu / name / "cpu.shares", max(2, int(limits.vcpu * 1024)))
        else:
            _write(self._unified / name / "cpu.max", f"{quota} {_CPU_PERIOD_US}")
            _write(self._unified / name / "cpu.weight", max(1, min(10_000, int(limits.vcpu * 100))))
        if v1_memory := self._v1.get("memory"):
            _limit_v1_memory(v1_memory / name, memory)
        else:
            _write(self._unified / name / "memory.max", memory)
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                _write(self._unified / name / "memory.swap.max", 0)
        _write(self._v1.get("pids", self._unified) / name / "pids.max", limits.pids)

    def limit_disk(self, name: str, device: int, bytes_per_second: int) -> None:
        """Bound what the machine reads and writes of a block device (0: not at all), where the host can. Raises OSError."""
        number = f"{os.major(device)}:{os.minor(device)}"
        with contextlib.suppress(FileNotFoundError):  # a kernel whose controller bounds nothing
            if v1 := self._v1.get(_DISK["v1"]):
                for direction in ("read", "write"):
                    _write(v1 / name / f"blkio.throttle.{direction}_bps_device", f"{number} {bytes_per_second}")
            elif _DISK["v2"] in self._v2:
                bound = bytes_per_second or "max"
                _write(self._unified / name / "io.max", f"{number} rbps={bound} wbps={bound}")

    def entrances(self, name: str) -> list[Path]:
        """The files into which a process writes "0" to enter the machine's cgroups."""
        return [directory / "cgroup.procs" for directory in self._directories(name)]

    def init_entrance(self, name: str) -> Path:
        """The same for the child of the cgroup2 directory in which process 1 belongs: no cgroup with children may hold any."""
        return self._unified / name / _INIT / "cgroup.procs"

    def open_delegated(self, name: str) -> int:
        """A directory fd of the machine's cgroup2 directory."""
        return os.open(self._unified / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def oom_kills(self, name: str) -> int:
        """How often the OOM killer struck in the machine since its directories were made; 0 when it has none."""
        v1 = self._v1.get("memory")
        file = f"{v1}/{name}/memory.oom_control" if v1 else f"{self._unified}/{name}/memory.events"
        with contextlib.suppress(FileNotFoundError):
            return figures(file).get("oom_kill", 0)
        return 0

    def meter(self, name: str, process: ProcessIdentity, spec: MachineSpec) -> CgroupMeter:
        """What tells the use of the machine whose process 1 that is, and which has that."""
        v1 = self._v1.get("memory")
        return CgroupMeter(process, spec, self._unified / name, (v1 or self._unified) / name, v1 is not None)

    def kill(self, name: str) -> None:
        """SIGKILL to every process of the machine, forks under way included."""
        with contextlib.suppress(FileNotFoundError):
            _write(self._unified / name / "cgroup.kill", 1)

    def populated(self, name: str) -> bool:
        try:
            events = (self._unified / name / "cgroup.events").read_text()
        except FileNotFoundError:
            return False
        return "populated 1" in events

    def remove(self, name: str, timeout: float = 5.0) -> None:
        """Remove the machine's directories and all below them, waiting for the last of the dead. Raises OSError (EBUSY)."""
        deadline = time.monotonic() + timeout
        for directory in (*self._directories(name), *(root / name for root in self._others)):
            remove_tree(directory, deadline - time.monotonic())

    def _directories(self, name: str) -> list[Path]:
        return [self._unified / name, *(root / name for root in self._roots)]


def _write(file: Path, value: int | str) -> None:
    # Not write_text: O_CREAT and O_TRUNC have no meaning here, and a missing file must be an error.
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)


def _limit_v1_memory(directory: Path, limit: int) -> None:
    """Set the limit and the one of memory and swap together, which the kernel never lets be the lower of the two."""
    files = [directory / "memory.limit_in_bytes"]
    both = directory / "memory.memsw.limit_in_bytes"
    if both.exists():
        raising = limit > int(both.read_text())
        files.insert(0 if raising else 1, both)
    for file in files:
        _write(file, limit)
    # Apart from the rest on v1, and not counted at all before there is a limit: a machine could fill the whole host's share.
    with contextlib.suppress(FileNotFoundError):
        _write(directory / "memory.kmem.tcp.limit_in_bytes", limit // _SOCKET_SHARE)


def remove_tree(directory: Path, timeout: float = 5.0) -> None:
    """Remove a cgroup and its children, waiting for the last of the dead. Raises OSError (EBUSY)."""
    deadline, pause = time.monotonic() + timeout, 0.001
    while not _removed(directory):
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, "processes remain", str(directory))
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _removed(directory: Path) -> bool:
    """Remove a cgroup and its children, deepest first. False when something in it still lives."""
    try:
        for entry in list(os.scandir(directory)):
            if entry.is_dir(follow_symlinks=False) and not _removed(Path(entry.path)):
                return False
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


class Unified:
    """A mount of cgroup2 of our own, attached nowhere: hosts have it in three different places, or not at all."""

    def __init__(self) -> None:
        self._fd = syscalls.fsmount("cgroup2", "none", {}, 0)

    @property
    def path(self) -> Path:
        """Where this process and others, in whatever mount namespace, find it while it is open."""
        return Path(f"/proc/{os.getpid()}/fd/{self._fd}")

    def close(self) -> None:
        os.close(self._fd)
