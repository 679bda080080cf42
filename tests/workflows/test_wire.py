"""The wire of workers that fetch their work: what they are sent, and what becomes of what they report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import StartLive
from tests.live import Api, Live
from tests.wait import wait_until
from tests.workflows.conftest import SECONDS

LOST_MS = 6_000
CONNECT = "/api/v1/workers/connect"


@pytest.fixture(scope="module", name="live")
def _live(start_live: StartLive) -> Iterator[Live]:
    with start_live("process", DORMICE_LIMIT_WORKER_LOST_MS=str(LOST_MS), DORMICE_LIMIT_STEP_KEY_CHARS="10") as live:
        yield live


@pytest.fixture(name="api")
def _api(live: Live) -> Iterator[Api]:
    with live.client() as api:
        yield api


class Wire:
    """A worker that does only what it is told to."""

    def __init__(self, api: Api, response: httpx.Response) -> None:
        self._api = api
        self._lines = response.iter_lines()
        hello = self.line()
        assert hello["type"] == "connected"
        self.worker_id: str = hello["worker_id"]
        self.runs: dict[str, int] = hello["runs"]

    def line(self) -> dict[str, Any]:
        """Return the next line that says something."""
        found: dict[str, Any] = json.loads(next(line for line in self._lines if line))
        return found

    def report(self, *items: dict[str, Any], presence: str = "working") -> list[dict[str, Any]]:
        """Report, and return the answers."""
        path = f"/api/v1/workers/{self.worker_id}/reports"
        reply = self._api.post(path, json={"items": list(items), "presence": presence})
        assert reply.status_code == 200, reply.text
        self.known = reply.json()["known"]
        return list(reply.json()["answers"])


@contextmanager
def connected(api: Api, workflow: str, **fields: Any) -> Iterator[Wire]:
    body = {"deployment_id": workflow, "max_concurrent": 10, "workflows": [{"workflow_id": workflow}], **fields}
    with api.stream("POST", CONNECT, json=body) as response:
        assert response.status_code == 200, response.read()
        yield Wire(api, response)


def submit(api: Api, workflow: str, **body: Any) -> str:
    made = api.post(
        f"/api/v1/workflows/{workflow}/run", json={"payload": {"x": [1, "\n"]}, "deployment_id": workflow, **body}
    )
    assert made.status_code == 200, made.text
    return str(made.json()["execution_id"])


def read(api: Api, run_id: str, wait_ms: int = 20_000) -> dict[str, Any]:
    return dict(api.get(f"/api/v1/executions/{run_id}", params={"wait_ms": wait_ms}).raise_for_status().json())


@pytest.fixture(name="workflow")
def _workflow() -> str:
    return f"flow-{uuid4().hex}"


def published(api: Api, topic: str) -> list[tuple[str, Any]]:
    """Return the types and data of a topic's events."""
    found = api.get("/api/v1/events", params={"topic": topic}).raise_for_status().json()["events"]
    return [(event["event_type"], event["data"]) for event in found]


def test_what_is_reported_again_is_neither_published_nor_asked_again(api: Api, workflow: str) -> None:
    with connected(api, workflow) as worker:
        run_id = submit(api, workflow)
        who = {"run_id": run_id, "fence": worker.line()["fence"]}
        topic = f"workflow/{workflow}/{run_id}"

        def event(name: str, topic: str | None = None) -> dict[str, Any]:
            return {"topic": topic, "event_type": name, "data": {"n": name}}

        step = {"kind": "step", **who, "step_key": "s", "events": [event("a"), event("b", workflow)]}
        wait = {"step_key": "q", "wait_type": "suspend", "topic": topic, "question": "why?"}
        suspend = {"kind": "suspend", **who, "waits": [wait]}
        for item in (step, step, suspend, suspend):
            assert worker.report(item) == [{"status": "ok"}]
        assert read(api, run_id, 0)["status"] == "waiting"
        api.post(f"/api/v1/executions/{run_id}/resume", json={"step_key": "q", "data": 1}).raise_for_status()
        who["fence"] = worker.line()["fence"]
        complete = {"kind": "complete", **who, "result": 1, "events": [event("c")]}
        told = {"kind": "publish", **who, "event": event("d")}
        answers = worker.report(told, complete, complete)
        assert [answer["status"] for answer in answers[:2]] == ["ok", "ok"]
        assert published(api, workflow) == [("b", {"n": "b"})]
        assert published(api, topic) == [
            ("a", {"n": "a"}),
            ("suspend_q", "why?"),
            ("resume_q", 1),
            ("d", {"n": "d"}),
            ("c", {"n": "c"}),
        ]


