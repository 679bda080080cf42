"""Real machines for tests: a runtime with directories of its own, networks that lead nowhere, and commands run by the real guest."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from tests.shares import share

from dormice.domain.egress import Egress
from dormice.domain.execution import Stream
from dormice.node import syscalls
from dormice.node.images import Images
from dormice.node.machines import ContainerRuntime, ContainerSettings
from dormice.node.netlink import LOOPBACK_INDEX, RouteSocket
from dormice.node.ports import Image, ImageSource, Network, NetworkProvider
from dormice.node.runtime import MachineSpec, Running
from dormice.protocol import guest as wire

GUEST = Path(__file__).parents[2] / "guest/build/dormice-guest"
CLONE_NEWNET = 0x4000_0000
SMALL = MachineSpec(vcpu=1, memory_mib=256, storage_gib=1)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_epochs = itertools.count(time.time_ns())


def new_machine_id() -> str:
    return f"dm-{uuid4()}"


@dataclass(frozen=True)
class OneImage:
    """Every name is the same root file system."""

    image: Image

    def resolve(self, name: str) -> Image:
        del name
        return self.image

    def held(self, user: Path) -> AbstractContextManager[None]:
        del user
        return nullcontext()


class IsolatedNetworks:
    """A namespace with nothing but its loopback for every machine; kept by bind mounts, as the real ones are."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def acquire(self, machine_id: str) -> Network:
        path = self._directory / machine_id
        if not path.exists():
            self._directory.mkdir(exist_ok=True)
            path.touch()
            maker = threading.Thread(target=_bind_new_netns, args=(path,))
            maker.start()
            maker.join()
        return Network(path, "192.0.2.2", "192.0.2.1")

    async def confine(self, machine_id: str, egress: Egress) -> None:
        """There is nothing to reach."""

    async def release(self, machine_id: str) -> None:
        path = self._directory / machine_id
        if path.exists():
            syscalls.umount2(path, syscalls.MNT_DETACH)
            path.unlink()


def _bind_new_netns(path: Path) -> None:
    syscalls.unshare(CLONE_NEWNET)
    Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 4294967294")
    with RouteSocket() as inside:
        inside.set_up(LOOPBACK_INDEX)
    syscalls.mount("/proc/thread-self/ns/net", path, "", syscalls.MS_BIND)


def image_under_test() -> Image:
    """The image that machines of tests run: $DORMICE_TEST_ROOTFS, or `default` in $DORMICE_TEST_IMAGE_DIR."""
    if rootfs := os.environ.get("DORMICE_TEST_ROOTFS"):
        return Image(Path(rootfs), {"PATH": PATH, "HOME": "/root"})
    return Images(Path(os.environ.get("DORMICE_TEST_IMAGE_DIR", "/var/lib/dormice/images"))).resolve("default")


@dataclass
class Lab:
    """Where one test's machines live. `runtime` makes a node's runtime anew, as a restart of the node does."""

    data: Path
    run: Path
    cgroup_parent: str
    first_uid: int
    networks: NetworkProvider
    reserve_bytes: int = 0
    pids_limit: int = 512
    disk_bytes_per_second: int = 0
    oci_runtimes: tuple[str, ...] = ("crun", "runc")
    images: ImageSource | None = None
    """None: the one under test."""

    def runtime(self) -> ContainerRuntime:
        settings = ContainerSettings(
            data_dir=self.data,
            guest=GUEST,
            run_dir=self.run,
            first_uid=self.first_uid,
            reserve_bytes=self.reserve_bytes,
            pids_limit=self.pids_limit,
            disk_bytes_per_second=self.disk_bytes_per_second,
            pool_size=1,
            oci_runtimes=self.oci_runtimes,
            cgroup_parent=self.cgroup_parent,
        )
        return ContainerRuntime(settings, self.images or OneImage(image_under_test()), self.networks)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[ContainerRuntime]:
        runtime = self.runtime()
        await runtime.open()
        try:
            yield runtime
        finally:
            await runtime.close()

    def remove(self) -> None:
        for parent in self._cgroup_parents():
            parent.rmdir()
        shutil.rmtree(self.run)

    def _cgroup_parents(self) -> list[Path]:
        root = Path("/sys/fs/cgroup")
        return [*root.glob(self.cgroup_parent), *root.glob(f"*/{self.cgroup_parent}")]

    def leftovers(self) -> list[str]:
        """What of this lab's machines is still there, outside the disks."""
        cgroups = [p for parent in self._cgroup_parents() for p in parent.iterdir() if p.is_dir()]
        machines = [p for p in self.run.iterdir() if p.name.startswith("dm-")]
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.run) in line]
        backing = Path("/sys/block").glob("loop*/loop/backing_file")
        loops = [text for text in (_read(file) for file in backing) if str(self.data) in text]
        records = list((self.run / "oci").glob("dm-*"))
        return [str(thing) for thing in (*cgroups, *machines, *mounts, *loops, *records)]


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # detached between the listing and the reading
        return ""


