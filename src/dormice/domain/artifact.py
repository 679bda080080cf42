"""Files that executions leave behind, and how far they have been collected.

Rules for this file: the table is complete, and nothing else decides what may follow what. A collection is recorded with
its execution, waits for its end, and ends itself once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from dormice.domain.execution import Micros


class CollectionState(StrEnum):
    """How far the artifacts of an execution are."""

    PENDING = "pending"
    """The execution has not ended, or its files have not been copied yet."""
    COLLECTED = "collected"
    """All that matched and fitted has been copied."""
    FAILED = "failed"
    """They cannot be had any more: the machine is gone or has failed."""


class CollectionEvent(StrEnum):
    """What happens to a collection."""

    COPIED = "copied"
    LOST = "lost"


TRANSITIONS: Mapping[CollectionState, Mapping[CollectionEvent, CollectionState]] = MappingProxyType(
    {
        CollectionState.PENDING: MappingProxyType(
            {
                CollectionEvent.COPIED: CollectionState.COLLECTED,
                CollectionEvent.LOST: CollectionState.FAILED,
            }
        ),
        CollectionState.COLLECTED: MappingProxyType({}),
        CollectionState.FAILED: MappingProxyType({}),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that an execution left behind, copied out of its machine."""

    number: int = 0
    """Orders them; the store gives it."""
    id: str
    execution_id: str
    organization_id: str
    machine_id: str
    name: bytes
    """Its path in the machine, as it was matched."""
    size: int
    sha256: str
    mime_type: str
    created_at: Micros
    expires_at: Micros | None
    """When it is deleted; None: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What is to be collected of one execution."""

    execution_id: str
    organization_id: str
    machine_id: str
    cwd: str
    patterns: tuple[str, ...]
    state: CollectionState = CollectionState.PENDING
    message: str = ""
    """What was left out, or why there is nothing."""
    started: bool = True
    """Whether the command has ever run."""
