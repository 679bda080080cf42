"""Workers that die, or stop and go on, in the midst of runs: their runs go on elsewhere."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from dormice.workflows import Workflows
from tests.conftest import StartLive
from tests.live import Live
from tests.wait import wait_until
from tests.workflows import flows
from tests.workflows.conftest import LOCAL, SECONDS, StartWorker, active_workers, marks, open_up, wait_for_mark
from tests.workflows.flows import Place

LOST_MS = 6_000
"""Soon, and yet longer than a busy host keeps a worker from its turn."""
BETWEEN_SECONDS = 0.9 * LOST_MS / 1000
"""The worker has let go, and the server has not given it up."""


@pytest.fixture(scope="module", name="live")
def _live(start_live: StartLive) -> Iterator[Live]:
    with start_live("process", **{LOCAL: "true", "DORMICE_LIMIT_WORKER_LOST_MS": str(LOST_MS)}) as live:
        yield live


def test_steps_are_not_run_again_when_their_worker_is_killed(
    workflows: Workflows, place: Place, start_worker: StartWorker
) -> None:
    first = start_worker()
    run_id = workflows.start(flows.held, place)
    wait_for_mark(place, "held")
    first.kill()
    first.wait()
    second = start_worker()
    assert wait_for_mark(place, "held", 2)[1] == second.pid
    open_up(place)
    run = workflows.wait(run_id, timeout=SECONDS)
    assert (run.status, run.result) == ("completed", ["before", "held", "after"])
    assert marks(place, "before") == [first.pid]
    assert marks(place, "held-done") == marks(place, "after") == [second.pid]


def test_a_worker_that_stops_and_goes_on_has_lost_its_runs(
    workflows: Workflows, place: Place, start_worker: StartWorker, live: Live
) -> None:
    first = start_worker()
    [first_id] = active_workers(live)
    run_id = workflows.start(flows.held, place)
    wait_for_mark(place, "held")
    first.send_signal(signal.SIGSTOP)
    second = start_worker()
    wait_for_mark(place, "held", 2)
    # Now both have the run; the first one may go on in the midst of its step.
    assert workflows.get(run_id).assigned_to_worker != first_id
    first.send_signal(signal.SIGCONT)
    wait_until(lambda: len(active_workers(live)) == 2, SECONDS, "the first one is connected again, as another worker")
    assert first_id not in active_workers(live)
    assert len(wait_for_mark(place, "cancelled")) == 1
    open_up(place)
    run = workflows.wait(run_id, timeout=SECONDS)
    assert (run.status, run.result) == ("completed", ["before", "held", "after"])
    assert marks(place, "held-done") == marks(place, "after") == [second.pid]
    assert marks(place, "cancelled") == [first.pid]


def test_a_run_goes_on_when_its_worker_let_go_of_it_and_was_not_given_up(
    workflows: Workflows, place: Place, start_worker: StartWorker
) -> None:
    worker = start_worker()
    run_id = workflows.start(flows.held, place)
    wait_for_mark(place, "held")  # it was heard of just now: the step before is recorded
    until = time.monotonic() + BETWEEN_SECONDS
    worker.send_signal(signal.SIGSTOP)
    wait_until(lambda: time.monotonic() > until, SECONDS, "between lease and loss")
    worker.send_signal(signal.SIGCONT)
    wait_for_mark(place, "held", 2)
    open_up(place)
    run = workflows.wait(run_id, timeout=SECONDS)
    assert (run.status, run.result) == ("completed", ["before", "held", "after"])
    assert len(marks(place, "before")) == len(marks(place, "cancelled")) == len(marks(place, "held-done")) == 1


@pytest.mark.parametrize("holds_a_run", [False, True])
def test_a_worker_ends_without_its_server(
    workflows: Workflows, place: Place, start_worker: StartWorker, live: Live, *, holds_a_run: bool
) -> None:
    worker = start_worker("--grace", "0")
    if holds_a_run:
        run_id = workflows.start(flows.held, place)
        wait_for_mark(place, "held")
    live.stop()
    try:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(SECONDS) == 0
    finally:
        live.start()
    if holds_a_run:
        workflows.cancel(run_id)
