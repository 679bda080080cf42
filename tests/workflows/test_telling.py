"""What runs publish of themselves and of anything else, and how often they are tried."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dormice.workflows import Workflow, Workflows
from tests.live import Live
from tests.wait import wait_until
from tests.workflows import telling
from tests.workflows.conftest import SECONDS, StartWorker, marks
from tests.workflows.flows import Place


@pytest.fixture(name="worker", autouse=True)
def _worker(start_worker: StartWorker) -> None:
    start_worker(target="tests.workflows.telling")


def streamed(live: Live, workflow_id: str, run_id: str) -> list[dict[str, Any]]:
    """Return what the stream of a run's events brings until it ends."""
    query = {"workflow_id": workflow_id, "workflow_run_id": run_id, "last_sequence_id": "0"}
    with live.client() as api, api.stream("GET", "/api/v1/events/stream", params=query) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines]


def of_topic(live: Live, topic: str) -> list[dict[str, Any]]:
    with live.client() as api:
        return list(api.get("/api/v1/events", params={"topic": topic}).raise_for_status().json()["events"])


def test_a_run_tells_its_story_once_in_the_words_of_the_foreign_sdk(workflows: Workflows, live: Live) -> None:
    run_id = workflows.start(telling.tells, 1)
    events = streamed(live, "tells", run_id)
    assert {event["topic"] for event in events} == {f"workflow/tells/{run_id}"}
    below = events[4]["data"]["_metadata"]["execution_id"]
    own = {"execution_id": run_id, "workflow_id": "tells"}
    child = {"execution_id": below, "workflow_id": "tells_below"}
    step = {"step_key": "one", "step_type": "run", "_metadata": own}
    bad = {"step_key": "bad", "step_type": "run", "_metadata": own}
    retry = {"max_retries": 2, "base_delay": 0.5, "max_delay": 30.0}
    assert [(event["event_type"], event["data"]) for event in events] == [
        ("workflow_start", {"payload": 1, "_metadata": own}),
        ("step_start", {**step, "data": {"func": "add", **retry}}),
        ("step_finish", {**step, "data": {"result": 2}}),
        ("step_start", {**bad, "data": {"func": "_refuse", **retry}}),
        ("workflow_start", {"payload": 2, "_metadata": child}),
        ("workflow_finish", {"result": 2, "_metadata": child}),
        ("workflow_finish", {"result": 2, "_metadata": own}),
    ]


def test_a_run_from_a_step_on_tells_its_own_start(workflows: Workflows, live: Live) -> None:
    first = workflows.start(telling.tells, 1)
    assert workflows.wait(first, timeout=SECONDS).result == 2
    with live.client() as api:
        made = api.post(f"/api/v1/executions/{first}/rerun", json={"from_step": "rest"}).raise_for_status().json()
    told = streamed(live, "tells", made["execution_id"])
    assert [event["event_type"] for event in told][:2] == ["workflow_start", "step_start"]
    assert told[1]["data"]["step_key"] == "bad"


def test_the_step_key_of_the_start_is_refused_where_it_is_taken(workflows: Workflows) -> None:
    """Else the step would give null when the function is run again."""
    run_id = workflows.start(telling.takes_the_key_of_the_start)
    run = workflows.wait(run_id, timeout=SECONDS)
    assert run.status == "failed"
    assert run.error is not None
    assert "step key 'publish_start' is used twice" in run.error


def test_a_workflow_that_did_not_ask_for_it_tells_nothing(workflows: Workflows, live: Live) -> None:
    run_id = workflows.start(telling.silent)
    assert workflows.wait(run_id, timeout=SECONDS).result == 2
    assert of_topic(live, f"workflow/silent/{run_id}") == []


def test_a_run_publishes_once_for_each_key(workflows: Workflows, live: Live, place: Place) -> None:
    run_id = workflows.start(telling.publishes, place)
    assert workflows.wait(run_id, timeout=SECONDS).result == 1
    assert len(marks(place, "started")) == 3
    [told], [own] = of_topic(live, f"told{place.directory}"), of_topic(live, f"workflow/publishes/{run_id}")
    assert (told["data"], told["event_type"]) == ({"n": 1}, "number")
    assert (own["data"], own["event_type"]) == (None, "progress")


def test_what_a_run_publishes_lets_others_go_on_and_starts_others(
    workflows: Workflows, live: Live, place: Place
) -> None:
    with live.client() as api:

        def ended() -> list[str]:
            query = {"workflow_id": "triggered", "status": "completed"}
            return [run["id"] for run in api.get("/api/v1/executions", params=query).json()["executions"]]

        before = ended()
        waiting = workflows.start(telling.awaits, f"told{place.directory}")
        wait_until(lambda: workflows.get(waiting).status == "waiting", SECONDS, "waiting")
        workflows.start(telling.publishes, place)
        assert workflows.wait(waiting, timeout=SECONDS).result == {"n": 1}
        [made] = wait_until(lambda: [each for each in ended() if each not in before], SECONDS, "a run for the event")
    assert workflows.get(made).result == 3


def gaps(place: Place) -> list[float]:
    """Return the seconds between attempts."""
    times = [float(line) for line in (Path(place.directory) / "times").read_text().split()]
    return [later - sooner for sooner, later in pairwise(times)]


def test_a_run_is_tried_as_often_and_with_such_pauses_as_its_workflow_says(workflows: Workflows, place: Place) -> None:
    run = workflows.wait(workflows.start(telling.stubborn, place), timeout=SECONDS)
    assert (run.status, run.retry_count, run.error) == ("failed", 4, "ValueError: attempt 3")
    first, second, third = gaps(place)
    assert first >= 0.6 / 2
    assert min(second, third) >= 0.8 / 2


@pytest.mark.parametrize(("workflow", "attempts"), [(telling.hasty, 6), (telling.faint, 1)])
def test_no_pause_and_no_second_attempt(
    workflows: Workflows, place: Place, workflow: Workflow[Place, None], attempts: int
) -> None:
    run = workflows.wait(workflows.start(workflow, place), timeout=SECONDS)
    assert (run.status, run.retry_count, len(gaps(place))) == ("failed", attempts, attempts - 1)


def test_a_child_is_tried_as_its_own_workflow_says(workflows: Workflows, place: Place) -> None:
    assert "attempt 5" in workflows.run(telling.parent_of_hasty, place, timeout=SECONDS)
