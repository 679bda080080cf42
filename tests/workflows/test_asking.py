"""Questions to people, and starts that the code asks for, on a worker of our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dormice.workflows import Workflows, workflow
from tests.live import Api, Live
from tests.wait import wait_until
from tests.workflows import asking
from tests.workflows.conftest import SECONDS, StartWorker


@pytest.fixture(name="worker", autouse=True)
def _worker(start_worker: StartWorker) -> None:
    start_worker(target="tests.workflows.asking")


def resume(api: Api, run_id: str, step_key: str, data: object) -> int:
    """Answer, and return the status."""
    return api.post(f"/api/v1/executions/{run_id}/resume", json={"step_key": step_key, "data": data}).status_code


def found(look: Callable[[], Any], what: str) -> Any:
    return wait_until(look, SECONDS, what)


def test_a_question_is_asked_and_answered_once(workflows: Workflows, live: Live) -> None:
    run_id = workflows.start(asking.asks, "please")
    with live.client() as api:
        asked = f"/api/v1/approvals/{run_id}/ask"
        assert found(lambda: api.get(asked).json()["data"], "asked") == {"word": "please"}
        assert resume(api, run_id, "ask", {"yes": True}) == 200  # maybe before the run waits for it
        assert workflows.wait(run_id, timeout=SECONDS).result is True
        assert resume(api, run_id, "ask", {"yes": False}) == 409


def test_an_answer_of_the_wrong_type_fails_the_run(workflows: Workflows, live: Live) -> None:
    run_id = workflows.start(asking.asks, "please")
    with live.client() as api:
        found(lambda: resume(api, run_id, "ask", {"yes": "perhaps"}) == 200, "asked")
    assert "the answer to 'ask' is not what its annotation says" in (
        workflows.wait(run_id, timeout=SECONDS).error or ""
    )


def test_a_question_that_nobody_answers_ends_the_wait(workflows: Workflows) -> None:
    assert "did not come in time" in workflows.run(asking.asks_in_vain, timeout=SECONDS)


def test_several_questions_are_asked_at_once(workflows: Workflows, live: Live) -> None:
    run_id = workflows.start(asking.asks_twice)
    with live.client() as api:
        found(lambda: workflows.get(run_id).status == "waiting", "asked")
        for step_key, data in (("second", 2), ("first", 1)):
            assert resume(api, run_id, step_key, data) == 200
        [child] = api.get(f"/api/v1/executions/{run_id}/children").json()["executions"]
        found(lambda: resume(api, child["id"], "ask", {"yes": True}) == 200, "asked below")
    assert workflows.wait(run_id, timeout=SECONDS).result == [1, 2, True]


def test_an_answer_to_one_child_is_none_to_the_other(workflows: Workflows, live: Live) -> None:
    run_id = workflows.start(asking.asks_below)

    def children() -> dict[str, str]:
        listed = live_api.get(f"/api/v1/executions/{run_id}/children").json()["executions"]
        return {one["step_key"]: one["id"] for one in listed if one["status"] == "waiting"}

    with live.client() as live_api:
        below = found(lambda: both if len(both := children()) == 2 else None, "both asked")
        assert resume(live_api, below["a"], "ask", {"yes": True}) == 200
        assert resume(live_api, below["a"], "ask", {"yes": True}) == 409
        assert resume(live_api, below["b"], "ask", {"yes": False}) == 200
    assert workflows.wait(run_id, timeout=SECONDS).result == [True, False]


@pytest.mark.parametrize("count", [1, 2, 3], ids=["one by one", "the first two together", "all together"])
def test_each_wait_is_given_the_next_event(workflows: Workflows, live: Live, count: int) -> None:
    run_id = workflows.start(asking.listens, f"topic {count}")
    found(lambda: workflows.get(run_id).status == "waiting", "waiting")
    requests = [[0, 1, 2][:count], *([number] for number in range(count, 3))]
    with live.client() as api:
        for numbers in requests:
            body = {"topic": f"topic {count}", "events": [{"data": number} for number in numbers]}
            assert api.post("/api/v1/events/publish", json=body).status_code == 200
    assert workflows.wait(run_id, timeout=SECONDS).result == [0, 1, 2]


def test_events_start_runs(workflows: Workflows, live: Live) -> None:
    workflows.publish("single", {"n": 1}, event_type="number")
    workflows.publish("several", 1)
    workflows.publish("several", 2)

    def result(workflow_id: str) -> object:
        with live.client() as api:
            page = api.get("/api/v1/executions", params={"workflow_id": workflow_id, "status": "completed"}).json()
        return workflows.get(page["executions"][0]["id"]).result if page["executions"] else None

    assert found(lambda: result("one"), "a run for the event") == ["single", "number", {"n": 1}]
    assert found(lambda: result("pair"), "a run for both events") == [1, 2]


def test_schedules_of_the_code_are_made_and_a_bad_one_stops_no_worker(live: Live) -> None:
    with live.client() as api:
        [schedule] = api.get("/api/v1/schedules").json()["schedules"]
    told = ("workflow_id", "cron", "timezone", "key", "catch_up", "overlap", "status")
    assert [schedule[name] for name in told] == ["rare", "0 8 29 2 *", "Europe/Vienna", "leap", "one", True, "active"]
    assert "never does not start by itself: " in live.log.read_text()


def test_a_schedule_and_a_trigger_may_be_plain_texts() -> None:
    @workflow(schedule="0 8 * * *", trigger="topic")
    async def both(_ctx: object) -> None: ...

    assert both.schedule is not None
    assert both.trigger is not None
    assert (both.schedule.cron, both.schedule.timezone, both.trigger.topic) == ("0 8 * * *", "UTC", "topic")
