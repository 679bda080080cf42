"""The node: does what the server says with machines, and carries frames between server and guests.

Nothing is remembered across a lost connection to the server: links to the guests are dropped with it and made anew
after the next welcome, so the guests send again whatever was not acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from dormice.crash_points import CrashPoint, reached, reached_once_sent
from dormice.domain.egress import Egress
from dormice.node.gauge import LOOK_EVERY_SECONDS, Gauge
from dormice.node.guest_link import GuestLink, attach
from dormice.node.patience import FIRST_BACKOFF_SECONDS, LAST_BACKOFF_SECONDS, surely, within
from dormice.node.runtime import MachineSpec, Running, Runtime, RuntimeFailure
from dormice.node.server_connection import ServerConnection
from dormice.protocol import guest
from dormice.protocol import node as wire
from dormice.turns import Turns

log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 0.1
"""For a server that is not there yet: it is on this host, and to look costs next to nothing."""
COPIES_AT_ONCE = 2
"""One would have an organization's large disk keep the others waiting; more take the host's disk from those who work."""
STOP_MARGIN_SECONDS = 20.0
"""How long after its grace a guest may take to sync before it is killed."""
POWEROFF_SECONDS = 2.0
DURABLE_SECONDS = 60.0
"""How long a stopped guest is kept for the server to have committed what it said."""
STEADY_SECONDS = 10.0
"""A guest that stays so long on the line may hang up and be called again at once."""
ATTACH_TRIES = 5
IMAGES_EVERY_SECONDS = 1.0
_CRASH_POINTS: Mapping[type[wire.FromNode], tuple[CrashPoint, CrashPoint]] = {
    wire.ExecutionStarted: (CrashPoint.STARTED_HEARD, CrashPoint.STARTED_PASSED_ON),
    wire.Output: (CrashPoint.OUTPUT_HEARD, CrashPoint.OUTPUT_PASSED_ON),
    wire.Exited: (CrashPoint.EXIT_HEARD, CrashPoint.EXIT_PASSED_ON),
}
"""Before and after a guest's report is passed on."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What the node says of itself."""

    node_id: str
    vcpus: float
    memory_mib: int
    storage_gib: int


@dataclass(eq=False, slots=True)
class _Machine:
    """What the node knows of one machine."""

    id: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the machine is started, stopped, resized or destroyed."""
    running: Running | None = None
    link: GuestLink | None = None
    server: ServerConnection | None = None
    """The connection that the link is for: what the guest says on it means nothing to a later one."""
    died: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once process 1 of the present boot is dead."""
    attached_at: float = 0.0
    hang_ups: int = 0
    """How often in a row the guest has hung up soon after it was attached to."""


