"""The port: what ended long enough ago is deleted, piece by piece, and nothing else."""

from __future__ import annotations

import pytest

from dormice.domain.execution import Execution, ExecutionEvent, ExecutionState, StdinMode
from dormice.domain.machine import DesiredState, Machine, MachineEvent
from dormice.store.interface import MachineChange, Replayed, Store
from tests.store.world import World, out, outcome

ENDED = [state for state in ExecutionState if state.value in {"succeeded", "failed", "cancelled", "expired"}]


async def delete_all(store: Store, before: int) -> list[int]:
    """Delete pieces until nothing is left; the size of each."""
    pieces = []
    while piece := await store.delete_finished(before):
        pieces.append(piece)
    return pieces


async def found(world: World, execution: Execution) -> Execution | None:
    return await world.store.executions.get(execution.organization_id, execution.machine_id, execution.id)


async def destroyed(world: World) -> Machine:
    machine = await world.create_machine()
    for event in (MachineEvent.DESTROY, MachineEvent.DESTROYED):
        change = MachineChange(desired_state=DesiredState.DESTROYED)
        after = await world.store.machines.advance(machine.id, machine.revision, event, change, world.tick())
        assert isinstance(after, Machine)
        machine = after
    return machine


@pytest.mark.parametrize("state", ENDED)
async def test_an_execution_goes_with_all_that_belongs_to_it(world: World, state: ExecutionState) -> None:
    old = await world.in_state(state, env={"A": "1"}, stdin=b"in", stdin_mode=StdinMode.GIVEN)
    assert old.completed_at is not None
    assert await delete_all(world.store, old.completed_at) == []  # before means before
    assert await found(world, old) == old
    assert await delete_all(world.store, old.completed_at + 1) != []
    assert await found(world, old) is None
    assert await world.store.executions.entries(old, after=0, limit=10, max_bytes=1 << 20) == []
    assert await world.store.executions.page(world.organization, world.machine.id, before=None, limit=10) == []


@pytest.mark.parametrize("state", [state for state in ExecutionState if state not in ENDED])
async def test_what_has_not_ended_stays_however_old_it_is(world: World, state: ExecutionState) -> None:
    open_one = await world.in_state(state, env={"A": "1"})
    assert await delete_all(world.store, world.now * 2) == []
    assert await world.store.executions.open() == [open_one]
    await world.log(open_one)


async def test_the_longest_ended_goes_first_and_lists_and_cursors_stay_right(world: World) -> None:
    early = await world.running()
    others = [await world.ended() for _ in range(6)]
    early = await world.report(early, outcome=outcome(ExecutionEvent.SUCCEEDED, world.tick()))
    assert others[3].completed_at is not None
    await delete_all(world.store, others[3].completed_at)
    kept = [early, *others[3:]]

    async def page(before: int | None) -> list[Execution]:
        return await world.store.executions.page(world.organization, world.machine.id, before=before, limit=2)

    assert await page(None) == [others[5], others[4]]
    assert await page(others[4].number) == [others[3], early]
    assert await page(others[1].number) == [early]  # the cursor itself is gone
    assert await page(early.number) == []
    for execution in kept:
        await world.log(execution)


async def test_a_large_log_goes_in_pieces_and_is_out_of_sight_from_the_first_one_on(world: World) -> None:
    large = await world.running()
    size = 0
    for _ in range(48):
        large = await world.report(large, chunks=[out(size, bytes(1 << 16))])
        size += 1 << 16
    large = await world.report(large, outcome=outcome(ExecutionEvent.SUCCEEDED, world.tick(), stdout_bytes=size))
    small = await world.ended()
    assert await world.store.delete_finished(world.now + 1) > 0
    assert await found(world, large) is None
    assert await found(world, small) == small
    assert len(await delete_all(world.store, world.now + 1)) >= 4
    assert await found(world, small) is None


async def test_many_go_in_pieces(world: World) -> None:
    for _ in range(120):
        await world.ended()
    assert len(await delete_all(world.store, world.now + 1)) >= 2
    assert await world.store.executions.page(world.organization, world.machine.id, before=None, limit=10) == []


async def test_a_destroyed_machine_goes_once_it_has_no_executions(world: World) -> None:
    gone = await destroyed(world)
    execution = await world.ended()
    assert await world.store.delete_finished(gone.last_transition_at) == 0
    assert await delete_all(world.store, gone.last_transition_at + 1) == [1]
    assert await world.store.machines.get(world.organization, gone.id) is None
    assert await found(world, execution) == execution


async def test_a_machine_stays_with_its_executions_and_a_live_one_stays_for_ever(world: World) -> None:
    running = await world.running()
    gone = await destroyed(world)
    # An execution that ended after its machine: the machine stays as long as it does.
    late = await world.ended(machine_id=gone.id)
    assert late.completed_at is not None
    assert await delete_all(world.store, late.completed_at) == []
    assert await world.store.machines.get(world.organization, gone.id) == gone
    await delete_all(world.store, late.completed_at + 1)
    assert await world.store.machines.get(world.organization, gone.id) is None
    await delete_all(world.store, world.now * 2)
    assert await world.store.machines.live() == [world.machine]
    assert await world.store.executions.open() == [running]


async def test_a_key_goes_on_naming_what_it_made(world: World) -> None:
    made = await world.store.executions.create(world.new(boot_id=world.boot), world.key())
    assert isinstance(made, Execution)
    await world.report(made, started_at=world.tick(), outcome=outcome(ExecutionEvent.SUCCEEDED, world.tick()))
    await delete_all(world.store, world.now + 1)
    assert await world.store.executions.create(world.new(), world.key()) == Replayed(made.id)
