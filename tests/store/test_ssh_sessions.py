"""SSH sessions in the store: scopes, bounds, guards, and their end."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from dormice.domain.machine import MachineEvent
from dormice.domain.ssh import SshEvent, SshSession, SshState
from dormice.domain.transitions import IllegalTransition
from dormice.store.interface import KeyReused, MachineChange, Replayed
from dormice.store.ssh import NewSshSession, TooManySshSessions
from tests.store.world import MINUTE, World

MOST = 3


def _new(world: World, **fields: Any) -> NewSshSession:
    now = world.tick()
    defaults: dict[str, Any] = {
        "id": f"ssh-{uuid4()}",
        "organization_id": world.organization,
        "machine_id": world.machine.id,
        "created_by": "key-1",
        "certificate": "ssh-ed25519-cert-v01@openssh.com AAAA",
        "now": now,
        "expires_at": now + 60 * MINUTE,
        "ready": False,
    }
    return NewSshSession(**defaults | fields)


async def _create(world: World, **fields: Any) -> SshSession:
    made = await world.store.ssh_sessions.create(_new(world, **fields), None, most=MOST)
    assert isinstance(made, SshSession)
    return made


async def test_a_session_is_read_as_it_was_made_by_its_owner_only(world: World) -> None:
    sessions = world.store.ssh_sessions
    made = await _create(world, ready=True)
    assert (made.state, made.ready_at, made.created_by) == (SshState.READY, made.created_at, "key-1")
    assert await sessions.get(world.organization, world.machine.id, made.id) == made
    assert await sessions.find(made.id) == made
    other = await world.create_machine()
    assert await sessions.get(world.organization, other.id, made.id) is None
    assert await sessions.get(str(uuid4()), world.machine.id, made.id) is None
    assert await sessions.find("ssh-x") is None


async def test_pages_go_from_the_newest_on(world: World) -> None:
    made = [await _create(world) for _ in range(3)]
    page = world.store.ssh_sessions.page
    assert await page(world.organization, world.machine.id, before=None, limit=2) == made[:0:-1]
    assert await page(world.organization, world.machine.id, before=made[1].number, limit=2) == made[:1]
    assert await page(str(uuid4()), world.machine.id, before=None, limit=2) == []


async def test_a_key_makes_one_session(world: World) -> None:
    new, sessions = _new(world), world.store.ssh_sessions
    made = await sessions.create(new, world.key(), most=MOST)
    assert isinstance(made, SshSession)
    assert await sessions.create(_new(world), world.key(), most=MOST) == Replayed(made.id)
    assert isinstance(await sessions.create(_new(world), world.key(request="other"), most=MOST), KeyReused)


async def test_a_machine_has_so_many_open_sessions_and_no_more(world: World) -> None:
    sessions = world.store.ssh_sessions
    first, *_ = [await _create(world, ready=True) for _ in range(MOST)]
    assert await sessions.create(_new(world), None, most=MOST) == TooManySshSessions()
    await sessions.advance(first, SshEvent.CLOSED, world.tick())
    await _create(world)
    assert await sessions.create(_new(world), None, most=MOST) == TooManySshSessions()
    late = first.expires_at + 60 * MINUTE
    assert isinstance(await sessions.create(_new(world, now=late), None, most=MOST), SshSession)
    with pytest.raises(LookupError):
        await sessions.create(_new(world, organization_id=str(uuid4())), None, most=MOST)


async def test_a_session_moves_if_it_is_where_it_was_thought_to_be(world: World) -> None:
    sessions = world.store.ssh_sessions
    waiting = await _create(world)
    at = world.tick()
    ready = await sessions.advance(waiting, SshEvent.MACHINE_READY, at)
    assert ready is not None
    assert (ready.state, ready.ready_at) == (SshState.READY, at)
    lost = await sessions.advance(waiting, SshEvent.WAKE_FAILED, world.tick(), error_message="too late")
    assert lost == ready
    closed = await sessions.advance(ready, SshEvent.CLOSED, world.tick())
    assert closed is not None
    assert (closed.state, closed.ready_at) == (SshState.CLOSED, at)
    with pytest.raises(IllegalTransition):
        await sessions.advance(closed, SshEvent.EXPIRED, world.tick())


async def test_why_a_session_failed_is_kept(world: World) -> None:
    waiting = await _create(world)
    failed = await world.store.ssh_sessions.advance(
        waiting, SshEvent.WAKE_FAILED, world.tick(), error_message="no disk"
    )
    assert failed is not None
    assert (failed.state, failed.error_message) == (SshState.FAILED, "no disk")
    with pytest.raises(ValueError, match="contradicts"):
        await world.store.ssh_sessions.advance(await _create(world), SshEvent.WAKE_FAILED, world.tick())


async def test_sessions_that_are_over_are_forgotten_and_then_their_machine(world: World) -> None:
    store, machine = world.store, world.machine
    made = await _create(world)
    for event in (MachineEvent.DESTROY, MachineEvent.DESTROYED):
        changed = await store.machines.advance(machine.id, machine.revision, event, MachineChange(), world.tick())
        machine = changed  # type: ignore[assignment]
    assert await store.delete_finished(made.expires_at) == 0
    assert await store.delete_finished(made.expires_at + 1) == 1
    assert await store.ssh_sessions.find(made.id) is None
    assert await store.delete_finished(made.expires_at + 1) == 1
    assert await store.machines.get(world.organization, machine.id) is None


async def test_those_that_are_not_over_are_counted_by_state(world: World) -> None:
    sessions, other = world.store.ssh_sessions, await world.create_machine()
    last = world.now + 30 * MINUTE
    assert await sessions.open(last) == {SshState.WAKE_IN_PROGRESS: 0, SshState.READY: 0}
    await _create(world)
    closed = await _create(world, ready=True)
    await sessions.advance(closed, SshEvent.CLOSED, world.tick())
    await _create(world, ready=True)
    await _create(world, ready=True, machine_id=other.id)
    await _create(world, ready=True, machine_id=other.id, expires_at=last)
    assert await sessions.open(last) == {SshState.WAKE_IN_PROGRESS: 1, SshState.READY: 2}
    revision = other.revision
    for event in (MachineEvent.DESTROY, MachineEvent.DESTROYED):
        await world.store.machines.advance(other.id, revision, event, MachineChange(), world.tick())
        revision += 1
    assert await sessions.open(last) == {SshState.WAKE_IN_PROGRESS: 1, SshState.READY: 1}
