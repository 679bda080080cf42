"""A node that does only what a test says, over a real socket, and an engine that can be killed and made again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

from dormice.domain.execution import Micros
from dormice.domain.ids import execution_bytes
from dormice.domain.limits import SECOND_US, Limits, MachineDefaults
from dormice.domain.machine import Machine, Phase
from dormice.domain.ssh import SshSession
from dormice.engine.clock import SystemClock
from dormice.engine.engine import Engine
from dormice.engine.observer import Observer
from dormice.engine.orders import Caller, ExecutionOrder, Idempotency, MachineOrder
from dormice.protocol import node as wire
from dormice.protocol.framing import Framer, frame
from dormice.store.artifacts import Contents
from dormice.store.interface import Store
from dormice.store.sealing import Sealer
from dormice.store.sqlite import SqliteStore
from dormice.store.ssh import NewSshSession
from tests.wait import wait_until_async

M = TypeVar("M")
QUIET_SECONDS = 0.1
PATIENCE_SECONDS = 10.0
SECOND_NS = 1_000_000_000


class MovedClock(SystemClock):
    """The host's clocks, moved by a test."""

    def __init__(self) -> None:
        self._passed = self._set_by = 0
        super().__init__(self.host, lambda: time.monotonic_ns() + self._passed)

    def host(self) -> int:
        """What the host's clock shows, in nanoseconds."""
        return time.time_ns() + self._passed + self._set_by

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self._passed += int(seconds * SECOND_NS)

    def set_by(self, seconds: float) -> None:
        """Put the host's clock forward or back; no time passes."""
        self._set_by += int(seconds * SECOND_NS)


