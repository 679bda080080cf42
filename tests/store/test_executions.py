"""The port: executions, from creation to their end."""

import asyncio
from itertools import product
from uuid import uuid4

import pytest
from msgspec.structs import replace

from dormice.domain.execution import (
    TERMINAL,
    TRANSITIONS,
    ErrorCode,
    Execution,
    ExecutionEvent,
    ExecutionState,
    StdinMode,
)
from dormice.domain.transitions import IllegalTransition
from dormice.store.interface import LostRace
from tests.store.world import MINUTE, World, outcome

E, S = ExecutionEvent, ExecutionState
ENDS = (E.SUCCEEDED, E.FAILED, E.CANCELLED, E.EXPIRED)


async def test_a_new_execution_is_queued_on_a_machine_that_is_awake(world: World) -> None:
    new = world.new(env={"B": "2", "A": "1"}, timeout_ms=5, cwd="/tmp")
    made = await world.store.executions.create(new, None)
    assert isinstance(made, Execution)
    assert (made.state, made.command, made.cwd, made.env_keys) == (S.QUEUED, new.command, "/tmp", ("B", "A"))
    assert (made.timeout_ms, made.created_at, made.start_by) == (5, new.now, new.start_by)
    assert (made.boot_id, made.fence, made.last_sequence, made.stdin_eof) == (None, 0, 1, True)
    assert await world.stored(made) == made


async def test_a_new_execution_waits_for_a_machine_that_is_not(world: World) -> None:
    made = await world.create(awake=False)
    assert made.state is S.WAKE_IN_PROGRESS
    assert await world.stored(made) == made


async def test_a_new_execution_can_be_claimed_at_once(world: World) -> None:
    made = await world.create(boot_id=world.boot)
    assert (made.state, made.boot_id, made.fence) == (S.QUEUED, world.boot, 1)
    assert await world.stored(made) == made


async def test_an_execution_for_a_machine_that_is_not_there_is_refused(world: World) -> None:
    other = await world.store.keys.ensure_organization("other", world.now)
    with pytest.raises(LookupError):
        await world.create(machine_id="dm-none")
    with pytest.raises(LookupError):
        await world.create(organization_id=other)
    assert await world.store.executions.open() == []


async def test_a_claim_of_a_sleeping_machine_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="execution_state"):
        await world.create(awake=False, boot_id=world.boot)


async def test_the_same_id_twice_is_refused(world: World) -> None:
    made = await world.create()
    with pytest.raises(ValueError, match="another one"):
        await world.create(id=made.id)


async def test_an_execution_is_seen_in_its_own_scope_only(world: World) -> None:
    made = await world.create()
    other = await world.store.keys.ensure_organization("other", world.now)
    sibling = await world.create_machine()
    executions = world.store.executions
    assert await executions.get(other, world.machine.id, made.id) is None
    assert await executions.get(world.organization, sibling.id, made.id) is None
    assert await executions.page(other, world.machine.id, before=None, limit=10) == []
    assert await executions.page(world.organization, sibling.id, before=None, limit=10) == []


async def test_pages_go_from_new_to_old_and_end(world: World) -> None:
    made = [await world.create() for _ in range(5)]
    seen: list[Execution] = []
    before = None
    while page := await world.store.executions.page(world.organization, world.machine.id, before=before, limit=2):
        seen += page
        before = page[-1].number
    assert seen == made[::-1]


async def test_open_ones_of_every_machine_are_found_oldest_first(world: World) -> None:
    sibling = await world.create_machine()
    states = [S.RUNNING, S.WAKE_IN_PROGRESS, S.SUCCEEDED, S.QUEUED, S.EXPIRED, S.CANCELLED]
    made = [await world.in_state(state, machine_id=sibling.id) for state in states]
    made += [await world.in_state(state) for state in states]
    assert await world.store.executions.open() == [one for one in made if not one.terminal]


async def test_when_a_machine_was_last_used_is_known_of_what_ended_last(world: World) -> None:
    sibling = await world.create_machine()
    await world.ended(machine_id=sibling.id)
    await world.ended()
    ours = await world.ended(E.CANCELLED)
    theirs = await world.ended(machine_id=sibling.id)
    await world.running()
    assert await world.store.executions.last_ends(10) == {
        world.machine.id: ours.completed_at,
        sibling.id: theirs.completed_at,
    }
    assert await world.store.executions.last_ends(1) == {sibling.id: theirs.completed_at}


