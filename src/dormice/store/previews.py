"""The port of the store for previews: ports of machines that are served. The rules of interface.py hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from dormice.domain.execution import ErrorCode, Micros
from dormice.domain.preview import Preview, PreviewEvent, PreviewProtocol, PreviewState, Visibility
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPreview:
    """What `PreviewStore.create` needs."""

    id: str
    organization_id: str
    machine_id: str
    created_by: str
    port: int
    protocol: PreviewProtocol
    visibility: Visibility
    awake: bool
    """True: enters `ready`; False: `wake_in_progress`."""
    now: Micros
    expires_at: Micros


@dataclass(frozen=True, slots=True)
class TooManyPreviews:
    """The machine has as many open ones as it may have; nothing was made."""

    open: int


@dataclass(frozen=True, slots=True)
class PreviewMoved:
    """It was not in the expected state; nothing was changed. `current` is the row as it is, None when there is none."""

    current: Preview | None


class PreviewStore(Protocol):
    """Previews."""

    async def create(
        self, new: NewPreview, claim: IdempotencyClaim | None, *, most: int
    ) -> Preview | TooManyPreviews | Replayed | KeyReused:
        """Record a preview: one of at most `most` open ones of its machine."""
        ...

    async def find(self, preview_id: str) -> Preview | None:
        """Return a preview, whoever's it is."""
        ...

    async def get(self, organization_id: str, machine_id: str, preview_id: str) -> Preview | None:
        """Return a preview of that machine of that organization."""
        ...

    async def page(self, organization_id: str, machine_id: str, *, before: int | None, limit: int) -> list[Preview]:
        """Newest first, numbers below `before`."""
        ...

    async def waking(self) -> list[Preview]:
        """Every preview that is `wake_in_progress`."""
        ...

    async def due(self, now: Micros, limit: int) -> list[Preview]:
        """Open previews whose time is over at `now`, or whose machine is destroyed."""
        ...

    async def open(self, now: Micros) -> Mapping[PreviewState, int]:
        """How many previews are in each state that is no end, and not over at `now`."""
        ...

    async def advance(
        self,
        before: Preview,
        event: PreviewEvent,
        now: Micros,
        *,
        error_code: ErrorCode | None = None,
        error_message: str | None = None,
    ) -> Preview | PreviewMoved:
        """Move a preview by `event`, if it is still in the state of `before`. Raises IllegalTransition, having changed nothing."""
        ...
