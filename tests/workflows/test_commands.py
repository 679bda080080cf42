"""Commands on machines as steps of workflows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from dormice.workflows import RunFailed, Workflows
from tests.conftest import StartLive
from tests.live import Api, Live
from tests.wait import wait_until
from tests.workflows import flows
from tests.workflows.conftest import SECONDS, StartWorker


@pytest.fixture(scope="module", name="live")
def _live(start_live: StartLive) -> Iterator[Live]:
    with start_live("process") as live:
        yield live


@pytest.fixture(name="api")
def _api(live: Live) -> Iterator[Api]:
    with live.client() as api:
        yield api


def test_commands_are_steps(workflows: Workflows, api: Api, start_worker: StartWorker) -> None:
    start_worker()
    machine_id = api.create_machine()
    *results, execution_id = workflows.run(flows.commands, machine_id, timeout=SECONDS)
    assert results == [True, 4, 3, 9]
    assert api.get(f"/v1/machines/{machine_id}/executions/{execution_id}/output/stdout").content == b"x\nyz"
    items = api.get(f"/v1/machines/{machine_id}/executions").json()["items"]
    assert len(items) == 3
    [run] = api.get("/api/v1/executions?workflow_id=commands&limit=1").json()["executions"]
    shown = api.get(f"/api/v1/executions/{run['id']}/children").json()["commands"]
    assert {one["execution_id"] for one in shown} == {item["execution_id"] for item in items}
    assert {one["machine_id"] for one in shown} == {machine_id}


def test_a_command_that_cannot_be_begun_is_a_step_that_failed(workflows: Workflows, start_worker: StartWorker) -> None:
    start_worker()
    with pytest.raises(RunFailed, match=r"step 'first' failed: it could not be begun: no such machine$"):
        workflows.run(flows.commands, "dm-nowhere", timeout=SECONDS)


def test_a_machine_that_takes_no_commands_fails_the_step(
    live: Live, workflows: Workflows, api: Api, start_worker: StartWorker
) -> None:
    start_worker()
    machine_id = api.create_machine()
    path = f"/v1/machines/{machine_id}"
    api.post(f"{path}/sleep", headers={"Idempotency-Key": "sleep"}).raise_for_status()
    wait_until(lambda: api.get(path).json()["status"]["phase"] == "sleeping", SECONDS, "asleep")
    disk = live.data / "node" / "process" / machine_id
    disk.rename(disk.with_name("kept"))
    disk.write_text("no directory")
    api.post(f"{path}/wake", headers={"Idempotency-Key": "wake"}).raise_for_status()
    wait_until(lambda: api.get(path).json()["status"]["phase"] == "failed", SECONDS, "failed")
    with pytest.raises(RunFailed, match=r"step 'first' failed: it could not be begun: the machine is failed: "):
        workflows.run(flows.commands, machine_id, timeout=SECONDS)


def test_a_command_goes_on_while_its_worker_dies_and_its_server(
    live: Live, workflows: Workflows, api: Api, start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker()
    machine_id = api.create_machine()
    started, gate = tmp_path / "started", tmp_path / "gate"
    script = f"echo x >> {started}; while [ ! -e {gate} ]; do sleep 0.05; done; exit 3"
    run_id = workflows.start(flows.command_of, [machine_id, script])
    wait_until(started.exists, SECONDS, "the command runs")
    worker.kill()
    live.kill("server")
    live.wait_ready()
    gate.touch()
    start_worker()
    assert workflows.wait(run_id, timeout=SECONDS).result == 3
    assert started.read_text() == "x\n"


def test_a_command_survives_its_worker_and_ends_with_its_run(
    workflows: Workflows, api: Api, start_worker: StartWorker
) -> None:
    worker = start_worker()
    machine_id = api.create_machine()
    run_id = workflows.start(flows.command_that_lasts, machine_id)
    path = f"/v1/machines/{machine_id}/executions"

    def command() -> dict[str, str] | None:
        items = api.get(path).json()["items"]
        return items[0] if items and items[0]["status"] == "running" else None

    began = wait_until(command, SECONDS, "the command runs")
    worker.kill()
    assert workflows.get(run_id).status == "waiting"
    workflows.cancel(run_id)
    assert workflows.wait(run_id, timeout=SECONDS).status == "cancelled"
    assert api.get(f"{path}/{began['execution_id']}").json()["status"] == "cancelled"


def test_a_key_of_one_project_runs_no_commands(live: Live, api: Api) -> None:
    machine_id = api.create_machine()
    project = api.post("/api/v1/projects", json={"name": "p"}).raise_for_status().json()["id"]
    made = api.post("/api/v1/api-keys", json={"name": "k", "project_id": project}).raise_for_status().json()
    headers = {"X-Project-ID": project}
    own = {**headers, "Authorization": f"Bearer {made['key']}"}
    offer = {"deployment_id": "d", "max_concurrent": 1, "workflows": [{"workflow_id": "w"}]}
    with api.stream("POST", "/api/v1/workers/connect", json=offer, headers=own) as connection:
        lines = (json.loads(line) for line in connection.iter_lines() if line)
        worker_id = next(lines)["worker_id"]
        api.post("/api/v1/workflows/w/run", json={"payload": 1}, headers=own).raise_for_status()
        run = next(lines)
        path = f"/internal/executions/{run['run_id']}/commands"
        command = {"step_key": "x", "machine_id": machine_id, "execution": {"command": ["true"]}}
        body = {**command, "worker_id": worker_id, "fence": run["fence"]}
        refused = api.post(path, json=body, headers=own)
        assert (refused.status_code, "needs a key of the organization" in refused.text) == (403, True)
        assert api.post(path, json={**body, "worker_id": str(uuid4())}, headers=headers).status_code == 409
        assert api.post(path, json=command, headers=headers).status_code == 422
        assert api.get(f"/v1/machines/{machine_id}/executions").json()["items"] == []
        assert api.post(path, json=body, headers=headers).status_code == 200
