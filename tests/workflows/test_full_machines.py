"""Commands of workflows on machines that take no more just now."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from dormice.workflows import Workflows
from tests.conftest import StartLive
from tests.live import Api, Live
from tests.wait import wait_until
from tests.workflows import flows
from tests.workflows.conftest import SECONDS, StartWorker


@pytest.fixture(scope="module", name="live")
def _live(start_live: StartLive) -> Iterator[Live]:
    one = {f"DORMICE_LIMIT_{which}_PER_MACHINE": "1" for which in ("QUEUED", "RUNNING")}
    with start_live("process", **one) as live:
        yield live


@pytest.fixture(name="api")
def _api(live: Live) -> Iterator[Api]:
    with live.client() as api:
        yield api


@pytest.fixture(name="full")
def _full(api: Api) -> str:
    """A machine on which one command runs and one waits."""
    machine_id = api.create_machine()
    path = f"/v1/machines/{machine_id}/executions"
    for number, status in enumerate(("running", "queued")):
        headers = {"Idempotency-Key": f"{machine_id} {number}"}
        made = api.post(path, json={"command": ["sleep", "1000"]}, headers=headers).raise_for_status().json()
        at = f"{path}/{made['execution_id']}"
        wait_until(lambda at=at, status=status: api.get(at).json()["status"] == status, SECONDS, status)  # type: ignore[misc]
    return machine_id


def make_room(api: Api, machine_id: str) -> None:
    path = f"/v1/machines/{machine_id}/executions"
    for item in api.get(path).json()["items"]:
        api.delete(f"{path}/{item['execution_id']}").raise_for_status()


def refused(live: Live, run_id: str) -> None:
    """Wait until the worker of a run was told that its command has no room."""
    wait_until(lambda: f"run {run_id}: 'only' is not begun yet" in live.log.read_text(), SECONDS, "refused")


def test_a_run_whose_command_has_no_room_takes_no_place_and_goes_on_when_there_is(
    workflows: Workflows, api: Api, start_worker: StartWorker, full: str
) -> None:
    start_worker()
    run_id = workflows.start(flows.command_of, [full, "exit 3"])

    def rests() -> bool:
        why = api.get(f"/api/v1/executions/{run_id}/queue").json()
        return (why["status"], why["reason"]) == ("queued", "not_before")

    wait_until(rests, SECONDS, "put off")
    make_room(api, full)
    assert workflows.wait(run_id, timeout=SECONDS).result == 3


def test_a_run_whose_command_has_no_room_is_cancelled_at_once(
    live: Live, workflows: Workflows, start_worker: StartWorker, full: str
) -> None:
    start_worker()
    run_id = workflows.start(flows.command_of, [full, "exit 3"])
    refused(live, run_id)
    workflows.cancel(run_id)
    assert workflows.wait(run_id, timeout=SECONDS).status == "cancelled"


def test_a_worker_whose_command_has_no_room_ends(
    live: Live, workflows: Workflows, api: Api, start_worker: StartWorker, full: str
) -> None:
    worker = start_worker("--grace", "0")
    run_id = workflows.start(flows.command_of, [full, "exit 3"])
    refused(live, run_id)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(SECONDS) == 0
    assert workflows.get(run_id).status == "queued"
    make_room(api, full)
    start_worker()
    assert workflows.wait(run_id, timeout=SECONDS).result == 3