async def test_a_machine_that_is_ready_queues_what_waited_for_it(world: World) -> None:
    sibling = await world.create_machine()
    waiting = [await world.create(awake=False) for _ in range(3)]
    others = [await world.create(), await world.running(), await world.create(awake=False, machine_id=sibling.id)]
    moved = await world.store.executions.machine_ready(world.machine.id, world.tick())
    assert moved == [replace(one, state=S.QUEUED, last_sequence=2) for one in waiting]
    for one in (*moved, *others):
        assert await world.stored(one) == one
    assert (await world.log(moved[0]))[-1].at == world.now
    assert await world.store.executions.machine_ready(world.machine.id, world.tick()) == []


async def test_a_machine_that_is_ready_claims_the_oldest_for_its_free_slots(world: World) -> None:
    waiting = [await world.create(awake=False) for _ in range(3)]
    boot = world.boot
    moved = await world.store.executions.machine_ready(world.machine.id, world.tick(), boot_id=boot, slots=2)
    assert [(one.id, one.state, one.boot_id, one.fence) for one in moved] == [
        (waiting[0].id, S.QUEUED, boot, 1),
        (waiting[1].id, S.QUEUED, boot, 1),
        (waiting[2].id, S.QUEUED, None, 0),
    ]
    for one in moved:
        assert await world.stored(one) == one


async def test_a_claim_raises_the_fence(world: World) -> None:
    made = await world.create()
    claimed = await world.store.executions.claim(made.id, world.boot, world.tick())
    assert claimed == replace(made, boot_id=world.boot, fence=1)
    assert await world.stored(made) == claimed


async def test_of_many_claims_one_wins(world: World) -> None:
    made = await world.create()
    answers = await asyncio.gather(*(world.store.executions.claim(made.id, uuid4(), world.now) for _ in range(20)))
    winners = [answer for answer in answers if isinstance(answer, Execution)]
    assert len(winners) == 1
    assert answers.count(LostRace(winners[0])) == 19


@pytest.mark.parametrize("state", set(S) - {S.QUEUED})
async def test_only_a_queued_one_can_be_claimed(world: World, state: ExecutionState) -> None:
    before = await world.in_state(state)
    assert await world.store.executions.claim(before.id, uuid4(), world.tick()) == LostRace(before)
    assert await world.stored(before) == before


async def test_what_is_not_there_loses_every_race(world: World) -> None:
    executions = world.store.executions
    gone = replace(await world.create(), id="exec-none")
    assert await executions.claim(gone.id, world.boot, 1) == LostRace(None)
    assert await executions.end_unstarted(gone.id, outcome(E.EXPIRED, 1)) == LostRace(None)
    assert await world.try_report(gone) == LostRace(None)
    assert await executions.request_cancel(gone.id, 1) is None
    assert await executions.append_stdin(gone.id, 0, b"", eof=True, now=1) is None
    await executions.trim_stdin(gone.id, 10)


async def test_a_start_is_recorded_with_its_time(world: World) -> None:
    claimed = await world.claimed()
    started = await world.report(claimed, started_at=claimed.created_at + 7)
    assert started == replace(claimed, state=S.RUNNING, started_at=claimed.created_at + 7, last_sequence=2)
    assert await world.stored(claimed) == started


async def test_a_start_reported_again_changes_nothing(world: World) -> None:
    running = await world.running()
    assert await world.report(running, started_at=world.tick()) == running
    assert await world.stored(running) == running


async def test_an_end_carries_what_is_known_of_it(world: World) -> None:
    running = await world.running()
    end = outcome(
        E.FAILED, world.tick(), signal=9, error_code=ErrorCode.OOM_KILLED, error_message="Out of memory.",
        stdout_bytes=12, stderr_bytes=0,
    )  # fmt: skip
    ended = await world.report(running, outcome=end)
    assert ended == replace(
        running, state=S.FAILED, completed_at=end.completed_at, signal=9, error_code=ErrorCode.OOM_KILLED,
        error_message="Out of memory.", stdout_bytes=12, last_sequence=3,
    )  # fmt: skip
    assert await world.stored(running) == ended


async def test_a_short_life_is_one_report(world: World) -> None:
    claimed = await world.claimed()
    ended = await world.report(claimed, started_at=world.tick(), outcome=outcome(E.SUCCEEDED, world.tick()))
    assert (ended.state, ended.exit_code, ended.last_sequence) == (S.SUCCEEDED, 0, 3)
    assert [entry.state for entry in await world.log(ended)] == [S.QUEUED, S.RUNNING, S.SUCCEEDED]


