"""Workers that die, or stop and go on, in the midst of runs: their runs go on elsewhere."""

from __future__ import annotations

import signal
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