def test_a_run_comes_with_all_that_is_known_of_it(api: Api, workflow: str) -> None:
    with connected(api, workflow) as worker:
        run_id = submit(api, workflow, session_id="s", user_id="u", initial_state={"a": 1})
        line = worker.line()
        expected = {
            "type": "run",
            "run_id": run_id,
            "fence": 1,
            "workflow_id": workflow,
            "payload": {"x": [1, "\n"]},
            "retry_count": 0,
            "root_id": run_id,
            "root_workflow_id": workflow,
            "parent_id": None,
            "session_id": "s",
            "user_id": "u",
            "initial_state": {"a": 1},
            "steps": [],
        }
        assert {name: line[name] for name in expected} == expected
        who = {"run_id": run_id, "fence": 1}
        [done] = worker.report({"kind": "step", **who, "step_key": "a/b?", "outputs": {"y": 2}})
        assert done == {"status": "ok"}
        wait = {"step_key": "soon", "wait_type": "time", "delay_ms": 1}
        assert worker.report({"kind": "suspend", **who, "waits": [wait]}) == [{"status": "ok"}]
        again = worker.line()
        assert again["fence"] == 2
        assert [(step["step_key"], step["error"]) for step in again["steps"]] == [("a/b?", None), ("soon", None)]
        assert again["steps"][0]["outputs"] == {"y": 2}
        [old, new] = worker.report(
            {"kind": "complete", **who, "result": "old"},
            {"kind": "complete", "run_id": run_id, "fence": 2, "result": "new"},
        )
        assert (old["status"], new["status"]) == ("stale", "ok")
        assert read(api, run_id)["result"] == "new"


def test_what_a_worker_reports_of_a_run_that_it_has_lost_changes_nothing(api: Api, workflow: str) -> None:
    with connected(api, workflow) as first, connected(api, workflow, max_concurrent=1) as second:
        run_id = submit(api, workflow)
        assert first.line()["run_id"] == run_id
        wait_until(
            lambda: second.report() == [] and read(api, run_id, 0)["assigned_to_worker"] == second.worker_id,
            SECONDS,
            "taken over",
        )
        assert second.line()["fence"] == 2
        late: list[dict[str, Any]] = [
            {"kind": "step", "step_key": "late", "events": [{"topic": workflow}]},
            {"kind": "publish", "event": {"topic": workflow}},
            {"kind": "suspend", "waits": [{"step_key": "w", "wait_type": "time", "delay_ms": 0}]},
            {"kind": "suspend", "children": [{"step_key": "c", "workflow_id": workflow}]},
            {"kind": "complete", "result": "late"},
            {"kind": "fail", "error": "late"},
            {"kind": "ended"},
            {"kind": "abandoned"},
        ]
        before = read(api, run_id, 0)
        for fence in (1, 2, 3):
            answers = first.report(*({**item, "run_id": run_id, "fence": fence} for item in late))
            assert [answer["status"] for answer in answers] == ["stale"] * len(late)
            assert not first.known
        assert read(api, run_id, 0) == before
        assert api.get(f"/internal/executions/{run_id}/steps").json() == {"steps": []}
        assert published(api, workflow) == []


def test_a_worker_that_comes_again_goes_on_with_its_runs(api: Api, workflow: str) -> None:
    with connected(api, workflow) as worker:
        had, missed, over = (submit(api, workflow) for _ in range(3))
        lines = [worker.line() for _ in range(3)]
        assert {line["run_id"] for line in lines} == {had, missed, over}
        worker.report({"kind": "complete", "run_id": over, "fence": 1})
        worker_id = worker.worker_id
    with connected(api, workflow, worker_id=worker_id, holding={had: 1, over: 1}) as worker:
        assert worker.worker_id == worker_id
        assert worker.runs == {had: 1}
        again = worker.line()
        assert (again["run_id"], again["fence"]) == (missed, 1)
        api.post(f"/api/v1/executions/{had}/cancel")
        assert worker.line() == {"type": "cancel", "run_id": had, "fence": 1}
        refused = worker.report({"kind": "step", "run_id": had, "fence": 1, "step_key": "x"})
        assert refused[0]["status"] == "cancelled"
        assert worker.report({"kind": "ended", "run_id": had, "fence": 1}) == [{"status": "ok"}]
        assert read(api, had)["status"] == "cancelled"


def test_a_newer_connection_of_a_worker_takes_the_place_of_the_older_one(api: Api, workflow: str) -> None:
    with connected(api, workflow) as older, connected(api, workflow, worker_id=older.worker_id) as newer:
        with pytest.raises(StopIteration):
            older.line()
        submit(api, workflow)
        assert newer.line()["type"] == "run"


