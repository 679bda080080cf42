"""What `/metrics` says of runs, compared with what was done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest

from dormice.domain.run import RunState, WaitKind
from tests.conftest import StartLive
from tests.live import Api, Live
from tests.telemetry.scraping import Samples, risen, scrape, value
from tests.wait import wait_until
from tests.workflow_surface.surface import DEPLOYMENT, Project, worker_of


@pytest.fixture(scope="module", name="live")
def _live(start_live: StartLive) -> Iterator[Live]:
    """A Dormice that nobody else uses."""
    with start_live("process", DORMICE_LOCAL_MODE="true") as live:
        yield live


@pytest.fixture(name="project")
def _project(live: Live) -> Iterator[Project]:
    with Project(live) as project:
        yield project


def by(before: Samples, after: Samples, name: str, label: str) -> dict[str, float]:
    """How much the samples of a name rose, by one label; those that did not are left out."""
    rises = {
        dict(labels)[label]: risen(before, after, name, **dict(labels)) for found, labels in after if found == name
    }
    return {key: rise for key, rise in rises.items() if rise}


def test_runs_are_counted_by_what_became_of_them(project: Project, api: Api) -> None:
    before = scrape(api)
    with worker_of(project) as worker:
        worker.complete(worker.running())
        worker.fail(worker.running())
        again = worker.running()
        body = {"error": "once more", "worker_id": worker.id, "retryable": True}
        project.ok("POST", f"/internal/executions/{again}/fail", json=body)
        wait_until(lambda: len(worker.pushed) == 4, 20, "its second attempt")
        project.in_status(again, "running")
        worker.complete(again)
        project.deploy("nobody's")
        unserved = project.start(deployment_id="nobody's")
        project.ok("POST", f"/api/v1/executions/{unserved}/cancel")
    after = scrape(api)
    assert risen(before, after, "dormice_runs_created_total") == 4
    assert by(before, after, "dormice_runs_finished_total", "status") == {"completed": 2, "failed": 1, "cancelled": 1}
    assert by(before, after, "dormice_run_attempts_failed_total", "reason") == {"failed": 2}
    assert by(before, after, "dormice_runs_open", "status") == {}
    assert by(before, after, "dormice_run_pushes_total", "answer")["accepted"] >= 4
    assert risen(before, after, "dormice_run_pulls_total") == 0


def test_what_waits_for_a_worker_is_shown_also_after_a_restart(live: Live, project: Project, api: Api) -> None:
    project.deploy()
    runs = [project.start() for _ in range(3)]
    first = scrape(api)
    assert value(first, "dormice_run_queue_depth") == 3
    assert value(first, "dormice_runs_open", status="queued") == 3
    live.kill("server")
    live.wait_ready()
    after = wait_until(lambda: shown if value(shown := scrape(api), "dormice_run_queue_depth") else None, 10, "loaded")
    assert value(after, "dormice_run_queue_depth") == 3
    assert value(after, "dormice_run_queue_oldest_age_seconds") > 0
    assert value(after, "dormice_runs_created_total") == 0, "what is loaded is not new"
    for run in runs:
        project.ok("POST", f"/api/v1/executions/{run}/cancel")
    last = scrape(api)
    assert value(last, "dormice_run_queue_depth") == 0
    assert value(last, "dormice_run_queue_oldest_age_seconds") == 0
    assert by(after, last, "dormice_runs_finished_total", "status") == {"cancelled": 3}


def test_waits_are_shown_by_kind_also_after_a_restart(live: Live, project: Project, api: Api) -> None:
    before = scrape(api)
    with worker_of(project) as worker:
        asking, parent = worker.running(), worker.running()
        project.suspend(asking, "s", {"q": 1}, topic=f"workflow/w/{asking}")
        body = {"parent_execution_id": parent, "step_key": "c", "wait_for_subworkflow": True}
        project.start("child", **body)
        waiting = scrape(api)
        assert by(before, waiting, "dormice_run_waits_open", "kind") == {"suspend": 1, "subworkflow": 1}
        assert value(waiting, "dormice_runs_open", status="waiting") == 2
        live.kill("server")
        live.wait_ready()
        again = wait_until(
            lambda: shown if value(shown := scrape(api), "dormice_runs_open", status="waiting") else None, 10, "loaded"
        )
        assert value(again, "dormice_run_waits_open", kind="suspend") == 1
        assert value(again, "dormice_run_waits_open", kind="subworkflow") == 1
        for run in (asking, parent):  # and its child with it
            project.ok("POST", f"/api/v1/executions/{run}/cancel")
        last = scrape(api)
        assert value(last, "dormice_run_waits_open", kind="suspend") == 0
        assert value(last, "dormice_run_waits_open", kind="subworkflow") == 0


def test_waits_together_and_for_a_command_are_shown(project: Project, api: Api) -> None:
    project.deploy()
    machine = api.create_machine(autosleep="never")
    before = scrape(api)
    body = {"deployment_id": DEPLOYMENT, "max_concurrent": 2, "workflows": [{"workflow_id": "w"}]}
    with project.stream("POST", "/api/v1/workers/connect", json=body) as work:
        lines = (json.loads(line) for line in work.iter_lines() if line)
        worker = next(lines)["worker_id"]
        runs = [project.start(), project.start()]
        given = {line["run_id"]: line["fence"] for line in (next(lines), next(lines))}
        report = {
            "kind": "suspend",
            "run_id": runs[0],
            "fence": given[runs[0]],
            "waits": [
                {"step_key": "t", "wait_type": "time", "delay_ms": 600_000},
                {"step_key": "e", "wait_type": "event", "topic": "t"},
            ],
            "children": [{"step_key": "c", "workflow_id": "nobody's"}],
        }
        path = f"/api/v1/workers/{worker}/reports"
        answer = project.ok("POST", path, json={"presence": "working", "items": [report]})
        assert [item["status"] for item in answer["answers"]] == ["ok"]
        command = {"command": ["sleep", "600"]}
        body = {"step_key": "x", "machine_id": machine, "execution": command, "worker_id": worker}
        project.ok("POST", f"/internal/executions/{runs[1]}/commands", json={**body, "fence": given[runs[1]]})
        shown = by(before, scrape(api), "dormice_run_waits_open", "kind")
        assert shown == {"time": 1, "event": 1, "subworkflow": 1, "execution": 1}
        for run in runs:
            project.ok("POST", f"/api/v1/executions/{run}/cancel")
            project.in_status(run, "cancelled")
    assert by(before, scrape(api), "dormice_run_waits_open", "kind") == {}


def test_events_are_counted(project: Project, api: Api) -> None:
    before = scrape(api)
    events = [{"event_type": "told", "data": number} for number in range(3)]
    project.ok("POST", "/api/v1/events/publish", json={"topic": "t", "events": events})
    project.publish("t2", "told", 1)
    assert risen(before, scrape(api), "dormice_events_published_total") == 4


def test_workers_are_shown_by_state(start_live: StartLive) -> None:
    with start_live("process", DORMICE_LOCAL_MODE="true") as live, live.client() as api, Project(live) as project:

        def workers() -> dict[str, float]:
            samples = scrape(api)
            states = ("online", "full", "offline")
            return {state: count for state in states if (count := value(samples, "dormice_workers", state=state))}

        project.deploy()
        body = {"deployment_id": DEPLOYMENT, "max_concurrent": 1, "workflows": [{"workflow_id": "w"}]}
        with project.stream("POST", "/api/v1/workers/connect", json=body) as work:
            lines = work.iter_lines()
            assert '"connected"' in next(lines)
            assert workers() == {"online": 1}
            project.start()
            next(line for line in lines if '"run"' in line)
            assert workers() == {"full": 1}
            assert value(scrape(api), "dormice_run_pulls_total") == 1
        wait_until(lambda: workers() == {"offline": 1}, 10, "it is gone")


def test_all_that_can_be_is_shown_from_the_start_and_nothing_that_a_tenant_chooses(project: Project, api: Api) -> None:
    with worker_of(project) as worker:
        chosen = f"chosen-{uuid4()}"
        run = worker.running(chosen, queue_name=chosen)
        project.publish(chosen, chosen, 1)
        samples = scrape(api)
        worker.complete(run)
    shown: dict[str, set[str]] = {}
    for name, labels in samples:
        if name.startswith(("dormice_run", "dormice_workers", "dormice_events")):
            shown.setdefault(name, set()).update(text for _, text in labels)
    ends = {RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED}
    assert shown == {
        "dormice_runs_open": {state.value for state in RunState} - ends,
        "dormice_runs_finished_total": {state.value for state in ends},
        "dormice_runs_created_total": set(),
        "dormice_run_queue_depth": set(),
        "dormice_run_queue_oldest_age_seconds": set(),
        "dormice_run_attempts_failed_total": {"failed", "worker_lost"},
        "dormice_run_waits_open": {kind.value for kind in WaitKind},
        "dormice_events_published_total": set(),
        "dormice_workers": {"online", "full", "offline"},
        "dormice_run_pushes_total": {"accepted", "full", "refused", "mismatch", "rejected", "ambiguous"},
        "dormice_run_pulls_total": set(),
    }
