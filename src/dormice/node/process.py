"""Driver `process`: machines that are only process trees of this host. No isolation at all.

For hosts without root, and for fast tests. A machine's disk is a directory; HOME and the cwd `/root` mean that
directory. Sizes, images and networks are promised to nobody. Everything that a command may do, the user who runs the
node may do, and the commands run as that user.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import select
import signal
import socket
import time
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import UUID

from dormice.crash_points import CrashPoint, reached
from dormice.domain.egress import PUBLIC
from dormice.node import records
from dormice.node.meters import ProcessMeter
from dormice.node.records import Record
from dormice.node.runtime import MachineSpec, Running, RuntimeFailure, host_failure
from dormice.node.trees import remove_tree

log = logging.getLogger(__name__)

KILL_SECONDS: Final = 10.0
"""How long the processes of a machine may take to be gone once killed."""
_LOOK_AGAIN_SECONDS = 0.01
_SOCKET_PATH_BYTES = 107
_MARK = "DORMICE_MACHINE"
"""In the environment of every command: how they are found where there is no cgroup to ask."""


def cgroup_name(run: Path) -> str:
    """The name of the cgroup of all machines whose sockets are in the directory `run`."""
    return f"dormice-{sha256(bytes(run.resolve())).hexdigest()[:12]}"


class ProcessRuntime:
    """Implements `Runtime` with plain processes."""

    isolated = False

    def __init__(self, *, data_dir: Path, run_dir: Path, guest: Path, use_cgroups: bool = True) -> None:
        self._disks = data_dir / "process"
        self._run = run_dir / "process"
        self._guest = guest
        self._use_cgroups = use_cgroups
        self._cgroups: Path | None = None
        self._machines: dict[str, Running] = {}

    async def open(self) -> list[Running]:
        log.warning(
            "driver `process`: machines are plain processes of this host, WITHOUT ANY ISOLATION. "
            "Every command runs as uid %d and may read and change whatever that user may.",
            os.getuid(),
        )
        self._disks.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._run.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._use_cgroups:
            self._cgroups = _own_cgroup(cgroup_name(self._run))
        for file in self._run.glob("*.json"):
            running = self._adopt(file)
            ours = running is None or _leads_to(running.environment.get("HOME", ""), self._disk(file.stem))
            if not ours:
                words = "machine %s does not run on its disk in this data directory, but on another one: it is ended"
                log.error(words, file.stem, extra={"machine_id": file.stem})
            if running is None or not ours:
                await self.end(file.stem)
        return list(self._machines.values())

    async def start(self, machine_id: str, boot_id: UUID, spec: MachineSpec) -> Running:
        _refuse_confinement(spec)
        running = self._machines.get(machine_id)
        if running is not None and _alive(running.pidfd):
            if running.boot_id == boot_id:
                return running
            raise RuntimeFailure("STILL_RUNNING", f"boot {running.boot_id} of the machine is alive", retryable=True)
        await self.end(machine_id)
        disk = self._disk(machine_id)
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(disk),
            _MARK: machine_id,
        }
        try:
            disk.mkdir(mode=0o700, exist_ok=True)
            pid = self._spawn(machine_id, boot_id, disk)
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                os.kill(pid, signal.SIGKILL)  # our child, so it is still this one
                await asyncio.to_thread(os.waitpid, pid, 0)
                raise
            running = Running(machine_id, boot_id, self._socket(machine_id), pidfd, environment, str(self._guest))
            self._machines[machine_id] = running
            reached(CrashPoint.MACHINE_LAUNCHED)
            records.write(self._record(machine_id), Record(boot_id, 0, spec, environment, records.identify(pid)))
        except OSError as error:
            if (running := self._machines.pop(machine_id, None)) is not None:
                await asyncio.to_thread(_kill_child, running.pidfd)
                os.close(running.pidfd)  # the end needs one, and there may be no other
            await self.end(machine_id)
            raise host_failure(error) from error
        return running

    async def end(self, machine_id: str) -> None:
        try:
            await asyncio.to_thread(self._kill, machine_id, self._machines.get(machine_id))
        except OSError as error:
            raise host_failure(error) from error
        running = self._machines.pop(machine_id, None)
        if running is not None:
            os.close(running.pidfd)
        record = self._record(machine_id)
        for file in (self._socket(machine_id), record, record.with_suffix(".new")):
            file.unlink(missing_ok=True)

    async def destroy(self, machine_id: str) -> None:
        await self.end(machine_id)
        with contextlib.suppress(OSError):  # as far as it lets itself be removed by whoever we are
            await asyncio.to_thread(remove_tree, self._disk(machine_id))
        self._output(machine_id).unlink(missing_ok=True)

    async def copy_disk(self, machine_id: str, origin: str, storage_gib: int) -> None:
        del storage_gib
        if not self._disk(machine_id).exists():
            await self._copy(self._disk(origin), self._disk(machine_id))

    async def take_snapshot(self, machine_id: str, snapshot_id: str) -> int:
        if not self._disk(snapshot_id).exists():
            await self._copy(self._disk(machine_id), self._disk(snapshot_id))
        return sum(file.lstat().st_blocks * 512 for file in self._disk(snapshot_id).rglob("*"))

    async def delete_snapshot(self, snapshot_id: str) -> None:
        with contextlib.suppress(OSError):  # as for a machine's
            await asyncio.to_thread(remove_tree, self._disk(snapshot_id))

    async def _copy(self, source: Path, target: Path) -> None:
        """Copy a directory of files that may change meanwhile: there is nothing here that could hold them still."""
        new = target.with_name(f"{target.name}.new")
        try:
            copying = await asyncio.create_subprocess_exec("cp", "--archive", "--reflink=auto", "-T", source, new)
            if await copying.wait() != 0:
                raise RuntimeFailure("SNAPSHOT_FAILED", f"{source.name} could not be copied", retryable=True)
            new.rename(target)
        finally:
            with contextlib.suppress(FileNotFoundError):  # it has its name
                await asyncio.to_thread(remove_tree, new)

    async def resize(self, machine_id: str, spec: MachineSpec) -> None:
        _refuse_confinement(spec)
        file = self._record(machine_id)
        record = records.read(file)
        if record is not None:
            records.write(file, Record(record.boot_id, 0, spec, record.environment, record.process))

    def oom_kills(self, machine_id: str) -> int:
        """Always 0: nothing here limits memory, so the host's OOM killer is nobody's in particular."""
        del machine_id
        return 0

    def meter(self, machine_id: str) -> ProcessMeter | None:
        record = records.read(self._record(machine_id)) if machine_id in self._machines else None
        if record is None or record.process is None:
            return None
        return ProcessMeter(record.process, record.spec, self._cgroup(machine_id))

    async def close(self) -> None:
        for running in self._machines.values():
            os.close(running.pidfd)
        self._machines.clear()
        if self._cgroups is not None:
            with contextlib.suppress(OSError):  # machines go on running in it
                self._cgroups.rmdir()

    # Places

    def _disk(self, machine_id: str) -> Path:
        return self._disks / machine_id

    def _output(self, machine_id: str) -> Path:
        """What the guest itself says."""
        return self._disks / f"{machine_id}.log"

    def _socket(self, machine_id: str) -> Path:
        return self._run / f"{machine_id}.sock"

    def _record(self, machine_id: str) -> Path:
        return self._run / f"{machine_id}.json"

    def _cgroup(self, machine_id: str) -> Path | None:
        return self._cgroups / machine_id if self._cgroups is not None else None

    # Starting and finding

    def _spawn(self, machine_id: str, boot_id: UUID, disk: Path) -> int:
        """Start the guest with its listening socket as fd 3 and its cgroup, if there can be one, as fd 4."""
        path = self._socket(machine_id)
        if len(bytes(path)) > _SOCKET_PATH_BYTES:
            raise RuntimeFailure("OCI_RUNTIME_FAILED", f"{path} is too long for a socket: use a shorter run directory")
        path.unlink(missing_ok=True)
        cgroup = self._cgroup(machine_id)
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            output = _opened(stack, self._output(machine_id), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            nothing = _opened(stack, Path(os.devnull), os.O_RDONLY)
            wanted = {0: nothing, 1: output, 2: output, 3: listener.fileno()}
            if cgroup is not None:
                cgroup.mkdir(exist_ok=True)
                wanted[4] = _opened(stack, cgroup, os.O_RDONLY | os.O_DIRECTORY)
            high = {number: _lifted(stack, fd) for number, fd in wanted.items()}
            return os.posix_spawn(
                self._guest,
                ["dormice-guest", str(boot_id), str(disk)],
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in high.items()],
                setsid=True,
            )

    def _adopt(self, file: Path) -> Running | None:
        """The machine of a record, if its guest is alive."""
        record, machine_id = records.read(file), file.stem
        pidfd = records.open_process(record.process) if record is not None else None
        if record is None or pidfd is None:
            return None
        running = Running(
            machine_id, record.boot_id, self._socket(machine_id), pidfd, record.environment, str(self._guest)
        )
        self._machines[machine_id] = running
        return running

    def _kill(self, machine_id: str, running: Running | None) -> None:
        """Kill every process of the machine and wait for that. Blocking; raises RuntimeFailure."""
        deadline = time.monotonic() + KILL_SECONDS
        while not self._gone(machine_id, running, self._cgroup(machine_id)):
            if time.monotonic() > deadline:
                raise RuntimeFailure("STILL_RUNNING", "processes of the machine survive SIGKILL", retryable=True)
            time.sleep(_LOOK_AGAIN_SECONDS)
        if running is not None:
            with contextlib.suppress(ChildProcessError):  # adopted: not our child
                os.waitid(os.P_PIDFD, running.pidfd, os.WEXITED)

    def _gone(self, machine_id: str, running: Running | None, cgroup: Path | None) -> bool:
        """Kill what is left of the machine. True when nothing is."""
        if cgroup is not None and cgroup.exists():
            (cgroup / "cgroup.kill").write_text("1")
            if not _removed(cgroup):
                return False
        # The guest goes last: while it lives, what its commands leave behind becomes its child and keeps its mark.
        left = [pid for pid in _marked(f"{_MARK}={machine_id}") if _kill(pid)]
        if left:
            return False
        if running is not None and _alive(running.pidfd):
            signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)
            return False
        return True


def _refuse_confinement(spec: MachineSpec) -> None:
    if spec.egress != PUBLIC:
        raise RuntimeFailure("NETWORK_FAILED", "bare processes have the host's network: no egress policy can be kept")


def _leads_to(path: str, disk: Path) -> bool:
    try:
        return disk.samefile(path)
    except FileNotFoundError:
        return False


def _alive(pidfd: int) -> bool:
    """Whether the process runs; one that nobody has reaped yet does not. An adopted one is reaped by init, whenever that looks."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)