class Node:
    """Runs in one TaskGroup, next to the services of its runtime."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        identity: NodeIdentity,
        server_socket: str,
        images: Callable[[], Iterable[str]],
        group: asyncio.TaskGroup,
    ) -> None:
        self._runtime = runtime
        self._identity = identity
        self._server_socket = server_socket
        self._images = images
        self._group = group
        self._gauge = Gauge(runtime)
        self._copies = Turns(COPIES_AT_ONCE)
        self._untold: list[wire.MachineUsed] = []
        self._machines: dict[str, _Machine] = {}
        self._server: ServerConnection | None = None
        self._epoch = 0

    def adopt(self, alive: Iterable[Running]) -> None:
        """Take over the machines that are alive. Before `serve`."""
        for running in alive:
            machine_id = running.machine_id
            log.info("machine %s is alive and adopted", machine_id, extra={"machine_id": machine_id})
            self._watch(self._machine(machine_id), running)
        reached(CrashPoint.ADOPTED)

    def close(self) -> None:
        """Hang up. Machines go on running."""
        if self._server is not None:
            self._server.close()
        self._drop_links()
        for machine in self._machines.values():
            self._unwatch(machine)

    async def serve(self) -> None:
        """Keep a connection to the server until cancelled."""
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            connection = ServerConnection(self._welcome, self._do)
            try:
                await asyncio.get_running_loop().create_unix_connection(lambda c=connection: c, self._server_socket)  # type: ignore[misc]
            except OSError as error:
                log.debug("server is not there yet: %s", error)
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
                continue
            self._server = connection
            connection.send(self._hello())
            self._say_use(self._untold)  # before the server can start those machines anew: then it would be too late
            await connection.lost.wait()
            if connection.welcomed:
                backoff = FIRST_BACKOFF_SECONDS
            log.warning("connection to the server was lost")
            self._server = None
            self._drop_links()
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)

    async def watch_images(self) -> None:
        """Tell the server which images there are, whenever that changes, until cancelled."""
        told: tuple[ServerConnection, list[str]] | None = None
        while True:
            try:
                server, names = self._server, sorted(await asyncio.to_thread(self._images))
            except OSError as error:
                log.warning("the images cannot be looked at, which is tried again: %s", error)
                server, names = None, []
            if server is not None and server.welcomed and told != (server, names):
                server.send(wire.NodeImages(names))
                told = server, names
            await asyncio.sleep(IMAGES_EVERY_SECONDS)

    async def watch_use(self) -> None:
        """Tell the server what machines use, and which are short of memory, until cancelled."""
        while True:
            for machine in list(self._machines.values()):
                # While one is being ended, its cgroups may become another's.
                if machine.running is not None and self._server is not None and not machine.lock.locked():
                    self._say_use(self._gauge.look(machine.running))
                    await asyncio.sleep(0)
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    # The server

    def _hello(self) -> wire.NodeHello:
        alive = [m.running for m in self._machines.values() if m.running is not None and not m.died.is_set()]
        return wire.NodeHello(
            wire.VERSION,
            self._identity.node_id,
            self._identity.vcpus,
            self._identity.memory_mib,
            self._identity.storage_gib,
            self._runtime.isolated,
            [wire.MachineSeen(running.machine_id, running.boot_id.bytes) for running in alive],
        )

    def _welcome(self) -> None:
        reached(CrashPoint.WELCOMED)
        if self._server is not None:
            with contextlib.suppress(OSError):  # `watch_images` says it, and tells them once it can
                self._server.send(wire.NodeImages(sorted(self._images())))
        self._untold.clear()
        for machine in list(self._machines.values()):
            if machine.running is not None and not machine.died.is_set():
                self._run(machine, self._attach(machine))

    def _say(self, message: wire.FromNode) -> None:
        if self._server is not None:
            self._server.send(message)

    def _say_use(self, messages: Iterable[wire.MachineUsed | wire.MachineShort]) -> None:
        """Say them; the last of a boot is kept until there is somebody who hears it."""
        for message in messages:
            if self._server is not None:
                self._server.send(message)
            elif isinstance(message, wire.MachineUsed) and message.last:
                self._untold.append(message)

    def _do(self, message: wire.ToNode) -> None:
        if isinstance(message, wire.Welcome):
            return
        if isinstance(message, wire.StartMachine | wire.StopMachine | wire.DestroyMachine | wire.ResizeMachine):
            self._do_with_machine(self._machine(message.machine_id), message)
            return
        if isinstance(message, wire.TakeSnapshot | wire.DeleteSnapshot):
            self._do_with_snapshot(message)
            return
        machine = self._machines.get(message.machine_id)
        if machine is not None and machine.link is not None:
            machine.link.do(message)

    def _do_with_machine(
        self,
        machine: _Machine,
        message: wire.StartMachine | wire.StopMachine | wire.DestroyMachine | wire.ResizeMachine,
    ) -> None:
        match message:
            case wire.StartMachine():
                failed = wire.MachineFailed(
                    message.machine_id, message.boot_id, "NODE_ERROR", "the node's log has the reason", retryable=True
                )
                self._run(machine, self._start(machine, message), failed)
            case wire.StopMachine():
                self._run(machine, self._stop(machine, message))
            case wire.DestroyMachine():
                self._run(machine, self._destroy(machine, message.machine_id))
            case wire.ResizeMachine():
                self._run(machine, self._resize(machine, message))

    def _do_with_snapshot(self, message: wire.TakeSnapshot | wire.DeleteSnapshot) -> None:
        snapshot_id = message.snapshot_id
        if isinstance(message, wire.TakeSnapshot):
            failed = wire.SnapshotFailed(snapshot_id, "NODE_ERROR", "the node's log has the reason")
            self._run(self._machine(message.machine_id), self._take_snapshot(message), failed)
        else:  # what is left when it fails is asked for again with the next connection
            self._run(_Machine(snapshot_id), self._delete_snapshot(snapshot_id))

    # Machines

    def _machine(self, machine_id: str) -> _Machine:
        return self._machines.setdefault(machine_id, _Machine(machine_id))

    def _run(self, machine: _Machine, work: Coroutine[Any, Any, None], on_failure: wire.FromNode | None = None) -> None:
        """Do one thing with a machine, after what was begun before. What goes wrong with one is no end of the others."""

        async def locked() -> None:
            async with machine.lock:
                try:
                    await work
                except Exception:
                    log.exception("a step of a machine failed", extra={"machine_id": machine.id})
                    if on_failure is not None:
                        self._say(on_failure)

        self._group.create_task(locked())

    async def _start(self, machine: _Machine, message: wire.StartMachine) -> None:
        reached(CrashPoint.MACHINE_START_RECEIVED)
        boot_id = UUID(bytes=message.boot_id)
        if machine.running is not None and (machine.running.boot_id != boot_id or machine.died.is_set()):
            await self._end(machine, clean=False, reason="replaced by a newer boot")
        if machine.running is None:
            spec = _spec(message)
            try:
                if message.origin:
                    async with self._copies.turn(message.organization_id):
                        await self._runtime.copy_disk(message.machine_id, message.origin, message.storage_gib)
                    self._say(wire.DiskCopied(message.machine_id))
                running = await self._runtime.start(message.machine_id, boot_id, spec)
            except RuntimeFailure as failure:
                words, machine_id = "machine %s could not be started: %s: %s", message.machine_id
                log.warning(words, machine_id, failure.code, failure, extra={"machine_id": machine_id})
                self._say(
                    wire.MachineFailed(
                        message.machine_id, message.boot_id, failure.code, str(failure), failure.retryable
                    )
                )
                return
            reached(CrashPoint.MACHINE_RECORDED)
            self._watch(machine, running)
        await self._attach(machine)

    async def _stop(self, machine: _Machine, message: wire.StopMachine) -> None:
        if machine.running is None or machine.running.boot_id.bytes != message.boot_id:
            return
        reached(CrashPoint.STOP_RECEIVED)
        server = self._server
        clean = message.grace_ms > 0 and await self._stop_guest(machine, message.grace_ms)
        same = server is not None and server is self._server
        if not clean and message.grace_ms > 0 and not same and not machine.died.is_set():
            return  # the guest holds what no server has: the next one asks again
        reached(CrashPoint.GUEST_STOPPED)
        reason = "" if clean else "killed: it did not stop in time"
        await surely(machine.id, lambda: self._end(machine, clean=clean, reason=reason))

    async def _stop_guest(self, machine: _Machine, grace_ms: int) -> bool:
        """Have the guest stop everything, and its last words committed; False if it did not in time, or is out of reach."""
        until = asyncio.get_running_loop().time() + grace_ms / 1000 + STOP_MARGIN_SECONDS
        while True:
            # The line may have been cut; the guest goes on stopping, and says so again.
            await self._attach(machine, anew=False)
            link = machine.link
            if link is None:
                return False
            link.send(guest.Stop(grace_ms))
            await asyncio.wait((link.stopped,), timeout=until - asyncio.get_running_loop().time())
            if not link.stopped.done():
                return False
            if not link.stopped.cancelled():
                await asyncio.wait((link.emptied,), timeout=DURABLE_SECONDS)
            if not link.emptied.cancelled():
                link.send(guest.Poweroff())
                await within(machine.died.wait(), POWEROFF_SECONDS)
                return True

    async def _destroy(self, machine: _Machine, machine_id: str) -> None:
        reached(CrashPoint.DESTROY_RECEIVED)
        await surely(machine.id, lambda: self._end(machine, clean=False, reason="deleted"))
        reached(CrashPoint.DESTROY_HALF_WAY)
        await surely(machine.id, lambda: self._runtime.destroy(machine_id))
        reached(CrashPoint.MACHINE_DESTROYED)
        self._machines.pop(machine_id, None)
        self._say(wire.MachineDestroyed(machine_id))

    async def _resize(self, machine: _Machine, message: wire.ResizeMachine) -> None:
        if machine.running is not None:
            self._say_use(self._gauge.before_resize(machine.running))
        spec = _spec(message)
        code = text = ""
        try:
            await self._runtime.resize(message.machine_id, spec)
        except RuntimeFailure as failure:
            code, text = failure.code, str(failure)
        self._say(wire.MachineResized(message.machine_id, message.request, code, text))

    async def _take_snapshot(self, message: wire.TakeSnapshot) -> None:
        machine_id, snapshot_id = message.machine_id, message.snapshot_id
        try:
            async with self._copies.turn(message.organization_id):
                size = await self._runtime.take_snapshot(machine_id, snapshot_id)
        except RuntimeFailure as failure:
            fields = {"machine_id": machine_id}
            log.warning("no snapshot %s of machine %s: %s", snapshot_id, machine_id, failure, extra=fields)
            self._say(wire.SnapshotFailed(snapshot_id, failure.code, str(failure)))
        else:
            self._say(wire.SnapshotTaken(snapshot_id, size))

    async def _delete_snapshot(self, snapshot_id: str) -> None:
        await self._runtime.delete_snapshot(snapshot_id)
        reached(CrashPoint.SNAPSHOT_DELETED)
        self._say(wire.SnapshotDeleted(snapshot_id))

    async def _end(self, machine: _Machine, *, clean: bool, reason: str) -> None:
        running = machine.running
        if running is None:
            return
        if machine.link is not None:
            machine.link.close()
            machine.link = None
        self._unwatch(machine)
        self._say_use(self._gauge.last(running))
        await self._runtime.end(running.machine_id)
        reached(CrashPoint.MACHINE_ENDED)
        machine.running = None
        self._say(wire.MachineEnded(running.machine_id, running.boot_id.bytes, clean, reason))

    def _watch(self, machine: _Machine, running: Running) -> None:
        machine.running = running
        machine.died = asyncio.Event()
        asyncio.get_running_loop().add_reader(running.pidfd, self._on_death, machine, running)

    def _unwatch(self, machine: _Machine) -> None:
        if machine.running is not None and not machine.died.is_set():
            asyncio.get_running_loop().remove_reader(machine.running.pidfd)
            machine.died.set()

    def _on_death(self, machine: _Machine, running: Running) -> None:
        asyncio.get_running_loop().remove_reader(running.pidfd)
        machine.died.set()
        reached(CrashPoint.MACHINE_DIED)
        self._run(machine, self._bury(machine, running))

    async def _bury(self, machine: _Machine, running: Running) -> None:
        if machine.running is running:
            machine_id = running.machine_id
            log.warning("process 1 of machine %s has died", machine_id, extra={"machine_id": machine_id})
            await surely(machine.id, lambda: self._end(machine, clean=False, reason="process 1 of the machine died"))

    # Guests

    async def _attach(self, machine: _Machine, *, anew: bool = True) -> None:
        """Connect to the machine's guest; `anew` replaces a link that there is."""
        running, server = machine.running, self._server
        if running is None or server is None or machine.died.is_set() or (machine.link is not None and not anew):
            return
        machine.server = server
        for attempt in range(ATTACH_TRIES):
            if server is not self._server:
                return  # it went, and the next one has the machine attached to for itself
            if machine.link is not None:
                machine.link.close()
                machine.link = None
            self._epoch = max(time.time_ns(), self._epoch + 1)
            try:
                await attach(running, self._epoch, self, lambda: self._runtime.oom_kills(running.machine_id))
            except (OSError, TimeoutError) as error:
                fields = {"machine_id": running.machine_id}
                log.warning("machine %s: attach %d failed: %s", running.machine_id, attempt + 1, error, extra=fields)
                if await within(machine.died.wait(), FIRST_BACKOFF_SECONDS * 2**attempt):
                    return
            except guest.ProtocolViolation:
                return  # guest_lied has been told
            else:
                return
        self._cut_off(running, "its guest does not answer")

    def guest_welcomed(self, link: GuestLink) -> None:
        """Send to this link from now on."""
        machine = self._machine(link.running.machine_id)
        if machine.server is not self._server:
            # The server for which it was called went meanwhile. To the next one what comes would seem to begin in the middle.
            link.close()
            return
        reached(CrashPoint.GUEST_WELCOMED)
        machine.link, machine.attached_at = link, asyncio.get_running_loop().time()

    def guest_said(self, message: wire.FromNode) -> None:
        """Carry a guest's message to the server."""
        points = _CRASH_POINTS.get(type(message))
        if points is None:
            self._say(message)
        else:
            reached(points[0])
            self._say(message)
            reached_once_sent(points[1])

    def guest_heard(self) -> None:
        """Send what came together on together."""
        if self._server is not None:
            self._server.flush()

    def guest_lied(self, link: GuestLink, violation: str) -> None:
        """Cut the machine off."""
        self._cut_off(link.running, f"its guest broke the protocol: {violation}")

    def guest_hung_up(self, link: GuestLink) -> None:
        """Attach again; if process 1 has died, its pidfd says so."""
        machine = self._machine(link.running.machine_id)
        if machine.link is link:
            machine.link = None
            if not machine.died.is_set():
                self._run(machine, self._attach_again(machine))

    async def _attach_again(self, machine: _Machine) -> None:
        """Attach after the guest hung up; one that does so again and again is called less and less often."""
        steady = asyncio.get_running_loop().time() - machine.attached_at > STEADY_SECONDS
        machine.hang_ups = 0 if steady else machine.hang_ups + 1
        if machine.hang_ups > 1:
            pause = min(FIRST_BACKOFF_SECONDS * 2**machine.hang_ups, LAST_BACKOFF_SECONDS)
            await within(machine.died.wait(), pause)
        await self._attach(machine, anew=False)

    def _cut_off(self, running: Running, reason: str) -> None:
        fields = {"machine_id": running.machine_id}
        log.error("machine %s is cut off: %s", running.machine_id, reason, extra=fields)
        machine = self._machine(running.machine_id)

        async def end() -> None:
            if machine.running is running:
                await surely(machine.id, lambda: self._end(machine, clean=False, reason=reason))

        self._run(machine, end())

    def _drop_links(self) -> None:
        for machine in self._machines.values():
            if machine.link is not None:
                machine.link.close()
                machine.link = None


def _spec(message: wire.StartMachine | wire.ResizeMachine) -> MachineSpec:
    sizes = (message.vcpu, message.memory_mib, message.storage_gib)
    return MachineSpec(*sizes, message.image, Egress(message.allow))
