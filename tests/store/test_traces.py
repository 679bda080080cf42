"""Spans, what sessions remember, and questions: what the port promises of them."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

from dormice.domain.run import WaitKind
from dormice.store.interface import Key, KeyRefusal
from dormice.store.sessions import Memory, Message
from dormice.store.traces import Span, TraceFilter
from dormice.store.workflows import NewEvent, Published, Question, WholeStore
from tests.store.run_world import RunWorld
from tests.store.world import START

TRACE = "0" * 31 + "1"


@pytest.fixture(name="runs")
async def _runs(store: WholeStore) -> RunWorld:
    return await RunWorld.made(store)


def span(identity: str = "a", at: int = 1, **fields: Any) -> Span:
    made = Span(trace_id=TRACE, span_id=identity, parent_span_id=None, name="n", span_type="workflow", started_at=at)
    return replace(made, **fields)


async def put(world: RunWorld, *spans: Span) -> None:
    await world.store.traces.put(world.project.id, spans, now=world.tick())


async def test_a_span_comes_back_as_it_was(runs: RunWorld) -> None:
    whole = span(
        ended_at=2,
        attributes=b'{"a": 1}',
        events=b"[]",
        input=b'"\xc3\xa4"',
        output=b"0",
        error=b"{}",
        initial_state=b"[1]",
        final_state=b"false",
    )
    bare = span("b", 3)
    await put(runs, bare, whole)
    found, more = await runs.store.traces.spans(runs.project.id, TRACE, limit=9, max_bytes=1 << 20)
    assert (found, more) == ([whole, bare], False)
    one, more = await runs.store.traces.spans(runs.project.id, TRACE, limit=1, max_bytes=1 << 20)
    assert (one, more) == ([whole], True)
    one, more = await runs.store.traces.spans(runs.project.id, TRACE, limit=9, max_bytes=1)
    assert (one, more) == ([whole], True)


async def test_a_trace_is_known_by_its_first_and_its_last_root_span(runs: RunWorld) -> None:
    await put(runs, span("b", 5, error=b"1"), span("x", 1, parent_span_id="b"))
    await put(runs, span("c", 9, span_type="other"), span("a", 2, name="first"))
    root = await runs.store.traces.root(runs.project.id, TRACE)
    assert root is not None
    assert (root.first.span_id, root.last.span_id) == ("a", "c")
    [listed] = await runs.store.traces.page(runs.project.id, TraceFilter(root_span_name="first"), offset=0, limit=5)
    assert listed == root
    failed = TraceFilter(has_error=True)
    assert await runs.store.traces.page(runs.project.id, failed, offset=0, limit=5) == []


async def test_many_spans_are_recorded_all_or_none(runs: RunWorld) -> None:
    await put(runs, *(span(str(number), number) for number in range(1, 501)))
    found, _ = await runs.store.traces.spans(runs.project.id, TRACE, limit=1_000, max_bytes=1 << 20)
    assert len(found) == 500
    wrong = replace(span("new"), name=None)  # what no caller sends
    with pytest.raises(ValueError, match="NOT NULL"):
        await put(runs, span("1", 1, name="changed"), wrong)
    found, _ = await runs.store.traces.spans(runs.project.id, TRACE, limit=1, max_bytes=1 << 20)
    assert found[0].name == "n"


async def test_old_traces_memories_and_messages_go(runs: RunWorld) -> None:
    await put(runs, *(span(str(number), number) for number in range(900)))
    await runs.store.sessions.remember(runs.project.id, "s", Memory(summary="old"), runs.tick())
    message = Message(id="m", conversation_id="c", agent_id="a", role="user", content=b"1", created_at=runs.tick())
    await runs.store.sessions.say(runs.project.id, message, keep=None)
    kept = runs.tick()
    await runs.store.sessions.remember(runs.project.id, "s2", Memory(summary="new"), kept)
    pieces = 0
    while await runs.store.delete_finished(kept):
        pieces += 1
        assert pieces < 20
    assert pieces > 3
    assert await runs.store.traces.spans(runs.project.id, TRACE, limit=1, max_bytes=1) == ([], False)
    assert await runs.store.sessions.memory(runs.project.id, "s") is None
    assert await runs.store.sessions.memory(runs.project.id, "s2") is not None
    assert await runs.store.sessions.said(runs.project.id, "c", "a", deployment_id=None, limit=9) == []


async def test_a_trace_that_is_still_reported_stays(runs: RunWorld) -> None:
    await put(runs, span("a", 1))
    between = runs.tick()
    await put(runs, span("b", 2))
    while await runs.store.delete_finished(between):
        pass
    found, _ = await runs.store.traces.spans(runs.project.id, TRACE, limit=9, max_bytes=1 << 20)
    assert [one.span_id for one in found] == ["a", "b"]


async def answer(world: RunWorld, topic: str, run_id: str | None = None) -> Published | Question:
    event = NewEvent(id=str(uuid4()), event_type="resume_k", data=b"1")
    return await world.store.events.answer(world.project.id, topic, "k", run_id, event, now=world.tick())


async def test_a_question_is_answered_once(runs: RunWorld) -> None:
    run = await runs.running()
    assert not (await runs.store.events.question(runs.project.id, run.topic, "k", None)).pending
    await runs.publish(run.topic, "suspend_k", run_id=run.id)
    on_its_way = await runs.store.events.question(runs.project.id, run.topic, "k", None)
    assert (on_its_way.pending, on_its_way.answered) == (True, False)
    await runs.wait(run, "k", WaitKind.SUSPEND, topic=run.topic, event_type="resume_k")
    assert (await runs.store.events.question(runs.project.id, run.topic, "k", run.id)).pending
    assert not (await runs.store.events.question(runs.project.id, run.topic, "k", "another")).pending
    done = await answer(runs, run.topic)
    assert isinstance(done, Published)
    assert [one.id for one in done.changed] == [run.id]
    again = await answer(runs, run.topic)
    assert isinstance(again, Question)
    assert (again.pending, again.answered) == (False, True)
    events = await runs.store.events.questions(runs.project.id, run.topic, limit=9)
    assert [one.event_type for one in events] == ["suspend_k", "resume_k"]


async def test_what_has_ended_or_is_another_projects_asks_nothing(runs: RunWorld) -> None:
    run = await runs.running()
    await runs.publish(run.topic, "suspend_k", run_id=run.id)
    stranger = await RunWorld.made(runs.store, default=False)
    assert isinstance(await answer(stranger, run.topic), Question)
    await stranger.publish(run.topic, "suspend_k", run_id=run.id)
    assert isinstance(await answer(stranger, run.topic), Question)
    await runs.complete(run)
    assert isinstance(await answer(runs, run.topic), Question)


async def test_a_projects_keys_are_few_and_have_names_of_their_own(runs: RunWorld) -> None:
    keys = runs.store.keys

    def key(name: str, identity: str) -> Key:
        return Key(
            id=identity,
            organization_id=runs.organization,
            organization="",
            name=name,
            admin=False,
            prefix="sk_",
            created_at=START,
            project_id=runs.project.id,
            last_four="4444",
        )

    first = await keys.create_for_project(key("a", "1"), b"1" * 32, most=2)
    assert isinstance(first, Key)
    assert await keys.create_for_project(key("a", "2"), b"2" * 32, most=2) is KeyRefusal.NAME_TAKEN
    assert isinstance(await keys.create_for_project(key("b", "3"), b"3" * 32, most=2), Key)
    assert await keys.create_for_project(key("c", "4"), b"4" * 32, most=2) is KeyRefusal.TOO_MANY
    found = await keys.find(b"1" * 32)
    assert found is not None
    assert (found.project_id, found.last_four) == (runs.project.id, "4444")
    assert [one.id for one in await keys.of_project(runs.project.id)] == ["1", "3"]
    await keys.revoke(None, "1", START + 1)
    assert [one.id for one in await keys.of_project(runs.project.id)] == ["3"]
    revoked = await keys.find(b"1" * 32)
    assert revoked is not None
    assert revoked.revoked_at == START + 1
    assert isinstance(await keys.create_for_project(key("a", "5"), b"5" * 32, most=2), Key)