def test_a_worker_that_leaves_gives_back_what_it_has(api: Api, workflow: str) -> None:
    with connected(api, workflow) as worker:
        run_id = submit(api, workflow)
        worker.line()
        assert worker.report({"kind": "abandoned", "run_id": run_id, "fence": 1}, presence="leaving") == [
            {"status": "ok"}
        ]
        assert read(api, run_id, 0)["status"] == "queued"
        assert worker.report() == []
        assert not worker.known
    with connected(api, workflow) as other:
        assert other.line()["fence"] == 2


def test_a_run_that_is_given_back_for_a_while_rests(api: Api, workflow: str) -> None:
    with connected(api, workflow) as worker:
        run_id = submit(api, workflow)
        who = {"run_id": run_id, "fence": worker.line()["fence"]}
        assert worker.report({"kind": "abandoned", **who, "pause_ms": 86_400_000}) == [{"status": "ok"}]
        why = api.get(f"/api/v1/executions/{run_id}/queue").json()
        assert (why["status"], why["reason"]) == ("queued", "not_before")
        again = submit(api, workflow)
        who = {"run_id": again, "fence": worker.line()["fence"]}
        assert worker.report({"kind": "abandoned", **who, "pause_ms": 1}) == [{"status": "ok"}]
        line = worker.line()
        assert (line["run_id"], line["fence"]) == (again, 2)


def test_no_more_runs_are_sent_than_a_worker_takes(api: Api, workflow: str) -> None:
    with connected(api, workflow, max_concurrent=2) as worker:
        runs = [submit(api, workflow) for _ in range(3)]
        assert [worker.line()["run_id"] for _ in range(2)] == runs[:2]
        assert read(api, runs[2], 0)["status"] == "queued"
        worker.report({"kind": "complete", "run_id": runs[1], "fence": 1})
        assert worker.line()["run_id"] == runs[2]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"kind": "step", "step_key": ""}, "step_key must have from 1 to 10 characters (step_key_chars)"),
        ({"kind": "step", "step_key": "x" * 11}, "step_key must have from 1 to 10 characters (step_key_chars)"),
        ({"kind": "suspend"}, "a run must wait for something: children and waits are empty"),
        (
            {"kind": "suspend", "waits": [{"step_key": "x", "wait_type": "no"}]},
            "wait_type must be time, event or suspend",
        ),
        (
            {"kind": "suspend", "waits": [{"step_key": "x", "wait_type": "time"}]},
            "delay_ms is required for a wait for time",
        ),
        (
            {"kind": "suspend", "waits": [{"step_key": "x", "wait_type": "event"}]},
            "topic is required for an event, and for nothing else",
        ),
        (
            {"kind": "suspend", "waits": [{"step_key": "x", "wait_type": "event", "topic": "t", "question": 1}]},
            "question is for wait_type suspend only",
        ),
        ({"kind": "abandoned", "pause_ms": -1}, "pause_ms must be from 0 to 3162240000000, which is 100 years"),
        ({"kind": "publish", "event": {"topic": ""}}, "topic must have from 1 to 1024 characters (topic_chars)"),
        (
            {"kind": "step", "step_key": "x", "events": [{"topic": "x" * 1025}]},
            "topic must have from 1 to 1024 characters (topic_chars)",
        ),
        (
            {"kind": "step", "step_key": "x", "events": [{}] * 10_001},
            "events must have at most 10000 entries (events_per_request)",
        ),
        (
            {"kind": "suspend", "waits": [{"step_key": "x", "wait_type": "time", "delay_ms": -1}]},
            "delay_ms must be from 0 to 3162240000000, which is 100 years",
        ),
        ({"kind": "suspend", "children": [{"step_key": "x", "workflow_id": ""}]}, "workflow_id must not be empty"),
        (
            {"kind": "suspend", "children": [{"step_key": "x", "workflow_id": "w", "run_timeout_seconds": 0}]},
            "run_timeout_seconds must be a positive 32-bit integer",
        ),
        (
            {"kind": "suspend", "children": [{"step_key": "x", "workflow_id": "w", "queue_concurrency_limit": -1}]},
            "queue_concurrency_limit must be a positive 32-bit integer",
        ),
        (
            {"kind": "suspend", "children": [{"step_key": "x", "workflow_id": "w", "priority": 1 << 31}]},
            "priority must be a 32-bit integer",
        ),
    ],
)
def test_a_report_that_is_wrong_is_refused_by_itself(
    api: Api, workflow: str, item: dict[str, Any], message: str
) -> None:
    with connected(api, workflow) as worker:
        run_id = submit(api, workflow)
        who = {"run_id": run_id, "fence": worker.line()["fence"]}
        answers = worker.report({**item, **who}, {"kind": "step", "step_key": "good", **who})
        assert answers == [{"status": "error", "message": message}, {"status": "ok"}]
        assert read(api, run_id, 0)["status"] == "running"
        worker.report({"kind": "complete", **who})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"deployment_id": "", "max_concurrent": 1, "workflows": [{"workflow_id": "w"}]},
        {"deployment_id": "d", "max_concurrent": 0, "workflows": [{"workflow_id": "w"}]},
        {"deployment_id": "d", "max_concurrent": 1 << 31, "workflows": [{"workflow_id": "w"}]},
        {"deployment_id": "d", "max_concurrent": 1, "workflows": []},
        {"deployment_id": "d", "max_concurrent": 1, "workflows": [{"workflow_id": ""}]},
        {"deployment_id": "d", "max_concurrent": 1, "workflows": [{"workflow_id": "w", "concurrency_limit": 0}]},
        {"deployment_id": "d", "max_concurrent": 1, "workflows": [{"workflow_id": "w", "queue_name": ""}]},
        {"deployment_id": "d", "max_concurrent": 1, "workflows": [{"workflow_id": "w"}], "worker_id": "no uuid"},
        {"deployment_id": "d", "max_concurrent": 1, "workflows": [{"workflow_id": "w"}], "holding": {"x": "y"}},
    ],
)
def test_a_worker_that_says_nonsense_is_refused(api: Api, body: dict[str, Any]) -> None:
    refused = api.post(CONNECT, json=body)
    assert refused.status_code in {400, 422}, refused.text
    assert refused.json()["error"]


