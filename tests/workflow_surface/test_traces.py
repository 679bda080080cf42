"""Spans are kept as they were reported, and a run that several workers had reads as one."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from tests.live import Live
from tests.workflow_surface.surface import Project, Worker


def span(trace: str, identity: str, second: int, **fields: Any) -> dict[str, Any]:
    """A span of one second's length."""
    return {
        "trace_id": trace,
        "span_id": identity,
        "parent_span_id": None,
        "name": "workflow.w",
        "span_type": "workflow",
        "started_at": f"2026-01-01T00:00:{second:02}+00:00",
        "ended_at": f"2026-01-01T00:00:{second + 1:02}Z",
        **fields,
    }


def put(project: Project, *spans: dict[str, Any]) -> None:
    project.ok("POST", "/internal/spans/batch", json={"spans": spans})


def test_a_span_is_read_as_it_was_reported(project: Project) -> None:
    trace = uuid4().hex
    told = span(
        trace,
        "a" * 16,
        1,
        attributes={"workflow.id": "w"},
        events=[{"name": "x", "timestamp": None}],
        input={"n": 1},
        output=[1, 2],
        error={"message": "no"},
        initial_state={},
        final_state={"s": "ü"},
    )
    put(project, told)
    found = project.ok("GET", f"/api/v1/traces/{trace}")
    [read] = found["spans"]
    assert read | {"started_at": 0, "ended_at": 0} == told | {"duration_ms": 1000.0, "started_at": 0, "ended_at": 0}
    assert (found["span_count"], found["error_count"], found["truncated"]) == (1, 1, False)
    assert (found["root_span_name"], found["status"]) == ("workflow.w", "failed")
    assert found["trace_start_time"] == "2026-01-01T00:00:01.000000+00:00"
    assert found["trace_end_time"] == "2026-01-01T00:00:02.000000+00:00"


def test_a_span_that_comes_again_replaces_the_earlier_one(project: Project) -> None:
    trace = uuid4().hex
    put(project, span(trace, "a", 1, output=1), span(trace, "a", 1, output=2))
    put(project, span(trace, "a", 1, output=3))
    found = project.ok("GET", f"/api/v1/traces/{trace}")
    assert [one["output"] for one in found["spans"]] == [3]


def test_the_times_that_workers_had_a_run_are_linked_into_one(project: Project) -> None:
    trace = uuid4().hex
    again = {"workflow.previous_span_id": "a"}
    put(project, span(trace, "b", 3, attributes=again, output="end"), span(trace, "s", 3, parent_span_id="b"))
    put(project, span(trace, "a", 1, input="begin"), span(trace, "c", 5, attributes={"workflow.previous_span_id": "b"}))
    found = project.ok("GET", f"/api/v1/traces/{trace}")
    whole, *parts = found["spans"]
    assert (whole["span_id"], whole["parent_span_id"], whole["input"]) == ("linked_a", None, "begin")
    assert (whole["started_at"], whole["ended_at"]) == (found["trace_start_time"], found["trace_end_time"])
    assert {one["span_id"]: one["parent_span_id"] for one in parts} == {
        "a": "linked_a",
        "b": "linked_a",
        "c": "linked_a",
        "s": "b",
    }
    assert found["span_count"] == 4


@pytest.mark.parametrize("previous", [{"a": "b", "b": "a"}, {"a": "a", "b": "nowhere"}, {"a": "b", "b": "b"}])
def test_links_that_lead_nowhere_do_no_harm(project: Project, previous: dict[str, str]) -> None:
    trace = uuid4().hex
    put(
        project,
        *(span(trace, one, 1, attributes={"workflow.previous_span_id": before}) for one, before in previous.items()),
    )
    found = project.ok("GET", f"/api/v1/traces/{trace}")
    assert {"a", "b"} <= {one["span_id"] for one in found["spans"]}


def test_attributes_that_cannot_be_read_lead_nowhere(project: Project) -> None:
    trace = uuid4().hex
    body = json.dumps({"spans": [span(trace, "a", 1, attributes={"cost": "N"})]}).replace('"N"', "1e400")
    headers = {"Content-Type": "application/json"}
    assert project.post("/internal/spans/batch", content=body, headers=headers).status_code == 200
    found = project.get(f"/api/v1/traces/{trace}")
    assert (found.status_code, "1e400" in found.text) == (200, True)


