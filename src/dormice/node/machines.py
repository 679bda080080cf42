"""The container runtime: machines as OCI containers with disks, limits, networks and uids of their own.

Life of a machine on this host, each step able to be cut short by `kill -9` and mended by the next `open`:

    intent recorded -> cgroups -> disk attached -> root mounted -> OCI runtime, inside the cgroups -> process recorded -> unmounted here

The OCI runtime itself starts inside the machine's cgroups, so killing those ends everything that a start may have left.
Whatever has no record of a live process is removed. All blocking work runs on threads that live in a private mount namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import select
import shutil
import socket
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar
from uuid import UUID

from dormice.node import cgroups, mounts, oci, records
from dormice.node.cgroups import Cgroups, Limits
from dormice.node.disks import Disks
from dormice.node.launcher import Launcher
from dormice.node.mounts import MachineRoot, MountNamespace
from dormice.node.oci import OciRuntime
from dormice.node.ports import Image, ImageSource, Network, NetworkProvider
from dormice.node.records import Record
from dormice.node.runtime import MachineSpec, Running, RuntimeFailure
from dormice.node.userns import UserNamespaces, raise_host_quotas

_MACHINE_ID = re.compile(r"dm-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_END_TIMEOUT = 20.0
_THREADS = 4
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
    pool_size: int = 2
    """Disks and user namespaces prepared in advance."""
    cgroup_parent: str = "dormice"
    """The directory of all machines in every cgroup hierarchy."""


@dataclass(frozen=True, slots=True)
class _Places:
    """The directories of one machine below the run directory. The outer one can be passed through, the inner one is root's."""

    directory: Path

    @property
    def private(self) -> Path:
        return self.directory / "private"

    @property
    def socket(self) -> Path:
        return self.private / "guest.sock"

    @property
    def record(self) -> Path:
        return self.private / "record.json"

    @property
    def root(self) -> MachineRoot:
        return MachineRoot(self.directory)

    def make(self) -> None:
        self.directory.mkdir(mode=0o711, exist_ok=True)
        self.private.mkdir(mode=0o700, exist_ok=True)
        self.root.make_mountpoints()

    def remove(self) -> None:
        self.root.remove_mountpoints()
        shutil.rmtree(self.private, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            self.directory.rmdir()


class ContainerRuntime:
    """Implements the `Runtime` port."""

    isolated = True

    def __init__(self, settings: ContainerSettings, images: ImageSource, networks: NetworkProvider) -> None:
        self._settings = settings
        self._images = images
        self._networks = networks
        self._launcher = Launcher()
        self._userns = UserNamespaces(self._launcher, settings.first_uid, settings.pool_size)
        self._disks = Disks(
            settings.data_dir / "disks", reserve_bytes=settings.reserve_bytes, pool_size=settings.pool_size
        )
        self._running: dict[str, tuple[Running, Record]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def open(self) -> list[Running]:
        self._namespace = MountNamespace()
        self._executor = ThreadPoolExecutor(_THREADS, "machines", initializer=self._namespace.enter)
        self._pool_executor = ThreadPoolExecutor(1, "machine-pool", initializer=self._namespace.enter)
        found = await self._in_thread(self._prepare_host)
        for machine_id in found:
            await self._adopt_or_clear(machine_id)
        self._refill()
        return [running for running, _ in self._running.values()]

    async def start(self, machine_id: str, boot_id: UUID, spec: MachineSpec) -> Running:
        self._check(machine_id)
        async with self._locks[machine_id]:
            if machine_id in self._running:
                running, _ = self._running[machine_id]
                if running.boot_id == boot_id:
                    return running
                raise RuntimeFailure("STILL_RUNNING", f"boot {running.boot_id} of the machine is alive", retryable=True)
            image = await self._in_thread(self._images.resolve, spec.image)
            network = await self._networks.acquire(machine_id)
            try:
                # Here and not on the thread: a private mount namespace does not get to see new mounts of every host.
                netns = os.open(network.netns_path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    running, record = await self._in_thread(
                        self._start, machine_id, boot_id, spec, image, network, netns
                    )
                finally:
                    os.close(netns)
            except (RuntimeFailure, OSError) as failure:
                await self._clear(machine_id)
                if isinstance(failure, RuntimeFailure):
                    raise
                raise RuntimeFailure("OCI_RUNTIME_FAILED", str(failure)) from failure
            self._running[machine_id] = running, record
        self._refill()
        return running

    async def end(self, machine_id: str) -> None:
        self._check(machine_id)
        async with self._locks[machine_id]:
            await self._clear(machine_id)

    async def destroy(self, machine_id: str) -> None:
        self._check(machine_id)
        async with self._locks[machine_id]:
            await self._clear(machine_id)
            await self._in_thread(self._disks.delete, machine_id)

    async def resize(self, machine_id: str, spec: MachineSpec) -> None:
        self._check(machine_id)
        async with self._locks[machine_id]:
            await self._in_thread(self._resize, machine_id, spec)

    def oom_kills(self, machine_id: str) -> int:
        self._check(machine_id)
        return self._cgroups.oom_kills(machine_id)

    async def close(self) -> None:
        # Left first: a pool thread may be talking to the launcher.
        self._pool_executor.shutdown(cancel_futures=True)
        self._executor.shutdown()
        self._userns.close()
        self._launcher.close()
        self._namespace.close()
        for running, _ in self._running.values():
            os.close(running.pidfd)
        self._running.clear()

    # On the loop ----------------------------------------------------------------------------------------------------

    def _in_thread(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> asyncio.Future[_T]:
        return asyncio.get_running_loop().run_in_executor(self._executor, lambda: work(*args, **kwargs))

    def _check(self, machine_id: str) -> None:
        if not _MACHINE_ID.fullmatch(machine_id):
            raise ValueError("not a machine id")

    def _refill(self) -> None:
        for refill in (self._userns.refill, self._disks.refill):
            self._pool_executor.submit(_logged, refill)

    async def _adopt_or_clear(self, machine_id: str) -> None:
        adopted = await self._in_thread(self._adopt, machine_id)
        if adopted:
            self._running[machine_id] = adopted
        else:
            await self._clear(machine_id)

    async def _clear(self, machine_id: str) -> None:
        """End whatever there is of a machine, in whatever state. Raises RuntimeFailure when it will not go."""
        known = self._running.get(machine_id)
        uid_base = await self._in_thread(self._kill, machine_id, known[0].pidfd if known else None)
        if known:
            del self._running[machine_id]
            os.close(known[0].pidfd)
        await self._networks.release(machine_id)
        await self._in_thread(self._remove, machine_id)
        if uid_base is not None:
            self._userns.release(uid_base)

    # On threads of the private mount namespace ----------------------------------------------------------------------

    def _prepare_host(self) -> set[str]:
        """Make ready what all machines share; return the ids of machines that have left anything."""
        run = self._settings.run_dir
        run.mkdir(mode=0o711, parents=True, exist_ok=True)
        run.chmod(0o711)  # mode= is subject to the umask, and machines' roots must pass through
        mountinfo = Path("/proc/thread-self/mountinfo").read_text()
        cgroups.mount_unified(run / "cgroup2")
        if hybrid := cgroups.hybrid_mount(mountinfo):
            mounts.hide(hybrid)
        self._cgroups = Cgroups(cgroups.discover(run / "cgroup2", mountinfo), self._settings.cgroup_parent)
        self._cgroups.open()
        self._guest = mounts.copy_program(self._settings.guest, run / "guest")
        self._oci = OciRuntime.find(run / "oci")
        self._settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._disks.open()
        raise_host_quotas()
        entries = {entry.name for entry in run.iterdir()} | self._cgroups.names()
        return {name for name in entries if _MACHINE_ID.fullmatch(name)}

    def _places(self, machine_id: str) -> _Places:
        return _Places(self._settings.run_dir / machine_id)

    def _adopt(self, machine_id: str) -> tuple[Running, Record] | None:
        places = self._places(machine_id)
        record = records.read(places.record)
        if record is None or record.process is None:
            return None
        try:
            pidfd = os.pidfd_open(record.process.pid)
        except ProcessLookupError:
            return None
        # Only after the pidfd is open can the pid no longer change its owner.
        if records.identify(record.process.pid) != record.process:
            os.close(pidfd)
            return None
        self._userns.claim(record.uid_base)
        return Running(machine_id, record.boot_id, places.socket, pidfd, record.environment), record

    def _start(
        self, machine_id: str, boot_id: UUID, spec: MachineSpec, image: Image, network: Network, netns: int
    ) -> tuple[Running, Record]:
        places = self._places(machine_id)
        self._disks.create(machine_id, spec.storage_gib)
        places.make()
        userns = self._userns.take()
        try:
            record = Record(boot_id, userns.base, spec, dict(image.environment))
            records.write(places.record, record)
            self._cgroups.create(machine_id, self._limits(spec), userns.base)
            self._mount_root(machine_id, image, network, userns.fd, userns.base)
            bundle = oci.Bundle(
                hostname=machine_id,
                boot_id=str(boot_id),
                rootfs=places.root.rootfs,
                guest=self._guest,
                resolv_conf=places.root.disk / "etc/resolv.conf",
                userns=userns.path,
                netns=Path(f"/proc/{os.getpid()}/fd/{netns}"),
                owner=userns.base,
            )
            oci.write_bundle(places.private, bundle)
            pid = self._launch(machine_id, places)
        finally:
            os.close(userns.fd)
        pidfd, record = self._record_process(places, record, pid)
        places.root.unmount()
        return Running(machine_id, boot_id, places.socket, pidfd, image.environment), record

    def _mount_root(self, machine_id: str, image: Image, network: Network, userns: int, owner: int) -> None:
        disk = self._disks.attach(machine_id)
        try:
            mounts.furnish(disk, machine_id, network.gateway)
            self._places(machine_id).root.mount(disk, image.rootfs, userns, owner)
        finally:
            os.close(disk)

    def _launch(self, machine_id: str, places: _Places) -> int:
        pid_file, log = places.private / "pid", places.private / "oci.log"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(places.socket))
            places.socket.chmod(0o600)
            listener.listen(_BACKLOG)
            delegated = self._cgroups.open_delegated(machine_id)
            try:
                command = self._oci.command(machine_id, places.private, pid_file, log)
                status = self._launcher.run(
                    command, self._cgroups.entrances(machine_id), [listener.fileno(), delegated]
                )
            finally:
                os.close(delegated)
        if status != 0:
            said = log.read_text(errors="replace").strip()[-500:] if log.exists() else ""
            raise RuntimeFailure("OCI_RUNTIME_FAILED", f"the OCI runtime ended with {status}: {said}")
        return int(pid_file.read_text())

    def _record_process(self, places: _Places, record: Record, pid: int) -> tuple[int, Record]:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise RuntimeFailure("OCI_RUNTIME_FAILED", "process 1 ended at once") from None
        process = records.identify(pid)
        if process is None:
            os.close(pidfd)
            raise RuntimeFailure("OCI_RUNTIME_FAILED", "process 1 ended at once")
        record = Record(record.boot_id, record.uid_base, record.spec, record.environment, process)
        records.write(places.record, record)
        return pidfd, record

    def _kill(self, machine_id: str, pidfd: int | None) -> int | None:
        """Kill every process of the machine and wait until the kernel let go of its disk. Returns its uid range, if known."""
        record = records.read(self._places(machine_id).record)
        self._cgroups.kill(machine_id)
        self._places(machine_id).root.unmount()
        if pidfd is not None and not _wait_readable(pidfd, _END_TIMEOUT):
            raise RuntimeFailure("OCI_RUNTIME_FAILED", "process 1 does not die", retryable=True)
        try:
            self._cgroups.remove(machine_id, _END_TIMEOUT)
        except OSError as error:
            raise RuntimeFailure("OCI_RUNTIME_FAILED", f"the machine does not end: {error}", retryable=True) from error
        if not self._disks.wait_released(machine_id, _END_TIMEOUT):
            raise RuntimeFailure("OCI_RUNTIME_FAILED", "the machine's disk is still in use", retryable=True)
        return record.uid_base if record else None

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
            self._cgroups.apply(machine_id, self._limits(spec))
        except OSError as error:
            raise RuntimeFailure("CAPACITY_EXCEEDED", "more memory is in use than the new limit") from error
        if not self._disks.grow_online(machine_id, self._places(machine_id).private / "grow"):
            _log.info("storage of %s grows when it next starts", machine_id)
        record = Record(record.boot_id, record.uid_base, spec, record.environment, record.process)
        records.write(self._places(machine_id).record, record)
        self._running[machine_id] = running, record

    def _limits(self, spec: MachineSpec) -> Limits:
        return Limits(spec.vcpu, spec.memory_mib, self._settings.pids_limit)


def _wait_readable(fd: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def _logged(refill: Callable[[], None]) -> None:
    """Refill a pool. Failing costs time only: what is not ready is made when it is needed."""
    with contextlib.suppress(RuntimeError):  # the node is closing
        try:
            refill()
        except (OSError, RuntimeFailure) as failure:
            _log.warning("a pool was not refilled: %s", failure)
