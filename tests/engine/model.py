"""A model of a node and its guests, which keeps to the protocol and knows what really happened."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random

from dormice.engine.gateway import Gateway
from dormice.protocol import node as wire
from dormice.protocol.framing import Framer, frame

STDOUT, STDERR = 1, 2
WRONG_BOOT, TOMBSTONED, STOPPING = 1, 2, 4
SPAWNED_AT = 1


@dataclass(eq=False)
class Process:
    """An execution as its guest knows it."""

    pieces: list[tuple[int, bytes]]
    """What it has yet to write, by stream."""
    code: int
    written: dict[int, bytes] = field(default_factory=lambda: {STDOUT: b"", STDERR: b""})
    acknowledged: dict[int, int] = field(default_factory=lambda: {STDOUT: 0, STDERR: 0})
    end: tuple[int, int, bool] | None = None
    """How it ended (see EXITED), with which code, and whether a cancel was asked for."""
    disowned: bool = False


@dataclass(eq=False)
class Guest:
    """Process 1 of one boot."""

    boot_id: bytes
    known: dict[bytes, Process] = field(default_factory=dict)
    tombstones: set[bytes] = field(default_factory=set)
    stopping: bool = False


class Truth:
    """What really happened, whatever anybody was told."""

    def __init__(self) -> None:
        self.starts: Counter[bytes] = Counter()
        self.processes: dict[bytes, Process] = {}


class _Wire(asyncio.Transport):
    """The node's end of a connection that is only in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.framer, self.arrived, self.cut = Framer(), deque[wire.ToNode](), False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.cut:
            self.arrived += map(wire.decode_to_node, self.framer.feed(bytes(data)))

    def abort(self) -> None:
        self.cut = True


