"""Identifiers: `dm-<uuid7>` for machines, `exec-<uuid7>` for executions, `snap-<uuid7>` for snapshots, `ssh-<uuid7>` for SSH sessions, and what a client may write for them.

`pv-<26 letters and digits>` for previews: 128 random bits, as knowing the name may be all that it takes to open one, and a
label of a host name.

UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then randomness, so ids sort by creation.
"""

from __future__ import annotations

import re
from base64 import b32encode
from uuid import UUID

MACHINE_PREFIX = "dm-"
EXECUTION_PREFIX = "exec-"
TERMINAL_PREFIX = "term-"
SNAPSHOT_PREFIX = "snap-"
PREVIEW_PREFIX = "pv-"
SSH_PREFIX = "ssh-"
ARTIFACT_PREFIX = "art-"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def uuid7(unix_ms: int, random: bytes) -> str:
    """Build a UUIDv7 from a time in milliseconds and at least 10 random bytes, as text."""
    tail = int.from_bytes(random[:10], "big")
    value = (unix_ms & (1 << 48) - 1) << 80 | tail
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return _dashed(f"{value:032x}")


def machine_id(unix_ms: int, random: bytes) -> str:
    """Mint a machine id."""
    return f"{MACHINE_PREFIX}{uuid7(unix_ms, random)}"


def execution_id(unix_ms: int, random: bytes) -> str:
    """Mint an execution id."""
    return f"{EXECUTION_PREFIX}{uuid7(unix_ms, random)}"


def terminal_id(random: bytes) -> str:
    """Mint a terminal's id from at least 20 random bytes: who knows it need not prove more, where a setting says so."""
    return f"{TERMINAL_PREFIX}{random[:20].hex()}"


def artifact_id(unix_ms: int, random: bytes) -> str:
    """Mint an artifact id."""
    return f"{ARTIFACT_PREFIX}{uuid7(unix_ms, random)}"


def snapshot_id(unix_ms: int, random: bytes) -> str:
    """Mint a snapshot id."""
    return f"{SNAPSHOT_PREFIX}{uuid7(unix_ms, random)}"


def preview_id(random: bytes) -> str:
    """Mint a preview id of 16 random bytes."""
    return f"{PREVIEW_PREFIX}{b32encode(random).decode().rstrip('=').lower()}"


def canonical_machine_id(text: str) -> str | None:
    """Return the machine id that a client means: as minted, or its bare UUID. None if it can be neither."""
    bare = text.removeprefix(MACHINE_PREFIX)
    return f"{MACHINE_PREFIX}{bare}" if _UUID.fullmatch(bare) else None


def ssh_session_id(unix_ms: int, random: bytes) -> str:
    """Mint the id of an SSH session."""
    return f"{SSH_PREFIX}{uuid7(unix_ms, random)}"


def execution_bytes(execution: str) -> bytes:
    """Return the 16 bytes of the UUID inside an execution id. Raises ValueError on anything else."""
    bare = execution.removeprefix(EXECUTION_PREFIX)
    if not _UUID.fullmatch(bare):
        raise ValueError("not an execution id")
    return bytes.fromhex(bare.replace("-", ""))


def execution_of(value: bytes) -> str:
    """Return the execution id that carries the UUID of these 16 bytes."""
    return f"{EXECUTION_PREFIX}{_dashed(value.hex())}"


def canonical_uuid(text: str) -> str:
    """Return a UUID as it is stored. Raises ValueError for what is none."""
    return text if _UUID.fullmatch(text) else str(UUID(text))


def _dashed(text: str) -> str:
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
