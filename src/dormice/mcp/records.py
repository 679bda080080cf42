"""What tools answer."""

from __future__ import annotations

from dataclasses import dataclass

from dormice.client import Execution, Machine


@dataclass(frozen=True)
class MachineResult:
    """A machine."""

    machine_id: str
    phase: str
    """running, sleeping, starting, failed, destroyed, …: commands wake a sleeping one."""
    vcpu: float
    memory_mib: int
    storage_gib: int
    image: str
    created_at: str
    error: str | None = None


@dataclass(frozen=True)
class MachineList:
    """Machines, newest first."""

    machines: list[MachineResult]
    more: bool


@dataclass(frozen=True)
class CommandResult:
    """A command and the end of what it has written."""

    machine_id: str
    execution_id: str
    status: str
    """queued, wake_in_progress or running: not yet ended; succeeded, failed, cancelled or expired."""
    command: list[str]
    exit_code: int | None
    signal: int | None
    error: str | None
    stdout: str
    """The end of standard output, as text."""
    stderr: str
    stdout_bytes: int
    """How much was written in all; `read_output` reads the rest."""
    stderr_bytes: int
    ended: bool


@dataclass(frozen=True)
class CommandList:
    """Commands of a machine, newest first, without their output."""

    commands: list[CommandResult]
    more: bool


@dataclass(frozen=True)
class OutputResult:
    """A piece of what a command has written."""

    content: str
    encoding: str
    start: int
    end: int
    """Where the next piece begins."""
    ended: bool
    """Whether the command has ended and this is the last piece of what was kept."""


@dataclass(frozen=True)
class FileResult:
    """A piece of a file."""

    path: str
    content: str
    encoding: str
    offset: int
    bytes: int
    """Length of this piece."""
    size: int
    """Of the whole file."""


@dataclass(frozen=True)
class WrittenResult:
    """What was written."""

    path: str
    bytes: int


@dataclass(frozen=True)
class EntryResult:
    """What a directory holds."""

    name: str
    kind: str
    """file, directory, symlink or other."""
    size: int


@dataclass(frozen=True)
class DirectoryResult:
    """A directory."""

    path: str
    entries: list[EntryResult]
    more: bool


def machine_result(machine: Machine) -> MachineResult:
    """Return what a tool says of a machine."""
    return MachineResult(
        machine_id=machine.machine_id,
        phase=machine.phase,
        vcpu=machine.vcpu,
        memory_mib=machine.memory_mib,
        storage_gib=machine.storage_gib,
        image=machine.image,
        created_at=machine.created_at.isoformat(),
        error=machine.status.last_error,
    )


def command_result(execution: Execution, stdout: str = "", stderr: str = "") -> CommandResult:
    """Return what a tool says of a command."""
    return CommandResult(
        machine_id=execution.machine_id,
        execution_id=execution.execution_id,
        status=execution.status,
        command=execution.command or [],
        exit_code=execution.exit_code,
        signal=execution.signal,
        error=execution.error_message,
        stdout=stdout,
        stderr=stderr,
        stdout_bytes=execution.stdout_bytes or 0,
        stderr_bytes=execution.stderr_bytes or 0,
        ended=execution.finished,
    )