@pytest.mark.parametrize("state", set(S) - {S.RUNNING})
async def test_a_report_for_another_boot_or_after_the_end_loses_the_race(world: World, state: ExecutionState) -> None:
    before = await world.in_state(state)
    boot = world.boot if before.terminal else uuid4()
    lost = await world.try_report(before, boot_id=boot, started_at=1, outcome=outcome(E.FAILED, 2))
    assert lost == LostRace(before)
    assert await world.stored(before) == before
    assert len(await world.log(before)) == before.last_sequence


async def test_a_claim_that_the_guest_does_not_know_is_dropped_and_made_anew(world: World) -> None:
    claimed = await world.claimed(env={"A": "1"})
    dropped = await world.report(claimed, requeue=True)
    assert dropped == replace(claimed, boot_id=None)
    assert await world.store.executions.environment(dropped) == {"A": "1"}
    again = await world.store.executions.claim(claimed.id, uuid4(), world.tick())
    assert isinstance(again, Execution)
    assert again.fence == 2
    assert await world.try_report(again, started_at=1) == LostRace(again)  # the old boot speaks


async def test_a_started_one_is_never_dropped(world: World) -> None:
    running = await world.running()
    assert await world.try_report(running, requeue=True) == LostRace(running)
    assert await world.stored(running) == running


async def test_a_dropped_claim_of_one_whose_end_was_asked_for_ends_it(world: World) -> None:
    claimed = await world.claimed()
    await world.store.executions.request_cancel(claimed.id, world.tick())
    ended = await world.report(claimed, requeue=True)
    assert (ended.state, ended.error_code, ended.boot_id) == (S.CANCELLED, ErrorCode.CANCELLED, None)
    assert await world.stored(claimed) == ended


@pytest.mark.parametrize("event", [E.FAILED, E.CANCELLED, E.EXPIRED])
@pytest.mark.parametrize("state", [S.WAKE_IN_PROGRESS, S.QUEUED])
async def test_one_that_never_started_can_end(world: World, state: ExecutionState, event: ExecutionEvent) -> None:
    before = await world.in_state(state, env={"A": "1"})
    end = outcome(event, world.tick())
    ended = await world.store.executions.end_unstarted(before.id, end)
    assert isinstance(ended, Execution)
    assert (ended.state.value, ended.completed_at, ended.error_code) == (event.value, world.now, end.error_code)
    assert await world.stored(before) == ended
    assert await world.store.executions.environment(ended) == {}
    assert await world.store.executions.end_unstarted(before.id, end) == LostRace(ended)


async def test_a_claimed_one_does_not_end_as_unstarted(world: World) -> None:
    claimed = await world.claimed()
    lost = await world.store.executions.end_unstarted(claimed.id, outcome(E.EXPIRED, world.tick()))
    assert lost == LostRace(claimed)
    assert await world.stored(claimed) == claimed


async def test_the_end_of_a_boot_ends_what_it_had_claimed(world: World) -> None:
    other_boot = uuid4()
    sibling = await world.create_machine()
    mine = [await world.claimed(), await world.running()]
    asked = await world.running()
    await world.store.executions.request_cancel(asked.id, world.tick())
    spared = [
        await world.create(),
        await world.create(awake=False),
        await world.create(boot_id=other_boot),
        await world.running(machine_id=sibling.id),
        await world.ended(),
    ]
    lost = outcome(E.FAILED, world.tick())
    ended = await world.store.executions.end_boot(world.machine.id, world.boot, lost)
    assert [one.id for one in ended] == [mine[0].id, mine[1].id, asked.id]
    assert [one.error_code for one in ended] == [ErrorCode.MACHINE_LOST, ErrorCode.MACHINE_LOST, ErrorCode.CANCELLED]
    assert [one.state for one in ended] == [S.FAILED, S.FAILED, S.CANCELLED]
    for one in (*ended, *spared):
        assert await world.stored(one) == one
    rest = await world.store.executions.end_boot(world.machine.id, None, lost)
    assert [one.id for one in rest] == [one.id for one in spared[:3]]
    assert await world.store.executions.end_boot(world.machine.id, None, lost) == []


async def test_an_illegal_end_of_a_boot_changes_nothing_at_all(world: World) -> None:
    before = [await world.claimed(), await world.running()]
    with pytest.raises(IllegalTransition):
        await world.store.executions.end_boot(world.machine.id, None, outcome(E.EXPIRED, world.tick()))
    assert await world.store.executions.open() == before