class ScriptedNode:
    """The other end of the node protocol."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._framer = Framer()
        self._arrived: list[wire.ToNode] = []

    def say(self, *messages: wire.FromNode) -> None:
        self._writer.write(b"".join(frame(wire.encode(message)) for message in messages))

    async def hear(self, kind: type[M]) -> M:
        """The next message of a kind; those of other kinds before it stay for later."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for index, message in enumerate(self._arrived):
                    if isinstance(message, kind):
                        del self._arrived[index]
                        return message
                self._arrived += map(wire.decode_to_node, self._framer.feed(await self._read()))

    async def _read(self) -> bytes:
        data = await self._reader.read(65_536)
        assert data, "the server hung up"
        return data

    async def hears_nothing_of(self, kind: type[M]) -> None:
        """Listen for a while; no message of a kind may be there or come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET_SECONDS):
                while True:
                    self._arrived += map(wire.decode_to_node, self._framer.feed(await self._read()))
        assert [message for message in self._arrived if isinstance(message, kind)] == []

    async def start_machine(self) -> wire.StartMachine:
        """Answer the next start of a machine."""
        start = await self.hear(wire.StartMachine)
        self.attach(start)
        return start

    def attach(self, start: wire.StartMachine, *known: bytes) -> None:
        self.say(wire.Attached(start.machine_id, start.boot_id, list(known)))

    def exited(self, start: wire.StartExecution, code: int = 0, output: bytes = b"") -> None:
        """Report a short command's whole life at once."""
        out = [wire.Output(start.machine_id, start.execution, 1, 0, output)] if output else []
        self.say(wire.ExecutionStarted(start.machine_id, start.execution, 1), *out, ended(start, code, len(output)))

    async def hang_up(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


def ended(
    start: wire.StartExecution, code: int = 0, total: int = 0, *, kept: int | None = None, how: int = 1, **flags: bool
) -> wire.Exited:
    """The end of a command that wrote `total` bytes, of which its guest has sent `kept`, by default all."""
    return wire.Exited(
        machine_id=start.machine_id,
        execution=start.execution,
        how=how,
        code=code,
        errno=0,
        started_at=1,
        ended_at=2,
        stdout_total=total,
        stderr_total=0,
        timed_out=flags.get("timed_out", False),
        cancelled=flags.get("cancelled", False),
        drained=False,
        oom=flags.get("oom", False),
        stdout_kept=total if kept is None else kept,
    )


class Server:
    """An engine on a real store with a real socket for its node."""

    def __init__(self, engine: Engine, socket: Path, caller: Caller) -> None:
        self.engine = engine
        self.caller = caller
        self.socket = socket
        self.nodes: list[ScriptedNode] = []

    async def node(
        self,
        *alive: wire.StartMachine,
        names: tuple[str, ...] = ("default",),
        last: Sequence[wire.MachineUsed] = (),
    ) -> ScriptedNode:
        """A node that joins; `last`: what it has kept of boots that ended meanwhile."""
        node = ScriptedNode(*await asyncio.open_unix_connection(self.socket))
        self.nodes.append(node)
        seen = [wire.MachineSeen(start.machine_id, start.boot_id) for start in alive]
        hello = wire.NodeHello(wire.VERSION, "scripted", 8.0, 16_384, 500, isolated=True, machines=seen)
        node.say(hello, *last)
        await node.hear(wire.Welcome)
        node.say(wire.NodeImages(list(names)))
        return node

    async def without_node(self) -> None:
        """Wait until the engine has seen that its node is gone."""

        async def gone() -> bool:
            ready, _ = self.engine.health.parts()["node"]
            return not ready

        await wait_until_async(gone, PATIENCE_SECONDS, "the node is gone")

    async def machine(
        self, node: ScriptedNode, *, autosleep_seconds: int | None = None
    ) -> tuple[Machine, wire.StartMachine]:
        """A machine that runs."""
        made = await self.engine.machines.create(self.caller, MachineOrder(autosleep_seconds=autosleep_seconds), None)
        start = await node.start_machine()
        return await self.engine.machines.get(self.caller, made.id, wait_ms=5_000), start

    async def execute(self, machine: Machine, *command: str, **more: object) -> str:
        order = ExecutionOrder(command=command or ("true",), cwd="/root", **more)  # type: ignore[arg-type]
        return (await self.engine.executions.create(self.caller, machine.id, order, None)).id


@contextlib.asynccontextmanager
async def serving(
    directory: Path,
    clock: SystemClock,
    limits: Limits | None = None,
    wrap: Callable[[Store], Store] = lambda store: store,
    observer: Observer | None = None,
    contents: Contents | None = None,
) -> AsyncIterator[Server]:
    """Run an engine on the store in `directory`; leaving the block ends it as a kill would, but for the store's lock."""
    sealer = Sealer.load(directory / "sealing-key")
    store = SqliteStore.open(directory / "dormice.sqlite3", sealer)
    socket = directory / "node.sock"
    socket.unlink(missing_ok=True)
    others = asyncio.all_tasks()
    try:
        async with asyncio.TaskGroup() as group:
            engine = Engine(
                store=wrap(store),
                clock=clock,
                limits=limits or Limits(),
                defaults=MachineDefaults(),
                fingerprint=sealer.request_hash,
                group=group,
                observer=observer,
                contents=contents,
            )
            organization = await store.keys.ensure_organization("default", clock.now())
            await engine.load()
            await engine.start()
            nodes = await asyncio.get_running_loop().create_unix_server(engine.gateway.protocol, socket)
            server = Server(engine, socket, Caller(organization, "key-1", admin=True))
            try:
                yield server
            finally:
                nodes.close()
                for node in server.nodes:
                    await node.hang_up()
                for task in asyncio.all_tasks() - others - {asyncio.current_task()}:
                    task.cancel()
    finally:
        await store.close()


def wire_id(execution_id: str) -> bytes:
    return execution_bytes(execution_id)


def boot_of(start: wire.StartMachine) -> UUID:
    return UUID(bytes=start.boot_id)


async def phase(server: Server, machine_id: str, *wanted: Phase) -> Phase:
    async def reached() -> Phase | None:
        now = (await server.engine.machines.get(server.caller, machine_id)).phase
        return now if now in wanted else None

    return (await wait_until_async(reached, 10, f"phase {wanted}")) or wanted[0]


async def asleep(
    server: Server, node: ScriptedNode, machine: Machine, up: wire.StartMachine, key: Idempotency | None = None
) -> None:
    """Put a machine to sleep, and let its node say that it is."""
    await server.engine.machines.sleep(server.caller, machine.id, revision=None, idempotency=key)
    await node.hear(wire.StopMachine)
    node.say(wire.MachineEnded(machine.id, up.boot_id, clean=True, reason=""))
    await phase(server, machine.id, Phase.SLEEPING)


async def record_ssh_session(server: Server, machine: Machine, expires_at: Micros) -> SshSession:
    """A session that waits for its machine."""
    new = NewSshSession(
        id=f"ssh-{uuid4()}",
        organization_id=server.caller.organization_id,
        machine_id=machine.id,
        created_by="",
        certificate="none",
        now=expires_at - SECOND_US,
        expires_at=expires_at,
        ready=False,
    )
    made = await server.engine.ssh_sessions._store.create(new, None, most=1)
    assert isinstance(made, SshSession)
    return made
