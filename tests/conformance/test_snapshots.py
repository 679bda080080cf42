"""Snapshots and forks, on bare processes and on real machines."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.live import Api, Live, new_key
from tests.wait import wait_until

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


def test_a_sleeping_machine_is_forked_without_being_woken(any_api: Api) -> None:
    machine = any_api.create_machine(autosleep="never")
    any_api.shell(machine, "echo asleep > ~/file")
    any_api.post(f"/v1/machines/{machine}/sleep", params=WAIT, headers=new_key())
    made = fork(any_api, machine, memory_mib=128, autosleep="1h")
    assert (made["memory_mib"], made["autosleep_seconds"], made["storage_gib"]) == (128, 3600, 1)
    assert said(any_api, made["machine_id"], "cat ~/file") == b"asleep\n"
    assert any_api.get(f"/v1/machines/{machine}").json()["phase"] == "sleeping"


def test_the_same_key_makes_one_fork_and_one_snapshot(any_api: Api) -> None:
    machine, key = any_api.create_machine(autosleep="never"), new_key()
    forks = [any_api.post(f"/v1/machines/{machine}/fork", headers=key).json()["machine_id"] for _ in range(2)]
    kept = [any_api.post(f"/v1/machines/{machine}/snapshots", headers=key).json()["snapshot_id"] for _ in range(2)]
    assert forks[0] == forks[1]
    assert kept[0] == kept[1]
    any_api.delete(f"/v1/machines/{machine}", params=WAIT)
    again = any_api.post(f"/v1/machines/{machine}/snapshots", headers=key).json()["snapshot_id"]
    assert again == kept[0]
    assert any_api.post(f"/v1/machines/{machine}/fork", headers=key).json()["machine_id"] == forks[0]
    other = any_api.post(f"/v1/machines/{machine}/snapshots", json={"name": "other"}, headers=key)
    assert (other.status_code, other.json()["error_code"]) == (409, "IDEMPOTENCY_KEY_REUSED")


def test_what_cannot_be_copied_is_told(any_api: Api) -> None:
    machine = any_api.create_machine(autosleep="never", storage_gib=2)
    too_small = any_api.post(f"/v1/machines/{machine}/fork", json={"storage_gib": 1}, headers=new_key())
    assert (too_small.status_code, too_small.json()["errors"][0]["location"]) == (422, "body.storage_gib")
    kept = snapshot(any_api, machine)["snapshot_id"]
    for body, location in (
        ({"snapshot": kept, "storage_gib": 1}, "body.storage_gib"),
        ({"snapshot": kept, "image": "default"}, "body.image"),
    ):
        refused = any_api.post("/v1/machines", json=body, headers=new_key())
        assert (refused.status_code, refused.json()["errors"][0]["location"]) == (422, location)
    for nothing in ("snap-019e39e7-3d1b-7a85-a772-475990a3bda1", "x", "../../etc"):
        assert any_api.post("/v1/machines", json={"snapshot": nothing}, headers=new_key()).status_code == 404
    assert any_api.get("/v1/snapshots/x").status_code == 404
    any_api.delete(f"/v1/machines/{machine}", params=WAIT)
    for path in ("fork", "snapshots"):
        gone = any_api.post(f"/v1/machines/{machine}/{path}", headers=new_key())
        assert (gone.status_code, gone.json()["error_code"]) == (409, "INVALID_STATE")


def test_snapshots_are_listed_in_pages_and_of_one_machine(any_api: Api) -> None:
    machine = any_api.create_machine(autosleep="never")
    made = [snapshot(any_api, machine, name=str(number))["snapshot_id"] for number in range(3)]
    first = any_api.get(f"/v1/machines/{machine}/snapshots", params={"limit": 2}).json()
    rest = any_api.get(f"/v1/machines/{machine}/snapshots", params={"cursor": first["next_cursor"]}).json()
    assert [item["snapshot_id"] for item in (*first["items"], *rest["items"])] == made[::-1]
    named = any_api.post(f"/v1/machines/{machine}/snapshots", json={"name": "x" * 65}, headers=new_key())
    assert (named.status_code, named.json()["errors"][0]["location"]) == (422, "body.name")


@pytest.mark.machines
def test_a_snapshot_does_not_wait_for_all_that_another_organization_has_asked_for_before(
    container_live: Live, container_api: Api
) -> None:
    made = container_api.post("/v1/keys", json={"organization": "neighbour", "name": "one"}).raise_for_status().json()
    key = {"Authorization": f"Bearer {made['key']}"}
    large = [container_api.create_machine(autosleep="never") for _ in range(3)]
    with ExitStack() as after:
        threads = after.enter_context(ThreadPoolExecutor(6))
        neighbour = after.enter_context(container_live.client(headers=key))
        after.callback(container_live.delete_machines, **key)
        list(threads.map(lambda one: said(container_api, one, "head -c 150M /dev/zero > ~/file; sync"), large))
        small = neighbour.create_machine(autosleep="never")

        def states() -> list[str]:
            lists = [container_api.get(f"/v1/machines/{one}/snapshots").json()["items"] for one in large]
            return [item["status"] for items in lists for item in items]

        taking = [threads.submit(snapshot, container_api, one) for one in large * 2]
        wait_until(lambda: len(states()) == len(taking), 10, "all are asked for")
        before = states().count("ready")
        assert snapshot(neighbour, small)["status"] == "ready"
        assert states().count("ready") - before < len(large)
        for one in taking:
            container_api.delete(f"/v1/snapshots/{one.result()['snapshot_id']}").raise_for_status()


@pytest.mark.machines
def test_a_fork_may_have_a_larger_disk(container_api: Api) -> None:
    machine = container_api.create_machine(autosleep="never", storage_gib=1)
    container_api.shell(machine, "echo here > ~/file")
    made = fork(container_api, machine, storage_gib=3)
    script = "cat ~/file; df --output=size -BG / | tail -1 | tr -d ' G'"
    here, size = said(container_api, made["machine_id"], script).split()
    assert here == b"here"
    assert int(size) >= 2


@pytest.mark.machines
def test_what_a_machine_may_reach_is_in_its_record_and_can_be_changed(container_api: Api) -> None:
    listed = {"allow": ["example.com", "*.pypi.org", "1.2.3.0/24"]}
    machine = container_api.create_machine(autosleep="never", egress=listed)
    path = f"/v1/machines/{machine}"
    assert container_api.get(path).json()["egress"] == listed
    assert fork(container_api, machine)["egress"] == listed
    for egress in ("none", "public", listed, "none"):
        changed = container_api.patch(path, json={"egress": egress})
        assert (changed.status_code, changed.json()["egress"]) == (200, egress)
    assert container_api.patch(path, json={"vcpu": 0.5}).json()["egress"] == "none"
    assert "last_error" not in container_api.get(path).json()["status"]
    refused = container_api.shell(machine, "timeout 5 bash -c 'echo > /dev/tcp/192.0.2.1/80'")
    assert refused["status"] == "failed"


@pytest.mark.parametrize(
    ("egress", "location"),
    [
        ({"allow": ["10.0.0.0/8"]}, "body.egress.allow[0]"),
        ({"allow": ["ok.example", "http://x"]}, "body.egress.allow[1]"),
        ({"allow": ["a"] * 257}, "body.egress.allow"),
        ({"allow": "a"}, "body.egress.allow"),
        ({"deny": []}, "body.egress"),
        ("everything", "body.egress"),
        (1, "body.egress"),
        ([], "body.egress"),
    ],
)
def test_an_egress_policy_that_cannot_be_is_refused(api: Api, egress: Any, location: str) -> None:
    refused = api.post("/v1/machines", json={"egress": egress}, headers=new_key())
    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"][0]["location"].startswith(location)


def test_bare_processes_keep_no_egress_policy_and_that_is_told(api: Api) -> None:
    refused = api.post("/v1/machines", json={"egress": "none"}, headers=new_key())
    if api.get("/v1/limits").status_code == 200 and refused.status_code != 422:
        pytest.skip("these machines are isolated")
    assert "does not isolate" in refused.json()["detail"]
