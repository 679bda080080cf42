"""A worker that is called, as the foreign SDK's: `python -m tests.faults.run_worker SERVER_PORT PORT MARKS`, its key in WORKER_KEY.

It can be killed at any moment. SIGTERM ends it well: what it runs is given back.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.run_attempt import PROJECT, Attempt, Dropped, Server
from tests.faults.run_flows import FLOWS
from tests.faults.run_marks import Kind, Mark, Marks
from tests.faults.wire import Wire
from tests.wait import others_run

DEPLOYMENT = "faults"
KEY = "WORKER_KEY"
HEARTBEAT_SECONDS = 1.0
MOST = 60
"""Runs at once: fewer than there are clients, so that some wait for a worker."""


class Worker:
    """Takes runs over HTTP, and reports of them."""

    def __init__(self, server: Server, port: int) -> None:
        self._server = server
        self._port = port
        self._id = ""
        self._tasks: dict[str, tuple[Attempt, asyncio.Task[None]]] = {}
        self._cancelled: set[asyncio.Task[None]] = set()
        """Those whose end was asked for, and is to be confirmed."""
        self._count = 0
        self._stopping = False

    async def serve(self) -> None:
        """Work until SIGTERM."""
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        async with await asyncio.start_server(self._connected, "127.0.0.1", self._port):
            heart = asyncio.get_running_loop().create_task(self._live())
            await asyncio.wait(
                (heart, asyncio.get_running_loop().create_task(stop.wait())), return_when="FIRST_COMPLETED"
            )
            if heart.done():
                heart.result()
            self._stopping = True
            tasks = list(self._tasks.values())
            for attempt, task in tasks:
                self._cancel(attempt, task)
            await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)

    async def _live(self) -> None:
        await self._register()
        while True:
            await others_run(HEARTBEAT_SECONDS)
            _, answer = await self._server.ask("POST", f"/api/v1/workers/{self._id}/heartbeat")
            if answer["re_register"]:
                await self._register()

    async def _register(self) -> None:
        body = {
            "project_id": PROJECT,
            "deployment_id": DEPLOYMENT,
            "mode": "push",
            "push_endpoint_url": f"http://127.0.0.1:{self._port}",
            "max_concurrent_executions": MOST,
        }
        self._id = (await self._server.ask("POST", "/api/v1/workers/register", body))[1]["worker_id"]
        await self._server.ask("POST", "/api/v1/workers/deployments", {"deployment_id": DEPLOYMENT})
        for name in FLOWS:
            definition = {"workflow_id": name, "workflow_type": "workflow"}
            await self._server.ask("POST", f"/api/v1/workers/deployments/{DEPLOYMENT}/workflows", definition)
        queues = [{"name": name, "concurrency_limit": flow.limit} for name, flow in FLOWS.items()]
        await self._server.ask("POST", "/api/v1/workers/queues", {"deployment_id": DEPLOYMENT, "queues": queues})
        with suppress(Dropped):  # it was replaced, or has to register again, as its next heartbeat says
            await self._server.ask("POST", f"/api/v1/workers/{self._id}/online")

    # What the server asks

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                status, answer = self._answer(lines[0].split()[1], headers, body)
                content = json.dumps(answer).encode()
                writer.write(
                    f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
                    + content
                )
        writer.close()

    def _answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        if path == "/health":
            return 200, {"status": "healthy", "mode": "push", "current_executions": len(self._tasks)}
        if headers.get("x-worker-id") != self._id:
            return 400, {"error": "Worker ID mismatch"}
        if path == "/execute":
            return self._execute(json.loads(body))
        run_id = path.removeprefix("/cancel/")
        if run_id not in self._tasks:
            return 404, {"error": "not running"}
        self._cancel(*self._tasks[run_id])
        return 200, {"status": "cancellation_requested", "execution_id": run_id}

    def _cancel(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        if task in self._cancelled:
            return  # it says so just now
        self._cancelled.add(task)
        if attempt.begun:  # a task that has not begun would never begin, and say nothing
            task.cancel()

    def _execute(self, order: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        run_id = order["execution_id"]
        if self._stopping:
            return 503, {"error": "stopping"}
        if len(self._tasks) >= MOST and run_id not in self._tasks:
            return 429, {"error": "full"}
        self._count += 1
        attempt = Attempt(self._server, order, f"{os.getpid()}.{self._count}")
        if run_id in self._tasks:
            earlier, task = self._tasks[run_id]
            if earlier.busy:
                self._server.marks.put(Mark(Kind.REPLACED, f"{os.getpid()}.{self._count}", run_id))
            self._cancelled.discard(task)
            task.cancel()
        task = asyncio.get_running_loop().create_task(self._run(attempt))
        self._tasks[run_id] = attempt, task
        return 200, {"status": "accepted", "execution_id": run_id}

    async def _run(self, attempt: Attempt) -> None:
        task = asyncio.current_task()
        assert task is not None
        waits = False
        try:
            attempt.begun = True
            if task in self._cancelled:
                await attempt.confirm()
            else:
                waits = await attempt.go()
        except asyncio.CancelledError:
            if task in self._cancelled:
                await attempt.confirm()
        finally:
            self._cancelled.discard(task)
            if self._tasks.get(attempt.run_id) == (attempt, task):
                del self._tasks[attempt.run_id]
        if waits:
            await attempt.unwound()


def main() -> None:
    """Run from the command line."""
    port, own, marks = sys.argv[1:]
    server = Server(Wire(int(port), os.environ[KEY]), Marks(Path(marks)), Random())
    asyncio.run(Worker(server, int(own)).serve())


if __name__ == "__main__":
    main()
