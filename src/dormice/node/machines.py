"""The container runtime: machines as OCI containers with disks, limits, networks and uids of their own.

Life of a machine on this host, each step able to be cut short by `kill -9` and mended by the next `open`:

    slot (uids, user namespace, cgroups) -> intent recorded -> disk attached -> root mounted -> OCI runtime -> process recorded -> unmounted here

The OCI runtime itself starts inside the machine's cgroups, so killing those ends everything that a start may have left.
Whatever has no record of a live process is removed. All blocking work runs on threads that live in a private mount namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Never, ParamSpec, TypeVar
from uuid import UUID

from dormice.crash_points import CrashPoint, reached
from dormice.node import cgroups, mounts, oci, quotas, records, uncounted
from dormice.node.cgroups import Cgroups, Limits
from dormice.node.disk_copying import DiskCopying
from dormice.node.disks import Disks
from dormice.node.launcher import Launcher
from dormice.node.meters import CgroupMeter
from dormice.node.mounts import MountNamespace
from dormice.node.oci import OciRuntime
from dormice.node.patience import wait_readable
from dormice.node.places import Places
from dormice.node.ports import QUIET_SECONDS, Image, ImageSource, Network, NetworkProvider
from dormice.node.records import Record
from dormice.node.runtime import MachineSpec, Running, RuntimeFailure, host_failure
from dormice.node.slots import Slot, Slots, cgroup_name
from dormice.node.threads import Threads
from dormice.node.uncounted import Suspect

_MACHINE_ID = re.compile(r"dm-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ORIGIN = re.compile(r"(?:dm|snap)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_END_TIMEOUT = 20.0
_MOST_VCPUS = 100_000
SETTLE_SECONDS = 0.5
"""How long after it was made a copied disk is written out."""
_THREADS = 4
_COPY_THREADS = 2
"""Apart from the others: a large disk takes long, and nobody's start, end or deletion is to wait for it."""
_GUEST_NICE = -10
"""So that a machine full of busy commands still has one started, timed out or reported. Commands do not inherit it."""
_BACKLOG = 16

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """Where and within which bounds machines are made."""

    data_dir: Path
    """Disks live here; private to root."""
    guest: Path
    """The guest's binary, static, readable by everybody."""
    run_dir: Path = Path("/run/dormice")
    """Sockets and mount points; on a tmpfs, so that a reboot clears it."""
    first_uid: int = 1_000_000_000
    """Start of the host's uids and gids that machines use, 65,536 each; nothing else may use them."""
    reserve_bytes: int = 2 << 30
    """Storage of the host that is never promised to machines."""
    pids_limit: int = 4096
    """Tasks (threads included) per machine."""
    disk_bytes_per_second: int = 256 << 20
    """What a machine may read, and write, of its disk; 0 sets no bound. Without one, a disk filler makes every commit wait."""
    pool_size: int = 2
    """Disks and user namespaces prepared in advance."""
    oci_runtimes: tuple[str, ...] = ("crun", "runc")
    """Programs to use, in order of preference. crun starts machines in half the time."""
    cgroup_parent: str = "dormice"
    """The directory of all machines in every cgroup hierarchy."""


