"""Lists of runs have what was asked for and nothing else, page by page; a run says why it is queued."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.live import Live
from tests.workflow_surface.surface import Project, Worker


def ids(project: Project, path: str = "/api/v1/executions", **which: Any) -> list[str]:
    """All runs of a list, page by page."""
    return [run["id"] for run in runs(project, path, **which)]


def runs(project: Project, path: str, **which: Any) -> Iterator[dict[str, Any]]:
    cursor = None
    while True:
        params = {**which, **({"cursor": cursor} if cursor else {})}
        page = project.ok("GET", path, params=params)
        assert len(page["executions"]) <= which.get("limit", 50)
        yield from page["executions"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


def test_runs_are_listed_newest_first_page_by_page(project: Project) -> None:
    made = [project.start() for _ in range(7)]
    assert ids(project, limit=3) == made[::-1]
    assert ids(project, limit=7) == made[::-1]
    first = project.ok("GET", "/api/v1/executions", params={"limit": 7})
    assert first["next_cursor"] is None
    whole = {**project.run(made[-1]), "priority": 0}
    assert first["executions"][0] == {key: whole[key] for key in first["executions"][0]}
    assert "payload" not in first["executions"][0]


def test_every_filter_leaves_the_rest_out(project: Project, worker: Worker) -> None:
    done = worker.running("a", user_id="u1", session_id="s1")
    worker.complete(done)
    failed = worker.running("a", queue_name="q", user_id="u2")
    worker.fail(failed)
    parent = worker.running("b", session_id="s1")
    child = worker.running("c", parent_execution_id=parent)
    body = {"workflows": [{"workflow_id": "a", "payload": 1}, {"workflow_id": "b", "payload": 2}]}
    batch = [one["execution_id"] for one in project.ok("POST", "/api/v1/workflows/batch_run", json=body)["executions"]]
    for run in batch:
        project.in_status(run, "running")
    batch_id = project.run(batch[0])["batch_id"]
    everything = [done, failed, parent, child, *batch]

    def listed(**which: Any) -> list[str]:
        return ids(project, limit=2, **which)[::-1]

    assert listed() == everything
    assert listed(status="completed") == [done]
    assert listed(status="completed,failed") == [done, failed]
    assert listed(status="running") == [parent, child, *batch]
    assert listed(status="running, failed") == [failed, parent, child, *batch]
    assert listed(status="cancelled") == []
    assert listed(workflow_id="a") == [done, failed, batch[0]]
    assert listed(workflow_id="a", status="running") == [batch[0]]
    assert listed(queue="q") == [failed]
    assert listed(queue="a") == [done, batch[0]]
    assert listed(session_id="s1") == [done, parent, child]
    assert listed(session_id="s1", roots="true") == [done, parent]
    assert listed(user_id="u1") == [done]
    assert listed(batch_id=batch_id) == batch
    assert listed(batch_id=batch_id.upper()) == batch
    assert listed(parent=parent) == [child]
    assert ids(project, f"/api/v1/executions/{parent}/children") == [child]
    assert listed(roots="true", workflow_id="c") == []
    since = project.run(parent)["created_at"]
    assert listed(since=since) == [parent, child, *batch]
    assert listed(until=since) == [done, failed]
    assert listed(until=since, workflow_id="a", status="failed") == [failed]
    assert listed(since="2100-01-01T00:00:00Z") == listed(until="1971-01-01T00:00:00Z") == []


@pytest.mark.parametrize(
    "which",
    [
        {"status": "done"},
        {"batch_id": "x"},
        {"parent": "x"},
        {"since": "x"},
        {"cursor": "x"},
        {"limit": "-1"},
        {"limit": "0"},
        {"roots": "maybe"},
        {"until": "99999-01-01"},
    ],
)
def test_a_filter_that_means_nothing_is_refused(project: Project, which: dict[str, str]) -> None:
    refused = project.get("/api/v1/executions", params=which)
    assert refused.status_code in {400, 422}
    assert next(iter(which)) in refused.json()["error"]


@pytest.mark.parametrize("path", ["", "/children", "/steps", "/queue"])
def test_a_filter_that_there_is_not_is_refused_and_told_which_there_are(project: Project, path: str) -> None:
    run = project.start("w")
    whole = "/api/v1/executions" + (path and f"/{run}{path}")
    for name in ("parent_id", "created_after"):
        refused = project.get(whole, params={name: run})
        assert (refused.status_code, name in refused.json()["error"]) == (400, True)
        assert ("parent," in refused.json()["error"]) == (not path)
    project.ok("GET", whole, params={"project_id": str(uuid4())})


def test_lists_of_the_contract_take_what_they_do_not_know_but_no_state_that_there_is_not(project: Project) -> None:
    run = project.start("w")
    listed = project.ok("GET", "/api/v1/workflows/runs", params={"status": "queued,running", "_": "1"})
    assert [one["id"] for one in listed] == [run]
    assert project.ok("GET", "/api/v1/workflows/runs", params={"status": "failed"}) == []
    refused = project.get("/api/v1/workflows/runs", params={"status": "zz"})
    assert (refused.status_code, "status must be one or more of queued" in refused.json()["error"]) == (400, True)


def test_steps_are_told_in_the_order_in_which_they_were_done(project: Project, worker: Worker) -> None:
    run = worker.running()
    for key in ("z", "a/b", "m"):
        project.step(run, key, {"of": key})
    steps = project.ok("GET", f"/api/v1/executions/{run}/steps")["steps"]
    assert [(step["step_key"], step["outputs"]) for step in steps] == [
        ("z", {"of": "z"}),
        ("a/b", {"of": "a/b"}),
        ("m", {"of": "m"}),
    ]
    assert project.ok("GET", f"/api/v1/executions/{project.start('other')}/steps") == {"steps": []}


def test_the_list_of_the_contract_has_payloads_results_and_both_names_of_the_id(
    project: Project, worker: Worker
) -> None:
    project.define("agent", "agent")
    project.define("tool", "tool")
    project.define("w")
    first = worker.running("w", payload={"n": 1})
    worker.complete(first, {"r": 2})
    second = worker.running("unknown", payload="x" * 70_000)
    agent = worker.running("agent")
    tool = worker.running("tool")

    def listed(**which: Any) -> list[Any]:
        return list(project.ok("GET", "/api/v1/workflows/runs", params=which))

    found = listed()
    assert [run["id"] for run in found] == [run["execution_id"] for run in found] == [second, first]
    assert (found[1]["payload"], found[1]["result"], found[1]["status"]) == ({"n": 1}, {"r": 2}, "completed")
    assert (found[0]["payload"], found[0]["documents_omitted"], found[1]["documents_omitted"]) == (None, True, False)
    assert [run["id"] for run in listed(limit=1, offset=1)] == [first]
    assert listed(offset=2) == []
    assert [run["id"] for run in listed(workflow_type="agent")] == [agent]
    assert [run["id"] for run in listed(workflow_type="tool", workflow_id="tool")] == [tool]
    assert listed(workflow_type="tool", workflow_id="w") == []
    assert [run["id"] for run in listed(workflow_id="w")] == [first]
    since = project.run(second)["created_at"]
    assert [run["id"] for run in listed(start_time=since)] == [second]
    assert [run["id"] for run in listed(end_time=since)] == [first]
    assert project.get("/api/v1/workflows/runs", params={"workflow_type": "x"}).status_code == 400
    assert project.get("/api/v1/workflows/runs", params={"offset": "1000000"}).status_code == 422


def test_a_run_says_why_it_is_queued(project: Project, worker: Worker) -> None:
    body = {"deployment_id": "d1", "queues": [{"name": "narrow", "concurrency_limit": 1}]}
    project.ok("POST", "/api/v1/workers/queues", json=body)
    first = worker.running(queue_name="narrow")
    second, third = (project.start(queue_name="narrow") for _ in range(2))
    why = project.ok("GET", f"/api/v1/executions/{third}/queue")
    assert why == {
        "execution_id": third,
        "status": "queued",
        "reason": "queue_limit",
        "queue_name": "narrow",
        "concurrency_key": None,
        "position": 1,
        "running": 1,
        "concurrency_limit": 1,
        "workers": 1,
        "free_slots": 99,
        "ready_at": None,
        "worker_id": None,
        "worker_heard_at": None,
    }
    assert project.ok("GET", f"/api/v1/executions/{second}/queue")["position"] == 0
    running = project.ok("GET", f"/api/v1/executions/{first}/queue")
    assert (running["status"], running["reason"], running["position"]) == ("running", None, None)
    worker.complete(first)
    project.in_status(second, "running")


def test_a_run_that_a_worker_has_says_which_and_when_that_was_heard_of(project: Project, worker: Worker) -> None:
    run = worker.running()
    [listed] = project.ok("GET", "/api/v1/workers")["workers"]
    where = project.ok("GET", f"/api/v1/executions/{run}/queue")
    assert (where["status"], where["worker_id"]) == ("running", worker.id)
    assert listed["created_at"] <= where["worker_heard_at"]
    project.suspend(run, "ask", {}, topic="t")
    where = project.ok("GET", f"/api/v1/executions/{run}/queue")
    assert (where["status"], where["worker_id"], where["worker_heard_at"]) == ("waiting", None, None)


def test_a_run_that_no_worker_takes_says_so(project: Project) -> None:
    run = project.start()
    why = project.ok("GET", f"/api/v1/executions/{run}/queue")
    assert (why["reason"], why["workers"], why["free_slots"]) == ("no_worker", 0, 0)


def test_a_run_that_waits_for_its_next_attempt_says_when(project: Project, worker: Worker) -> None:
    run = worker.running()
    for _ in range(2):
        body = {"error": "no", "worker_id": worker.id}
        project.ok("POST", f"/internal/executions/{run}/fail", json=body)
        why = project.ok("GET", f"/api/v1/executions/{run}/queue")
        if why["status"] == "queued":
            assert (why["reason"], why["ready_at"] > project.run(run)["created_at"]) == ("not_before", True)
        project.in_status(run, "running")


def test_workers_and_queues_are_listed(project: Project, worker: Worker) -> None:
    run = worker.running("w", queue_name="q")
    project.suspend(worker.running("w"), "k", {}, topic="t")
    [listed] = project.ok("GET", "/api/v1/workers")["workers"]
    assert (listed["id"], listed["status"], listed["max_concurrent_executions"]) == (worker.id, "online", 100)
    assert listed["current_executions"] == 1
    assert listed["created_at"] <= listed["last_heartbeat"]
    queues = project.ok("GET", "/api/v1/queues")["queues"]
    assert [(queue["name"], queue["running"], queue["waiting"], queue["queued"]) for queue in queues] == [
        ("q", 1, 0, 0),
        ("w", 0, 1, 0),
    ]
    worker.complete(run)
    assert project.ok("GET", "/api/v1/queues")["queues"][0]["running"] == 0


def test_another_project_sees_nothing_of_a_run(project: Project, worker: Worker, local_live: Live) -> None:
    run = worker.running("w", session_id="s", user_id="u", queue_name="q")
    child = worker.running("w", parent_execution_id=run)
    with Project(local_live) as other:
        assert ids(other) == []
        batch = project.run(child)["batch_id"] or str(uuid4())
        for which in ({"parent": run}, {"session_id": "s"}, {"user_id": "u"}, {"queue": "q"}, {"batch_id": batch}):
            assert ids(other, **which) == []
        assert other.ok("GET", "/api/v1/workflows/runs") == []
        assert other.ok("GET", "/api/v1/workers") == {"workers": []}
        assert other.ok("GET", "/api/v1/queues") == {"queues": []}
        for part in ("", "/children", "/steps", "/queue"):
            assert other.get(f"/api/v1/executions/{run}{part}").status_code == 404
        for part, body in (("rerun", {}), ("resume", {"step_key": "k", "data": 1}), ("cancel", {})):
            assert other.post(f"/api/v1/executions/{run}/{part}", json=body).status_code == 404
    assert project.run(run)["status"] == "running"
