"""SSH sessions: who may log in to a machine, and who is logged in.

A session is brought up to date when somebody looks at it: that its machine runs, or cannot, and that its time is over, is
written down then. So nothing has to watch, and a crash leaves nothing half done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from dormice.domain.errors import Conflict, Forbidden, NotFound, RateLimited
from dormice.domain.execution import Micros
from dormice.domain.ids import canonical_machine_id
from dormice.domain.limits import SECOND_US, Limits
from dormice.domain.machine import Phase
from dormice.domain.ssh import SshEvent, SshSession, SshState
from dormice.engine.board import Board, LiveMachine
from dormice.engine.channels import Channels
from dormice.engine.clock import Clock, new_ssh_session_id
from dormice.engine.feed import Feed
from dormice.engine.idempotency import InFlight, reused
from dormice.engine.keys import Keys
from dormice.engine.machines import Machines
from dormice.engine.orders import Caller, Idempotency
from dormice.engine.revocations import REVOKED
from dormice.engine.ssh_traffic import SshTraffic
from dormice.engine.tasks import Tasks
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed
from dormice.store.ssh import NewSshSession, SshSessionStore, TooManySshSessions

HangUp = Callable[[str], None]
"""Ends a connection and tells its client why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshDoor:
    """Where clients find the SSH server, and how they know it."""

    endpoint: str
    port: int
    host_pattern: str
    """What a line of known_hosts calls it."""
    host_authority: str
    """The public key that has signed its own, on one line."""


class SshAuthority(Protocol):
    """Signs users' keys."""

    @property
    def door(self) -> SshDoor:
        """Where they are taken."""
        ...

    def certify(self, public_key: str, session_id: str, *, begin: Micros, end: Micros) -> str:
        """Return a certificate for a key, on one line. Raises Invalid, which names what is wrong with the key."""
        ...


