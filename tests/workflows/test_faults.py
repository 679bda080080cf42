"""Servers that are killed, and workers that are asked to end, in the midst of runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dormice.workflows import Workflows
from tests.conftest import StartLive
from tests.live import Live
from tests.wait import wait_until
from tests.workflows import flows
from tests.workflows.conftest import (
    LOCAL,
    SECONDS,
    StartWorker,
    active_workers,
    marks,
    open_up,
    wait_for_mark,
)
from tests.workflows.flows import Place

LOST_MS = 60_000
"""Longer than anything takes here, however busy the host is."""


@pytest.fixture(scope="module", name="live")
def _live(start_live: StartLive) -> Iterator[Live]:
    """A server that gives no worker up."""
    with start_live("process", **{LOCAL: "true", "DORMICE_LIMIT_WORKER_LOST_MS": str(LOST_MS)}) as live:
        yield live


def test_runs_go_on_where_they_are_when_the_server_is_killed(
    workflows: Workflows, place: Place, start_worker: StartWorker, live: Live
) -> None:
    worker = start_worker()
    workers = active_workers(live)
    held = workflows.start(flows.held, place)
    wait_for_mark(place, "held")
    live.kill("server")
    live.wait_ready()
    open_up(place)
    assert workflows.wait(held, timeout=SECONDS).result == ["before", "held", "after"]
    assert marks(place, "held") == marks(place, "after") == [worker.pid]
    wait_until(lambda: active_workers(live) == workers, SECONDS, "connected again")


def test_what_waits_when_the_server_is_killed_goes_on(
    workflows: Workflows, place: Place, start_worker: StartWorker, live: Live
) -> None:
    start_worker()
    run_id = workflows.start(flows.mixed, place)
    wait_until(lambda: workflows.get(run_id).status == "waiting", SECONDS, "waiting")
    live.kill("server")
    live.wait_ready()
    workflows.publish(f"mixed/{run_id}", 7)
    assert workflows.wait(run_id, timeout=SECONDS).result == ["step", 7, 4, None]
    assert (len(marks(place, "step")), len(marks(place, "started"))) == (1, 2)


def test_a_worker_that_is_asked_to_end_finishes_what_it_has(
    workflows: Workflows, place: Place, start_worker: StartWorker, live: Live
) -> None:
    first = start_worker()
    run_id = workflows.start(flows.held, place)
    wait_for_mark(place, "held")
    first.send_signal(signal.SIGTERM)
    wait_until(lambda: not active_workers(live), SECONDS, "nothing more is given to it")
    later = workflows.start(flows.three_steps, 1)
    open_up(place)
    assert workflows.wait(run_id, timeout=SECONDS).status == "completed"
    assert first.wait(SECONDS) == 0
    assert workflows.get(later).status == "queued"
    start_worker()
    assert workflows.wait(later, timeout=SECONDS).result == 4


def test_a_worker_that_ends_gives_back_what_takes_too_long(
    workflows: Workflows, place: Place, start_worker: StartWorker
) -> None:
    first = start_worker("--grace", "0")
    run_id = workflows.start(flows.held, place)
    wait_for_mark(place, "held")
    second = start_worker()
    first.send_signal(signal.SIGTERM)
    assert first.wait(SECONDS) == 0
    assert wait_for_mark(place, "held", 2) == [first.pid, second.pid]
    open_up(place)
    run = workflows.wait(run_id, timeout=SECONDS)
    assert (run.status, run.retry_count) == ("completed", 0)
    assert marks(place, "before") == [first.pid]


def test_a_run_whose_thread_goes_on_is_given_to_nobody_else(
    workflows: Workflows, place: Place, start_worker: StartWorker, live: Live
) -> None:
    first = start_worker("--grace", "0")
    run_id = workflows.start(flows.held_thread, place)
    wait_for_mark(place, "thread")
    holder = workflows.get(run_id).assigned_to_worker
    second = start_worker()
    first.send_signal(signal.SIGTERM)
    wait_until(lambda: holder not in active_workers(live), SECONDS, "nothing more is given to it")
    run = workflows.get(run_id)
    assert (run.status, run.assigned_to_worker) == ("running", holder)
    open_up(place)
    assert workflows.wait(run_id, timeout=SECONDS).status == "completed"
    assert first.wait(SECONDS) == 0
    assert marks(place, "thread") == [first.pid, second.pid]


def test_a_worker_that_is_started_again_for_files_ends_when_who_does_that_is_killed(
    workflows: Workflows, place: Place, live: Live, start_worker: StartWorker
) -> None:
    starter = start_worker("--reload")
    workflows.run(flows.failing, place, timeout=SECONDS)
    [pid] = marks(place, "once")
    starter.kill()
    try:
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), SECONDS, "the worker has ended")
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert active_workers(live) == []


def test_a_worker_is_started_again_when_a_file_changes(
    workflows: Workflows, live: Live, tmp_path: Path, start_worker: StartWorker
) -> None:
    source = tmp_path / "changing.py"
    text = (
        "from dormice.workflows import Context, workflow\n"
        "@workflow\n"
        "async def changing(ctx: Context) -> int:\n"
        "    return {}\n"
    )
    source.write_text(text.format(1))
    start_worker("--reload", target="changing", directory=tmp_path)
    assert workflows.run("changing", timeout=SECONDS) == 1
    before = active_workers(live)
    source.write_text(text.format(2))
    os.utime(source, ns=(1, 1))
    wait_until(lambda: (now := active_workers(live)) and now != before, SECONDS, "another worker")
    assert workflows.run("changing", timeout=SECONDS) == 2
