"""What the other modules try on bare processes, where it matters that machines are real."""

from __future__ import annotations

import platform
from uuid import uuid4

import pytest

from tests.conformance.test_executions import ESCAPES, processes_with
from tests.conformance.test_sdks import Report, run_scenarios
from tests.live import Api, Live, new_key
from tests.wait import wait_until

pytestmark = pytest.mark.machines


def test_a_command_finds_itself_on_a_machine_of_its_own(container_api: Api, container_machine: str) -> None:
    script = "whoami; hostname; pwd; echo $HOME; uname -s; cat /proc/1/comm; ls /etc/debian_version"
    record = container_api.shell(container_machine, script)
    assert container_api.output(record).decode().splitlines() == [
        "root",
        container_machine,
        "/root",
        "/root",
        platform.system(),
        "guest",
        "/etc/debian_version",
    ]


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_timeout_kills_the_whole_tree(container_api: Api, container_machine: str, escape: str) -> None:
    tag = str(uuid4().int)[:16]
    record = container_api.shell(container_machine, ESCAPES[escape].format(tag=tag), timeout_ms=500)
    assert (record["status"], record["error_code"], record["signal"]) == ("failed", "timeout", 9)
    wait_until(lambda: not processes_with(f"600.{tag}"), 5, "nobody of the tree is left")


def test_a_daemon_outlives_its_command_and_ends_with_its_machine(container_api: Api) -> None:
    machine, tag = container_api.create_machine(autosleep="never"), str(uuid4().int)[:16]
    record = container_api.shell(machine, f"echo started; setsid sleep 600.{tag} &", wait_ms=5_000)
    assert (record["status"], container_api.output(record)) == ("succeeded", b"started\n")
    path = f"/v1/machines/{machine}"
    container_api.post(f"{path}/sleep", params={"wait_ms": 20_000}, headers=new_key())
    assert not processes_with(f"600.{tag}")


def test_the_disk_outlives_sleep_and_nothing_else_does(container_api: Api) -> None:
    machine = container_api.create_machine(autosleep="never")
    container_api.shell(machine, "echo kept > /root/kept; chown 1000:1000 /root/kept; touch /run/lost /dev/shm/lost")
    container_api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 20_000}, headers=new_key())
    record = container_api.shell(machine, "cat /root/kept; stat -c %u:%g /root/kept; ls /dev/shm")
    assert container_api.output(record) == b"kept\n1000:1000\n"


def test_memory_beyond_the_machines_ends_the_command_that_took_it(container_api: Api) -> None:
    machine = container_api.create_machine(autosleep="never", memory_mib=128)
    record = container_api.execute(machine, "python3", "-c", "x = bytearray(1 << 30)")
    assert (record["status"], record["error_code"], record["signal"]) == ("failed", "oom_killed", 9), record
    assert container_api.execute(machine, "true")["status"] == "succeeded"


def test_a_full_disk_is_told_inside(container_api: Api) -> None:
    machine = container_api.create_machine(autosleep="never", storage_gib=1)
    record = container_api.shell(machine, "fallocate -l 2G /root/big || head -c 2G /dev/zero > /root/big")
    assert record["status"] == "failed"
    assert b"No space left" in container_api.output(record, "stderr")


@pytest.mark.parametrize("version", ["0.1.0", "0.6.0"])
def test_the_sdk_is_served_on_real_machines(container_live: Live, version: str) -> None:
    report: Report = run_scenarios(container_live, version, "sync")
    assert {name: failure for name, failure in report.items() if failure} == {}
