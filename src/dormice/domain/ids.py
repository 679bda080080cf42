"""Identifiers: `dm-<uuid7>` for machines, `exec-<uuid7>` for executions, and what a client may write for them.

UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then randomness, so ids sort by creation.
"""

from __future__ import annotations

import re
from uuid import UUID

MACHINE_PREFIX = "dm-"
EXECUTION_PREFIX = "exec-"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def uuid7(unix_ms: int, random: bytes) -> UUID:
    """Build a UUIDv7 from a time in milliseconds and at least 10 random bytes."""
    tail = int.from_bytes(random[:10], "big")
    value = (unix_ms & (1 << 48) - 1) << 80 | tail
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def machine_id(unix_ms: int, random: bytes) -> str:
    """Mint a machine id."""
    return f"{MACHINE_PREFIX}{uuid7(unix_ms, random)}"


def execution_id(unix_ms: int, random: bytes) -> str:
    """Mint an execution id."""
    return f"{EXECUTION_PREFIX}{uuid7(unix_ms, random)}"


def canonical_machine_id(text: str) -> str | None:
    """Return the machine id that a client means: as minted, or its bare UUID. None if it can be neither."""
    bare = text.removeprefix(MACHINE_PREFIX)
    return f"{MACHINE_PREFIX}{bare}" if _UUID.fullmatch(bare) else None


def execution_uuid(execution: str) -> UUID:
    """Return the UUID inside an execution id. Raises ValueError on anything else."""
    return UUID(execution.removeprefix(EXECUTION_PREFIX))


def execution_from_uuid(value: UUID) -> str:
    """Return the execution id that carries this UUID."""
    return f"{EXECUTION_PREFIX}{value}"
