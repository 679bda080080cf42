"""Lists of runs: each leading filter, page by page, with a bound to what one page looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dormice.domain.run import Run, RunState, Step
from dormice.store.interface import IdempotencyClaim, KeyReused, Replayed
from dormice.store.lists import RunFilter
from dormice.store.sqlite import run_lists
from dormice.store.workflows import Attempt, Refused, Submitted, WholeStore
from tests.store.run_world import RunWorld
from tests.store.world import START

HOUR = 3600 * 1_000_000


@pytest.fixture(name="runs")
async def _runs(store: WholeStore) -> RunWorld:
    return await RunWorld.made(store)


async def listed(world: RunWorld, *, limit: int = 2, **which: Any) -> list[str]:
    """All runs of a list, page by page."""
    found: list[str] = []
    before = None
    while True:
        page = await world.store.lists.page(world.project.id, RunFilter(**which), before=before, limit=limit)
        assert len(page.runs) <= limit
        found += [run.id for run in page.runs]
        before = page.before
        if before is None:
            return found


def ids(runs: Sequence[Run]) -> list[str]:
    return [run.id for run in reversed(runs)]


async def test_filters_together_leave_what_fits_all_of_them(runs: RunWorld) -> None:
    a = await runs.queued(workflow_id="a", session_id="s", user_id="u")
    b = await runs.running(workflow_id="b", session_id="s", queue_name="a")
    c = await runs.running(workflow_id="a", user_id="u", queue_name="q")
    await runs.complete(c)
    children = await runs.batch(b, 3)
    assert await listed(runs) == ids([a, b, c, *children])
    assert await listed(runs, queue_name="a") == ids([a, b])
    assert await listed(runs, queue_name="q") == ids([c])
    assert await listed(runs, workflow_ids=frozenset({"a", "b"})) == ids([a, b, c])
    assert await listed(runs, workflow_ids=frozenset()) == []
    assert await listed(runs, other_workflows=frozenset({"a", "child"})) == ids([b])
    assert await listed(runs, session_id="s", user_id="u") == ids([a])
    assert await listed(runs, user_id="u") == ids([a, c])
    assert await listed(runs, batch_id=children[0].batch_id, states=frozenset({RunState.QUEUED})) == ids(children)
    assert await listed(runs, parent_id=b.id) == ids(children)
    assert await listed(runs, roots=True) == ids([a, b, c])
    assert await listed(runs, states=frozenset({RunState.QUEUED})) == ids([a, *children])
    assert await listed(runs, states=frozenset({RunState.COMPLETED, RunState.FAILED})) == ids([c])
    assert await listed(runs, states=frozenset({RunState.COMPLETED, RunState.WAITING})) == ids([b, c])
    assert await listed(runs, states=frozenset()) == []
    assert await listed(runs, since=b.created_at, until=c.created_at) == ids([b])
    assert await listed(runs, since=b.created_at, workflow_ids=frozenset({"a"})) == ids([c])


async def test_another_projects_runs_are_in_no_list(runs: RunWorld) -> None:
    mine = await runs.queued(session_id="s", user_id="u", queue_name="q")
    children = await runs.batch(await runs.running(), 2)
    stranger = await RunWorld.made(runs.store, default=False)
    for which in (
        {},
        {"session_id": "s"},
        {"user_id": "u"},
        {"queue_name": "q"},
        {"parent_id": children[0].parent_id},
        {"batch_id": children[0].batch_id},
        {"states": frozenset(RunState)},
        {"workflow_ids": frozenset({mine.workflow_id})},
    ):
        assert await listed(stranger, **which) == []
    assert await runs.store.lists.roots_of_session(stranger.project.id, "s") == 0
    assert await runs.store.lists.roots_of_session(runs.project.id, "s") == 1


async def test_one_page_looks_at_so_many_runs_and_goes_on(runs: RunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = await runs.queued(session_id="rare")
    for _ in range(9):
        await runs.queued()
    monkeypatch.setattr(run_lists, "MOST_LOOKED_AT", 4)
    which = RunFilter(roots=True, other_workflows=frozenset({"x"}), since=0)
    first = await runs.store.lists.page(runs.project.id, which, before=None, limit=100)
    assert (len(first.runs), first.before) == (4, first.runs[-1].number)
    rare = RunFilter(workflow_ids=frozenset({"w"}), until=wanted.created_at + 1)
    empty = await runs.store.lists.page(runs.project.id, rare, before=None, limit=100)
    assert (list(empty.runs), empty.before is not None) == ([], True)
    assert await listed(runs, workflow_ids=frozenset({"w"}), until=wanted.created_at + 1) == [wanted.id]


async def test_a_time_long_ago_is_found_without_a_walk(runs: RunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    old = await runs.queued()
    runs.now = START + 1000 * 24 * HOUR
    for _ in range(9):
        await runs.queued()
    monkeypatch.setattr(run_lists, "MOST_LOOKED_AT", 2)
    until = await runs.store.lists.page(runs.project.id, RunFilter(until=START + HOUR), before=None, limit=5)
    assert [run.id for run in until.runs] == [old.id]
    since = await runs.store.lists.page(
        runs.project.id, RunFilter(since=runs.now + 2 * 24 * HOUR), before=None, limit=5
    )
    assert (list(since.runs), since.before) == ([], None)


async def test_a_clock_that_was_put_back_hides_no_run(runs: RunWorld) -> None:
    early = await runs.queued()
    runs.now -= run_lists.CLOCK_SLACK_US // 2
    late = await runs.queued()
    assert late.created_at < early.created_at
    assert await listed(runs, until=early.created_at) == [late.id]
    assert await listed(runs, since=early.created_at) == [early.id]


async def test_long_documents_are_left_out(runs: RunWorld) -> None:
    short = await runs.running(payload=b'"short"')
    await runs.complete(short, b"[1]")
    long = await runs.queued(payload=b'"' + b"x" * 100 + b'"')
    found = await runs.store.lists.documents([short, long], most_bytes=50)
    assert [(one.payload, one.result, one.omitted) for one in found] == [
        (b'"short"', b"[1]", False),
        (None, None, True),
    ]


async def test_a_rerun_takes_over_what_was_done_before_a_step(runs: RunWorld) -> None:
    run = await runs.running()
    for key in ("b", "a", "c"):
        step = Step(step_key=key, outputs=b"1", completed_at=runs.tick())
        await runs.store.runs.put_step(runs.project.id, run.id, Attempt(), step)
    before = await runs.store.runs.steps(run)
    made = await runs.store.runs.rerun(run, runs.new(), "c", None)
    assert isinstance(made, Submitted)
    [again] = made.runs
    assert again.state is RunState.QUEUED
    assert [step.step_key for step in await runs.store.runs.steps(again)] == ["a", "b"]
    assert await runs.store.runs.steps(run) == before
    assert await runs.read(run) == run
    assert isinstance(await runs.store.runs.rerun(run, runs.new(), "never", None), Refused)
    assert len(await listed(runs)) == 2


async def test_a_rerun_with_a_key_is_made_once(runs: RunWorld) -> None:
    run = await runs.queued()
    claim = _claim(runs)
    first = await runs.store.runs.rerun(run, runs.new(), None, claim)
    assert isinstance(first, Submitted)
    assert await runs.store.runs.rerun(run, runs.new(), None, claim) == Replayed(first.runs[0].id)
    other = await runs.store.runs.rerun(run, runs.new(), None, _claim(runs, request="other"))
    assert isinstance(other, KeyReused)
    assert len(await listed(runs)) == 2


def _claim(world: RunWorld, request: str = "request") -> IdempotencyClaim:
    return IdempotencyClaim(scope="x", key="k", request_hash=request, now=world.now, keep_until=world.now + HOUR)