def test_traces_are_listed_by_their_root_spans(project: Project) -> None:
    good, bad, agent, rootless = (uuid4().hex for _ in range(4))
    put(
        project,
        span(good, "1", 1, input="in"),
        span(good, "2", 3, output="out"),
        span(good, "3", 2, parent_span_id="1"),
    )
    put(project, span(bad, "1", 5, error={"message": "no"}))
    put(project, span(agent, "1", 7, span_type="agent", name="agent.x"))
    put(project, span(rootless, "1", 9, parent_span_id="0"))
    put(project, span(served := uuid4().hex, "1", 11, span_type="custom", name="POST /execute", error={}))

    def listed(**which: Any) -> list[str]:
        return [one["trace_id"] for one in project.ok("GET", "/api/v1/traces", params=which)["traces"]]

    assert listed() == [agent, bad, good]
    assert listed(limit=1, offset=1) == [bad]
    assert listed(root_span_type="agent") == [agent]
    assert listed(root_span_type="custom") == listed(root_span_name="POST /execute") == [served]
    assert listed(root_span_name="workflow.w") == [bad, good]
    assert listed(root_span_name="workflow.w", root_span_type="agent") == []
    assert listed(root_span_name="workflow.w", has_error="false") == [good]
    assert listed(root_span_type="workflow", has_error="true") == [bad]
    assert listed(has_error="true") == [bad]
    assert listed(has_error="false") == [agent, good]
    assert listed(start_time="2026-01-01T00:00:05Z") == [agent, bad]
    assert listed(start_time="2026-01-01T00:00:05+00:00", end_time="2026-01-01T00:00:07Z") == [bad]
    record = project.ok("GET", "/api/v1/traces")["traces"][2]
    assert (record["input"], record["output"], record["duration_ms"]) == ("in", "out", 3000.0)
    assert (record["root_error"], record["status"]) == (None, "completed")


def test_a_trace_has_the_state_of_its_run(project: Project, worker: Worker) -> None:
    run = worker.running()
    put(project, span(run.replace("-", ""), "1", 1))
    assert project.ok("GET", f"/api/v1/traces/{run}")["status"] == "running"
    worker.complete(run)
    assert project.ok("GET", "/api/v1/traces")["traces"][0]["status"] == "completed"


def test_another_project_sees_no_trace_and_writes_none(project: Project, local_live: Live) -> None:
    run = project.start()
    put(project, span(run.replace("-", ""), "1", 1))
    free = uuid4().hex
    put(project, span(free, "1", 1))
    with Project(local_live) as other:
        assert other.ok("GET", "/api/v1/traces") == {"traces": []}
        assert other.get(f"/api/v1/traces/{run}").status_code == 404
        refused = other.post("/internal/spans/batch", json={"spans": [span(run.replace("-", ""), "2", 1)]})
        assert (refused.status_code, refused.json()["error_type"]) == (403, "PROJECT_ACCESS_FORBIDDEN")
        put(other, span(free, "1", 1, output="theirs"))  # of no run: its own
    assert project.ok("GET", f"/api/v1/traces/{free}")["spans"][0]["output"] is None


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"trace_id": "zz"}, 400, "trace_id"),
        ({"span_id": ""}, 400, "span_id"),
        ({"started_at": "yesterday"}, 400, "started_at"),
        ({"ended_at": "9999-12-31T23:59:59-23:59"}, 400, "ended_at"),
        ({"name": None}, 422, "name"),
    ],
)
def test_a_batch_with_a_bad_span_is_refused_whole(
    project: Project, change: dict[str, Any], status: int, word: str
) -> None:
    trace = uuid4().hex
    refused = project.post(
        "/internal/spans/batch", json={"spans": [span(trace, "1", 1), {**span(trace, "2", 1), **change}]}
    )
    assert (refused.status_code, word in refused.json()["error"]) == (status, True)
    assert project.get(f"/api/v1/traces/{trace}").status_code == 404


def test_questions_that_are_none_are_refused(project: Project) -> None:
    assert project.get("/api/v1/traces/xyz").status_code == 400
    for bad in ({"start_time": "x"}, {"limit": "-1"}, {"offset": "1000000000"}, {"has_error": "maybe"}):
        assert project.get("/api/v1/traces", params=bad).status_code in {400, 422}, bad
    assert project.post("/internal/spans/batch", json={"spans": []}).status_code == 200
