"""The port: previews."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dormice.domain.execution import ErrorCode
from dormice.domain.machine import MachineEvent
from dormice.domain.preview import Preview, PreviewEvent, PreviewProtocol, PreviewState, Visibility
from dormice.domain.transitions import IllegalTransition
from dormice.store.interface import IdempotencyClaim, KeyReused, MachineChange, Replayed
from dormice.store.previews import NewPreview, PreviewMoved, TooManyPreviews
from tests.store.world import MINUTE, World

CLAIM = IdempotencyClaim(scope="o POST /previews", key="k", request_hash="1", now=1, keep_until=1 << 60)


def _new(world: World, number: int = 1, *, awake: bool = False) -> NewPreview:
    return NewPreview(
        id=f"pv-{number}",
        organization_id=world.organization,
        machine_id=world.machine.id,
        created_by="key-1",
        port=8_000 + number,
        protocol=PreviewProtocol.HTTPS,
        visibility=Visibility.ORG,
        awake=awake,
        now=world.tick(),
        expires_at=world.now + MINUTE,
    )


async def _made(world: World, number: int = 1, *, awake: bool = False) -> Preview:
    made = await world.store.previews.create(_new(world, number, awake=awake), None, most=100)
    assert isinstance(made, Preview)
    return made


async def test_a_preview_is_as_it_was_ordered(world: World) -> None:
    made = await _made(world)
    assert (made.state, made.ready_at, made.ended_at) == (PreviewState.WAKE_IN_PROGRESS, None, None)
    ready = await _made(world, 2, awake=True)
    assert (ready.state, ready.ready_at) == (PreviewState.READY, ready.created_at)
    previews = world.store.previews
    for preview in (made, ready):
        assert await previews.find(preview.id) == preview
        assert await previews.get(world.organization, world.machine.id, preview.id) == preview
    assert await previews.get("another", world.machine.id, made.id) is None
    assert await previews.get(world.organization, "another", made.id) is None
    assert await previews.find("pv-none") is None
    assert await previews.waking() == [made]


async def test_pages_go_from_new_to_old(world: World) -> None:
    made = [await _made(world, number) for number in range(1, 4)]
    page = await world.store.previews.page(world.organization, world.machine.id, before=None, limit=2)
    assert page == [made[2], made[1]]
    rest = await world.store.previews.page(world.organization, world.machine.id, before=made[1].number, limit=2)
    assert rest == [made[0]]
    assert await world.store.previews.page("another", world.machine.id, before=None, limit=2) == []


async def test_a_key_makes_one_preview(world: World) -> None:
    first = await world.store.previews.create(_new(world), CLAIM, most=100)
    assert isinstance(first, Preview)
    assert await world.store.previews.create(_new(world, 2), CLAIM, most=100) == Replayed(first.id)
    other = replace(CLAIM, request_hash="2")
    assert await world.store.previews.create(_new(world, 3), other, most=100) == KeyReused("1", "2")


async def test_open_ones_are_counted_and_ended_ones_are_not(world: World) -> None:
    first = await _made(world)
    assert await world.store.previews.create(_new(world, 2), CLAIM, most=1) == TooManyPreviews(1)
    await world.store.previews.advance(first, PreviewEvent.CLOSE, world.tick())
    assert isinstance(await world.store.previews.create(_new(world, 2), CLAIM, most=1), Preview)


async def test_a_move_is_guarded_and_who_loses_is_told_the_row(world: World) -> None:
    made = await _made(world)
    ready = await world.store.previews.advance(made, PreviewEvent.AWAKE, world.tick())
    assert isinstance(ready, Preview)
    assert (ready.state, ready.ready_at) == (PreviewState.READY, world.now)
    assert await world.store.previews.advance(made, PreviewEvent.EXPIRE, world.tick()) == PreviewMoved(ready)
    with pytest.raises(IllegalTransition):
        await world.store.previews.advance(ready, PreviewEvent.WAKE_FAILED, world.tick())
    assert await world.store.previews.find(made.id) == ready
    closed = await world.store.previews.advance(ready, PreviewEvent.CLOSE, world.tick())
    assert isinstance(closed, Preview)
    assert closed == await world.store.previews.find(made.id)
    assert closed.ended_at == world.now


async def test_a_failure_says_why(world: World) -> None:
    made = await _made(world)
    with pytest.raises(ValueError, match="contradicts"):
        await world.store.previews.advance(made, PreviewEvent.WAKE_FAILED, world.tick())
    failed = await world.store.previews.advance(
        made, PreviewEvent.WAKE_FAILED, world.tick(), error_code=ErrorCode.WAKE_FAILED, error_message="no"
    )
    assert isinstance(failed, Preview)
    assert failed == await world.store.previews.find(made.id)
    assert (failed.error_code, failed.error_message) == (ErrorCode.WAKE_FAILED, "no")


async def test_due_is_whose_time_or_machine_is_over(world: World) -> None:
    first = await _made(world)
    assert await world.store.previews.due(first.expires_at - 1, 10) == []
    assert await world.store.previews.due(first.expires_at, 10) == [first]
    revision = world.machine.revision
    for event in (MachineEvent.DESTROY, MachineEvent.DESTROYED):
        await world.store.machines.advance(world.machine.id, revision, event, MachineChange(), world.tick())
        revision += 1
    assert await world.store.previews.due(world.now, 10) == [first]
    await world.store.previews.advance(first, PreviewEvent.CLOSE, world.tick())
    assert await world.store.previews.due(1 << 60, 10) == []


async def test_ended_previews_are_forgotten_after_a_time_and_all_go_with_their_machine(world: World) -> None:
    ended, left = await _made(world, 1), await _made(world, 2)
    await world.store.previews.advance(ended, PreviewEvent.CLOSE, world.tick())
    assert await world.store.delete_finished(world.now) == 0
    assert await world.store.delete_finished(world.now + 1) == 1
    assert await world.store.previews.find(ended.id) is None
    assert await world.store.previews.find(left.id) == left
    revision = world.machine.revision
    for event in (MachineEvent.DESTROY, MachineEvent.DESTROYED):
        await world.store.machines.advance(world.machine.id, revision, event, MachineChange(), world.tick())
        revision += 1
    assert await world.store.delete_finished(world.now + 1) == 1
    assert await world.store.previews.find(left.id) is None


async def test_those_that_are_not_over_are_counted_by_state(world: World) -> None:
    previews = world.store.previews
    assert await previews.open(world.now) == {PreviewState.WAKE_IN_PROGRESS: 0, PreviewState.READY: 0}
    first, *_ = [await _made(world, number) for number in range(1, 3)]
    ready = await _made(world, 3, awake=True)
    ended = await _made(world, 4, awake=True)
    await previews.advance(ended, PreviewEvent.CLOSE, world.tick())
    assert await previews.open(world.now) == {PreviewState.WAKE_IN_PROGRESS: 2, PreviewState.READY: 1}
    assert await previews.open(first.expires_at) == {PreviewState.WAKE_IN_PROGRESS: 1, PreviewState.READY: 1}
    assert await previews.open(ready.expires_at) == {PreviewState.WAKE_IN_PROGRESS: 0, PreviewState.READY: 0}
