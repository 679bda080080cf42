"""A worker against a server that answers what a test wants, when it wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from dormice.workflows import Context, Worker, workflow
from tests.workflows.test_link import HEAD, chunk, request

SECONDS = 30
LOST_MS = 1_000
STREAM, REPORTS, COMMANDS = "/api/v1/workers/connect", "/api/v1/workers/w/reports", "/internal/executions/r/commands"


class Server:
    """Sends one run, `r`, with fence 7."""

    def __init__(self) -> None:
        self.connections = 0
        self.reports: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.asked: asyncio.Queue[asyncio.Future[tuple[int, str]]] = asyncio.Queue()
        """Commands that were asked for; a test sets the status and the kind of the answer."""
        self.answers = asyncio.Event()
        """Set: reports are answered."""
        self.answers.set()
        self._stream: asyncio.StreamWriter | None = None

    def send(self, **line: Any) -> None:
        assert self._stream is not None
        self._stream.write(chunk(json.dumps(line).encode() + b"\n"))

    async def report(self, kind: str) -> dict[str, Any]:
        """Wait for a report of a kind."""
        async with asyncio.timeout(SECONDS):
            while (item := await self.reports.get())["kind"] != kind:
                pass
            return item

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head, _, body = (await request(reader)).partition(b"\r\n\r\n")
                path = head.split()[1].decode()
                if path == STREAM:
                    self.connections += 1
                    self._stream = writer
                    writer.write(HEAD)
                    holding = json.loads(body)["holding"]
                    self.send(type="connected", worker_id="w", lost_ms=LOST_MS, runs=holding)
                    if self.connections == 1:
                        self.send(
                            type="run", run_id="r", fence=7, workflow_id="flow", created_at="2026-01-01T00:00:00Z"
                        )
                    await reader.read()
                    return
                status, answer = await (self._reported(body) if path == REPORTS else self._asked())
                text = json.dumps(answer).encode()
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(text), text))

    async def _reported(self, body: bytes) -> tuple[int, dict[str, Any]]:
        await self.answers.wait()
        items = json.loads(body)["items"]
        for item in items:
            self.reports.put_nowait(item)
        return 200, {"known": True, "answers": [{"status": "ok"} for _ in items]}

    async def _asked(self) -> tuple[int, dict[str, Any]]:
        answer: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait(answer)
        status, kind = await answer
        return status, {"error": "no", "error_type": kind}

    async def refuse(self, status: int, kind: str) -> None:
        """Answer the next request for a command."""
        async with asyncio.timeout(SECONDS):
            (await self.asked.get()).set_result((status, kind))


class Endless:
    """A workflow that does not end by itself."""

    def __init__(self) -> None:
        self.began, self.ended = asyncio.Event(), asyncio.Event()
        self.workflow = workflow(id="flow")(self._run)

    async def _run(self, _ctx: Context) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@workflow(id="flow")
async def commanding(ctx: Context) -> str:
    return (await ctx.exec("only", "dm-x", ["true"])).status


@asynccontextmanager
async def working(
    flow: Any, server: Server, grace_seconds: float = 0
) -> AsyncIterator[tuple[Worker, asyncio.Task[None]]]:
    """A worker that is stopped at the end, which the server must let it."""
    serving: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        try:
            await server.serve(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        worker = Worker([flow], base_url=f"http://127.0.0.1:{port}", api_key="k", grace_seconds=grace_seconds)
        task = asyncio.create_task(worker.run())
        try:
            async with asyncio.timeout(SECONDS):
                yield worker, task
                worker.stop()
                await task
        finally:
            task.cancel()
            await asyncio.wait([task])
            for each in filter(None, serving):
                each.cancel()
            await asyncio.gather(*filter(None, serving), return_exceptions=True)


async def test_a_run_that_was_let_go_of_because_the_server_was_silent_is_given_back() -> None:
    server, flow = Server(), Endless()
    async with working(flow.workflow, server):
        await flow.began.wait()
        server.answers.clear()
        await flow.ended.wait()  # the lease has ended
        server.answers.set()  # the server had not given the worker up
        assert await server.report("abandoned") == {"kind": "abandoned", "run_id": "r", "fence": 7}
        assert server.connections == 1


async def test_a_worker_whose_server_says_nothing_more_ends_without_it() -> None:
    server, flow = Server(), Endless()
    async with working(flow.workflow, server):
        await flow.began.wait()
        server.answers.clear()


async def test_a_cancel_that_comes_while_a_run_is_given_back_is_answered() -> None:
    server, flow = Server(), Endless()
    async with working(flow.workflow, server):
        await flow.began.wait()
        server.answers.clear()
        await flow.ended.wait()
        server.send(type="cancel", run_id="r", fence=7)
        server.answers.set()
        await server.report("abandoned")
        await server.report("ended")


async def test_a_cancel_that_comes_just_before_the_conflict_that_it_makes_is_answered() -> None:
    server = Server()
    async with working(commanding, server):
        asked = await server.asked.get()
        server.send(type="cancel", run_id="r", fence=7)
        asked.set_result((409, "CONFLICT"))
        assert await server.report("ended") == {"kind": "ended", "run_id": "r", "fence": 7}


async def test_a_cancel_ends_the_asking_for_a_command_that_is_not_answered() -> None:
    server = Server()
    async with working(commanding, server):
        await server.asked.get()
        server.send(type="cancel", run_id="r", fence=7)
        await server.report("ended")


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "UNAUTHORIZED"), (403, "FORBIDDEN"), (429, "LIMIT_EXCEEDED"), (503, "UNAVAILABLE")]
)
async def test_a_run_whose_command_is_refused_for_now_is_given_back_for_a_while(
    status: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    async with working(commanding, server):
        for _ in range(6):
            await server.refuse(status, kind)
        given_back = await server.report("abandoned")
        assert 5_000 <= given_back["pause_ms"] <= 10_000
    levels = {record.levelname for record in caplog.records if "is not begun yet" in record.message}
    assert levels == {"ERROR" if status in (401, 403) else "WARNING"}


async def test_a_conflict_of_the_machine_is_a_step_that_failed() -> None:
    server = Server()
    async with working(commanding, server):
        await server.refuse(409, "INVALID_STATE")
        step = await server.report("step")
        assert (step["step_key"], step["error"]) == ("only", {"message": "it could not be begun: no"})
        assert await server.report("abandoned") == {"kind": "abandoned", "run_id": "r", "fence": 7}
