"""Usage on the wire: both sets of paths, days that are days, and rows that every client version takes."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from dormice.engine.usage import DAY_US, Period
from tests.api.fakes import MACHINE_ID, NOW, ORGANIZATION, World
from tests.api.test_errors import assert_problem

ORG = f"/v1/orgs/{ORGANIZATION}/usage"
COMPUTE = ("/v1/usage/machines/compute", f"{ORG}/machines")
STORAGE = ("/v1/usage/machines/storage", f"{ORG}/storage/machines")
JUNE = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp()) * 1_000_000


async def test_both_sets_of_paths_give_the_same(client: httpx.AsyncClient) -> None:
    for pair in (("/v1/usage", ORG), COMPUTE, STORAGE):
        one, other = [(await client.get(path)).raise_for_status().content for path in pair]
        assert one == other


async def test_totals_have_all_that_clients_demand(client: httpx.AsyncClient, world: World) -> None:
    assert (await client.get("/v1/usage")).json() == {
        "plan_slug": "self-hosted",
        "billed_awake_seconds": 1,
        "billed_cpu_millicore_seconds": 5,
        "billed_memory_mib_seconds": 2,
        "billed_logical_storage_mib_seconds": 1024,
        "provisioned_storage_gib": 10,
        "included_storage_gib": 0,
    }
    await client.get("/v1/usage?period_start=2026-05-03")
    assert [period.start for period, _, _ in world.usage.asked] == [JUNE, JUNE - 29 * DAY_US]


async def test_rows_have_all_that_clients_demand(client: httpx.AsyncClient) -> None:
    compute = (await client.get(COMPUTE[0])).json()
    assert (compute["granularity"], compute["period_start"]) == ("hour", "2026-06-01T00:00:00.000000Z")
    assert compute["rows"] == [
        {
            "machine_id": MACHINE_ID,
            "spec_fingerprint": "vcpu-0.5.memory-1024.storage-10",
            "requested_vcpu": 0.5,
            "requested_memory_mib": 1024,
            "requested_storage_gib": 10,
            "bucket_start": "2026-06-01T10:00:00.000000Z",
            "bucket_end": "2026-06-01T11:00:00.000000Z",
            "awake_seconds": 90,
            "cpu_millicore_seconds": 1234,
            "memory_mib_seconds": 92_672,
            "window_count": 9,
            "last_window_end": "2026-06-01T10:01:30.500000Z",
            "org_metering_bucket_ids": [],
            "stripe_cpu_identifiers": [],
            "stripe_memory_identifiers": [],
        }
    ]
    storage = (await client.get(STORAGE[0])).json()
    assert storage["rows"] == [
        {
            "machine_id": MACHINE_ID,
            "bucket_start": "2026-06-01T00:00:00.000000Z",
            "bucket_end": "2026-06-02T00:00:00.000000Z",
            "logical_storage_bytes": 10 << 30,
            "storage_mib_seconds": 10_240,
            "org_metering_bucket_id": "",
            "stripe_storage_identifier": "",
        }
    ]


@pytest.mark.parametrize("path", COMPUTE)
async def test_a_period_has_its_last_day_in_it(client: httpx.AsyncClient, world: World, path: str) -> None:
    query = {
        "period_start": "2026-05-30",
        "period_end": "2026-05-30",
        "granularity": "day",
        "machine_id": MACHINE_ID[3:],
    }
    answer = (await client.get(path, params=query)).json()
    assert (answer["period_start"], answer["period_end"]) == (
        "2026-05-30T00:00:00.000000Z",
        "2026-05-31T00:00:00.000000Z",
    )
    assert world.usage.asked == [(Period(JUNE - 2 * DAY_US, JUNE - DAY_US), MACHINE_ID, True)]
    assert answer["granularity"] == "day"
    await client.get(path, params={"period_start": "", "period_end": "", "granularity": "", "machine_id": ""})
    assert world.usage.asked[1:] == [(Period(JUNE, NOW), None, False)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("period_start", "period_end") for value in (
            "2026-02-30", "2026-6-1", "20260601", "2026-06-01T00:00:00Z", "yesterday", "-2026-06-01", "0000-00-00",
            "10000-01-01", "٢٠٢٦-٠٦-٠١", "2026-W23-1", " 2026-06-01",
        )),
        ("granularity", "week"),
        ("granularity", "Day"),
        ("machine_id", "nope"),
        ("machine_id", "dm-"),
    ],
)  # fmt: skip
async def test_what_is_no_day_or_machine_is_named(client: httpx.AsyncClient, name: str, value: str) -> None:
    for path in COMPUTE if name == "granularity" else (*COMPUTE, *STORAGE):
        problem = assert_problem(await client.get(path, params={name: value}), 422)
        assert problem["errors"][0]["location"] == f"query.{name}"
    if name == "period_start":
        assert_problem(await client.get("/v1/usage", params={name: value}), 422)


async def test_a_period_that_ends_before_it_starts_is_refused(client: httpx.AsyncClient) -> None:
    for path in (*COMPUTE, *STORAGE):
        query = {"period_start": "2026-06-02", "period_end": "2026-06-01"}
        problem = assert_problem(await client.get(path, params=query), 422)
        assert problem["errors"][0]["location"] == "query.period_end"
    for far in ("0001-01-01", "1969-12-31", "9999-12-31"):
        for path in (*COMPUTE, *STORAGE):
            for name in ("period_start", "period_end"):
                answer = await client.get(path, params={name: far})
                assert (answer.status_code, answer.json()["period_start"][:4]) == (
                    200,
                    far[:4] if far < "2026" or name == "period_start" else "2026",
                )


async def test_another_organization_is_not_there(client: httpx.AsyncClient) -> None:
    for path in (ORG, COMPUTE[1], STORAGE[1]):
        assert_problem(await client.get(path.replace(ORGANIZATION, "5f0c1f8e-0000-4000-8000-00000000000f")), 404)
