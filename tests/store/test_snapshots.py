"""The port: snapshots, and what machines keep besides their sizes."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from dormice.domain import ids
from dormice.domain.egress import NOTHING, PUBLIC, allow_list
from dormice.domain.machine import Machine, MachineEvent
from dormice.domain.snapshot import TRANSITIONS, Snapshot, SnapshotEvent, SnapshotState
from dormice.store.interface import KeyReused, MachineChange, Replayed
from dormice.store.snapshots import NewSnapshot, SnapshotLostRace, TooManySnapshots
from dormice.store.sqlite.connection import open_writer
from dormice.store.sqlite.survey import Survey, survey
from tests.store.world import World

WAYS: dict[SnapshotState, list[SnapshotEvent]] = {
    SnapshotState.CREATING: [],
    SnapshotState.READY: [SnapshotEvent.TAKEN],
    SnapshotState.FAILED: [SnapshotEvent.FAILED],
    SnapshotState.DELETING: [SnapshotEvent.DELETE],
}


def new(world: World, **fields: Any) -> NewSnapshot:
    made = NewSnapshot(
        id=ids.snapshot_id(world.now // 1_000, os.urandom(10)),
        organization_id=world.organization,
        machine_id=world.machine.id,
        name="",
        storage_gib=4,
        image="default",
        now=world.tick(),
        most_of_machine=10,
        most_of_organization=20,
    )
    return replace(made, **fields)


async def created(world: World, state: SnapshotState = SnapshotState.CREATING, **fields: Any) -> Snapshot:
    made: object = await world.store.snapshots.create(new(world, **fields), None)
    for event in WAYS[state]:
        assert isinstance(made, Snapshot)
        made = await world.store.snapshots.advance(
            made.id, event, size=4096, error="why" if event == "failed" else None
        )
    assert isinstance(made, Snapshot)
    assert made.state is state
    return made


@pytest.mark.parametrize(("state", "event"), list(product(WAYS, SnapshotEvent)))
async def test_every_event_in_every_state_moves_by_the_table_or_loses(
    world: World, state: SnapshotState, event: SnapshotEvent
) -> None:
    before = await created(world, state)
    after = await world.store.snapshots.advance(before.id, event, error="why" if event == "failed" else None)
    left = await world.store.snapshots.get(world.organization, before.id)
    if event not in TRANSITIONS[state]:
        assert after == SnapshotLostRace(before)
        assert left == before
    else:
        assert isinstance(after, Snapshot)
        assert after.state is TRANSITIONS[state][event]
        assert left == (None if after.state is SnapshotState.DELETED else after)


async def test_what_is_not_there_loses(world: World) -> None:
    assert await world.store.snapshots.advance("snap-none", SnapshotEvent.DELETED) == SnapshotLostRace(None)


async def test_a_snapshot_belongs_to_its_organization_alone(world: World) -> None:
    made = await created(world)
    other = await world.store.keys.ensure_organization("other", world.now)
    assert await world.store.snapshots.get(other, made.id) is None
    assert await world.store.snapshots.page(other, None, before=None, limit=10) == []
    assert await world.store.snapshots.page(other, world.machine.id, before=None, limit=10) == []


async def test_lists_are_newest_first_of_one_machine_or_of_all(world: World) -> None:
    ours = [await created(world) for _ in range(3)]
    elsewhere = await created(world, machine_id="dm-other")
    page = world.store.snapshots.page
    assert await page(world.organization, None, before=None, limit=10) == [elsewhere, *reversed(ours)]
    assert await page(world.organization, world.machine.id, before=ours[2].number, limit=1) == [ours[1]]


async def test_what_the_node_has_to_do_is_found_and_nothing_else(world: World) -> None:
    made = {state: await created(world, state) for state in WAYS}
    found = await world.store.snapshots.unsettled()
    assert found == [made[SnapshotState.CREATING], made[SnapshotState.DELETING]]


async def test_bounds_hold_for_a_machine_and_for_all_of_an_organization(world: World) -> None:
    bounds: dict[str, Any] = {"most_of_machine": 2, "most_of_organization": 3}
    for _ in range(2):
        await created(world, **bounds)
    refused = await world.store.snapshots.create(new(world, **bounds), None)
    assert refused == TooManySnapshots("snapshots_per_machine", 2)
    await created(world, machine_id="dm-other", **bounds)
    refused = await world.store.snapshots.create(new(world, machine_id="dm-third", **bounds), None)
    assert refused == TooManySnapshots("snapshots_per_organization", 3)


async def test_a_key_makes_one_snapshot(world: World) -> None:
    order, claim = new(world), world.key()
    made = await world.store.snapshots.create(order, claim)
    assert isinstance(made, Snapshot)
    assert await world.store.snapshots.create(new(world), claim) == Replayed(made.id)
    other = replace(claim, request_hash="another")
    assert isinstance(await world.store.snapshots.create(new(world), other), KeyReused)
    assert len(await world.store.snapshots.page(world.organization, None, before=None, limit=10)) == 1


async def test_a_machine_keeps_its_egress_policy_and_a_change_of_it(world: World) -> None:
    listed = allow_list(["example.com", "1.2.3.0/24"])
    machine = await world.create_machine(egress=listed)
    for egress in (NOTHING, PUBLIC, listed, PUBLIC):
        assert await world.store.machines.get(world.organization, machine.id) == machine
        changed = await world.store.machines.advance(
            machine.id, machine.revision, None, MachineChange(egress=egress), world.tick()
        )
        assert isinstance(changed, Machine)
        assert changed.egress == egress
        machine = changed
    assert machine in await world.store.machines.live()


async def test_a_machine_remembers_its_origin_and_that_it_was_copied(world: World) -> None:
    machine = await world.create_machine(origin="snap-1")
    assert (machine.origin, machine.copied) == ("snap-1", False)
    assert world.machine.copied
    for copied in (False, True, False):
        changed = await world.store.machines.advance(
            machine.id, machine.revision, None, MachineChange(copied=copied), world.tick()
        )
        assert isinstance(changed, Machine)
        assert changed.copied is (copied or machine.copied)
        assert await world.store.machines.get(world.organization, machine.id) == changed
        machine = changed


async def test_a_destroyed_machine_is_forgotten_with_all_of_this_and_its_snapshots_stay(world: World) -> None:
    machine = await world.create_machine(egress=NOTHING, origin="snap-1")
    kept = await created(world, SnapshotState.READY, machine_id=machine.id)
    for event in (MachineEvent.DESTROY, MachineEvent.DESTROYED):
        gone = await world.store.machines.advance(machine.id, machine.revision, event, MachineChange(), world.tick())
        assert isinstance(gone, Machine)
        machine = gone
    while await world.store.delete_finished(world.tick() + 1):
        pass
    assert await world.store.machines.get(world.organization, machine.id) is None
    assert await world.store.snapshots.get(world.organization, kept.id) == kept


def test_the_survey_names_what_the_node_is_to_keep(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    db = open_writer(path)
    db.execute("INSERT INTO organizations (id, name, created_at) VALUES ('o', 'default', 7)")
    for state in ("creating", "ready", "failed", "deleting"):
        db.execute(
            "INSERT INTO snapshots (id, organization_id, machine_id, name, state, storage_gib, image, created_at, error) "
            "VALUES (?1, 'o', 'dm-1', '', ?1, 1, 'default', 8, iif(?1 = 'failed', 'why', NULL))",
            (state,),
        )
    assert survey(path) == Survey(frozenset({"creating", "ready", "deleting"}), frozenset({"failed"}), 7)
    db.execute("DROP TABLE snapshots")  # as one that an older Dormice has left
    assert survey(path) == Survey(frozenset(), frozenset(), 7)
    db.close()
