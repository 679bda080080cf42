"""Autoresizing on the wire."""

from __future__ import annotations

import httpx
import pytest

from dormice.domain.machine import Phase, ResizeState
from tests.api.fakes import MACHINE_ID, NOW, World, new_machine
from tests.api.test_errors import assert_problem

PATHS = (f"/v1/machines/{MACHINE_ID}/autoresizing", "/v1/organization/autoresizing")


async def test_machines_begin_without_and_organizations_with_it(client: httpx.AsyncClient) -> None:
    assert [(await client.get(path)).json() for path in PATHS] == [{"enabled": False}, {"enabled": True}]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("enabled", [True, False])
async def test_what_is_set_holds(client: httpx.AsyncClient, path: str, *, enabled: bool) -> None:
    for answer in (await client.put(path, json={"enabled": enabled}), await client.get(path)):
        assert (answer.status_code, answer.json()) == (200, {"enabled": enabled})


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [{}, {"enabled": None}, {"enabled": "yes"}, {"enabled": 1}, {"enabled": True, "x": 1}])
async def test_what_is_no_setting_is_refused(client: httpx.AsyncClient, path: str, body: dict[str, object]) -> None:
    problem = assert_problem(await client.put(path, json=body), 422)
    assert problem["errors"][0]["location"].startswith("body.")


async def test_a_status_tells_what_became_of_the_memory(client: httpx.AsyncClient, world: World) -> None:
    async def status() -> dict[str, object]:
        told = (await client.get(f"/v1/machines/{MACHINE_ID}")).json()["status"]
        return {name.removeprefix("memory_"): value for name, value in told.items() if name.startswith("memory_")}

    world.machines.machine = new_machine(
        memory_mib=1536, unapplied_from_mib=1024, resize_state=ResizeState.ERROR, autoresized_at=NOW
    )
    assert await status() == {
        "configured_mib": 1536,
        "assigned_mib": 1024,
        "target_mib": 1536,
        "last_autoresized_at": "2026-06-01T10:00:00.000000Z",
        "resize_state": "error",
    }
    world.machines.machine = new_machine(phase=Phase.SLEEPING)
    assert await status() == {"configured_mib": 1024, "resize_state": "stable"}
