"""Single faults of workers, one at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.run_attempt import HEADERS
from tests.faults.run_workers import workers
from tests.faults.stack import Victim
from tests.faults.wire import Request, Wire
from tests.wait import wait_until_async

SECONDS = 30.0


class Client:
    """Asks one server, and expects answers."""

    def __init__(self, victim: Victim) -> None:
        self.port = victim.live.port
        self.key = victim.live.api_key
        self._wire = Wire(self.port, self.key)

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer's document."""
        status, content = await self._wire.ask(Request(method, path, body=body, headers=HEADERS))
        assert status == 200, content
        return json.loads(content) if content else None

    async def submit(self, flow: str, token: str) -> str:
        """Submit a run once there is a worker, and return its path."""
        await wait_until_async(self._has_workers, SECONDS, "a worker is there")
        made = await self.ask("POST", f"/api/v1/workflows/{flow}/run", {"payload": {"token": token}})
        return f"/api/v1/executions/{made['execution_id']}"

    async def _has_workers(self) -> bool:
        return bool((await self.ask("GET", "/api/v1/workers/status"))["has_workers"])

    async def seen(self, path: str, *states: str) -> dict[str, Any]:
        """Return the record of a run once it is in one of the states."""

        async def look() -> dict[str, Any] | None:
            record = await self.ask("GET", path)
            return dict(record) if record["status"] in states else None

        return await wait_until_async(look, SECONDS, f"{path} is {states}")


@pytest.fixture(name="client")
def _client(victim: Victim) -> Iterator[Client]:
    with workers(victim, victim.live.directory / "cases", 1):
        yield Client(victim)


async def test_a_result_that_was_cut_short_fails_no_run(client: Client) -> None:
    """The worker died while it sent the result: its run goes on with another one."""
    path = await client.submit("suspended", "cut")
    await client.seen(path, "waiting")
    run_id = path.rpartition("/")[2]
    request = Request("POST", f"/internal/executions/{run_id}/complete", body={"result": "x" * 999}, headers=HEADERS)
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(request.encode(client.key)[:-500])
    writer.write_eof()
    await reader.read()
    writer.close()
    assert (await client.ask("GET", path))["status"] == "waiting"
    answer = {"event_type": "resume_approve", "data": {"answer": "cut"}}
    topic = f"workflow/suspended/{run_id}"
    await client.ask("POST", "/api/v1/events/publish", {"topic": topic, "events": [answer]})
    assert (await client.seen(path, "completed", "failed"))["result"] == ["cut", {"answer": "cut"}]