@asynccontextmanager
async def lab(tmp_path: Path, networks: NetworkProvider | None = None) -> AsyncIterator[Lab]:
    """A lab; whatever a test leaves behind is ended, and nothing of it may stay."""
    name = f"dmlab-{uuid4().hex[:8]}"
    run = Path("/run") / name
    with share() as ours:
        run.mkdir(mode=0o711)
        made = Lab(tmp_path / "node", run, name, ours.first_uid, networks or IsolatedNetworks(run / "networks"))
        try:
            yield made
            async with made.opened() as runtime:
                for machine in [*run.glob("dm-*"), *(tmp_path / "node/disks/machines").glob("dm-*.ext4")]:
                    await runtime.destroy(machine.name.removesuffix(".ext4"))
            assert made.leftovers() == []
        finally:
            made.remove()


@dataclass(frozen=True)
class Result:
    code: int
    stdout: str
    stderr: str
    exited: wire.Exited

    @property
    def said(self) -> str:
        return self.stdout + self.stderr


class Shell:
    """Runs commands on a machine through its guest."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        self._decoder = wire.GuestDecoder()
        self._frames: list[wire.GuestFrame] = []

    async def open(self) -> None:
        await asyncio.get_running_loop().sock_connect(self._socket, str(self._running.guest_socket))
        await self._send(wire.Hello(epoch=next(_epochs)))
        welcome = await self._next()
        assert isinstance(welcome, wire.Welcome)
        assert UUID(bytes=welcome.boot_id) == self._running.boot_id

    def close(self) -> None:
        self._socket.close()

    async def start(self, script: str, *, timeout_ms: int = 60_000) -> bytes:
        execution = uuid4().bytes
        await self._send(
            wire.Start(
                execution=execution,
                boot_id=self._running.boot_id.bytes,
                argv=("/bin/bash", "-c", script),
                env=dict(self._running.environment) | {"DEBIAN_FRONTEND": "noninteractive"},
                cwd="/root",
                kept_limit=1 << 20,
                timeout_ms=timeout_ms,
            )
        )
        return execution

    async def run(self, script: str, *, timeout_ms: int = 60_000) -> Result:
        """Run a bash script to its end."""
        execution = await self.start(script, timeout_ms=timeout_ms)
        kept: dict[Stream, bytearray] = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
        while True:
            frame = await self._next()
            match frame:
                case wire.Output(execution=of, stream=stream, offset=offset, data=data) if of == execution:
                    kept[stream] += data
                    await self._send(wire.Ack(execution, stream, offset + len(data)))
                case wire.Exited(execution=of) if of == execution:
                    await self._send(wire.Forget(execution))
                    out, err = (bytes(kept[s]).decode(errors="replace") for s in (Stream.STDOUT, Stream.STDERR))
                    return Result(frame.code, out, err, frame)
                case wire.Refused():
                    raise AssertionError(f"refused: {frame.reason.name}")

    async def _send(self, frame: wire.NodeFrame) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, wire.encode(frame))

    async def _next(self) -> wire.GuestFrame:
        while not self._frames:
            data = await asyncio.get_running_loop().sock_recv(self._socket, 1 << 16)
            assert data, "the guest closed the connection"
            self._frames = self._decoder.feed(data)
        return self._frames.pop(0)


@asynccontextmanager
async def shell(running: Running) -> AsyncIterator[Shell]:
    opened = Shell(running)
    await opened.open()
    try:
        yield opened
    finally:
        opened.close()


@asynccontextmanager
async def machine(
    runtime: ContainerRuntime, spec: MachineSpec = SMALL, machine_id: str | None = None
) -> AsyncIterator[tuple[Running, Shell]]:
    """A machine that runs, and a shell on it. It is ended, and its disk kept, at the end."""
    machine_id = machine_id or new_machine_id()
    running = await runtime.start(machine_id, uuid4(), spec)
    try:
        async with shell(running) as opened:
            yield running, opened
    finally:
        await runtime.end(machine_id)


async def crash(made: Lab, machine_id: str, step: str) -> None:
    """Have another node of this lab start a machine, and kill it at a step (see crashing_node.py)."""
    lab = (str(made.data), str(made.run), str(made.first_uid))
    arguments = ["-m", "tests.node.crashing_node", *lab, machine_id, step]
    node = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    assert await asyncio.wait_for(node.wait(), 60) == -signal.SIGKILL


async def readable(fd: int) -> None:
    """Wait, ten seconds at most, until there is something to read, or for a pidfd until its process has died."""
    loop, seen = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, seen.set)
    try:
        await asyncio.wait_for(seen.wait(), 10)
    finally:
        loop.remove_reader(fd)


needs_machines = [
    pytest.mark.machines,
    pytest.mark.skipif(os.geteuid() != 0, reason="machines need root"),
]
