"""Snapshots and forks, on bare processes and on real machines."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live import Api, new_key

WAIT = {"wait_ms": 20_000}


@pytest.fixture(name="any_api", params=["process", pytest.param("container", marks=pytest.mark.machines)])
def _any_api(request: pytest.FixtureRequest) -> Api:
    api: Api = request.getfixturevalue("api" if request.param == "process" else "container_api")
    return api


def snapshot(api: Api, machine: str, **body: Any) -> dict[str, Any]:
    return dict(api.post(f"/v1/machines/{machine}/snapshots", json=body, headers=new_key()).raise_for_status().json())


def fork(api: Api, machine: str, **body: Any) -> dict[str, Any]:
    made = api.post(f"/v1/machines/{machine}/fork", json=body, params=WAIT, headers=new_key())
    return dict(made.raise_for_status().json())


def said(api: Api, machine: str, script: str) -> bytes:
    return api.output(api.shell(machine, script))


def test_a_fork_has_the_files_of_the_moment_and_goes_its_own_way(any_api: Api) -> None:
    machine = any_api.create_machine(autosleep="never")
    any_api.shell(machine, "echo before > ~/file")
    made = fork(any_api, machine)
    assert (made["phase"], made["origin"], made["copied"]) == ("running", machine, True)
    any_api.shell(machine, "echo after > ~/file")
    assert said(any_api, made["machine_id"], "cat ~/file") == b"before\n"
    any_api.shell(made["machine_id"], "echo of the fork > ~/file")
    assert said(any_api, machine, "cat ~/file") == b"after\n"


def test_a_machine_made_from_a_snapshot_begins_with_its_files(any_api: Api) -> None:
    machine = any_api.create_machine(autosleep="never")
    any_api.shell(machine, "echo kept > ~/file")
    made = snapshot(any_api, machine, name="first")
    assert (made["status"], made["name"], made["machine_id"]) == ("ready", "first", machine)
    any_api.delete(f"/v1/machines/{machine}", params=WAIT)
    copy = any_api.create_machine(autosleep="never", snapshot=made["snapshot_id"])
    assert said(any_api, copy, "cat ~/file") == b"kept\n"
    listed = any_api.get("/v1/snapshots").json()["items"]
    assert made in listed
    deleted = any_api.delete(f"/v1/snapshots/{made['snapshot_id']}", params=WAIT)
    assert deleted.json()["status"] == "deleted"
    assert said(any_api, copy, "cat ~/file") == b"kept\n"
