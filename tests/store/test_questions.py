"""Questions of suspended runs, at the port: an answer goes to the run that asked, and to no other with a step of that name."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from dormice.domain.run import Run, RunState, WaitKind
from dormice.store.workflows import Attempt, NewEvent, NewWait, Published, Question, Suspended, WholeStore
from tests.store.run_world import RunWorld

S = RunState


@pytest.fixture
async def world(store: WholeStore) -> RunWorld:
    return await RunWorld.made(store)


async def asking(world: RunWorld, root: Run, question: bytes) -> Run:
    """Return a run below another one that asks at its step `ok`, as our own worker has it ask."""
    [run] = (await world.submit(world.new(parent_id=root.id, root_id=root.id, root_workflow_id=root.workflow_id))).runs
    run = await world.running(run)
    wait = NewWait(step_key="ok", kind=WaitKind.SUSPEND, topic=root.topic, event_type="resume_ok", question=question)
    attempt = Attempt(worker_id="worker", fence=run.fence)
    done = await world.store.runs.suspend(run.id, attempt, [], [wait], now=world.tick())
    assert isinstance(done, Suspended)
    assert done.run.state is S.WAITING
    return done.run


async def asked(world: RunWorld, root: Run, run: Run | None = None) -> Question:
    return await world.store.events.question(world.project.id, root.topic, "ok", None if run is None else run.id)


async def answer(world: RunWorld, root: Run, data: bytes, run: Run | None = None) -> bool:
    """Answer a run, or whichever is shown; return whether it was waited for."""
    event = NewEvent(id=str(uuid4()), event_type="resume_ok", data=data)
    run_id = None if run is None else run.id
    done = await world.store.events.answer(world.project.id, root.topic, "ok", run_id, event, now=world.tick())
    return isinstance(done, Published)


async def given(world: RunWorld, run: Run) -> object:
    step = await world.store.runs.step(run, "ok")
    return None if step is None else json.loads(step.outputs)["data"]


async def test_an_answer_to_one_run_is_none_to_its_siblings(world: RunWorld) -> None:
    root = await world.running()
    first, second = await asking(world, root, b'"1"'), await asking(world, root, b'"2"')
    assert await answer(world, root, b'"A"', first)
    assert [await given(world, first), await given(world, second)] == ["A", None]
    assert (await world.read(second)).state is S.WAITING
    assert not await answer(world, root, b'"again"', first)
    assert await answer(world, root, b'"B"', second)
    assert [await given(world, first), await given(world, second)] == ["A", "B"]


async def test_of_several_questions_the_last_is_shown_and_answered_then_the_one_before(world: RunWorld) -> None:
    root = await world.running()
    runs = [await asking(world, root, b"%d" % number) for number in range(3)]
    for number in (2, 1, 0):
        shown = await asked(world, root)
        assert shown.pending
        assert shown.asked is not None
        assert (shown.asked.data, shown.run_id) == (b"%d" % number, runs[number].id)
        assert await answer(world, root, b'"to %d"' % number)
        assert [await given(world, run) for run in runs[number:]] == [f"to {n}" for n in range(number, 3)]
        assert [await given(world, run) for run in runs[:number]] == [None] * number
    assert (await asked(world, root)).answered
    assert not await answer(world, root, b'"late"')


async def test_each_run_is_told_of_its_own_question(world: RunWorld) -> None:
    root = await world.running()
    first, second = await asking(world, root, b'"1"'), await asking(world, root, b'"2"')
    await answer(world, root, b'"B"', second)
    question = await asked(world, root, first)
    assert question.pending
    assert question.asked is not None
    assert question.asked.data == b'"1"'
    question = await asked(world, root, second)
    assert (question.pending, question.answered) == (False, True)


async def test_an_answer_to_another_run_is_not_found_by_a_wait_that_comes_later(world: RunWorld) -> None:
    root = await world.running()
    late = await world.running(parent_id=root.id, root_id=root.id, root_workflow_id=root.workflow_id)
    await world.publish(root.topic, "suspend_ok", run_id=late.id)  # as a foreign worker does it: first the event
    first = await asking(world, root, b'"1"')
    assert await answer(world, root, b'"A"', first)
    waiting = await world.wait(late, "ok", WaitKind.SUSPEND, topic=root.topic, event_type="resume_ok")
    assert waiting.run.state is S.WAITING
    assert await answer(world, root, b'"B"', late)
    assert [await given(world, first), await given(world, late)] == ["A", "B"]


async def test_an_answer_to_this_run_is_found_by_a_wait_that_comes_later(world: RunWorld) -> None:
    root = await world.running()
    late = await world.running(parent_id=root.id, root_id=root.id, root_workflow_id=root.workflow_id)
    await world.publish(root.topic, "suspend_ok", run_id=late.id)
    assert await answer(world, root, b'"early"')
    waiting = await world.wait(late, "ok", WaitKind.SUSPEND, topic=root.topic, event_type="resume_ok")
    assert waiting.run.state is S.QUEUED
    assert await given(world, late) == "early"


async def test_an_event_that_anybody_publishes_answers_all(world: RunWorld) -> None:
    root = await world.running()
    runs = [await asking(world, root, b"0") for _ in range(2)]
    await world.publish(root.topic, "resume_ok")
    assert [await given(world, run) for run in runs] == [{"e": 1}] * 2


async def test_a_question_of_nobody_is_answered_to_all_that_wait(world: RunWorld) -> None:
    root = await world.running()
    await world.publish(root.topic, "suspend_ok")
    await world.wait(root, "ok", WaitKind.SUSPEND, topic=root.topic, event_type="resume_ok")
    assert (await asked(world, root)).run_id is None
    assert await answer(world, root, b'"all"')
    assert await given(world, root) == "all"


async def test_answers_go_with_their_events(world: RunWorld) -> None:
    root = await world.running()
    run = await asking(world, root, b"0")
    assert await answer(world, root, b"1", run)
    while await world.store.delete_finished(world.now + 1):
        pass
    assert await world.store.events.page(world.project.id, root.topic, after=0, since=None, limit=9) == []