def _kill_child(pidfd: int) -> None:
    """Kill a process that is our child, and reap it."""
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED)


def _kill(pid: int) -> bool:
    """Whether the process was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _marked(mark: str) -> list[int]:
    """The processes in whose environment an entry is. Those of other users cannot be read and are not ours."""
    found = []
    needle = mark.encode() + b"\0"
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                environment = (entry / "environ").read_bytes()
                if environment.startswith(needle) or b"\0" + needle in environment:
                    found.append(int(entry.name))
    return found


def _opened(stack: contextlib.ExitStack, path: Path, flags: int) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    return fd


def _lifted(stack: contextlib.ExitStack, fd: int) -> int:
    """A copy above the numbers that the guest's descriptors get, so that none is overwritten before it is copied."""
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    stack.callback(os.close, copy)
    return copy


def _own_cgroup(name: str) -> Path | None:
    """A cgroup2 directory in which machines may be made, below the node's own; None when the host lets us have none."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = [Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"]
    own = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    if not roots or not own:
        return None
    directory = roots[0] / own[0].lstrip("/") / name
    try:
        directory.mkdir(exist_ok=True)
        (directory / "probe").mkdir(exist_ok=True)
        (directory / "probe").rmdir()
    except OSError:
        return None
    return directory if (directory / "cgroup.kill").exists() else None


def _removed(cgroup: Path) -> bool:
    """Remove a cgroup and those in it. False while processes are left."""
    try:
        for child in sorted(cgroup.rglob("*"), reverse=True):
            if child.is_dir():
                child.rmdir()
        cgroup.rmdir()
    except FileNotFoundError:
        return not cgroup.exists()
    except OSError:
        return False
    return True
