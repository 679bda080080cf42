"""Many clients of runs at once: they ask again with the same key until they are answered, send what runs wait for, and cancel some."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.clients import POLL_MS, Clients
from tests.faults.run_attempt import HEADERS
from tests.faults.run_flows import PLACES, TOPIC
from tests.faults.run_history import TERMINAL, AskedRun, RunHistory
from tests.faults.run_marks import Kind, Mark, Marks
from tests.faults.run_worker import DEPLOYMENT
from tests.faults.stack import Victim
from tests.faults.wire import Request
from tests.wait import others_run

WEIGHTS = {
    "three": 5,
    "retried": 1,
    "parent": 3,
    "batch": 2,
    "tree": 2,
    "sleeper": 3,
    "fork": 2,
    "listener": 2,
    "suspended": 3,
    "single": 1,
    "keyed": 4,
    "commanded": 3,
}
"""How often each workflow is run."""
NEEDS_CLIENT = {"listener", "suspended"}
"""They wait for something that their clients send."""
LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 180.0
"""How long a client stays with a run."""


class RunLoad(Clients):
    """The clients. Everything random is drawn from `random`."""

    def __init__(self, victim: Victim, history: RunHistory, random: Random, marks: Path) -> None:
        super().__init__(victim, history.strange, random)
        self._history = history
        self._marks = Marks(marks)
        self._machines: tuple[str, ...] = ()

    async def begin(self, *, clients: int, machines: tuple[str, ...] = ()) -> None:
        """Let the clients loose. Commands are run on these machines, or not at all."""
        self._machines = machines
        await self._register()
        for _ in range(clients):
            self._start(self._busy)

    async def make_machine(self) -> str:
        """Make a machine, for loads that have no others."""
        body = {"memory_mib": 256, "storage_gib": 1, "autosleep": "never"}
        made = await self._ask(Request("POST", "/v1/machines", {"wait_ms": 20_000}, self._key("machine"), body))
        return str((made or {})["machine_id"])

    async def _register(self) -> None:
        """Wait until a worker has come, without which nothing can be asked for."""
        request = Request("GET", "/api/v1/workers/status", headers=HEADERS)
        while not ((await self._ask(request)) or {}).get("has_workers"):
            await others_run(LOOK_SECONDS)

    async def _busy(self) -> None:
        flows = [flow for flow in WEIGHTS if self._machines or flow != "commanded"]
        [flow] = self._random.choices(flows, [WEIGHTS[flow] for flow in flows])
        cancel_after = self._random.uniform(0, 1) if self._random.random() < 0.1 else None
        await self.run(flow, cancel_after=cancel_after)

    async def run(self, flow: str, *, cancel_after: float | None = None) -> None:
        """Ask for a run, and stay with it to its end, which is asked for after so many seconds."""
        asked = AskedRun(self._key(flow), flow)
        self._history.asked[asked.token] = asked
        run_id = await self._submit(asked)
        if run_id is None:
            return
        self._began()
        helper = asyncio.get_running_loop().create_task(self._help(asked, run_id))
        try:
            if cancel_after is not None:
                await others_run(cancel_after)
                await self._cancel(asked, run_id)
            await self._see_end(asked, run_id)
        finally:
            helper.cancel()
            self.in_flight -= 1

    async def _submit(self, asked: AskedRun) -> str | None:
        payload: dict[str, Any] = {"token": asked.token}
        body: dict[str, Any] = {"payload": payload, "deployment_id": DEPLOYMENT}
        if asked.flow == "keyed":
            payload["place"] = body["concurrency_key"] = self._random.choice(PLACES)
        if asked.flow == "commanded":
            payload["machine"] = self._random.choice(self._machines)
        path = f"/api/v1/workflows/{asked.flow}/run"
        request = Request("POST", path, key=asked.token, body=body, headers=HEADERS)
        if self._random.random() < 0.15:
            await self._walk_out(request)
            if self._random.random() < 0.2 and asked.flow not in NEEDS_CLIENT:
                return None  # whether there is one, nobody was told
        record = await self._ask(request, refused=asked)
        if record is None:
            return None
        asked.answered.append(record["execution_id"])
        return str(record["execution_id"])

    async def _cancel(self, asked: AskedRun, run_id: str) -> None:
        asked.cancelled = True
        request = Request("POST", f"/api/v1/executions/{run_id}/cancel", headers=HEADERS)
        if await self._ask(request, refusals=frozenset({400})) is not None:
            asked.cancel_taken = True

    async def _see_end(self, asked: AskedRun, run_id: str) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            record = await self._look(run_id, wait_ms=POLL_MS)
            if record is None:
                return
            if record["status"] in TERMINAL:
                asked.seen = record["status"], record["result"]
                self._marks.put(Mark(Kind.ENDED, "client", run_id, detail=record["status"]))
                return

    async def _look(self, run_id: str, *, wait_ms: int = 0) -> dict[str, Any] | None:
        query = {"wait_ms": wait_ms}
        return await self._ask(Request("GET", f"/api/v1/executions/{run_id}", query, headers=HEADERS))

    # What some runs wait for

    async def _help(self, asked: AskedRun, run_id: str) -> None:
        match asked.flow:
            case "listener":
                while ((await self._look(run_id)) or {}).get("status") != "waiting":
                    await others_run(LOOK_SECONDS)
                await self._publish(f"{TOPIC}/{asked.token}", None, {"heard": asked.token})
            case "suspended":
                topic = f"workflow/suspended/{run_id}"
                while not await self._events(topic):
                    await others_run(LOOK_SECONDS)
                await self._publish(topic, "resume_approve", {"answer": asked.token})
            case _:
                pass

    async def _events(self, topic: str) -> list[dict[str, Any]]:
        page = await self._ask(Request("GET", "/api/v1/events", {"topic": topic}, headers=HEADERS))
        return [event for event in (page or {}).get("events", []) if event["event_type"] == "suspend_approve"]

    async def _publish(self, topic: str, event_type: str | None, data: Any) -> None:
        body = {"topic": topic, "events": [{"event_type": event_type, "data": data}]}
        await self._ask(Request("POST", "/api/v1/events/publish", body=body, headers=HEADERS))
