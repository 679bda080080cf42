"""Workflows on a worker of our own, against a server that needs no key and one that does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dormice.client import BadRequestError, WaitTimeoutError
from dormice.client.httpx_transport import HttpxResponse, HttpxTransport
from dormice.client.transport import Request
from dormice.workflows import RunFailed, Workflows
from tests.live import Live
from tests.wait import wait_until
from tests.workflows import flows
from tests.workflows.conftest import SECONDS, StartWorker, marks, open_up, wait_for_mark
from tests.workflows.flows import Place


@pytest.fixture(name="worker", autouse=True)
def _worker(start_worker: StartWorker) -> Iterator[subprocess.Popen[bytes]]:
    worker = start_worker()
    yield worker
    assert worker.poll() is None, "the worker has ended"


def test_steps_are_run_and_the_result_is_typed(workflows: Workflows) -> None:
    assert workflows.run(flows.three_steps, 1, timeout=SECONDS) == 4


def test_the_timeout_of_a_workflow_is_that_of_runs_which_others_start(workflows: Workflows) -> None:
    run_id = workflows.start("bounded", None)
    assert workflows.wait(run_id, timeout=SECONDS).run_timeout_seconds == 7


class _Counting(HttpxTransport):
    """Remembers what was asked for."""

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url)
        self.asked: list[str] = []

    def send(self, request: Request) -> HttpxResponse:
        self.asked.append(f"{request.method} {request.url.partition('/api/')[2]}")
        return super().send(request)


def test_a_run_and_its_result_take_one_request(workflows: Workflows, live: Live) -> None:
    counting = _Counting(live.base_url)
    with Workflows(transport=counting) as client:
        assert client.run(flows.three_steps, 1) == 4
    assert counting.asked == ["POST v1/workflows/three_steps/run?wait_ms=30000"]


def test_a_run_that_lasts_longer_than_the_wait_is_told_as_it_is(workflows: Workflows, place: Place, live: Live) -> None:
    path = "/api/v1/workflows/held/run"
    body = {"payload": msgspec.to_builtins(place)}
    with live.client() as api:
        for wait_ms, known in ((0, False), (1, True)):
            submitted = api.post(path, params={"wait_ms": wait_ms}, json=body).raise_for_status().json()
            assert ("execution" in submitted) is known
            if known:
                assert submitted["execution"]["id"] == submitted["execution_id"]
                assert submitted["execution"]["completed_at"] is None
        assert api.post(path, params={"wait_ms": -1}, json=body).status_code == 422
    with pytest.raises(WaitTimeoutError):
        workflows.run(flows.held, place, timeout=0.05)
    open_up(place)


def test_a_run_waits_for_time_events_and_children_and_is_replayed(workflows: Workflows, place: Place) -> None:
    run_id = workflows.start(flows.everything, place)
    workflows.publish(f"order/{run_id}", {"cents": 1, "by": "bank"})  # maybe before the run waits for it
    run = workflows.wait(run_id, timeout=SECONDS)
    assert (run.status, run.error) == ("completed", None)
    assert {name: run.result[name] for name in ("receipt", "data", "child")} == {
        "receipt": 100,
        "data": "bank",
        "child": 13,
    }
    assert len(marks(place, "thread")) == 1
    assert len(marks(place, "started")) >= 3


def test_a_run_waits_once_for_twenty_children(workflows: Workflows, place: Place) -> None:
    place.count = 20
    assert workflows.run(flows.family, place, timeout=SECONDS) == [number + 3 for number in range(20)]
    assert len(marks(place, "started")) == 2


def test_a_run_waits_once_for_different_things(workflows: Workflows, place: Place) -> None:
    run_id = workflows.start(flows.mixed, place)
    wait_for_mark(place, "step")
    workflows.publish(f"mixed/{run_id}", 7)
    assert workflows.wait(run_id, timeout=SECONDS).result == ["step", 7, 4, None]
    assert len(marks(place, "started")) == 2
    assert len(marks(place, "step")) == 1


def test_a_branch_that_waits_lets_the_step_of_another_one_end(workflows: Workflows, place: Place) -> None:
    run_id = workflows.start(flows.side_by_side, place)
    wait_for_mark(place, "held")
    open_up(place)
    assert workflows.wait(run_id, timeout=SECONDS).result == [None, "held"]
    assert (len(marks(place, "held")), len(marks(place, "started"))) == (1, 2)


def test_an_event_that_does_not_come_ends_the_wait(workflows: Workflows) -> None:
    assert "did not come in time" in workflows.run(flows.impatient, timeout=SECONDS)


def test_a_key_that_is_used_twice_is_an_error(workflows: Workflows) -> None:
    with pytest.raises(RunFailed, match="'same' is used twice in one run"):
        workflows.run(flows.same_key, timeout=SECONDS)


def test_a_step_is_tried_again_and_its_failure_is_recorded(workflows: Workflows, place: Place) -> None:
    run = workflows.wait(workflows.start(flows.failing_step, place), timeout=SECONDS)
    assert (run.status, run.retry_count) == ("failed", 1)
    assert "step 'second' failed: NonRetryable: final failure" in (run.error or "")
    assert (len(marks(place, "common")), len(marks(place, "final"))) == (3, 1)


def test_an_attempt_that_fails_is_made_again_and_no_step_is(workflows: Workflows, place: Place) -> None:
    place.count = 1
    run = workflows.wait(workflows.start(flows.failing, place), timeout=SECONDS)
    assert (run.status, run.result, run.retry_count, run.error) == ("completed", 1, 1, None)
    assert (len(marks(place, "started")), len(marks(place, "once"))) == (2, 1)


def test_a_child_that_fails_fails_its_step(workflows: Workflows, place: Place) -> None:
    assert "this worker has no workflow 'no such workflow'" in workflows.run(flows.failing_child, place)


def test_what_is_never_awaited_fails_the_run_and_is_named(workflows: Workflows) -> None:
    run = workflows.wait(workflows.start(flows.awaits_too_little), timeout=SECONDS)
    assert (run.status, run.retry_count) == ("failed", 1)
    assert run.error == "never awaited, so nothing of it was done: ctx.step('one'), ctx.sleep('rest')"
    with pytest.raises(RunFailed, match=r"TypeError: .*\(never awaited: ctx\.step\('one'\)\)"):
        workflows.run(flows.reckons_with_what_it_does_not_await, timeout=SECONDS)


def test_a_step_may_be_awaited_later_or_cancelled_before_it_begins(workflows: Workflows) -> None:
    assert workflows.run(flows.awaits_late_or_cancels, timeout=SECONDS) == 2


def test_a_run_that_holds_the_event_loop_of_its_worker_is_named(workflows: Workflows, place: Place, live: Live) -> None:
    run_id = workflows.start(flows.holds_the_loop, place)
    for name in ("first", "second"):
        wait_for_mark(place, name)
        begin = len(live.log.read_text())
        said = f"run {run_id} of holds_the_loop has held the event loop"

        def told(begin: int = begin, said: str = said) -> str:
            return live.log.read_text()[begin:].partition(said)[2]

        assert "in _block" in wait_until(told, SECONDS, "a warning")
        (Path(place.directory) / f"after {name}").touch()
    assert workflows.wait(run_id, timeout=SECONDS).result == 1
    assert live.log.read_text().count(said) == 2


def test_a_result_that_is_not_json_fails_the_run(workflows: Workflows) -> None:
    with pytest.raises(RunFailed, match="the result of not_json cannot be written as JSON"):
        workflows.run(flows.not_json, timeout=SECONDS)


def test_a_result_of_the_wrong_type_fails_the_run_at_once(workflows: Workflows, place: Place) -> None:
    with pytest.raises(RunFailed, match=r"result\['cents'\] does not fit the workflow's output_schema"):
        workflows.run(flows.not_as_annotated, place, timeout=SECONDS)
    assert len(marks(place, "started")) == 1


def test_a_payload_of_the_wrong_type_is_refused(workflows: Workflows) -> None:
    with pytest.raises(BadRequestError, match="payload does not fit the workflow's input_schema"):
        workflows.run("three_steps", "no number", timeout=SECONDS)


def test_a_run_that_is_cancelled_is_told_and_confirmed(workflows: Workflows, place: Place) -> None:
    run_id = workflows.start(flows.held, place)
    wait_for_mark(place, "held")
    workflows.cancel(run_id)
    run = workflows.wait(run_id, timeout=SECONDS)
    assert (run.status, run.cancelled_by) == ("cancelled", "manual")
    assert len(marks(place, "cancelled")) == 1
    assert not marks(place, "held-done")


def test_a_run_is_cancelled_only_once_its_thread_has_ended(workflows: Workflows, place: Place) -> None:
    run_id = workflows.start(flows.held_thread, place)
    wait_for_mark(place, "thread")
    assert workflows.cancel(run_id).status == "pending_cancel"
    open_up(place)
    assert workflows.wait(run_id, timeout=SECONDS).status == "cancelled"
    assert len(marks(place, "thread-done")) == 1


def test_cancelling_a_parent_ends_its_child(workflows: Workflows, place: Place) -> None:
    run_id = workflows.start(flows.parent_of_held, place)
    wait_for_mark(place, "held")
    workflows.cancel(run_id)
    assert workflows.wait(run_id, timeout=SECONDS).status == "cancelled"
    wait_for_mark(place, "cancelled")


def test_no_more_runs_than_the_queue_allows_are_with_workers(
    workflows: Workflows, place: Place, start_worker: StartWorker
) -> None:
    start_worker()
    runs = [workflows.start("narrow", place) for _ in range(8)]
    ended = [workflows.wait(run_id, timeout=SECONDS) for run_id in runs]
    assert [(run.status, run.error, run.queue_name) for run in ended] == [("completed", None, "narrow")] * 8


def test_the_same_idempotency_key_gives_the_same_run(workflows: Workflows, live: Live) -> None:
    first, second = (workflows.start(flows.three_steps, 1, idempotency_key=live.instance) for _ in range(2))
    assert first == second
