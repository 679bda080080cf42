"""How long runs have waited for a worker, and what they wait for, as memory has it."""

from __future__ import annotations

from pathlib import Path

from dormice.domain.run import RunState, WaitKind
from dormice.engine.orders import Caller
from dormice.engine.runs.orders import RunOrder, Submission
from dormice.store.workflows import Attempt, NewWait
from tests.engine.run_lab import RunLab, StoppedClock, lab

SECOND = 1_000_000
NOON = "2026-06-01T12:00:00+00:00"


async def submit(at: RunLab) -> str:
    caller = Caller(at.project.organization_id, "key", admin=True)
    submission = Submission(runs=[RunOrder(workflow_id="flow", payload=b"1")])
    [run] = await at.engine.runs.submit(caller, at.project, submission)
    return run.id


async def claim(at: RunLab, run_id: str, *, accepted: bool = True) -> None:
    steady = at.clock.steady() if accepted else None
    claimed = await at.store.runs.claim(run_id, "worker", now=at.clock.now(), accepted_at=steady)
    at.engine._ledger.apply(claimed.changed)


async def test_the_age_of_the_queue_is_that_of_its_longest_waiting_run(tmp_path: Path) -> None:
    clock = StoppedClock(NOON)
    async with lab(tmp_path, clock) as at:
        await at.register("d1")
        first = await submit(at)
        clock.forward(5)
        second = await submit(at)
        clock.forward(2)
        assert (at.engine.census().ready, at.engine.census().longest_ready_us) == (2, 7 * SECOND)
        await claim(at, first, accepted=False)  # until it says that it takes it, it has waited for nothing
        run = at.engine._board.runs[first]
        await at.engine._dispatcher.release(run, crashed=False)
        assert at.engine.census().longest_ready_us == 7 * SECOND
        await claim(at, first)
        assert (at.engine.census().ready, at.engine.census().longest_ready_us) == (1, 2 * SECOND)
        await at.engine.attempts.fail(at.project, first, Attempt(), "no", retryable=True)
        assert at.engine.census().states[RunState.QUEUED] == 2
        assert at.engine.census().ready == 1, "the moment of its next attempt has not come"
        await claim(at, second)
        assert (at.engine.census().ready, at.engine.census().longest_ready_us) == (0, 0)
        await at.forward(60)
        assert at.engine.census().ready == 1
        assert 0 <= at.engine.census().longest_ready_us < 1 * SECOND


async def test_a_wait_counts_until_its_run_goes_on(tmp_path: Path) -> None:
    clock = StoppedClock(NOON)
    async with lab(tmp_path, clock) as at:
        await at.register("d1")
        run = await submit(at)
        await claim(at, run)
        wait = NewWait(step_key="s", kind=WaitKind.TIME, due_at=clock.now() + SECOND)
        for _ in range(2):  # its answer was lost
            await at.engine.attempts.wait(at.project, run, Attempt(), wait)
        assert at.engine.census().waits[WaitKind.TIME] == 1
    async with lab(tmp_path, clock) as at:
        assert at.engine.census().waits[WaitKind.TIME] == 1
        assert at.engine.census().states[RunState.WAITING] == 1
        await at.forward(1)
        assert at.engine.census().waits[WaitKind.TIME] == 0
        assert (at.engine.census().ready, at.engine.census().states[RunState.WAITING]) == (1, 0)
