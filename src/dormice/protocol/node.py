"""Messages between server and node: msgpack of the structs below, each in one length-prefixed frame.

The node dials the server and says NodeHello; the server answers Welcome, which ends every older connection. From then on
both send what they like. Nothing is remembered across connections: after Welcome the node attaches to every live guest
anew, says Attached for each, and the guests send again all that is not acknowledged. Execution and boot ids travel as
their 16 raw bytes, machine ids as text.
"""

from __future__ import annotations

import msgspec

VERSION = 1


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message; the integer tag tells which."""


# Server to node


class Welcome(_Message, frozen=True, tag=1):
    """The node's hello is accepted."""

    version: int


class StartMachine(_Message, frozen=True, tag=2):
    """Start the machine's process 1 for this boot. Repeated with the same boot_id: Attached again."""

    machine_id: str
    boot_id: bytes
    vcpu: float
    memory_mib: int
    storage_gib: int
    image: str
    allow: tuple[str, ...] | None = None
    """What it may reach: None is everything public, none at all is nothing (domain/egress.py)."""
    origin: str = ""
    """The snapshot or machine whose disk is to be copied, if it has no disk yet. Answered by DiskCopied before the rest."""
    organization_id: str = ""
    """Whose the machine is: copies of organizations take turns."""


class StopMachine(_Message, frozen=True, tag=3):
    """Stop all processes of this boot, sync, keep the disk. Answered by MachineEnded; another boot goes on."""

    machine_id: str
    boot_id: bytes
    grace_ms: int


class DestroyMachine(_Message, frozen=True, tag=4):
    """Kill the machine and delete its disk. Answered by MachineDestroyed."""

    machine_id: str


class ResizeMachine(_Message, frozen=True, tag=5):
    """Apply new sizes to the live machine and its disk. Answered by MachineResized."""

    machine_id: str
    request: int
    vcpu: float
    memory_mib: int
    storage_gib: int
    image: str
    allow: tuple[str, ...] | None = None


class StartExecution(_Message, frozen=True, tag=6):
    """Run a command once in this boot. `env` is added to the machine's environment; a secret."""

    machine_id: str
    boot_id: bytes
    execution: bytes
    timeout_ms: int
    kept_limit: int
    drain_grace_ms: int
    cwd: str
    argv: list[str]
    env: dict[str, str]
    stdin_open: bool
    tool: bool = False
    """`argv` is a tool of the guest's own program and its arguments (guest/src/tools)."""


class WriteStdin(_Message, frozen=True, tag=7):
    """Bytes of standard input at their offset. A secret."""

    machine_id: str
    execution: bytes
    offset: int
    data: bytes
    eof: bool


class AckOutput(_Message, frozen=True, tag=8):
    """Output of a stream is durable up to `offset`."""

    machine_id: str
    execution: bytes
    stream: int
    offset: int


class Forget(_Message, frozen=True, tag=9):
    """The end of the execution is durable."""

    machine_id: str
    execution: bytes


class CancelExecution(_Message, frozen=True, tag=10):
    """SIGTERM now, kill after grace_ms."""

    machine_id: str
    execution: bytes
    grace_ms: int


class SayAgain(_Message, frozen=True, tag=11):
    """Have the guest say again all that is not acknowledged. Answered by Attached, as after a lost connection to it."""

    machine_id: str


class TakeSnapshot(_Message, frozen=True, tag=30):
    """Keep a copy of the machine's disk. Answered by SnapshotTaken or SnapshotFailed; a second time with the same copy."""

    machine_id: str
    snapshot_id: str
    organization_id: str = ""


class DeleteSnapshot(_Message, frozen=True, tag=31):
    """Delete a snapshot, if there is one. Answered by SnapshotDeleted."""

    snapshot_id: str


# Node to server


class MachineSeen(msgspec.Struct, frozen=True, array_like=True):
    """A machine that is alive on the node."""

    machine_id: str
    boot_id: bytes


class NodeHello(_Message, frozen=True, tag=64):
    """First message of a connection: what the node is and what lives on it."""

    version: int
    node_id: str
    vcpus: float
    memory_mib: int
    storage_gib: int
    """The size of the file system that disks are kept on."""
    isolated: bool
    machines: list[MachineSeen]


class NodeImages(_Message, frozen=True, tag=75):
    """The names of the images that machines can be made from; sent after the hello and whenever they change."""

    names: list[str]


class Attached(_Message, frozen=True, tag=65):
    """The guest answers: the machine is up, and these are the executions it knows."""

    machine_id: str
    boot_id: bytes
    executions: list[bytes]


class MachineFailed(_Message, frozen=True, tag=66):
    """The machine could not be started."""

    machine_id: str
    boot_id: bytes
    code: str
    message: str
    retryable: bool


