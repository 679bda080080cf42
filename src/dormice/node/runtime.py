"""The port between the node and whatever runs machines: containers (`machines.py`) or bare processes (`process.py`).

A runtime starts, stops and forgets machines. It never talks the guest protocol: it hands back the path of the
guest's socket, and the node (`node.py`) does the talking.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import UUID

from dormice.domain.egress import PUBLIC, Egress

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
"""What other work of the host gives back."""


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What a machine is promised.

    vcpu in cores (0.25 .. host), memory in MiB, storage in GiB, image by name.
    """

    vcpu: float
    memory_mib: int
    storage_gib: int
    image: str = "default"
    egress: Egress = PUBLIC


@dataclass(frozen=True, slots=True)
class Running:
    """A machine whose process 1 is alive (or was, until `pidfd` becomes readable)."""

    machine_id: str
    boot_id: UUID
    guest_socket: Path
    pidfd: int
    """Readable once process 1 has died. Owned by the runtime: do not close it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Base environment of every command: PATH, HOME and what the image asks for. Never logged."""
    guest_program: str = ""
    """Where commands in the machine find the guest's program, which has tools for work inside."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A machine's memory, in bytes."""

    used: int
    """What its cgroup counts."""
    reclaimable: int
    """How much of it the kernel takes back before it kills anybody: pages of files."""
    limit: int


class Meter(Protocol):
    """Of one boot. Each method takes some microseconds, and raises OSError once the boot has been cleared away."""

    @property
    def spec(self) -> MachineSpec:
        """What the machine has."""
        ...

    def used(self) -> tuple[int, int]:
        """For how many microseconds the boot has been awake, and how many its processes have run."""
        ...

    def memory(self, *, above: float) -> Memory | None:
        """Its memory, if more than that share of its limit is used; else, and where none is limited, None."""
        ...


class RuntimeFailure(Exception):
    """A machine could not be started, resized or destroyed. `code` is one of the machine `last_error` words."""

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


def host_failure(error: OSError) -> RuntimeFailure:
    """Return what an error of the host means to whoever wants a machine."""
    if error.errno in _FULL:
        return RuntimeFailure("STORAGE_EXHAUSTED", f"the host has no room left: {error}", retryable=True)
    return RuntimeFailure("OCI_RUNTIME_FAILED", str(error), retryable=error.errno in _EXHAUSTED)


class Runtime(Protocol):
    """Starts and ends machines on this host. Every method is idempotent and safe to call again after a crash."""

    isolated: bool
    """False for the `process` driver, which gives no isolation at all."""

    async def open(self) -> list[Running]:
        """Prepare the host, adopt every machine whose process 1 is alive, remove what nobody owns."""
        ...

    async def start(self, machine_id: str, boot_id: UUID, spec: MachineSpec) -> Running:
        """Start process 1 on the machine's disk (made when missing). The same boot_id again returns what runs.

        Raises RuntimeFailure (`IMAGE_NOT_FOUND`, `STORAGE_EXHAUSTED`, `CAPACITY_EXCEEDED`, `OCI_RUNTIME_FAILED`,
        `NETWORK_FAILED`, `DISK_LOST`, `STILL_RUNNING` when another boot of the machine is alive).
        """
        ...

    async def end(self, machine_id: str) -> None:
        """Kill process 1 if it lives, wait for every process of the machine to be gone, and unmount. Keeps the disk."""
        ...

    async def destroy(self, machine_id: str) -> None:
        """`end`, then delete the disk and everything else kept for the machine."""
        ...

    async def copy_disk(self, machine_id: str, origin: str, storage_gib: int) -> None:
        """Make the machine's disk as a copy of a snapshot's or another machine's, if it has none. Raises RuntimeFailure."""
        ...

    async def take_snapshot(self, machine_id: str, snapshot_id: str) -> int:
        """Keep a copy of the machine's disk, whether or not it runs; the bytes it takes up. Made once. Raises RuntimeFailure."""
        ...

    async def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot, whole or half made. Raises RuntimeFailure."""
        ...

    async def resize(self, machine_id: str, spec: MachineSpec) -> None:
        """Apply new limits; live for cpu and memory, storage grows (never shrinks). Raises RuntimeFailure."""
        ...

    def oom_kills(self, machine_id: str) -> int:
        """How often the kernel's OOM killer has struck inside the machine in this boot."""
        ...

    def meter(self, machine_id: str) -> Meter | None:
        """Return what tells the use of the present boot; None when there is none."""
        ...

    async def close(self) -> None:
        """Release the node's own resources. Machines go on running."""
        ...
