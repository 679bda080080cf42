"""Usage, autoresizing and log tokens through our own SDK and command line, against a live server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import httpx
import pytest

from dormice import AsyncDormice, Dormice, UnprocessableEntityError
from tests.live import Live
from tests.wait import wait_until


def dormice(live: Live, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    own = {"DORMICE_BASE_URL": live.base_url, "DORMICE_API_KEY": live.api_key, "DORMICE_DATA_DIR": str(home)}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DORMICE_")}
    command = [sys.executable, "-m", "dormice.cli", *words]
    return subprocess.run(command, env={**inherited, **own}, capture_output=True, text=True, timeout=60, check=False)


def shown(live: Live, home: Path, *words: str) -> str:
    done = dormice(live, home, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_usage_is_told_by_the_client(live: Live, machine: str) -> None:
    with Dormice(base_url=live.base_url, api_key=live.api_key) as client:
        compute = wait_until(
            lambda: found if (found := client.usage.machine_compute(machine_id=machine)).rows else None, 20, "a row"
        )
        assert {row.machine_id for row in compute.rows} == {machine}
        assert compute.period_start == datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        today = datetime.now(UTC).date()
        by_day = client.usage.machine_compute(granularity="day", period_start=today, period_end=str(today))
        assert by_day.granularity == "day"
        [disk] = client.usage.machine_storage(machine_id=machine).rows
        assert disk.logical_storage_bytes == 1 << 30
        assert client.usage.retrieve(period_start=date(2026, 1, 1)).provisioned_storage_gib >= 1
        with pytest.raises(UnprocessableEntityError, match="period_end"):
            client.usage.machine_compute(period_end="2026-02-30")


async def test_usage_is_told_by_the_asynchronous_client(live: Live) -> None:
    async with AsyncDormice(base_url=live.base_url, api_key=live.api_key) as client:
        assert (await client.usage.retrieve()).plan_slug == "self-hosted"
        assert (await client.usage.machine_storage(period_start=date(2999, 1, 1))).rows == []


def test_autoresizing_is_set_by_the_client(live: Live, machine: str) -> None:
    with Dormice(base_url=live.base_url, api_key=live.api_key) as client:
        settings, policy = client.machines.autoresizing, client.organization.autoresizing
        assert [settings.update(machine, enabled=on).enabled for on in (True, False)] == [True, False]
        assert not settings.retrieve(machine).enabled
        assert [policy.update(enabled=on).enabled for on in (False, True)] == [False, True]
        assert policy.retrieve().enabled
        status = client.machines.retrieve(machine).status
        assert (status.memory_assigned_mib, status.memory_resize_state) == (256, "stable")


def test_a_token_of_the_client_reads_one_log_and_does_not_show_itself(live: Live, machine: str) -> None:
    with Dormice(base_url=live.base_url, api_key=live.api_key) as client:
        done = client.machines.run(machine, ["echo", "hello"])
        logs = client.machines.executions.logs
        assert logs.retrieve(machine, done.execution_id) == logs.reauthorize(machine, done.execution_id)
        token = logs.create_token(machine, done.execution_id)
    assert token.access_token not in repr(token)
    headers = {"Authorization": f"{token.token_type} {token.access_token}"}
    page = httpx.get(f"{token.base_url}/{token.stream_id}", headers=headers, trust_env=False).json()
    assert "hello\n" in [item.get("chunk") for item in page["items"]]
    assert token.access_token not in live.log.read_text()


def test_people_see_usage_in_columns(live: Live, machine: str, tmp_path: Path) -> None:
    assert "billed_awake_seconds" in shown(live, tmp_path, "usage")
    assert "self-hosted" in json.loads(shown(live, tmp_path, "usage", "--json")).values()
    disks = shown(live, tmp_path, "usage", "machine-storage", "--machine-id", machine).splitlines()
    assert disks[0].split() == ["FROM", "MACHINE", "ID", "DISK", "DISK", "X", "TIME"]
    assert (machine in disks[1], "1 GiB" in disks[1]) == (True, True)
    compute = shown(live, tmp_path, "usage", "machine-compute", "--granularity", "day", "--period-start", "2026-01-01")
    assert compute.startswith("FROM")
    rows = json.loads(shown(live, tmp_path, "usage", "machine-compute", "--json"))["rows"]
    assert all(row["awake_seconds"] >= 0 for row in rows)


def test_wrong_usage_of_usage_is_named(live: Live, tmp_path: Path) -> None:
    refused = dormice(live, tmp_path, "usage", "machine-storage", "--granularity", "day")
    assert (refused.returncode, "machine-storage takes no --granularity" in refused.stderr) == (2, True)
    refused = dormice(live, tmp_path, "usage", "--period-start", "today")
    assert (refused.returncode, "period_start must be a day" in refused.stderr) == (1, True)


def test_autoresizing_and_tokens_have_commands(live: Live, machine: str, tmp_path: Path) -> None:
    with live.client() as api:  # others may have forbidden it
        api.put("/v1/organization/autoresizing", json={"enabled": True}).raise_for_status()
    place = ["machines", "autoresizing", "--machine-id", machine, "--json"]
    assert json.loads(shown(live, tmp_path, *place)) == {"enabled": False}
    for setting in ("on", "off"):
        assert json.loads(shown(live, tmp_path, *place, setting)) == {"enabled": setting == "on"}
    assert json.loads(shown(live, tmp_path, "machines", "autoresizing", "--json")) == {"enabled": True}
    with Dormice(base_url=live.base_url, api_key=live.api_key) as client:
        done = client.machines.run(machine, ["true"])
    which = ["--machine-id", machine, "--execution-id", done.execution_id, "--json"]
    assert json.loads(shown(live, tmp_path, "machines", "executions", "logs", *which))["publication"]["complete"]
    token = json.loads(shown(live, tmp_path, "machines", "executions", "logs", *which, "--token"))
    assert token["stream_id"] == done.execution_id
