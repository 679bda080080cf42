"""Output as JSON and as bytes."""

from __future__ import annotations

import base64
import os

import httpx
import pytest

from dormice.domain.execution import ExecutionState, Stream
from tests.api.fakes import MACHINE_ID, World, finished, new_execution
from tests.api.test_errors import assert_problem

OUTPUT = f"/v1/machines/{MACHINE_ID}/executions/exec-1/output"
OUT, ERR = Stream.STDOUT, Stream.STDERR


async def test_output_is_both_streams_as_text(client: httpx.AsyncClient, world: World) -> None:
    world.executions.add(*finished(pieces=[(OUT, b'"\xe2\x82'), (ERR, b"\xff\n"), (OUT, b"\xac\0")], stdout_bytes=9))
    assert (await client.get(OUTPUT)).json() == {
        "execution_id": "exec-1",
        "stdout": '"€\0',
        "stderr": "\ufffd\n",
        "stdout_bytes": 9,
        "stderr_bytes": 2,
        "stdout_truncated": True,
        "stderr_truncated": False,
    }


async def test_output_before_the_end_is_what_there_is(client: httpx.AsyncClient, world: World) -> None:
    world.executions.add(new_execution(state=ExecutionState.RUNNING))
    body = (await client.get(OUTPUT)).json()
    assert (body["stdout"], body["stderr"]) == ("", "")


@pytest.mark.parametrize("size", [1, 196_607, 196_608, 196_609, 1_000_000])
async def test_long_output_in_pieces_is_the_same_as_at_once(client: httpx.AsyncClient, world: World, size: int) -> None:
    data = ("€" * (size // 3 + 1)).encode()[:size]
    noise = os.urandom(size)
    world.executions.add(*finished(pieces=[(OUT, data), (ERR, noise)]))
    body = (await client.get(OUTPUT)).json()
    assert body["stdout"] == data.decode(errors="replace")
    assert body["stderr"] == noise.decode(errors="replace")
    body = (await client.get(OUTPUT, params={"encoding": "base64"})).json()
    assert base64.b64decode(body["stdout_base64"], validate=True) == data
    assert base64.b64decode(body["stderr_base64"], validate=True) == noise
    assert "stdout" not in body
    raw = await client.get(f"{OUTPUT}/stderr")
    assert raw.content == noise
    assert raw.headers["content-length"] == str(size)


async def test_raw_output_says_how_much_was_written(client: httpx.AsyncClient, world: World) -> None:
    world.executions.add(*finished(pieces=[(OUT, b"0123456789")], stdout_bytes=12))
    response = await client.get(f"{OUTPUT}/stdout")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["x-dormice-total-bytes"] == "12"
    assert response.headers["x-dormice-truncated"] == "true"
    assert response.headers["accept-ranges"] == "bytes"
    empty = await client.get(f"{OUTPUT}/stderr")
    assert (empty.content, empty.headers["content-length"]) == (b"", "0")


@pytest.mark.parametrize(
    ("wanted", "status", "content", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=8-", 206, b"89", "bytes 8-9/10"),
        ("bytes=8-100", 206, b"89", "bytes 8-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-30", 206, b"0123456789", "bytes 0-9/10"),
        ("BYTES=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=3-2", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=0-1", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("bytes=a-b", 200, b"0123456789", None),
    ],
)
async def test_a_range_of_raw_output(
    client: httpx.AsyncClient, world: World, wanted: str, status: int, content: bytes | None, content_range: str | None
) -> None:
    world.executions.add(*finished(pieces=[(OUT, b"0123456789")]))
    response = await client.get(f"{OUTPUT}/stdout", headers={"Range": wanted})
    assert response.status_code == status
    assert response.headers.get("content-range") == content_range
    if content is None:
        assert_problem(response, 416)
    else:
        assert response.content == content


async def test_if_range_gets_the_whole(client: httpx.AsyncClient, world: World) -> None:
    world.executions.add(*finished(pieces=[(OUT, b"0123456789")]))
    headers = {"Range": "bytes=0-1", "If-Range": '"x"'}
    assert (await client.get(f"{OUTPUT}/stdout", headers=headers)).status_code == 200