class SshSessions:
    """The SSH sessions of every machine. Raises the errors of domain/errors.py and StoreUnavailable."""

    def __init__(
        self,
        *,
        store: SshSessionStore,
        board: Board,
        machines: Machines,
        channels: Channels,
        keys: Keys,
        feed: Feed,
        in_flight: InFlight,
        tasks: Tasks,
        clock: Clock,
        limits: Limits,
        authority: SshAuthority | None,
    ) -> None:
        """Without an authority SSH is turned off: sessions can be looked at, not made."""
        self._store = store
        self._board = board
        self._machines = machines
        self._channels = channels
        self._keys = keys
        self._feed = feed
        self._in_flight = in_flight
        self._tasks = tasks
        self._clock = clock
        self._limits = limits
        self._authority = authority
        self._logged_in: dict[str, set[HangUp]] = {}
        self.traffic = SshTraffic()

    @property
    def door(self) -> SshDoor | None:
        """Where the SSH server is found; None: it is turned off."""
        return self._authority.door if self._authority is not None else None

    async def create(
        self,
        caller: Caller,
        machine_id: str,
        public_key: str,
        idempotency: Idempotency | None,
        *,
        wait_ms: int = 0,
    ) -> SshSession:
        """Let the holder of a key log in to the machine, which is woken for it. With wait_ms, return once it is up."""
        if self._authority is None:
            raise Conflict("SSH is turned off on this server (ssh_listen)")
        machine_id = canonical_machine_id(machine_id) or ""
        now = self._clock.now()
        expires_at = now + self._limits.ssh_session_seconds * SECOND_US
        session_id = new_ssh_session_id(self._clock)
        certificate = self._authority.certify(public_key, session_id, begin=now, end=expires_at)
        claim = await self._in_flight.claim(caller, idempotency)
        new = NewSshSession(
            id=session_id,
            organization_id=caller.organization_id,
            machine_id=machine_id,
            created_by=caller.key_id,
            certificate=certificate,
            now=now,
            expires_at=expires_at,
            ready=False,
        )
        made = await self._tasks.finish(self._create(caller, new, claim))
        return await self._waited(await self._refreshed(made), wait_ms)

    async def _create(self, caller: Caller, new: NewSshSession, claim: IdempotencyClaim | None) -> SshSession:
        try:
            live = self._channels.admit(caller, new.machine_id, "nobody can log in to it")
            if (earlier := await self._in_flight.recall(claim)) is not None:
                return await self.get(caller, new.machine_id, earlier)
            up = live.awake and live.attached
            if not up:
                await self._channels.wake(live)
            most = self._limits.ssh_sessions_per_machine
            made = await self._store.create(replace(new, ready=up), claim, most=most)
            live.last_activity_at = self._clock.steady()
        except (NotFound, Conflict):
            if (earlier := await self._in_flight.recall(claim)) is not None:
                return await self.get(caller, new.machine_id, earlier)
            raise
        finally:
            self._in_flight.settle(claim)
        match made:
            case SshSession():
                self.traffic.created_sessions += 1
                return made
            case Replayed(resource_id=session_id):
                return await self.get(caller, new.machine_id, session_id)
            case KeyReused():
                raise reused(made)
            case TooManySshSessions():
                text = f"the machine has {most} SSH sessions open (ssh_sessions_per_machine); delete some"
                raise RateLimited(text, retry_after_ms=self._limits.retry_after_ms)

    async def get(self, caller: Caller, machine_id: str, session_id: str, *, wait_ms: int = 0) -> SshSession:
        """Return a session; with wait_ms, once its machine is up. Raises NotFound."""
        machine_id = canonical_machine_id(machine_id) or ""
        found = await self._store.get(caller.organization_id, machine_id, session_id)
        if found is None:
            raise NotFound("no such SSH session")
        return await self._waited(await self._refreshed(found), wait_ms)

    async def page(self, caller: Caller, machine_id: str, *, before: int | None, limit: int) -> list[SshSession]:
        """Return sessions newest first, below the number `before`. Raises NotFound."""
        machine = await self._machines.get(caller, machine_id)
        found = await self._store.page(caller.organization_id, machine.id, before=before, limit=limit)
        return [await self._refreshed(session, wake=False) for session in found]

    async def delete(self, caller: Caller, machine_id: str, session_id: str) -> SshSession:
        """Let nobody log in with it any more, and hang up on who is logged in. Repeated: unchanged. Raises NotFound."""
        session = await self.get(caller, machine_id, session_id)
        while not session.terminal:
            session = await self._store.advance(session, SshEvent.CLOSED, self._clock.now()) or session
        self._hang_up(session_id, "the SSH session was deleted")
        return session

    async def hang_up_on_forgotten(self) -> None:
        """Hang up on who is logged in with a session that is no longer recorded: nobody could delete it any more."""
        for session_id in list(self._logged_in):
            if await self._store.find(session_id) is None:
                self._hang_up(session_id, "the SSH session expired long ago (keep_finished_hours)")

    def _hang_up(self, session_id: str, why: str) -> None:
        for hang_up in list(self._logged_in.get(session_id, ())):
            hang_up(why)

    # For the SSH server

    async def admit(self, session_id: str) -> Caller | None:
        """Return in whose name somebody acts who has proved to hold the session's key; None: not any more, or never."""
        session = await self._store.find(session_id)
        if session is None or (await self._refreshed(session)).terminal:
            return None
        return Caller(organization_id=session.organization_id, key_id=session.created_by, admin=False)

    async def machine_of(self, session_id: str) -> str:
        """Return the machine that a session leads to. Raises Forbidden once it was deleted."""
        session = await self._store.find(session_id)
        if session is None or session.state is SshState.CLOSED:
            raise Forbidden("this SSH session was closed")
        return session.machine_id

    @contextmanager
    def logged_in(self, caller: Caller, session_id: str, machine_id: str, hang_up: HangUp) -> Iterator[None]:
        """Hold the machine awake. `hang_up` is called if the session is deleted meanwhile, or the key that made it is revoked.

        Raises RateLimited (too many are logged in), Unauthenticated (the key was revoked).
        """
        live = self._board.owned(caller.organization_id, machine_id)
        if live is not None and live.connections >= (most := self._limits.ssh_connections_per_machine):
            raise RateLimited(f"the machine has {most} SSH connections (ssh_connections_per_machine)")
        hang_ups = self._logged_in.setdefault(session_id, set())
        hang_ups.add(hang_up)
        if live is not None:
            live.connections += 1
        try:
            with self._keys.revocations.heard(caller.key_id, lambda: hang_up(REVOKED)):
                yield
        finally:
            hang_ups.discard(hang_up)
            if not hang_ups:
                self._logged_in.pop(session_id, None)
            if live is not None:
                live.connections -= 1
                live.last_activity_at = self._clock.steady()

    # How far it is

    async def _refreshed(self, session: SshSession, *, wake: bool = True) -> SshSession:
        """Return the session as it is now, having written down what has happened since somebody last looked.

        With `wake`, the machine that it waits for is woken again if it has fallen asleep.
        """
        while not session.terminal:
            live = self._board.owned(session.organization_id, session.machine_id)
            happened = self._happened(session, live) or await self._revoked(session)
            if happened is None:
                if wake and session.state is SshState.WAKE_IN_PROGRESS and live is not None and not live.awake:
                    await self._tasks.finish(self._channels.wake(live))
                return session
            event, why = happened
            newer = await self._store.advance(session, event, self._clock.now(), error_message=why)
            if newer is None:
                return session
            session = newer
        return session

    async def _revoked(self, session: SshSession) -> tuple[SshEvent, str | None] | None:
        valid = not session.created_by or await self._keys.is_valid(session.created_by)
        return None if valid else (SshEvent.CLOSED, None)

    def _happened(self, session: SshSession, live: LiveMachine | None) -> tuple[SshEvent, str | None] | None:
        waits = session.state is SshState.WAKE_IN_PROGRESS
        if live is None or live.machine.phase is Phase.DESTROYING:
            return SshEvent.CLOSED, None
        if self._clock.now() >= session.expires_at:
            return SshEvent.EXPIRED, None
        if waits and live.awake and live.attached:
            return SshEvent.MACHINE_READY, None
        if waits and live.machine.phase is Phase.FAILED:
            return SshEvent.WAKE_FAILED, live.machine.last_error or "the machine could not be started"
        return None

    async def _waited(self, session: SshSession, wait_ms: int) -> SshSession:
        return await self._feed.until(
            session.machine_id,
            session,
            wait_ms,
            clock=self._clock,
            reread=self._refreshed,
            enough=lambda one: one.state is not SshState.WAKE_IN_PROGRESS,
        )
