"""The port: machines."""

from dataclasses import replace
from itertools import product
from uuid import uuid4

import pytest

from dormice.domain.machine import TRANSITIONS, DesiredState, Machine, MachineEvent, Phase, ResizeState
from dormice.domain.transitions import IllegalTransition
from dormice.store.interface import KeyReused, LostRace, MachineChange, Replayed, Store
from tests.store.world import World

BOOT = MachineChange(boot_id=uuid4())

WAYS: dict[Phase, list[MachineEvent]] = {
    Phase.ACCEPTED: [],
    Phase.PLACEMENT_PENDING: [MachineEvent.NO_NODE],
    Phase.STARTING: [MachineEvent.START],
    Phase.RUNNING: [MachineEvent.START, MachineEvent.STARTED],
    Phase.STOPPING: [MachineEvent.START, MachineEvent.STARTED, MachineEvent.STOP],
    Phase.SLEEPING: [MachineEvent.START, MachineEvent.DIED],
    Phase.FAILED: [MachineEvent.START, MachineEvent.START_FAILED],
    Phase.DESTROYING: [MachineEvent.DESTROY],
    Phase.DESTROYED: [MachineEvent.DESTROY, MachineEvent.DESTROYED],
}


async def in_phase(world: World, phase: Phase) -> Machine:
    machine = await world.create_machine()
    for event in WAYS[phase]:
        advanced = await world.store.machines.advance(machine.id, machine.revision, event, BOOT, world.tick())
        assert isinstance(advanced, Machine)
        machine = advanced
    assert machine.phase is phase
    return machine


async def test_a_new_machine_is_accepted_and_wanted_running(world: World) -> None:
    machine = await world.create_machine(vcpu=0.5, memory_mib=256, storage_gib=2, image="alpine", autosleep_seconds=0)
    assert (machine.phase, machine.desired_state, machine.revision) == (Phase.ACCEPTED, DesiredState.RUNNING, 1)
    assert (machine.vcpu, machine.memory_mib, machine.storage_gib, machine.image) == (0.5, 256, 2, "alpine")
    assert machine.created_at == machine.last_transition_at == machine.last_activity_at == world.now
    assert await world.store.machines.get(world.organization, machine.id) == machine


async def test_a_machine_belongs_to_its_organization_alone(world: World) -> None:
    other = await world.store.keys.ensure_organization("other", world.now)
    assert await world.store.machines.get(other, world.machine.id) is None
    assert await world.store.machines.get(world.organization, "dm-none") is None
    assert await world.store.machines.page(other, before=None, limit=10) == []


async def test_a_machine_of_an_unknown_organization_is_refused(world: World) -> None:
    with pytest.raises(LookupError):
        await world.create_machine(organization_id="nobody")


async def test_the_same_id_twice_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="another one"):
        await world.create_machine(id=world.machine.id)


@pytest.mark.parametrize(("phase", "event"), list(product(Phase, MachineEvent)))
async def test_every_event_in_every_phase_moves_by_the_table_or_changes_nothing(
    world: World, phase: Phase, event: MachineEvent
) -> None:
    before = await in_phase(world, phase)
    if event in TRANSITIONS[phase]:
        after = await world.store.machines.advance(before.id, before.revision, event, BOOT, world.tick())
        assert isinstance(after, Machine)
        assert after.phase is TRANSITIONS[phase][event]
        assert (after.revision, after.last_transition_at) == (before.revision + 1, world.now)
    else:
        with pytest.raises(IllegalTransition) as raised:
            await world.store.machines.advance(before.id, before.revision, event, BOOT, world.tick(), world.key())
        assert (raised.value.state, raised.value.event) == (phase, event)
        after = before
    assert await world.store.machines.get(world.organization, before.id) == after


