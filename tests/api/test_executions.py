"""Executions on the wire: records, lists, standard input."""

from __future__ import annotations

import httpx
import pytest
from msgspec.structs import replace

from dormice.api.machines import wire
from dormice.domain.execution import ErrorCode, ExecutionState, Stream
from dormice.domain.limits import Limits
from tests.api.fakes import FAILED, MACHINE_ID, World, finished, new_execution
from tests.api.test_errors import assert_coded, assert_problem

EXECUTIONS = f"/v1/machines/{MACHINE_ID}/executions"


async def test_a_queued_execution_shows_when_it_expires_and_nothing_of_its_end(
    client: httpx.AsyncClient, world: World
) -> None:
    world.executions.add(new_execution(env_keys=("A", "B")))
    assert (await client.get(f"{EXECUTIONS}/exec-1")).json() == {
        "execution_id": "exec-1",
        "machine_id": MACHINE_ID,
        "status": "queued",
        "command": ["true"],
        "created_at": "2026-06-01T10:00:00.000000Z",
        "expires_at": "2026-06-01T10:15:00.000000Z",
        "cwd": "/root",
        "env_keys": ["A", "B"],
        "stdout_bytes": 0,
        "stderr_bytes": 0,
        "stdout_truncated": False,
        "stderr_truncated": False,
        "artifacts": [],
        "log_capture": {},
    }


async def test_a_failed_execution_says_why(client: httpx.AsyncClient, world: World) -> None:
    execution, entries = finished(pieces=[(Stream.STDERR, b"no\n")], **FAILED)
    world.executions.add(execution, entries)
    body = (await client.get(f"{EXECUTIONS}/exec-1")).json()
    assert body["status"] == "failed"
    assert (body["exit_code"], body["error_code"], body["error_message"]) == (1, "nonzero_exit", "exit 1")
    assert body["completed_at"] == "2026-06-01T10:00:00.000005Z"
    assert body["stderr_bytes"] == 3
    assert "signal" not in body
    assert "expires_at" not in body
    assert "retry_after_ms" not in body


@pytest.mark.parametrize("state", list(ExecutionState))
def test_the_retry_hint_stands_during_the_wake_only(state: ExecutionState) -> None:
    record = wire.execution(new_execution(state=state), Limits())
    assert (record.retry_after_ms is not None) == (state is ExecutionState.WAKE_IN_PROGRESS)
    assert record.retry_after_ms is None or record.retry_after_ms > 0


def test_an_exit_code_of_zero_is_not_left_out() -> None:
    record = wire.execution(finished()[0], Limits())
    assert record.exit_code == 0
    killed = wire.execution(finished(exit_code=None, signal=9, error_code=ErrorCode.TIMEOUT)[0], Limits())
    assert (killed.exit_code, killed.signal) == (None, 9)


def test_truncated_means_cut_at_the_limit_not_under_way() -> None:
    limits = Limits(kept_output_bytes=10)
    running = new_execution(state=ExecutionState.RUNNING, stdout_bytes=5, stdout_kept=3)
    assert not wire.truncated(running, Stream.STDOUT, limits)
    assert wire.truncated(replace(running, stdout_bytes=11, stdout_kept=10), Stream.STDOUT, limits)
    assert not wire.truncated(replace(running, stdout_bytes=10, stdout_kept=10), Stream.STDOUT, limits)
    assert wire.truncated(
        replace(running, state=ExecutionState.FAILED, stderr_bytes=4, stderr_kept=3), Stream.STDERR, limits
    )


async def test_the_list_walks_newest_first_to_its_end(client: httpx.AsyncClient, world: World) -> None:
    for number in range(1, 8):
        world.executions.add(new_execution(number))
    seen, cursor = [], ""
    while True:
        page = (await client.get(EXECUTIONS, params={"limit": "3", "cursor": cursor})).json()
        seen += [item["execution_id"] for item in page["items"]]
        if "next_cursor" not in page:
            break
        cursor = page["next_cursor"]
    assert seen == [f"exec-{number}" for number in range(7, 0, -1)]


async def test_a_full_last_page_still_ends_the_walk(client: httpx.AsyncClient, world: World) -> None:
    for number in (1, 2):
        world.executions.add(new_execution(number))
    page = (await client.get(EXECUTIONS, params={"limit": "2"})).json()
    assert len(page["items"]) == 2
    assert "next_cursor" not in page


async def test_an_empty_list_has_items(client: httpx.AsyncClient) -> None:
    assert (await client.get(EXECUTIONS)).json() == {"items": []}


async def test_cancelling_answers_with_the_record(client: httpx.AsyncClient, world: World) -> None:
    world.executions.add(*finished())
    for _ in range(2):
        response = await client.delete(f"{EXECUTIONS}/exec-1", headers={"Idempotency-Key": "k"})
        assert response.status_code == 200
        assert response.json()["status"] == "succeeded"
    assert_problem(await client.delete(f"{EXECUTIONS}/exec-2"), 404)


async def test_standard_input_is_written_at_its_offset(client: httpx.AsyncClient, world: World) -> None:
    world.executions.add(new_execution())
    url = f"{EXECUTIONS}/exec-1/stdin"
    headers = {"Content-Type": "application/octet-stream"}
    answer = await client.put(url, params={"offset": "0"}, content=b"\xff\0", headers=headers)
    assert answer.json() == {"execution_id": "exec-1", "offset": 2, "eof": False}
    answer = await client.put(url, params={"offset": "2", "eof": "true"})
    assert answer.json() == {"execution_id": "exec-1", "offset": 2, "eof": True}
    assert world.executions.writes == [(0, b"\xff\0", False), (2, b"", True)]
    refused = await client.put(url, params={"offset": "9"}, content=b"x")
    assert assert_coded(refused, 409, "INVALID_STATE")["details"] == {"expected_offset": "2"}
    assert refused.headers["x-should-retry"] == "false"
