"""The schemas that workers register hold for what runs are given, whoever gives it, and for what comes of them."""

from __future__ import annotations

from tests.wait import wait_until
from tests.workflow_surface.surface import Project, Worker

RESULT = {"properties": {"cents": {"items": {"type": "integer"}}}, "required": ["cents"]}


def test_a_result_that_does_not_fit_fails_the_run_for_good(project: Project, worker: Worker) -> None:
    project.define("w", output_schema=RESULT)
    run = worker.running()
    report = {"result": {"cents": [1, "secret"]}, "worker_id": worker.id}
    for _ in range(2):  # its answer may have been lost
        project.ok("POST", f"/internal/executions/{run}/complete", json=report)
    record = project.run(run)
    assert (record["status"], record["result"], record["retry_count"]) == ("failed", None, 1)
    assert record["error"].startswith("result['cents'][1] does not fit the workflow's output_schema: ")
    assert "secret" not in record["error"]


def test_what_is_out_of_range_does_not_fit(project: Project, worker: Worker) -> None:
    project.define("w", input_schema={"type": ["number", "null"]}, output_schema=RESULT)
    headers = {"Content-Type": "application/json"}
    refused = project.post("/api/v1/workflows/w/run", content=b'{"payload": 1e400}', headers=headers)
    assert (refused.status_code, "cannot be compared" in refused.text) == (400, True)
    run = worker.running()
    report = f'{{"result": {{"cents": [1e400]}}, "worker_id": "{worker.id}"}}'
    assert project.post(f"/internal/executions/{run}/complete", content=report, headers=headers).status_code == 200
    record = project.run(run)
    assert (record["status"], record["result"]) == ("failed", None)
    assert "cannot be compared" in record["error"]


def test_a_document_that_is_no_utf_8_is_refused(project: Project) -> None:
    headers = {"Content-Type": "application/json"}
    refused = project.post("/api/v1/workflows/w/run", content=b'{"payload": "\xff"}', headers=headers)
    assert (refused.status_code, refused.json()["error"]) == (400, "the body is not UTF-8")


def test_an_error_is_short_however_long_the_names_are(project: Project, worker: Worker) -> None:
    project.define("w", output_schema={"additionalProperties": {"type": "integer"}})
    run = worker.running()
    worker.complete(run, {"k" * 100_000: "secret"})
    assert len(project.run(run)["error"]) < 1_000


def test_a_result_that_fits_is_the_run_s(project: Project, worker: Worker) -> None:
    project.define("w", output_schema=RESULT)
    run = worker.running()
    worker.complete(run, {"cents": [1]})
    assert (project.run(run)["status"], project.run(run)["result"]) == ("completed", {"cents": [1]})


def test_a_child_whose_result_does_not_fit_has_failed_for_its_parent(project: Project, worker: Worker) -> None:
    project.define("child", output_schema={"type": "string"})
    parent = worker.running()
    body = {"payload": None, "parent_execution_id": parent, "step_key": "s", "wait_for_subworkflow": True}
    child = project.start("child", **body)
    project.in_status(child, "running")
    worker.complete(child, 7)
    step = project.ok("GET", f"/internal/executions/{parent}/steps/s")
    assert step["success"] is False
    assert "result does not fit the workflow's output_schema" in step["error"]["message"]


def test_a_schedule_whose_ticks_do_not_fit_is_refused(project: Project) -> None:
    project.define("nightly", scheduled=True, input_schema={"required": ["city"]})
    body = {"workflow_id": "nightly", "key": "k", "cron": "0 3 * * *", "timezone": "UTC"}
    answer = project.post("/api/v1/schedules", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("its ticks would fail: ")


def test_an_event_that_does_not_fit_shows_as_a_run_that_has_failed(project: Project) -> None:
    project.define("taker", trigger_on_event=True, input_schema={"properties": {"data": {"type": "string"}}})
    body = {"workflow_id": "taker", "deployment_id": "d1", "event_topic": "t", "batch_size": 1}
    project.ok("POST", "/api/v1/event-triggers/register", json=body)
    project.publish("t", "told", 7)

    def listed() -> list[dict[str, object]]:
        return list(project.ok("GET", "/api/v1/executions", params={"workflow_id": "taker"})["executions"])

    [run] = wait_until(listed, 10, "a run of the event")
    assert run["status"] == "failed"
    assert "payload['data'] does not fit the workflow's input_schema" in str(project.run(str(run["id"]))["error"])


def test_a_batch_says_which_of_its_runs_does_not_fit(project: Project) -> None:
    project.define("taker", input_schema={"type": "string"})
    body = {"workflows": [{"workflow_id": "taker", "payload": "fits"}, {"workflow_id": "taker", "payload": 7}]}
    answer = project.post("/api/v1/workflows/batch_run", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("workflows[1].payload does not fit the workflow's input_schema")
    assert project.ok("GET", "/api/v1/executions", params={"workflow_id": "taker"})["executions"] == []


def test_a_field_that_is_missing_in_a_list_is_named_with_its_place(project: Project) -> None:
    answer = project.post("/api/v1/workflows/batch_run", json={"workflows": [{"payload": 1}]})
    assert (answer.status_code, answer.json()["error"]) == (422, "workflows[0].workflow_id is required")