class ModelNode:
    """Does what it is told, when the test lets it; whatever was under way when its line is cut is lost."""

    def __init__(self, random: Random, truth: Truth) -> None:
        self._random, self._truth = random, truth
        self.guests: dict[str, Guest] = {}
        self._wire: _Wire | None = None
        self._connection: asyncio.Protocol | None = None
        self._outgoing: deque[wire.FromNode] = deque()
        self._careless = Random(0)
        self.carelessness = 0.0
        """How likely it is to lose output."""
        self.lost: set[bytes] = set()
        """Executions of which it has lost output."""
        self._losing: set[bytes] = set()
        """Those of which it loses output on the present link."""
        self._attached: set[str] = set()
        """Machines whose guests are spoken with on the present line."""

    # The line

    def connect(self, gateway: Gateway) -> None:
        self.cut()
        self._wire, self._connection = _Wire(), gateway.protocol()
        self._connection.connection_made(self._wire)
        seen = [wire.MachineSeen(machine_id, guest.boot_id) for machine_id, guest in self.guests.items()]
        self._say(wire.NodeHello(wire.VERSION, "model", 8.0, 16_384, 500, isolated=True, machines=seen))

    def cut(self) -> None:
        """Lose the line, and what is on it."""
        connection, self._connection, self._wire = self._connection, None, None
        self._outgoing.clear()
        self._attached.clear()
        if connection is not None:
            connection.connection_lost(None)

    @property
    def connected(self) -> bool:
        return self._wire is not None and not self._wire.cut

    def _say(self, message: wire.FromNode) -> None:
        if self._connection is not None:
            self._outgoing.append(message)

    def _carry(self, machine_id: str, message: wire.FromNode) -> None:
        """Pass on what a guest says, if there is a link to it."""
        if machine_id in self._attached and not self._loses(message):
            self._say(message)

    def _loses(self, message: wire.FromNode) -> bool:
        """Whether it forgets to pass on output, and what follows it up to the next link to its guest."""
        if not isinstance(message, wire.Output):
            return False
        if message.execution not in self.lost and self._careless.random() < self.carelessness:
            self.lost.add(message.execution)
            self._losing.add(message.execution)
        return message.execution in self._losing

    def speak(self, most: int) -> None:
        """Let some of what the node has said arrive at the server."""
        for _ in range(min(most, len(self._outgoing))):
            if self._connection is not None and self._wire is not None and not self._wire.cut:
                self._connection.data_received(frame(wire.encode(self._outgoing.popleft())))

    def listen(self, most: int) -> None:
        """Take some of what the server has said."""
        for _ in range(most):
            if self._wire is None or not self._wire.arrived:
                return
            self._do(self._wire.arrived.popleft())

    @property
    def idle(self) -> bool:
        return not self._outgoing and not (self._wire is not None and self._wire.arrived)

    # What the server says

    def _do(self, message: wire.ToNode) -> None:
        if isinstance(message, wire.Welcome):
            for machine_id in self.guests:
                self.attach(machine_id)
            return
        if isinstance(message, wire.TakeSnapshot | wire.DeleteSnapshot):
            return  # nobody asks for a snapshot here
        guest = self.guests.get(message.machine_id)
        to_machine = wire.StartMachine | wire.StopMachine | wire.DestroyMachine | wire.ResizeMachine
        if not isinstance(message, to_machine) and message.machine_id not in self._attached:
            return  # no link to the guest: lost
        match message:
            case wire.StartMachine():
                self._start_machine(message, guest)
            case wire.StopMachine() if guest is not None and guest.boot_id == message.boot_id:
                self._stop_machine(message, guest)
            case wire.DestroyMachine():
                self.guests.pop(message.machine_id, None)
                self._attached.discard(message.machine_id)
                self._say(wire.MachineDestroyed(message.machine_id))
            case wire.StartExecution() if guest is not None:
                self._start(message, guest)
            case wire.AckOutput() if guest is not None and (process := guest.known.get(message.execution)):
                assert message.offset <= len(process.written[message.stream]), "acknowledged what was never said"
                process.acknowledged[message.stream] = message.offset
            case wire.Forget() if guest is not None and (process := guest.known.get(message.execution)):
                process.disowned = True
                if process.end is not None:
                    del guest.known[message.execution]
            case wire.SayAgain():
                self.attach(message.machine_id)
            case wire.CancelExecution() if guest is not None:
                process = guest.known.get(message.execution)
                if process is None:
                    guest.tombstones.add(message.execution)
                elif process.end is None:
                    self._end(message.machine_id, guest, message.execution, (2, 15, True))

    def _start_machine(self, message: wire.StartMachine, guest: Guest | None) -> None:
        if guest is not None and guest.boot_id != message.boot_id:
            self.kill(message.machine_id, "replaced by a newer boot")
            guest = None
        if guest is None and self._random.random() < 0.1:
            self._say(wire.MachineFailed(message.machine_id, message.boot_id, "BUSY", "no luck", retryable=True))
            return
        if guest is None:
            self.guests[message.machine_id] = Guest(message.boot_id)
        self.attach(message.machine_id)

    def _stop_machine(self, message: wire.StopMachine, guest: Guest) -> None:
        if message.grace_ms:
            guest.stopping = True
            for execution, process in list(guest.known.items()):
                if process.end is None:
                    self._end(message.machine_id, guest, execution, (7, 15, False))
        self.kill(message.machine_id, "", clean=message.grace_ms > 0)

    def kill(self, machine_id: str, reason: str, *, clean: bool = False) -> None:
        """End a machine's process 1; what it holds is gone."""
        guest = self.guests.pop(machine_id)
        self._attached.discard(machine_id)
        self._say(wire.MachineEnded(machine_id, guest.boot_id, clean, reason))

    def attach(self, machine_id: str) -> None:
        """Connect to the guest anew: it says again all that is not acknowledged."""
        guest = self.guests[machine_id]
        if self._connection is None:
            return
        self._attached.add(machine_id)
        self._losing -= guest.known.keys()
        self._say(wire.Attached(machine_id, guest.boot_id, list(guest.known)))
        for execution, process in guest.known.items():
            if not process.disowned:
                self._say(wire.ExecutionStarted(machine_id, execution, SPAWNED_AT))
                for stream, data in process.written.items():
                    if rest := data[process.acknowledged[stream] :]:
                        self._carry(
                            machine_id,
                            wire.Output(machine_id, execution, stream, process.acknowledged[stream], rest),
                        )
                self._say_end(machine_id, execution, process)

    # What guests do

    def _start(self, message: wire.StartExecution, guest: Guest) -> None:
        execution = message.execution
        if execution in guest.known:
            return
        reason = (
            WRONG_BOOT
            if message.boot_id != guest.boot_id
            else TOMBSTONED
            if execution in guest.tombstones
            else STOPPING
            if guest.stopping
            else 0
        )
        if reason:
            self._carry(message.machine_id, wire.Refused(message.machine_id, execution, reason))
            return
        self._truth.starts[execution] += 1
        pieces = [
            (self._random.choice((STDOUT, STDERR)), self._random.randbytes(self._random.randint(1, 40)))
            for _ in range(self._random.randint(0, 4))
        ]
        guest.known[execution] = self._truth.processes[execution] = Process(pieces, self._random.choice((0, 0, 3)))
        self._carry(message.machine_id, wire.ExecutionStarted(message.machine_id, execution, SPAWNED_AT))

    def step(self) -> None:
        """Let one process of each guest write something, or exit."""
        for machine_id, guest in self.guests.items():
            alive = [(execution, process) for execution, process in guest.known.items() if process.end is None]
            if not alive:
                continue
            execution, process = self._random.choice(alive)
            if process.pieces:
                stream, data = process.pieces.pop(0)
                offset = len(process.written[stream])
                process.written[stream] += data
                if not process.disowned:
                    self._carry(machine_id, wire.Output(machine_id, execution, stream, offset, data))
            else:
                self._end(machine_id, guest, execution, (1, process.code, False))

    def _end(self, machine_id: str, guest: Guest, execution: bytes, end: tuple[int, int, bool]) -> None:
        process = guest.known[execution]
        process.end = end
        if process.disowned:
            del guest.known[execution]
        else:
            self._say_end(machine_id, execution, process)

    def _say_end(self, machine_id: str, execution: bytes, process: Process) -> None:
        if process.end is not None:
            how, code, asked = process.end
            sizes = len(process.written[STDOUT]), len(process.written[STDERR])
            flags = {"timed_out": False, "cancelled": asked, "drained": False, "oom": False}
            self._carry(
                machine_id,
                wire.Exited(
                    machine_id,
                    execution,
                    how,
                    code,
                    0,
                    SPAWNED_AT,
                    SPAWNED_AT + 1,
                    *sizes,
                    **flags,
                    stdout_kept=sizes[0],
                    stderr_kept=sizes[1],
                ),
            )