@pytest.mark.parametrize("body", [{"items": [{"kind": "no"}]}, {"items": [{"kind": "ended"}]}, {"presence": "no"}, []])
def test_reports_that_are_none_are_refused(api: Api, body: object) -> None:
    refused = api.post(f"/api/v1/workers/{uuid4()}/reports", json=body)
    assert refused.status_code == 422, refused.text
    assert refused.json()["error_type"] == "INVALID_INPUT"


def test_a_worker_of_another_project_is_not_known(api: Api, workflow: str) -> None:
    with connected(api, workflow) as worker:
        run_id = submit(api, workflow)
        worker.line()
        made = api.post("/v1/keys", json={"organization": workflow, "name": "other"}).raise_for_status().json()
        stranger = {"Authorization": f"Bearer {made['key']}"}
        path = f"/api/v1/workers/{worker.worker_id}/reports"
        item = {"kind": "complete", "run_id": run_id, "fence": 1}
        reply = api.post(path, json={"items": [item], "presence": "leaving"}, headers=stranger)
        assert reply.json()["known"] is False
        assert reply.json()["answers"][0]["status"] == "stale"
        assert read(api, run_id, 0)["status"] == "running"
        with api.stream(
            "POST",
            CONNECT,
            headers=stranger,
            json={
                "deployment_id": workflow,
                "max_concurrent": 1,
                "workflows": [{"workflow_id": "w"}],
                "worker_id": worker.worker_id,
            },
        ) as response:
            assert json.loads(next(response.iter_lines()))["worker_id"] != worker.worker_id


def test_a_run_that_names_no_timeout_has_that_of_its_workflow(api: Api, workflow: str) -> None:
    offered = {"workflow_id": workflow, "run_timeout_seconds": 7, "trigger_on_event": True}
    with connected(api, workflow, workflows=[offered]) as worker:
        trigger = {"workflow_id": workflow, "deployment_id": workflow, "event_topic": workflow, "batch_size": 1}
        api.post("/api/v1/event-triggers/register", json=trigger).raise_for_status()
        event = {"topic": workflow, "events": [{"event_type": "e", "data": 1}]}
        api.post("/api/v1/events/publish", json=event).raise_for_status()
        told = [worker.line()]
        submit(api, workflow)
        own = submit(api, workflow, run_timeout_seconds=3)
        told += [worker.line(), worker.line()]
        assert [line["run_timeout_seconds"] for line in told] == [7, 7, 3]
        again = api.post(f"/api/v1/executions/{own}/rerun", json={}).raise_for_status().json()["execution_id"]
        assert read(api, again, 0)["run_timeout_seconds"] == 3
    body = {"deployment_id": workflow, "max_concurrent": 1, "workflows": [{**offered, "run_timeout_seconds": 0}]}
    refused = api.post(CONNECT, json=body)
    assert (refused.status_code, "run_timeout_seconds" in refused.text) == (400, True)


def test_of_several_limits_of_a_queue_the_least_counts(api: Api, workflow: str) -> None:
    offers = [
        {"workflow_id": f"{workflow}-{index}", "queue_name": workflow, "concurrency_limit": limit}
        for index, limit in enumerate((5, 2, None, 3))
    ]
    with connected(api, workflow, workflows=offers):
        queues = api.get("/api/v1/queues").raise_for_status().json()["queues"]
        assert [one["concurrency_limit"] for one in queues if one["name"] == workflow] == [2]
