"""An execution's log as a stream that a token reads."""

from __future__ import annotations

import httpx
import pytest

from dormice.domain.execution import ExecutionState, Stream
from tests.api.fakes import KEY, MACHINE_ID, World, finished, lifecycle, new_execution
from tests.api.test_errors import assert_coded, assert_problem

LOGS = f"/v1/machines/{MACHINE_ID}/executions/exec-1/logs"


async def test_the_state_says_whether_anything_will_come(client: httpx.AsyncClient, world: World) -> None:
    running = world.executions.add(new_execution(), [lifecycle(1, ExecutionState.QUEUED)])
    told = {
        "execution_id": "exec-1",
        "capture": {},
        "stream_id": "exec-1",
        "publication": {"state": "active", "complete": False, "queued_messages": 0},
    }
    assert (await client.get(LOGS)).json() == told
    world.executions.add(*finished())
    told["publication"] = {"state": "closed", "complete": True, "queued_messages": 0}
    assert (await client.get(LOGS)).json() == told
    assert (await client.post(f"{LOGS}/reauthorize")).json() == told
    assert running.id == "exec-1"


async def test_a_token_reads_where_its_record_says(client: httpx.AsyncClient, world: World) -> None:
    world.executions.add(*finished(pieces=[(Stream.STDOUT, b"hello")]))
    made = await client.post(f"{LOGS}/token", headers={"Host": "dormice.example:7433", "X-Forwarded-Proto": "https"})
    token = made.json()
    assert made.headers["cache-control"] == "no-store"
    assert (token["base_url"], token["stream_id"]) == ("https://dormice.example:7433/v1/logs", "exec-1")
    assert (token["token_type"], token["expires_at"]) == ("Bearer", "2026-06-01T10:15:00.000000Z")
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    page = (await client.get("/v1/logs/exec-1", headers=headers)).json()
    assert page == (await client.get(f"/v1/machines/{MACHINE_ID}/executions/exec-1/events")).json()
    rest = (await client.get("/v1/logs/exec-1?cursor=2&limit=1", headers=headers)).json()
    assert [item["sequence"] for item in rest["items"]] == [3]
    stream = await client.get("/v1/logs/exec-1", headers={**headers, "Accept": "text/event-stream"})
    assert stream.text.count("event: ") == 4


@pytest.mark.parametrize("host", ["a b", "x/y", "x?", "evil@host", "x" * 300, ""])
async def test_a_host_that_is_none_is_not_repeated(client: httpx.AsyncClient, world: World, host: str) -> None:
    world.executions.add(*finished())
    made = await client.post(f"{LOGS}/token", headers={"Host": host})
    assert made.json()["base_url"] == "http://dormice/v1/logs"


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {KEY}"}, {"Authorization": "Bearer token-of-exec-2"}])
async def test_keys_and_other_tokens_read_no_stream(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert_coded(await client.get("/v1/logs/exec-1", headers=headers), 401, "AUTH_INVALID")


async def test_without_a_token_a_stream_wants_one(client: httpx.AsyncClient) -> None:
    del client.headers["Authorization"]
    for headers in ({}, {"x-api-key": "token-of-exec-1"}, {"Authorization": "Basic token-of-exec-1"}):
        assert_coded(await client.get("/v1/logs/exec-1", headers=headers), 401, "AUTH_REQUIRED")


async def test_what_is_not_there_has_no_log(client: httpx.AsyncClient) -> None:
    for method, path in (("GET", LOGS), ("POST", f"{LOGS}/reauthorize"), ("POST", f"{LOGS}/token")):
        assert_problem(await client.request(method, path), 404)