class ContainerRuntime:
    """Implements the `Runtime` port."""

    isolated = True

    def __init__(self, settings: ContainerSettings, images: ImageSource, networks: NetworkProvider) -> None:
        self._settings = settings
        self._images = images
        self._networks = networks
        self._launcher = Launcher()
        self._disks = Disks(
            settings.data_dir / "disks", reserve_bytes=settings.reserve_bytes, pool_size=settings.pool_size
        )
        self._copying = DiskCopying(self._disks, images, settings.run_dir)
        self._running: dict[str, tuple[Running, Record]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._refilling: asyncio.TimerHandle | None = None
        self._filter: bytes | None = None
        """Learned from the first start. It is the same for all machines."""
        self._furnished: set[str] = set()
        """Machines whose disks this node has furnished: once is enough, as its nameserver stays the same."""

    async def open(self) -> list[Running]:
        self._namespace = MountNamespace()
        self._threads = Threads(_THREADS, "machines", initializer=self._namespace.enter)
        self._copy_threads = Threads(_COPY_THREADS, "machine-copies", initializer=self._namespace.enter)
        self._pool_executor = ThreadPoolExecutor(1, "machine-pool", initializer=self._namespace.enter)
        try:
            found = await self._threads.run(self._prepare_host)
        except OSError as error:
            raise RuntimeFailure("OCI_RUNTIME_FAILED", f"this host cannot run machines: {error}") from error
        self._running = await self._threads.run(self._adopt_all, found)
        await self._threads.run(self._kill_orphans)
        for machine_id in found - set(self._running):
            await self._clear(machine_id)
        self._refill()
        return [running for running, _ in self._running.values()]

    async def start(self, machine_id: str, boot_id: UUID, spec: MachineSpec) -> Running:
        self._check(machine_id, spec)
        async with self._locks[machine_id]:
            if machine_id in self._running:
                running, _ = self._running[machine_id]
                if running.boot_id == boot_id:
                    return running
                raise RuntimeFailure("STILL_RUNNING", f"boot {running.boot_id} of the machine is alive", retryable=True)
            if self._places(machine_id).directory.exists():
                await self._clear(machine_id)  # what could not be removed when an earlier start failed
            try:
                network = await self._networks.acquire(machine_id)
                await self._networks.confine(machine_id, spec.egress)
                # Here and not on the thread: a private mount namespace does not get to see new mounts of every host.
                netns = os.open(network.netns_path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    running, record = await self._threads.run(self._start, machine_id, boot_id, spec, network, netns)
                finally:
                    os.close(netns)
            except (RuntimeFailure, OSError, asyncio.CancelledError) as failure:
                try:
                    await self._clear(machine_id)
                except (RuntimeFailure, OSError):
                    _log.exception("what a failed start left of %s goes when it is started or deleted", machine_id)
                if not isinstance(failure, OSError):
                    raise
                raise host_failure(failure) from failure
            self._running[machine_id] = running, record
        self._refill_soon()
        return running

    async def end(self, machine_id: str) -> None:
        self._check(machine_id)
        async with self._locks[machine_id]:
            await self._clear(machine_id)

    async def destroy(self, machine_id: str) -> None:
        self._check(machine_id)
        async with self._locks[machine_id]:
            await self._clear(machine_id)
            await self._threads.run(self._disks.delete, machine_id)
            self._furnished.discard(machine_id)

    async def copy_disk(self, machine_id: str, origin: str, storage_gib: int) -> None:
        self._check(machine_id, origin=origin)
        async with self._locks[machine_id], self._locks[origin]:  # what is copied was there before: no circle
            await self._on_disks(self._copy_threads, self._copying.disk, machine_id, origin, storage_gib)
        # Later: to write so much now would hold up whoever waits for the machine.
        asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._upkeep, partial(self._disks.settle, machine_id))

    async def take_snapshot(self, machine_id: str, snapshot_id: str) -> int:
        self._check(machine_id, origin=snapshot_id)
        async with self._locks[machine_id]:
            return await self._on_disks(self._copy_threads, self._copying.snapshot, machine_id, snapshot_id)

    async def delete_snapshot(self, snapshot_id: str) -> None:
        self._check(snapshot_id, origin=snapshot_id)
        async with self._locks[snapshot_id]:
            await self._on_disks(self._threads, self._disks.copies.delete, snapshot_id)
        self._locks.pop(snapshot_id, None)

    async def resize(self, machine_id: str, spec: MachineSpec) -> None:
        self._check(machine_id, spec)
        async with self._locks[machine_id]:
            await self._networks.confine(machine_id, spec.egress)
            await self._threads.run(self._resize, machine_id, spec)

    def oom_kills(self, machine_id: str) -> int:
        known = self._running.get(machine_id)
        return self._cgroups.oom_kills(cgroup_name(known[1].uid_base)) if known else 0

    def meter(self, machine_id: str) -> CgroupMeter | None:
        record = self._running[machine_id][1] if machine_id in self._running else None
        if record is None or record.process is None:
            return None
        return self._cgroups.meter(cgroup_name(record.uid_base), record.process, record.spec)

    async def guard_memory(self) -> Never:
        """End the machines that hide memory of the host, while it is short of it. What ends them is seen as any death is."""
        await uncounted.guard(self._suspects)

    async def close(self) -> None:
        if self._refilling is not None:
            self._refilling.cancel()
        await self._threads.run(self._pool_executor.shutdown, cancel_futures=True)
        await self._threads.run(self._slots.close)
        await self._threads.run(self._disks.close)
        await self._threads.run(self._cgroups.leave)
        self._copy_threads.close()
        self._threads.close()
        self._launcher.close()
        self._oci.close()
        self._unified.close()
        self._namespace.close()
        for running, _ in self._running.values():
            os.close(running.pidfd)
        self._running.clear()

    # On the loop ----------------------------------------------------------------------------------------------------

    async def _on_disks(self, threads: Threads, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await threads.run(work, *args, **kwargs)
        except OSError as error:
            raise host_failure(error) from error

    def _check(self, machine_id: str, spec: MachineSpec | None = None, *, origin: str | None = None) -> None:
        if not _MACHINE_ID.fullmatch(machine_id) and machine_id != origin:
            raise ValueError("not a machine id")
        if origin is not None and not _ORIGIN.fullmatch(origin):
            raise ValueError("neither a snapshot's id nor a machine's")
        # Looked at here, before anything is made; so that not-a-number is no size, each is asked for what it must be.
        if spec and not (0 < spec.vcpu <= _MOST_VCPUS and spec.memory_mib > 0 and spec.storage_gib > 0):
            raise RuntimeFailure("CAPACITY_EXCEEDED", "no machine has such sizes")

    def _refill_soon(self) -> None:
        """Refill in a while: the kernel makes one cgroup at a time, and the machine that has just started needs one for a command."""
        if self._refilling is None:
            self._refilling = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._refill)

    def _refill(self) -> None:
        self._refilling = None
        for refill in (self._slots.refill, self._disks.refill):
            self._upkeep(refill)

    def _upkeep(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the node is closing
            self._pool_executor.submit(_logged, work)

    async def _clear(self, machine_id: str) -> None:
        """End whatever there is of a machine, in whatever state. Raises RuntimeFailure when it will not go."""
        known = self._running.get(machine_id)
        await self._threads.run(self._kill, machine_id, known[0].pidfd if known else None)
        if known:
            del self._running[machine_id]
            os.close(known[0].pidfd)
        await self._networks.release(machine_id)
        await self._threads.run(self._remove, machine_id)

    def _suspects(self) -> list[Suspect]:
        """Raises OSError when there are no descriptors left."""
        found: list[Suspect] = []
        try:
            for machine_id, (running, record) in self._running.items():
                if record.process:
                    pidfd = os.dup(running.pidfd)
                    found.append(Suspect(machine_id, record.process.pid, pidfd, record.spec.memory_mib << 20))
        except OSError:
            for suspect in found:
                os.close(suspect.pidfd)
            raise
        return found

    # On threads of the private mount namespace ----------------------------------------------------------------------

    def _prepare_host(self) -> set[str]:
        """Make ready what all machines share; return the ids of machines that have left anything."""
        run = self._settings.run_dir
        run.mkdir(mode=0o711, parents=True, exist_ok=True)
        run.chmod(0o711)  # mode= is subject to the umask, and machines' roots must pass through
        mountinfo = Path("/proc/thread-self/mountinfo").read_text()
        self._unified = cgroups.Unified()
        if hybrid := cgroups.hybrid_mount(mountinfo):
            mounts.hide(hybrid)
        self._cgroups = Cgroups(cgroups.discover(self._unified.path, mountinfo), self._settings.cgroup_parent)
        self._cgroups.open()
        self._guest = mounts.copy_program(self._settings.guest, run / "guest")
        self._oci = OciRuntime.find(run / "oci", self._settings.oci_runtimes)
        self._settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._disks.open()
        quotas.raise_to(quotas.HOST)
        self._slots = Slots(
            self._launcher,
            self._cgroups,
            first_uid=self._settings.first_uid,
            pool_size=self._settings.pool_size,
        )
        return {entry.name for entry in run.iterdir() if _MACHINE_ID.fullmatch(entry.name)}

    def _image(self, machine_id: str, name: str) -> Image:
        """The very files that the machine's disk was made on; for a new machine, the current ones of that name."""
        if version := self._disks.base(machine_id):
            return self._images.resolve(version)
        with self._images.held(self._disks.machines):
            image = self._images.resolve(name)
            self._disks.set_base(machine_id, image.version)
        return image

    def _places(self, machine_id: str) -> Places:
        return Places(self._settings.run_dir / machine_id)

    def _adopt_all(self, machine_ids: set[str]) -> dict[str, tuple[Running, Record]]:
        adopted = {machine_id: self._adopt(machine_id) for machine_id in machine_ids}
        return {machine_id: found for machine_id, found in adopted.items() if found}

    def _kill_orphans(self) -> None:
        """End what runs in slots of no machine, such as a start that was under way when the node was killed."""
        adopted = {cgroup_name(record.uid_base) for _, record in self._running.values()}
        for name in self._cgroups.names() - adopted:
            self._cgroups.kill(name)
            self._cgroups.remove(name, _END_TIMEOUT)

    def _adopt(self, machine_id: str) -> tuple[Running, Record] | None:
        places = self._places(machine_id)
        record = records.read(places.record)
        pidfd = records.open_process(record.process) if record is not None else None
        if record is None or pidfd is None:
            return None
        if not self._disks.in_use(machine_id):
            # What it writes would be gone with its next sleep.
            os.close(pidfd)
            words = "machine %s does not run on its disk in this data directory, but on another file: it is ended"
            _log.error(words, machine_id, extra={"machine_id": machine_id})
            return None
        self._slots.claim(record.uid_base)
        self._copying.resume(machine_id)
        return Running(machine_id, record.boot_id, places.socket, pidfd, record.environment, oci.GUEST_PATH), record

    def _start(
        self, machine_id: str, boot_id: UUID, spec: MachineSpec, network: Network, netns: int
    ) -> tuple[Running, Record]:
        places, image = self._places(machine_id), self._image(machine_id, spec.image)
        self._disks.create(machine_id, spec.storage_gib)
        places.make()
        slot = self._slots.take()
        record = Record(boot_id, slot.base, spec, dict(image.environment))
        try:
            records.write(places.record, record)
        except OSError:
            self._slots.put_back(slot)  # without a record nobody would know of it
            raise
        try:
            self._cgroups.apply(slot.cgroup, self._limits(spec))
            device = self._mount_root(machine_id, image, network, slot)
            if self._settings.disk_bytes_per_second:
                self._cgroups.limit_disk(slot.cgroup, device, self._settings.disk_bytes_per_second)
            bundle = oci.Bundle(
                hostname=machine_id,
                boot_id=str(boot_id),
                memory_mib=spec.memory_mib,
                rootfs=places.root.rootfs,
                guest=self._guest,
                userns=_fd_path(slot.userns),
                cgroup=f"/{self._settings.cgroup_parent}/{slot.cgroup}/runtime",
                owner=slot.base,
                compiled_filter=self._filter,
            )
            oci.write_bundle(places.private, bundle)
            pid = self._launch(machine_id, places, slot, netns)
        finally:
            slot.close()
        self._filter = self._filter or self._oci.compiled_filter(machine_id)
        reached(CrashPoint.MACHINE_LAUNCHED)
        pidfd, record = self._record_process(places, record, pid)
        places.root.unmount()
        return Running(machine_id, boot_id, places.socket, pidfd, image.environment, oci.GUEST_PATH), record

    def _mount_root(self, machine_id: str, image: Image, network: Network, slot: Slot) -> int:
        """Return the disk's device number."""
        disk = self._disks.attach(machine_id)
        try:
            if machine_id not in self._furnished:
                mounts.furnish(disk, machine_id, network.gateway)
                self._furnished.add(machine_id)
            root = self._places(machine_id).root
            root.mount(disk, image.rootfs, slot.userns, slot.base)
            if os.statvfs(root.rootfs).f_flag & os.ST_RDONLY:
                raise RuntimeFailure("OCI_RUNTIME_FAILED", "the disk is damaged: the kernel lets nobody write to it")
            return os.fstat(disk).st_dev
        finally:
            os.close(disk)

    def _launch(self, machine_id: str, places: Places, slot: Slot, netns: int) -> int:
        pid_file, log = places.private / "pid", places.log
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(places.socket))
            places.socket.chmod(0o600)
            listener.listen(_BACKLOG)
            delegated = self._cgroups.open_delegated(slot.cgroup)
            try:
                command = self._oci.command(machine_id, places.private, pid_file, log)
                pid_file.unlink(missing_ok=True)  # that it is there again is what tells success
                slot.standby.run(self._oci.opened, command, netns, [listener.fileno(), delegated])
            finally:
                os.close(delegated)
        pid = pid_file.read_text() if pid_file.exists() else ""
        if not pid:
            raise _failed("the OCI runtime started nothing", log)
        return int(pid)

    def _record_process(self, places: Places, record: Record, pid: int) -> tuple[int, Record]:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise _failed("process 1 ended at once", places.log) from None
        process = records.identify(pid)
        if process is None:
            os.close(pidfd)
            raise _failed("process 1 ended at once", places.log)
        with contextlib.suppress(OSError):  # dead, as its pidfd will tell, or not allowed here
            os.setpriority(os.PRIO_PROCESS, pid, _GUEST_NICE)
        record = Record(record.boot_id, record.uid_base, record.spec, record.environment, process)
        records.write(places.record, record)
        return pidfd, record

    def _kill(self, machine_id: str, pidfd: int | None) -> None:
        """Kill every process of the machine and wait until the kernel let go of its disk."""
        places = self._places(machine_id)
        record = records.read(places.record)
        if record:
            self._cgroups.kill(cgroup_name(record.uid_base))
        places.root.unmount()
        if pidfd is not None and not wait_readable(pidfd, _END_TIMEOUT):
            raise RuntimeFailure("OCI_RUNTIME_FAILED", "process 1 does not die", retryable=True)
        try:
            if record:
                self._cgroups.remove(cgroup_name(record.uid_base), _END_TIMEOUT)
                # The record goes before the range is free: it must never name the cgroups of the range's next machine.
                places.record.unlink()
                self._slots.release(record.uid_base)
        except OSError as error:
            raise RuntimeFailure("OCI_RUNTIME_FAILED", f"the machine does not end: {error}", retryable=True) from error
        if not self._disks.wait_released(machine_id, _END_TIMEOUT):
            raise RuntimeFailure("OCI_RUNTIME_FAILED", "the machine's disk is still in use", retryable=True)

    def _remove(self, machine_id: str) -> None:
        self._oci.forget(machine_id)
        self._places(machine_id).remove()

    def _resize(self, machine_id: str, spec: MachineSpec) -> None:
        self._disks.create(machine_id, spec.storage_gib)
        known = self._running.get(machine_id)
        if known is None:
            return
        running, record = known
        try:
            self._cgroups.apply(cgroup_name(record.uid_base), self._limits(spec))
        except OSError as error:
            raise RuntimeFailure("CAPACITY_EXCEEDED", "more memory is in use than the new limit") from error
        if not self._disks.grow_online(machine_id, self._places(machine_id).private / "grow"):
            _log.info("storage of %s grows when it next starts", machine_id, extra={"machine_id": machine_id})
        record = Record(record.boot_id, record.uid_base, spec, record.environment, record.process)
        records.write(self._places(machine_id).record, record)
        self._running[machine_id] = running, record

    def _limits(self, spec: MachineSpec) -> Limits:
        return Limits(spec.vcpu, spec.memory_mib, self._settings.pids_limit)


def _failed(what: str, log: Path) -> RuntimeFailure:
    """What the OCI runtime's log says of it, unless there was no room to say it."""
    words = log.read_text(errors="replace").strip()[-500:] if log.exists() else ""
    if not os.statvfs(log.parent).f_bavail:
        return RuntimeFailure("STORAGE_EXHAUSTED", f"the run directory is full: {what}: {words}", retryable=True)
    return RuntimeFailure("OCI_RUNTIME_FAILED", f"{what}: {words}")


def _fd_path(fd: int) -> Path:
    """Where a process outside ours finds an open file of ours."""
    return Path(f"/proc/{os.getpid()}/fd/{fd}")


def _logged(upkeep: Callable[[], None]) -> None:
    """Refill a pool, or write a copy out. Failing costs time only: what is not ready is made when it is needed."""
    try:
        upkeep()
    except (OSError, RuntimeFailure) as failure:
        _log.warning("upkeep of disks and user namespaces failed: %s", failure)