@pytest.mark.parametrize("state", [S.WAKE_IN_PROGRESS, S.QUEUED])
async def test_cancelling_an_unclaimed_one_ends_it(world: World, state: ExecutionState) -> None:
    before = await world.in_state(state)
    ended = await world.store.executions.request_cancel(before.id, world.tick())
    assert ended is not None
    assert (ended.state, ended.cancel_requested_at, ended.completed_at) == (S.CANCELLED, world.now, world.now)
    assert ended.error_code is ErrorCode.CANCELLED
    assert ended.error_message
    assert await world.stored(before) == ended


@pytest.mark.parametrize("state", [S.QUEUED, S.RUNNING])
async def test_cancelling_a_claimed_one_is_recorded_once(world: World, state: ExecutionState) -> None:
    before = await (world.running() if state is S.RUNNING else world.claimed())
    asked = await world.store.executions.request_cancel(before.id, world.tick())
    assert asked == replace(before, cancel_requested_at=world.now)
    assert await world.store.executions.request_cancel(before.id, world.tick()) == asked
    assert await world.stored(before) == asked


async def test_one_that_ends_by_itself_after_its_end_was_asked_for_is_cancelled_with_its_exit_code(
    world: World,
) -> None:
    running = await world.running()
    asked = await world.store.executions.request_cancel(running.id, world.tick())
    assert asked is not None
    ended = await world.report(asked, outcome=outcome(E.SUCCEEDED, world.tick()))
    assert (ended.state, ended.exit_code, ended.error_code) == (S.CANCELLED, 0, ErrorCode.CANCELLED)
    assert ended.error_message


@pytest.mark.parametrize("state", TERMINAL)
async def test_cancelling_a_finished_one_changes_nothing(world: World, state: ExecutionState) -> None:
    before = await world.in_state(state)
    assert await world.store.executions.request_cancel(before.id, world.tick()) == before
    assert await world.stored(before) == before


@pytest.mark.parametrize(("state", "event"), list(product([S.QUEUED, S.RUNNING], ENDS)))
async def test_a_reported_end_follows_the_table_or_changes_nothing(
    world: World, state: ExecutionState, event: ExecutionEvent
) -> None:
    before = await (world.running() if state is S.RUNNING else world.claimed())
    if event in TRANSITIONS[state]:
        after = await world.report(before, outcome=outcome(event, world.tick()))
        assert after.state is TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition) as raised:
            await world.try_report(before, outcome=outcome(event, world.tick()))
        assert (raised.value.state, raised.value.event) == (state, event)
        after = before
    assert await world.stored(before) == after
    assert len(await world.log(after)) == after.last_sequence


@pytest.mark.parametrize("state", [S.WAKE_IN_PROGRESS, S.QUEUED])
async def test_what_never_started_cannot_succeed(world: World, state: ExecutionState) -> None:
    before = await world.in_state(state)
    with pytest.raises(IllegalTransition):
        await world.store.executions.end_unstarted(before.id, outcome(E.SUCCEEDED, world.tick()))
    assert await world.stored(before) == before


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (E.SUCCEEDED, {"exit_code": 1}),
        (E.SUCCEEDED, {"exit_code": None}),
        (E.FAILED, {"exit_code": 1, "signal": 9}),
        (E.FAILED, {"error_code": None, "error_message": None}),
        (E.FAILED, {"error_message": None}),
        (E.CANCELLED, {"error_code": None}),
    ],
)
async def test_an_end_that_contradicts_itself_is_refused(
    world: World, event: ExecutionEvent, fields: dict[str, object]
) -> None:
    before = await world.running()
    with pytest.raises(ValueError, match="contradicts itself"):
        await world.try_report(before, outcome=outcome(event, world.tick(), **fields))
    assert await world.stored(before) == before
    assert len(await world.log(before)) == before.last_sequence


async def test_what_never_started_has_no_exit_code(world: World) -> None:
    before = await world.claimed()
    with pytest.raises(ValueError, match="contradicts itself"):
        await world.try_report(before, outcome=outcome(E.FAILED, world.tick(), exit_code=1))
    assert await world.stored(before) == before


async def test_a_long_command_comes_back_as_it_was(world: World) -> None:
    command = ("python3", "-c", "x" * 500_000, "", "ü\u2028\U0001f400", "\\\"'\n\t")
    made = await world.create(command=command, start_by=world.now + MINUTE, stdin_mode=StdinMode.OPEN)
    assert (await world.stored(made)).command == command