async def test_a_change_without_an_event_keeps_the_phase_and_what_it_does_not_name(world: World) -> None:
    change = MachineChange(
        desired_state=DesiredState.SLEEPING, reason="Waiting", retryable=True, last_error="no room", vcpu=4, memory_mib=1,
        storage_gib=9, autosleep_seconds=7, last_activity_at=5,
    )  # fmt: skip
    before = world.machine
    after = await world.store.machines.advance(before.id, 1, None, change, world.tick())
    assert isinstance(after, Machine)
    assert (after.desired_state, after.reason, after.retryable) == (DesiredState.SLEEPING, "Waiting", True)
    assert (after.last_error, after.vcpu, after.memory_mib, after.storage_gib) == ("no room", 4, 1, 9)
    assert (after.autosleep_seconds, after.last_activity_at) == (7, 5)
    assert (after.phase, after.last_transition_at) == (before.phase, before.last_transition_at)
    assert (after.revision, after.last_progress_at) == (2, world.now)
    cleared = await world.store.machines.advance(before.id, 2, None, MachineChange(last_error=""), world.tick())
    assert isinstance(cleared, Machine)
    assert (cleared.last_error, cleared.vcpu) == (None, 4)
    assert await world.store.machines.get(world.organization, before.id) == cleared


async def test_an_old_revision_loses_the_race_and_changes_nothing(world: World) -> None:
    machines = world.store.machines
    first = await machines.advance(world.machine.id, 1, MachineEvent.START, BOOT, world.tick())
    lost = await machines.advance(world.machine.id, 1, MachineEvent.DESTROY, MachineChange(), world.tick(), world.key())
    assert lost == LostRace(first)  # type: ignore[arg-type]
    assert await machines.get(world.organization, world.machine.id) == first
    # the lost attempt did not use the key up
    again = await machines.advance(
        world.machine.id, 2, MachineEvent.DESTROY, MachineChange(), world.tick(), world.key()
    )
    assert isinstance(again, Machine)


async def test_an_unknown_machine_loses_the_race(world: World) -> None:
    assert await world.store.machines.advance("dm-none", 1, None, MachineChange(), world.now) == LostRace(None)


async def test_a_replayed_advance_changes_nothing(world: World) -> None:
    machines, claim = world.store.machines, world.key()
    first = await machines.advance(world.machine.id, 1, MachineEvent.START, BOOT, world.tick(), claim)
    assert isinstance(first, Machine)
    again = await machines.advance(world.machine.id, 1, MachineEvent.START, BOOT, world.tick(), claim)
    assert again == Replayed(world.machine.id)
    other = await machines.advance(world.machine.id, 2, None, BOOT, world.tick(), world.key(request="other"))
    assert other == KeyReused("request", "other")
    assert await machines.get(world.organization, world.machine.id) == first


async def test_pages_go_from_new_to_old_and_end(world: World) -> None:
    made = [world.machine] + [await world.create_machine() for _ in range(4)]
    seen: list[Machine] = []
    before = None
    while page := await world.store.machines.page(world.organization, before=before, limit=2):
        seen += page
        before = page[-1].number
    assert seen == made[::-1]


async def test_destroyed_machines_are_found_listed_on_demand_and_not_live(world: World) -> None:
    gone = await in_phase(world, Phase.DESTROYED)
    machines = world.store.machines
    assert await machines.get(world.organization, gone.id) == gone
    assert await machines.page(world.organization, before=None, limit=10) == [world.machine]
    assert await machines.page(world.organization, before=None, limit=10, destroyed=True) == [gone, world.machine]
    assert await machines.live() == [world.machine]


async def test_live_machines_of_every_organization_are_found(store: Store) -> None:
    one = await World.made(store)
    other = await store.keys.ensure_organization("other", one.now)
    foreign = await one.create_machine(organization_id=other)
    assert await store.machines.live() == [one.machine, foreign]


async def test_what_became_of_a_machines_memory_leaves_its_revision(world: World) -> None:
    machines, machine = world.store.machines, world.machine
    change = MachineChange(unapplied_from_mib=256, enlarging=True, memory_mib=512)
    raised = await machines.advance(machine.id, machine.revision, None, change, world.tick())
    assert isinstance(raised, Machine)
    assert (raised.unapplied_from_mib, raised.enlarging, raised.autoresized_at) == (256, True, None)
    done = MachineChange(unapplied_from_mib=0, enlarging=False, autoresized_at=7, resize_state=ResizeState.ERROR)
    noted = await machines.note_memory(machine.id, raised.revision, done)
    assert noted == replace(
        raised, unapplied_from_mib=None, enlarging=False, autoresized_at=7, resize_state=ResizeState.ERROR
    )
    assert await machines.get(world.organization, machine.id) == noted
    assert await machines.note_memory(machine.id, machine.revision, done) == LostRace(noted)
    assert await machines.note_memory("dm-none", 1, done) == LostRace(None)
