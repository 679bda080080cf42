"""Previews as callers see them: create, read, close, link to, let in; and what happens to them because time passes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from dormice.domain.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from dormice.domain.execution import ErrorCode, Micros
from dormice.domain.ids import canonical_machine_id
from dormice.domain.limits import Limits
from dormice.domain.preview import Preview, PreviewEvent, PreviewState, Visibility
from dormice.engine.board import Board
from dormice.engine.channels import Channels
from dormice.engine.clock import Clock, new_preview_id
from dormice.engine.feed import Feed
from dormice.engine.idempotency import InFlight, reused
from dormice.engine.key_tokens import KeyToken, KeyTokens
from dormice.engine.orders import Caller, Idempotency, PreviewOrder
from dormice.engine.port_connections import Place, PortConnections
from dormice.engine.tasks import Tasks
from dormice.store.interface import IdempotencyClaim, KeyReused, MachineStore, Replayed
from dormice.store.previews import NewPreview, PreviewStore, TooManyPreviews

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 1.0
PIECE = 100
"""Previews that one look ends at most."""
PORTS = 65_535
LEAST_SECONDS = 60
_LINK = "preview"
_SECOND_US = 1_000_000
_HOUR_SECONDS = 3_600


class Previews:
    """The previews of every machine. Raises the errors of domain/errors.py and StoreUnavailable."""

    def __init__(
        self,
        *,
        store: PreviewStore,
        machines: MachineStore,
        board: Board,
        channels: Channels,
        connections: PortConnections,
        links: KeyTokens,
        feed: Feed,
        in_flight: InFlight,
        tasks: Tasks,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._store = store
        self._machines = machines
        self._board = board
        self._channels = channels
        self._connections = connections
        self._links = links
        self._feed = feed
        self._in_flight = in_flight
        self._tasks = tasks
        self._clock = clock
        self._limits = limits

    async def create(
        self,
        caller: Caller,
        machine_id: str,
        order: PreviewOrder,
        idempotency: Idempotency | None,
        *,
        wait_ms: int = 0,
    ) -> Preview:
        """Serve a port; a sleeping machine is woken. With wait_ms, return once that has come about or failed."""
        new = self._new(caller, machine_id, order)
        claim = await self._in_flight.claim(caller, idempotency)
        preview = await self._tasks.finish(self._create(caller, new, claim))
        return await self._wait(preview, wait_ms)

    def _new(self, caller: Caller, machine_id: str, order: PreviewOrder) -> NewPreview:
        if not 1 <= order.port <= PORTS:
            raise Invalid(f"port is {order.port}, must be from 1 to {PORTS}", location="body.port")
        most = self._limits.preview_hours * _HOUR_SECONDS
        lifetime = order.lifetime_seconds
        if lifetime is None:
            lifetime = min(self._limits.preview_default_hours * _HOUR_SECONDS, most)
        elif not LEAST_SECONDS <= lifetime <= most:
            raise Invalid(
                f"expires_in_seconds is {lifetime}, must be from {LEAST_SECONDS} to {most} (preview_hours)",
                location="body.expires_in_seconds",
            )
        live = self._channels.admit(caller, machine_id)
        return NewPreview(
            id=new_preview_id(self._clock),
            organization_id=caller.organization_id,
            machine_id=live.machine.id,
            created_by=caller.key_id,
            port=order.port,
            protocol=order.protocol,
            visibility=order.visibility,
            awake=live.awake and live.attached,
            now=self._clock.now(),
            expires_at=self._clock.steady() + lifetime * _SECOND_US,
        )

    async def _create(self, caller: Caller, new: NewPreview, claim: IdempotencyClaim | None) -> Preview:
        try:
            made = await self._store.create(new, claim, most=self._limits.previews_per_machine)
        finally:
            self._in_flight.settle(claim)
        match made:
            case Preview():
                self._follow(made)
                return made
            case TooManyPreviews(open=count):
                raise Conflict(
                    f"the machine has {count} open previews (previews_per_machine): delete one first",
                    code="QUOTA_EXCEEDED",
                )
            case Replayed(resource_id=preview_id):
                return await self.get(caller, new.machine_id, preview_id)
            case KeyReused():
                raise reused(made)

    async def get(self, caller: Caller, machine_id: str, preview_id: str, *, wait_ms: int = 0) -> Preview:
        """Return a preview, also one that has ended. Raises NotFound."""
        machine_id = canonical_machine_id(machine_id) or ""
        preview = await self._store.get(caller.organization_id, machine_id, preview_id)
        if preview is None:
            raise NotFound("no such preview")
        return await self._wait(self._as_of_now(preview), wait_ms)

    async def page(self, caller: Caller, machine_id: str, *, before: int | None, limit: int) -> list[Preview]:
        """Return a machine's previews newest first, below the number `before`. Raises NotFound for an unknown machine."""
        machine_id = canonical_machine_id(machine_id) or ""
        if (
            self._board.owned(caller.organization_id, machine_id) is None
            and await self._machines.get(caller.organization_id, machine_id) is None
        ):
            raise NotFound("no such machine")
        found = await self._store.page(caller.organization_id, machine_id, before=before, limit=limit)
        return [self._as_of_now(preview) for preview in found]

    async def close(self, caller: Caller, machine_id: str, preview_id: str) -> Preview:
        """Serve it no longer, and cut what is open through it. One that has ended is returned unchanged."""
        preview = await self.get(caller, machine_id, preview_id)
        return await self._tasks.finish(self._end(preview, PreviewEvent.CLOSE))

    async def link(
        self, caller: Caller, machine_id: str, preview_id: str, lifetime_seconds: int
    ) -> tuple[Preview, str, Micros]:
        """Return a preview with a token that lets in whoever has it, and when that expires: no later than the preview."""
        preview = await self.get(caller, machine_id, preview_id)
        most = self._limits.preview_link_hours * _HOUR_SECONDS
        if not 1 <= lifetime_seconds <= most:
            raise Invalid(
                f"expires_in_seconds is {lifetime_seconds}, must be from 1 to {most} (preview_link_hours)",
                location="body.expires_in_seconds",
            )
        if preview.terminal:
            raise Conflict(f"the preview is {preview.state.value}", details={"status": preview.state.value})
        if not _may_open(preview, caller):
            raise Forbidden("the preview is private: only the key that made it may make links to it")
        left = (preview.expires_at - self._clock.steady()) // _SECOND_US
        seconds = min(lifetime_seconds, max(left, 0))
        token = self._links.make(_LINK, preview.id, caller.key_id, seconds=seconds)
        return preview, token, self._clock.steady() + seconds * _SECOND_US

    # For whoever serves them

    @property
    def connections(self) -> PortConnections:
        """The connections behind them."""
        return self._connections

    async def find(self, preview_id: str) -> Preview:
        """Return the open preview of that id, whoever's it is. Raises NotFound."""
        preview = await self._store.find(preview_id)
        if preview is None or (preview := self._as_of_now(preview)).terminal:
            raise NotFound("there is no such preview, or it is over")
        return preview

    @asynccontextmanager
    async def request(self, preview: Preview, ends: int) -> AsyncIterator[Place]:
        """Have a place for a request to a preview. Raises RateLimited, and NotFound where it has ended since it was found.

        `ends`: what `connections.ends` was before it was found.
        """
        with self._connections.request(preview) as place:
            if self._connections.ends != ends:  # from now on its end cuts off what is here; it may have ended before
                await self.find(preview.id)
            yield place

    async def letting_in(self, preview: Preview, tokens: Sequence[str]) -> KeyToken | None:
        """Return what the one of these tokens says that lets in; None if none does. One whose key is revoked does not."""
        for token in tokens:
            if (said := await self._links.valid(_LINK, preview.id, token)) is not None:
                return said
        return None

    def opening(self, preview: Preview, callers: Sequence[Caller]) -> Caller:
        """Return the one of the callers who may open it. Raises NotFound where all are of other organizations, else Forbidden."""
        for caller in callers:
            if _may_open(preview, caller):
                return caller
        if any(caller.organization_id == preview.organization_id for caller in callers):
            raise Forbidden("the preview is private: only the key that made it, or a link made with it, opens it")
        raise NotFound("there is no such preview, or it is over")

    # What happens by itself

    async def resume(self) -> None:
        """Go on waiting for the machines that were being woken for previews. Once, when the server starts."""
        for preview in await self._store.waking():
            self._follow(preview)

    async def turn(self) -> None:
        """Wait a while, then end what is due. Raises StoreUnavailable."""
        await asyncio.sleep(LOOK_EVERY_SECONDS)
        await self.end_due()

    async def end_due(self) -> None:
        """End previews whose time is over, and those of destroyed machines."""
        for preview in await self._store.due(self._clock.steady(), PIECE):
            over = preview.expires_at <= self._clock.steady()
            await self._end(preview, PreviewEvent.EXPIRE if over else PreviewEvent.CLOSE)

    def _follow(self, preview: Preview) -> None:
        if preview.state is PreviewState.WAKE_IN_PROGRESS:
            self._tasks.start(f"wake for {preview.id}", partial(self._wake, preview))

    async def _wake(self, preview: Preview) -> None:
        caller = Caller(preview.organization_id, preview.created_by, admin=False)
        event, error = PreviewEvent.AWAKE, None
        try:
            await self._channels.awake(caller, preview.machine_id)
        except NotFound:
            event = PreviewEvent.CLOSE
        except Conflict as failed:
            event, error = PreviewEvent.WAKE_FAILED, (ErrorCode.WAKE_FAILED, failed.message)
        except Unavailable as late:
            if self._feed.closing:
                return  # the next server goes on
            event, error = PreviewEvent.EXPIRE, (ErrorCode.START_DEADLINE_EXCEEDED, late.message)
        await self._end(preview, event, error)

    async def _end(self, preview: Preview, event: PreviewEvent, error: tuple[ErrorCode, str] | None = None) -> Preview:
        """Move it, and its connections and those who wait along; return it as it is then."""
        if preview.terminal:
            return preview
        code, message = error or (None, None)
        moved = await self._store.advance(preview, event, self._clock.now(), error_code=code, error_message=message)
        if not isinstance(moved, Preview):
            current = moved.current
            if current is None:
                raise NotFound("no such preview")
            # It became ready, or has ended, meanwhile: what was wanted is wanted still, if that can be.
            return current if event is PreviewEvent.AWAKE or current.terminal else await self._end(current, event)
        if moved.terminal:
            self._connections.end(preview.id)
        self._feed.notify(preview.id)
        return moved

    def _as_of_now(self, preview: Preview) -> Preview:
        """As it is about to be recorded."""
        now = self._clock.steady()
        if preview.terminal:
            return preview
        if preview.expires_at <= now:
            return replace(preview, state=preview.on(PreviewEvent.EXPIRE), ended_at=preview.expires_at)
        if self._board.get(preview.machine_id) is None:
            return replace(preview, state=preview.on(PreviewEvent.CLOSE), ended_at=self._clock.now())
        return preview

    async def _wait(self, preview: Preview, wait_ms: int) -> Preview:
        return await self._feed.until(
            preview.id,
            preview,
            wait_ms,
            clock=self._clock,
            reread=self._reread,
            enough=lambda one: one.state is not PreviewState.WAKE_IN_PROGRESS,
        )

    async def _reread(self, preview: Preview) -> Preview:
        return self._as_of_now(await self._store.find(preview.id) or preview)


def _may_open(preview: Preview, caller: Caller) -> bool:
    if caller.organization_id != preview.organization_id or caller.project_id is not None:
        return False
    return preview.visibility is not Visibility.PRIVATE or caller.key_id == preview.created_by
