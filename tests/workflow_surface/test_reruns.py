"""A run is run again by a new one, which takes over what was done before a step; the earlier one stays as it is."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.live import Live
from tests.workflow_surface.surface import Project, Worker


def done(worker: Worker) -> str:
    """Return a run that has failed after three steps."""
    run = worker.running(
        payload={"n": 1},
        session_id="s",
        user_id="u",
        queue_name="q",
        concurrency_key="k",
        initial_state={"at": 0},
        run_timeout_seconds=60,
    )
    for key in ("c", "a", "b"):
        worker.project.step(run, key, {"of": key}, output_schema_name=f"m.{key}", success=key != "b")
    worker.fail(run)
    return run


def rerun(project: Project, run: str, **body: Any) -> str:
    return str(project.ok("POST", f"/api/v1/executions/{run}/rerun", json=body)["execution_id"])


def steps(project: Project, run: str) -> list[dict[str, Any]]:
    return list(project.ok("GET", f"/api/v1/executions/{run}/steps")["steps"])


def test_from_a_step_on(project: Project, worker: Worker) -> None:
    run = done(worker)
    before, earlier = project.run(run), steps(project, run)
    again = rerun(project, run, from_step="b")
    record = project.in_status(again, "running")
    assert steps(project, again) == earlier[:2]
    same = ("workflow_id", "payload", "session_id", "user_id", "queue_name", "concurrency_key", "run_timeout_seconds")
    assert {name: record[name] for name in same} == {name: before[name] for name in same}
    assert (record["parent_execution_id"], record["root_execution_id"], record["retry_count"]) == (None, None, 0)
    assert worker.pushed[-1]["initial_state"] == {"at": 0}
    assert (project.run(run), steps(project, run)) == (before, earlier)


def test_from_the_first_step_and_from_the_start_nothing_is_taken_over(project: Project, worker: Worker) -> None:
    run = done(worker)
    assert steps(project, rerun(project, run, from_step="c")) == []
    assert steps(project, rerun(project, run)) == []
    empty = project.ok("POST", f"/api/v1/executions/{run}/rerun")["execution_id"]
    assert steps(project, empty) == []


@pytest.mark.parametrize(("outputs", "taken_over"), [(None, False), ({"n": 1}, True)])
def test_the_told_start_of_a_run_is_not_taken_over_but_a_step_of_the_users_of_that_name_is(
    project: Project, worker: Worker, outputs: object, *, taken_over: bool
) -> None:
    run = worker.running()
    project.step(run, "publish_start", outputs)
    project.step(run, "two")
    again = rerun(project, run, from_step="two")
    assert [step["step_key"] for step in steps(project, again)] == ["publish_start"] * taken_over


def test_what_runs_still_may_be_run_again_beside_it(project: Project, worker: Worker) -> None:
    run = worker.running()
    project.step(run, "one")
    project.step(run, "two")
    again = rerun(project, run, from_step="two")
    assert [step["step_key"] for step in steps(project, again)] == ["one"]
    assert project.run(run)["status"] == "running"


def test_a_child_is_run_again_as_a_root(project: Project, worker: Worker) -> None:
    parent = worker.running()
    body = {"parent_execution_id": parent, "step_key": "child", "wait_for_subworkflow": True}
    child = worker.running("c", **body)
    again = project.in_status(rerun(project, child), "running")
    assert (again["parent_execution_id"], again["step_key"]) == (None, None)
    worker.complete(again["id"], "again")
    assert project.run(parent)["status"] == "waiting"
    worker.complete(child, "first")
    project.in_status(parent, "running")
    assert project.ok("GET", f"/internal/executions/{parent}/steps/child")["outputs"] == "first"


def test_another_deployment_may_run_it(project: Project, worker: Worker) -> None:
    run = done(worker)
    project.deploy("d2")
    assert project.run(rerun(project, run))["deployment_id"] == "d1"
    assert project.run(rerun(project, run, deployment_id="d2"))["deployment_id"] == "d2"


def test_the_same_key_makes_one_run(project: Project, worker: Worker) -> None:
    run = done(worker)
    key = {"Idempotency-Key": uuid4().hex}
    path = f"/api/v1/executions/{run}/rerun"
    first = project.ok("POST", path, json={"from_step": "b"}, headers=key)
    assert project.ok("POST", path, json={"from_step": "b"}, headers=key) == first
    assert project.post(path, json={"from_step": "a"}, headers=key).status_code == 409
    assert project.ok("POST", path, json={"from_step": "b"})["execution_id"] != first["execution_id"]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"from_step": "never"}, 400, "from_step"),
        ({"from_step": ""}, 400, "from_step"),
        ({"deployment_id": "nowhere"}, 400, "deployment"),
        ({"from_step": 1}, 422, "from_step"),
    ],
)
def test_a_step_that_was_never_done_is_refused(
    project: Project, worker: Worker, body: dict[str, Any], status: int, word: str
) -> None:
    run = done(worker)
    refused = project.post(f"/api/v1/executions/{run}/rerun", json=body)
    assert (refused.status_code, word in refused.json()["error"]) == (status, True)
    assert len(project.ok("GET", "/api/v1/executions")["executions"]) == 1
    assert project.post(f"/api/v1/executions/{uuid4()}/rerun", json={}).status_code == 404
    assert project.post("/api/v1/executions/x/rerun", json={}).status_code == 400


BATCH = {"workflows": [{"workflow_id": "a", "payload": 1}, {"workflow_id": "b", "payload": 2}]}


@pytest.mark.parametrize(
    ("path", "body"), [("/api/v1/workflows/w/run", {"payload": {"n": 1}}), ("/api/v1/workflows/batch_run", BATCH)]
)
def test_an_idempotency_key_makes_runs_once_in_each_project(
    project: Project, local_live: Live, path: str, body: dict[str, Any]
) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    first = project.ok("POST", path, json=body, headers=key)
    assert project.ok("POST", path, json=body, headers=key) == first
    other_body = {**body, "user_id": "u"}
    reused = project.post(path, json=other_body, headers=key)
    assert (reused.status_code, "Idempotency-Key" in reused.json()["error"]) == (409, True)
    made = len(project.ok("GET", "/api/v1/executions")["executions"])
    assert made == len(first.get("executions", [first]))
    with Project(local_live) as other:
        other.deploy()
        assert other.ok("POST", path, json=body, headers=key) != first
        assert len(other.ok("GET", "/api/v1/executions")["executions"]) == made
    assert project.post(path, json=body, headers={"Idempotency-Key": "k" * 256}).status_code == 422


def test_what_a_key_has_made_counts_though_it_would_be_refused_now(project: Project, worker: Worker) -> None:
    project.define("w", input_schema={"type": "object"})
    done_before = done(worker)
    runs: dict[str, dict[str, Any]] = {
        "/api/v1/workflows/w/run": {"payload": {}},
        "/api/v1/workflows/batch_run": {"workflows": [{"workflow_id": "w", "payload": {}}] * 2},
        f"/api/v1/executions/{done_before}/rerun": {},
    }
    key = {"Idempotency-Key": uuid4().hex}
    first = {path: project.ok("POST", path, json=body, headers=key) for path, body in runs.items()}
    project.define("w", input_schema={"type": "integer"})
    for path, body in runs.items():
        assert project.ok("POST", path, json=body, headers=key) == first[path]
        assert project.post(path, json={**body, "deployment_id": "d1"}, headers=key).status_code == 409
        assert project.post(path, json=body, headers={"Idempotency-Key": uuid4().hex}).status_code == 400