class MachineEnded(_Message, frozen=True, tag=67):
    """Process 1 is dead and everything but the disk is gone. `clean`: it was stopped and synced."""

    machine_id: str
    boot_id: bytes
    clean: bool
    reason: str


class MachineDestroyed(_Message, frozen=True, tag=68):
    """Nothing of the machine is left."""

    machine_id: str


class MachineResized(_Message, frozen=True, tag=69):
    """Answer to ResizeMachine; `code` is empty on success."""

    machine_id: str
    request: int
    code: str
    message: str


class ExecutionStarted(_Message, frozen=True, tag=70):
    """The exec succeeded at `at` (nanoseconds, the guest's CLOCK_REALTIME)."""

    machine_id: str
    execution: bytes
    at: int


class Output(_Message, frozen=True, tag=71):
    """Output bytes at their offset in the stream."""

    machine_id: str
    execution: bytes
    stream: int
    offset: int
    data: bytes


class Exited(_Message, frozen=True, tag=72):
    """The end of an execution, as the guest saw it (see guest/PROTOCOL.md, EXITED)."""

    machine_id: str
    execution: bytes
    how: int
    code: int
    errno: int
    started_at: int
    ended_at: int
    stdout_total: int
    stderr_total: int
    timed_out: bool
    cancelled: bool
    drained: bool
    oom: bool
    stdout_kept: int = 0
    """How much output came before; 0 also from an older node, which does not say."""
    stderr_kept: int = 0


class Refused(_Message, frozen=True, tag=73):
    """The guest did not start the execution and never will for this frame."""

    machine_id: str
    execution: bytes
    reason: int


class StdinWritten(_Message, frozen=True, tag=74):
    """Standard input the command has been given so far; credit is written + 64 KiB."""

    machine_id: str
    execution: bytes
    written: int
    closed: bool


class DiskCopied(_Message, frozen=True, tag=90):
    """The machine's disk is its own."""

    machine_id: str


class SnapshotTaken(_Message, frozen=True, tag=91):
    """The snapshot is whole, and on the host's disk; `size` is what it takes up there, in bytes."""

    snapshot_id: str
    size: int


class SnapshotFailed(_Message, frozen=True, tag=92):
    """The snapshot could not be made, and there is nothing of it."""

    snapshot_id: str
    code: str
    message: str


class SnapshotDeleted(_Message, frozen=True, tag=93):
    """Nothing of the snapshot is left."""

    snapshot_id: str


class MachineUsed(_Message, frozen=True, tag=76):
    """What a boot has used since it began, so that one told twice counts once: microseconds awake, and of processor time."""

    machine_id: str
    boot_id: bytes
    awake_us: int
    cpu_us: int
    vcpu: float
    memory_mib: int
    storage_gib: int
    """What the machine had since it was told last."""
    last: bool
    """The boot is over, or about to be: nothing more is told of it."""


class MachineShort(_Message, frozen=True, tag=77):
    """The machine is about to run out of memory, or just did, with the limit that it has; or, if not `short`, is no longer."""

    machine_id: str
    boot_id: bytes
    short: bool
    memory_mib: int
    available_mib: int
    """What the host could give more, to this and all other machines."""


ToNode = (
    Welcome
    | StartMachine
    | StopMachine
    | DestroyMachine
    | ResizeMachine
    | StartExecution
    | WriteStdin
    | AckOutput
    | Forget
    | CancelExecution
    | SayAgain
    | TakeSnapshot
    | DeleteSnapshot
)
FromNode = (
    NodeHello
    | NodeImages
    | Attached
    | MachineFailed
    | MachineEnded
    | MachineDestroyed
    | MachineResized
    | ExecutionStarted
    | Output
    | Exited
    | Refused
    | StdinWritten
    | DiskCopied
    | SnapshotTaken
    | SnapshotFailed
    | SnapshotDeleted
    | MachineUsed
    | MachineShort
)

_encoder = msgspec.msgpack.Encoder()
_to_node: msgspec.msgpack.Decoder[ToNode] = msgspec.msgpack.Decoder(ToNode)
_from_node: msgspec.msgpack.Decoder[FromNode] = msgspec.msgpack.Decoder(FromNode)


class NodeProtocolViolation(Exception):
    """A message that is not one of this protocol."""


def encode(message: ToNode | FromNode) -> bytes:
    """Encode one message, without its frame."""
    return _encoder.encode(message)


def decode_to_node(data: bytes) -> ToNode:
    """Decode a server's message. Raises NodeProtocolViolation."""
    try:
        return _to_node.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NodeProtocolViolation(str(error)) from None


def decode_from_node(data: bytes) -> FromNode:
    """Decode a node's message. Raises NodeProtocolViolation."""
    try:
        return _from_node.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NodeProtocolViolation(str(error)) from None
