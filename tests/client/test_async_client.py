"""The asynchronous client; its twin is tested more widely and is generated from it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dormice import AsyncDormice, ConflictError, NotFoundError
from tests.client.fake_server import Answer, FakeServer


async def test_a_run_returns_the_record_and_the_exact_bytes(async_client: AsyncDormice, server: FakeServer) -> None:
    heard: list[bytes] = []
    done = await async_client.machines.run(server.machine(), ["both"], on_stdout=heard.append)
    assert (done.exit_code, done.stdout, done.stderr) == (0, b"out\nmore\n", b"err\xff\n")
    assert heard == [b"out\n", b"more\n"]


async def test_runs_go_on_side_by_side(async_client: AsyncDormice, server: FakeServer) -> None:
    machine_id = server.machine()
    words = [f"word {n}" for n in range(20)]
    done = await asyncio.gather(*(async_client.machines.run(machine_id, ["echo", word]) for word in words))
    assert [each.stdout.decode().strip() for each in done] == words


async def test_stdin_of_any_length_is_passed_on(async_client: AsyncDormice, server: FakeServer) -> None:
    assert (
        await async_client.machines.run(server.machine(), ["cat"], stdin=b"\xff" * 600_000)
    ).stdout == b"\xff" * 600_000


async def test_a_list_is_awaited_for_a_page_or_walked_to_its_end(
    async_client: AsyncDormice, server: FakeServer
) -> None:
    ids = [server.machine() for _ in range(5)]
    page = await async_client.machines.list(limit=2)
    assert [machine.machine_id for machine in page.items] == ids[:2]
    assert [machine.machine_id for machine in (await page.get_next_page()).items] == ids[2:4]
    assert [machine.machine_id async for machine in async_client.machines.list(limit=2)] == ids
    assert [machine.machine_id async for machine in page] == ids


async def test_a_stream_that_breaks_goes_on_where_it_broke(async_client: AsyncDormice, server: FakeServer) -> None:
    machine_id = server.machine()
    made = await async_client.machines.executions.create(machine_id, command=["echo", "a", "b", "c"])
    server.cut_streams_after.extend([2, 1])
    async with async_client.machines.executions.stream(made.execution_id, machine_id=machine_id) as events:
        assert [event.sequence async for event in events] == [1, 2, 3, 4, 5]


async def test_watching_a_machine_ends_with_the_stream(async_client: AsyncDormice, server: FakeServer) -> None:
    async with async_client.machines.watch(server.machine()) as changes:
        assert [machine.phase async for machine in changes] == ["running"]


async def test_a_run_that_is_cancelled_here_runs_on_there(async_client: AsyncDormice, server: FakeServer) -> None:
    machine_id = server.machine()
    heard = asyncio.Event()
    task = asyncio.ensure_future(
        async_client.machines.run(machine_id, ["forever"], on_stdout=lambda _: heard.set(), idempotency_key="k")
    )
    await heard.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    again = await async_client.machines.executions.create(machine_id, command=["forever"], idempotency_key="k")
    assert again.status == "running"


async def test_errors_and_retries_are_those_of_the_twin(async_client: AsyncDormice, server: FakeServer) -> None:
    server.planned.extend(
        [Answer(503, {"retry-after-ms": "1"}), Answer(cut=True), Answer(409, {"x-should-retry": "false"})]
    )
    with pytest.raises(ConflictError):
        await async_client.machines.create()
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
    with pytest.raises(NotFoundError):
        await async_client.machines.retrieve("dm-nowhere")


@pytest.mark.parametrize("command", ["uname -a", b"uname"])
async def test_one_string_is_no_command(async_client: AsyncDormice, server: FakeServer, command: Any) -> None:
    with pytest.raises(TypeError, match="a command is a sequence of strings"):
        await async_client.machines.run(server.machine(), command)
    assert not server.requests
