"""What machines use is measured where it is used, counted once whoever is killed, and a machine that is short is given more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.conftest import StartLive
from tests.live import Api, Live, new_key
from tests.wait import wait_until

BURN = "import time\nwhile time.process_time() < 1: pass"
HOLD = """
held = []
for n in range(25):
    held.append(bytearray(b"x" * (16 << 20)))
    time.sleep(1)
"""
"""400 MiB, slowly: the node looks once a second, and a machine of 256 MiB is short when 38 are left."""


@pytest.fixture(
    scope="module", name="metered", params=["process", pytest.param("container", marks=pytest.mark.machines)]
)
def _metered(request: pytest.FixtureRequest, start_live: StartLive) -> Iterator[Live]:
    """A Dormice of its own: its parts are killed."""
    with start_live(request.param) as live:
        yield live


def _rows(api: Api, machine_id: str) -> list[dict[str, Any]]:
    answer = api.get("/v1/usage/machines/compute", params={"machine_id": machine_id}).raise_for_status().json()
    rows: list[dict[str, Any]] = answer["rows"]
    return rows


def _asleep(api: Api, machine_id: str) -> None:
    """Put a machine to sleep, and see all that it has used counted."""
    asked = datetime.now(UTC)
    slept = api.post(f"/v1/machines/{machine_id}/sleep", params={"wait_ms": 20_000}, headers=new_key())
    assert slept.raise_for_status().json()["phase"] == "sleeping"

    def counted() -> bool:
        return any(datetime.fromisoformat(row["last_window_end"]) >= asked for row in _rows(api, machine_id))

    wait_until(counted, 20, "the last word of the boot is counted")


def _sum(api: Api, machine_id: str, name: str) -> int:
    return sum(row[name] for row in _rows(api, machine_id))


def test_time_awake_is_what_has_passed_though_server_and_node_are_killed(metered: Live) -> None:
    with metered.client() as api:
        asked = time.monotonic()
        machine_id = api.create_machine(memory_mib=256)
        ran = time.monotonic()
        api.execute(machine_id, "python3", "-c", BURN)
        for part in ("server", "node", "server"):
            metered.kill(part)
            metered.wait_ready()
            api.execute(machine_id, "true")
        stops = time.monotonic()
        _asleep(api, machine_id)
        stopped = time.monotonic()
        least, most = stops - ran, stopped - asked
        assert least - 2 <= _sum(api, machine_id, "awake_seconds") <= most
        cpu = _sum(api, machine_id, "cpu_millicore_seconds")
        if metered.driver == "container":
            assert 1_000 <= cpu <= most * 1_000
        memory = _sum(api, machine_id, "memory_mib_seconds")
        assert (least - 2) * 256 <= memory <= most * 256


def test_a_machine_that_sleeps_uses_its_disk_and_nothing_else(metered: Live) -> None:
    with metered.client() as api:
        machine_id = api.create_machine()
        _asleep(api, machine_id)
        compute = _rows(api, machine_id)

        def disk() -> int:
            rows = api.get("/v1/usage/machines/storage", params={"machine_id": machine_id}).json()["rows"]
            return sum(row["storage_mib_seconds"] for row in rows)

        before = disk()
        wait_until(lambda: disk() >= before + 1024, 10, "a second of a GiB")
        assert _rows(api, machine_id) == compute
        gone = api.delete(f"/v1/machines/{machine_id}", params={"wait_ms": 20_000}).json()
        assert gone["phase"] == "destroyed"
        last = disk()
        metered.kill("server")
        metered.wait_ready()
        assert disk() == last
        assert _rows(api, machine_id) == compute


def test_totals_are_the_sum_of_what_machines_have_used(metered: Live) -> None:
    with metered.client() as api:
        api.create_machine()

        def totals_with_a_disk() -> Any:
            found = api.get("/v1/usage").json()
            return found if found["billed_logical_storage_mib_seconds"] > 0 else None

        totals = wait_until(totals_with_a_disk, 20, "a disk that is there is counted")
        rows = api.get("/v1/usage/machines/compute", params={"granularity": "day"}).json()["rows"]
        assert abs(totals["billed_awake_seconds"] - sum(row["awake_seconds"] for row in rows)) <= len(rows)


@pytest.mark.machines
def test_a_machine_that_is_short_of_memory_is_given_more(container_api: Api) -> None:
    machine_id = container_api.create_machine(memory_mib=256, autosleep="never")
    place = f"/v1/machines/{machine_id}"
    assert container_api.put(f"{place}/autoresizing", json={"enabled": True}).json() == {"enabled": True}
    done = container_api.execute(machine_id, "python3", "-c", f"import time{HOLD}", wait_ms=50_000)
    assert done["status"] == "succeeded", done  # 400 MiB, in a machine of 256
    status = container_api.get(place).json()["status"]
    assert status["memory_configured_mib"] == status["memory_assigned_mib"] == status["memory_target_mib"] > 400
    assert status["memory_resize_state"] == "stable"
    assert "memory_last_autoresized_at" in status
    container_api.delete(place, params={"wait_ms": 20_000})


@pytest.mark.machines
def test_without_autoresizing_a_limit_stays_one(container_api: Api) -> None:
    machine_id = container_api.create_machine(memory_mib=128, autosleep="never")
    done = container_api.execute(machine_id, "python3", "-c", f"import time{HOLD}", wait_ms=50_000)
    assert (done["status"], done["error_code"]) == ("failed", "oom_killed"), done
    assert container_api.get(f"/v1/machines/{machine_id}").json()["memory_mib"] == 128
    container_api.delete(f"/v1/machines/{machine_id}", params={"wait_ms": 20_000})


@pytest.mark.machines
def test_files_that_the_kernel_keeps_in_memory_are_no_shortage(container_api: Api) -> None:
    machine_id = container_api.create_machine(memory_mib=128, autosleep="never", storage_gib=1)
    container_api.put(f"/v1/machines/{machine_id}/autoresizing", json={"enabled": True})
    write = "dd if=/dev/zero of=/root/big bs=1M count=400 2>/dev/null; cat /root/big >/dev/null; sleep 3"
    assert container_api.shell(machine_id, write, wait_ms=50_000)["status"] == "succeeded"
    assert container_api.get(f"/v1/machines/{machine_id}").json()["memory_mib"] == 128
    container_api.delete(f"/v1/machines/{machine_id}", params={"wait_ms": 20_000})
