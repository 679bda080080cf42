"""What workers report that cannot be taken: it counts for the run of its sender only."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from dormice.api.workflows.attempts import SEARCHED_BYTES, sender_of
from tests.conftest import StartLive
from tests.workflow_surface.surface import Project, Worker, worker_of

BODY_BYTES = 200_000


@pytest.fixture(name="small", scope="module")
def _small(start_live: StartLive) -> Iterator[Worker]:
    """A worker of a Dormice that takes small bodies only."""
    sizes = {"DORMICE_LIMIT_WORKFLOW_BODY_BYTES": str(BODY_BYTES)}
    with (
        start_live("process", DORMICE_LOCAL_MODE="true", **sizes) as live,
        Project(live) as project,
        worker_of(project) as worker,
    ):
        yield worker


BROKEN = [
    ('{"result": NaN, "worker_id": "%s"}', 400),
    ('{"result": ' + "[" * 5_000 + "]" * 5_000 + ', "worker_id": "%s"}', 400),
    ('{"result": "' + "x" * BODY_BYTES + '", "worker_id": "%s", "output_schema_name": "m.C"}', 413),
    ('{"worker_id": "%s"}', 422),
    ('{"result": 1, "worker_id": "%s", "output_schema_name": 7}', 422),
]
KINDS = ["not-a-number", "deep", "too-large", "no-result", "wrong-type"]


def _complete(worker: Worker, run: str, body: str) -> int:
    headers = {"Content-Type": "application/json"}
    return worker.project.post(f"/internal/executions/{run}/complete", content=body, headers=headers).status_code


@pytest.mark.parametrize(("body", "status"), BROKEN, ids=KINDS)
def test_a_result_that_cannot_be_taken_fails_the_run_of_its_worker(small: Worker, body: str, status: int) -> None:
    run = small.running()
    assert _complete(small, run, body % small.id) == status
    record = small.project.run(run)
    assert record["status"] == "failed"
    assert "could not be taken" in record["error"]


@pytest.mark.parametrize(("body", "status"), BROKEN, ids=KINDS)
def test_a_result_that_cannot_be_taken_of_another_worker_changes_nothing(small: Worker, body: str, status: int) -> None:
    run = small.running()
    assert _complete(small, run, body % uuid4()) == 409
    assert _complete(small, run, body % "nobody") == status
    assert small.project.run(run)["status"] == "running"
    small.complete(run, 1)


def test_the_sender_is_looked_for_in_the_end_of_a_document_only() -> None:
    """All of it may be 100 MiB, and who looks holds the event loop."""
    sender = str(uuid4())
    named = f'{{"result": NaN, "worker_id": "{uuid4()}", "final_state": {{"worker_id" : "{sender}"}}'.encode()
    assert sender_of(named) == sender
    assert sender_of(named.ljust(SEARCHED_BYTES)) == sender
    assert sender_of(named.ljust(SEARCHED_BYTES + len(named))) is None


@pytest.mark.parametrize("kind", ["event", "suspend"])
def test_the_topic_of_a_wait_is_checked_as_that_of_an_event(worker: Worker, kind: str) -> None:
    run = worker.running()
    body = {"step_key": "ear", "wait_type": kind, "wait_topic": "t" * 1_025}
    refused = worker.project.post(f"/internal/executions/{run}/wait", json=body)
    assert refused.status_code == 400
    assert "wait_topic must have from 1 to 1024 characters (topic_chars)" in refused.text
    assert worker.project.run(run)["status"] == "running"
