"""Machines on the wire: bodies, headers, paging and the status stream."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from dormice.api.machines import wire
from dormice.domain.errors import NotFound, Unavailable
from dormice.domain.machine import DesiredState, Phase
from dormice.engine.orders import MachineOrder, MachinePatch
from tests.api.fakes import KEY, MACHINE_ID, ORGANIZATION, World, new_machine
from tests.api.test_errors import assert_problem

MACHINE = f"/v1/machines/{MACHINE_ID}"


async def test_a_machine_has_the_body_that_every_client_version_takes(client: httpx.AsyncClient) -> None:
    response = await client.get(MACHINE)
    assert response.json() == {
        "machine_id": MACHINE_ID,
        "vcpu": 1.0,
        "memory_mib": 1024,
        "storage_gib": 10,
        "desired_state": "running",
        "autosleep_seconds": 300,
        "created_at": "2026-06-01T10:00:00.000000Z",
        "phase": "running",
        "image": "default",
        "egress": "public",
        "status": {
            "phase": "running",
            "reason": "DesiredStateReached",
            "retryable": False,
            "revision": "7",
            "last_transition_at": "2026-06-01T10:00:00.000000Z",
            "last_progress_at": "2026-06-01T10:00:00.000000Z",
            "memory_configured_mib": 1024,
            "memory_assigned_mib": 1024,
            "memory_target_mib": 1024,
            "memory_resize_state": "stable",
        },
    }
    assert response.headers["etag"] == '"7"'


async def test_a_bare_uuid_names_the_same_machine(client: httpx.AsyncClient) -> None:
    response = await client.get(f"/v1/machines/{MACHINE_ID.removeprefix('dm-')}")
    assert response.json()["machine_id"] == MACHINE_ID


async def test_either_header_carries_the_key_and_one_valid_one_is_enough(client: httpx.AsyncClient) -> None:
    del client.headers["Authorization"]
    wrong = "w" * 32
    for headers in (
        {"x-api-key": KEY},
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}", "X-API-KEY": wrong},
        {"Authorization": f"Bearer {wrong}", "x-api-key": KEY},
        {"x-api-key": KEY, "X-Dedalus-Org-Id": ORGANIZATION},
        {"x-api-key": KEY, "X-Dedalus-Org-Id": ""},
    ):
        assert (await client.get(MACHINE, headers=headers)).status_code == 200, headers


async def test_creating_says_what_is_wanted_and_whether_it_is_done(client: httpx.AsyncClient, world: World) -> None:
    body = {"vcpu": 0.5, "memory_mib": 64, "storage_gib": 2, "autosleep": "1h", "image": "small"}
    response = await client.post("/v1/machines", json=body, headers={"Idempotency-Key": "k"}, params={"wait_ms": 5})
    assert response.status_code == 200
    [(what, (order, idempotency, wait_ms))] = world.machines.asked
    assert what == "create"
    assert order == MachineOrder(vcpu=0.5, memory_mib=64, storage_gib=2, image="small", autosleep_seconds=3600)
    assert idempotency.scope == "POST /v1/machines"
    assert wait_ms == 5
    world.machines.machine = new_machine(phase=Phase.ACCEPTED, reason="Accepted")
    response = await client.post("/v1/machines", headers={"Idempotency-Key": "k"})
    assert response.status_code == 202
    assert world.machines.asked[-1][1][0] == MachineOrder()


@pytest.mark.parametrize(
    ("header", "revision"),
    [('"7"', "7"), ("7", "7"), ('W/"7"', "7"), ("*", None), ('"*"', None), (None, None), ("", None), ('"a"', "a")],
)
async def test_if_match_is_optional_and_its_quotes_too(
    client: httpx.AsyncClient, world: World, header: str | None, revision: str | None
) -> None:
    headers = {} if header is None else {"If-Match": header}
    await client.patch(MACHINE, json={"vcpu": 2, "autosleep": "never"}, headers=headers)
    assert world.machines.asked == [("patch", (MachinePatch(vcpu=2.0, autosleep_seconds=0), revision, None))]
    for verb, method, path in (("sleep", "POST", "/sleep"), ("wake", "POST", "/wake"), ("destroy", "DELETE", "")):
        await client.request(method, MACHINE + path, headers=headers)
        assert world.machines.asked[-1] == (verb, (revision, None, 0))


async def test_sleep_wake_and_destroy_take_key_and_wait(client: httpx.AsyncClient, world: World) -> None:
    for verb, method, path in (("sleep", "POST", "/sleep"), ("wake", "POST", "/wake"), ("destroy", "DELETE", "")):
        url = f"/v1/machines/{MACHINE_ID.removeprefix('dm-')}{path}"
        headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        response = await client.request(method, url, headers=headers, params={"wait_ms": 9})
        assert response.status_code == 200
        what, (_, idempotency, wait_ms) = world.machines.asked[-1]
        assert (what, wait_ms) == (verb, 9)
        assert idempotency.scope == f"{method} {MACHINE}{path}"


async def test_the_list_walks_newest_first_and_ends(client: httpx.AsyncClient) -> None:
    cursor, numbers, pages = None, 0, 0
    while True:
        page = (await client.get("/v1/machines", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        numbers, pages = numbers + len(page["items"]), pages + 1
        cursor = page.get("next_cursor")
        if cursor is None:
            break
    assert (numbers, pages) == (3, 2)


@pytest.mark.parametrize(("limit", "size"), [("", 50), ("0", 50), ("7", 7), ("1000", 1000), ("5000", 1000)])
async def test_a_page_is_of_the_default_size_or_clamped(
    client: httpx.AsyncClient, world: World, limit: str, size: int
) -> None:
    world.machines.count = 2_500
    page = (await client.get("/v1/machines", params={"limit": limit} if limit else {})).json()
    assert (len(page["items"]), page["next_cursor"]) == (size, f"b{2_500 - size + 1}")


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 64, 65, 100, 129])
async def test_a_page_that_has_all_has_no_cursor_however_it_was_read(
    client: httpx.AsyncClient, world: World, count: int
) -> None:
    world.machines.count = count
    page = (await client.get("/v1/machines", params={"limit": max(count, 1)})).json()
    assert (len(page["items"]), "next_cursor" in page) == (count, False)
    if count > 1:
        page = (await client.get("/v1/machines", params={"limit": count - 1})).json()
        assert (len(page["items"]), page["next_cursor"]) == (count - 1, "b2")


async def test_a_long_list_is_read_in_slices(client: httpx.AsyncClient, world: World) -> None:
    world.machines.count = 500
    await client.get("/v1/machines", params={"limit": 400})
    assert sum(limit for _, (_, limit) in world.machines.asked) == 401
    assert max(limit for _, (_, limit) in world.machines.asked) < 50


def frames(text: str) -> list[dict[str, str]]:
    assert text.endswith("\n\n")
    found = []
    for block in text.split("\n\n")[:-1]:
        lines = [line.partition(": ") for line in block.split("\n")]
        found.append({name or "comment": value for name, _, value in lines})
    return found


async def test_the_status_stream_shows_the_present_state_and_every_change(
    client: httpx.AsyncClient, world: World
) -> None:
    world.machines.machine = new_machine(desired_state=DesiredState.SLEEPING, revision=7)
    world.machines.history = [
        new_machine(phase=Phase.STOPPING, revision=8),
        None,
        new_machine(phase=Phase.SLEEPING, revision=9),
    ]
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "3"}
    response = await client.get(f"{MACHINE}/status/stream", headers=headers)
    assert response.headers["content-type"] == "text/event-stream"
    first, second, keep_alive, last = frames(response.text)
    assert [event["id"] for event in (first, second, last)] == ["7", "8", "9"]
    assert {event["event"] for event in (first, second, last)} == {"status"}
    assert keep_alive == {"comment": "ka"}
    assert msgspec.json.decode(last["data"], type=wire.MachineRecord).phase is Phase.SLEEPING


async def test_the_status_stream_of_an_unknown_machine_is_a_problem(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/v1/machines/dm-nope/status/stream"), 404)


async def test_an_error_in_the_midst_of_a_stream_is_its_last_event(client: httpx.AsyncClient, world: World) -> None:
    async def changes(_caller: Any, _machine_id: str) -> Any:
        yield new_machine()
        raise NotFound("no such machine")

    world.machines.changes = changes  # type: ignore[assignment]
    events = frames((await client.get(f"{MACHINE}/status/stream")).text)
    assert [event["event"] for event in events] == ["status", "error"]
    assert msgspec.json.decode(events[1]["data"])["status"] == 404


async def test_keys_are_made_shown_and_revoked(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/keys")).json()
    assert listed["items"][0]["key_id"] == "key-1"
    assert "key" not in listed["items"][0]
    assert (await client.post("/v1/keys", json={})).json()["error_code"] == "AUTH_SCOPE_FORBIDDEN"
    client.headers["Authorization"] = "Bearer " + "a" * 32
    made = await client.post("/v1/keys", json={"organization": "other", "name": "ci", "admin": True})
    assert made.json()["key"] == "s" * 40
    assert made.json()["name"] == "ci"
    assert made.headers["cache-control"] == "no-store"
    assert (await client.post("/v1/keys")).json()["name"] == "key"
    assert (await client.delete("/v1/keys/key-1")).json()["revoked_at"] == "2026-06-01T10:00:00.000000Z"
    assert_problem(await client.delete("/v1/keys/nope"), 404)
    for body in ({"name": ""}, {"name": "x" * 65}, {"name": "a\n"}, {"organization": ""}):
        assert_problem(await client.post("/v1/keys", json=body), 422)


async def test_limits_are_told_by_name(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v1/limits")).json()
    assert body["limits"]["request_body_bytes"] == 1 << 20
    assert body["defaults"]["page_default"] == 50
    assert body["machine"]["cwd"] == "/root"


async def test_health_needs_no_key_and_readiness_names_the_missing_part(
    client: httpx.AsyncClient, world: World
) -> None:
    del client.headers["Authorization"]
    for path in ("/health", "/healthz"):
        assert (await client.get(path)).json() == {"status": "healthy"}
    assert (await client.get("/readyz")).json()["ready"] is True
    world.health.state["node"] = (False, "no node has connected yet")
    response = await client.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {
        "ready": False,
        "parts": {"store": {"ready": True}, "node": {"ready": False, "detail": "no node has connected yet"}},
    }


async def test_a_store_that_is_away_is_unavailable(client: httpx.AsyncClient, world: World) -> None:
    world.machines.error = Unavailable("the store is away")
    response = await client.get("/v1/machines")
    assert response.status_code == 503
    assert response.headers["retry-after-ms"] == "250"
