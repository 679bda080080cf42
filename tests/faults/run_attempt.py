"""One attempt of a run in the worker of the load: what a workflow asks of it becomes calls of the server, and marks.

Every call is made again until it is answered. What makes the run wait is another matter: if its answer is lost, the run may wait, and have
gone on already with another worker, so the attempt looks first whether the run is still its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NoReturn
from urllib.parse import quote

from tests.faults.clients import COME_AGAIN
from tests.faults.run_flows import FLOWS, AttemptFailed
from tests.faults.run_marks import Kind, Mark, Marks
from tests.faults.wire import NoAnswer, Request, Wire
from tests.wait import others_run

PROJECT = "6f1c6d52-0d4e-4a6b-9b0e-5f6a1f0c7a11"
HEADERS = {"X-Project-ID": PROJECT}
PAUSE_SECONDS = 0.3
COMMAND = r"""
printf 'ran\tcommand\t%s\t%s\t-\n' "$1" "$2" >> "$3"
exec 9<> <(:)
read -rt "$4" -u 9
printf 'did\tcommand\t%s\t%s\t-\n' "$1" "$2" >> "$3"
"""


class Unwound(Exception):
    """The run waits: the attempt ends without a word."""


class Dropped(Exception):
    """The server wants to hear nothing more of the attempt."""


class Server:
    """The server, as a worker asks it: again and again until it answers."""

    def __init__(self, wire: Wire, marks: Marks, random: Random) -> None:
        self._wire = wire
        self.marks = marks
        self.random = random

    async def once(self, method: str, path: str, body: Any = None) -> tuple[int, bytes] | None:
        """Ask once; None when there is no answer."""
        try:
            return await self._wire.ask(Request(method, path, body=body, headers=HEADERS))
        except NoAnswer:
            return None

    async def ask(self, method: str, path: str, body: Any = None, *, usual: Sequence[int] = (200,)) -> Any:
        """Return status and document of the answer. Raises Dropped when it is none of the usual ones."""
        while True:
            answer = await self.once(method, path, body)
            if answer is not None and answer[0] not in COME_AGAIN:
                status, content = answer
                if status in usual:
                    return status, json.loads(content) if content else None
                self.refused(method, path, status, content)
                raise Dropped
            await self.pause()

    def refused(self, method: str, path: str, status: int, content: bytes) -> None:
        """Write down an answer that says no, if it should not have."""
        if status not in {404, 409}:
            text = f"{status} to {method} {path}: {content[:200].decode()}".replace("\t", " ").replace("\n", " ")
            self.marks.put(Mark(Kind.STRANGE, "worker", detail=text))

    async def pause(self) -> None:
        """Wait before the next try."""
        await others_run(self.random.uniform(0.2, 1) * PAUSE_SECONDS)


class Attempt:
    """What a workflow is given."""

    def __init__(self, server: Server, order: dict[str, Any], who: str) -> None:
        self._server = server
        self._order = order
        self._who = who
        self.run_id = order["execution_id"]
        self.worker_id = order["worker_id"]
        self.retries = order["retry_count"]
        self.begun = False
        self.busy = False
        """It does a step just now."""
        self._own = f"/internal/executions/{self.run_id}"
        self._topic = f"workflow/{order['root_workflow_id']}/{order['root_execution_id']}"

    async def go(self) -> bool:
        """Run the workflow, and report what came of it; return whether the run waits."""
        try:
            result = await FLOWS[self._order["workflow_id"]].run(self, self._order["payload"])
            body = {"result": result, "worker_id": self.worker_id}
            await self._server.ask("POST", f"{self._own}/complete", body, usual=(200, 404, 409))
        except AttemptFailed as failure:
            with suppress(Unwound, Dropped):
                await self._fail(str(failure))
        except Dropped:
            pass
        except Unwound:
            return True
        return False

    async def confirm(self) -> None:
        """Say that the attempt was ended as asked."""
        body = {"worker_id": self.worker_id}
        await self._server.ask("POST", f"{self._own}/confirm-cancellation", body, usual=(200, 400, 404, 409))

    async def unwound(self) -> None:
        """Say that the worker has let go of a run that waits. Once: nobody needs to know."""
        await self._server.once("PUT", f"{self._own}/otel-span-id", {"otel_span_id": None})

    # What workflows ask for

    async def step(self, key: str, value: Any) -> Any:
        known, outputs = await self._known(key)
        return outputs if known else await self._do(key, value)

    async def stay(self, key: str, place: str, value: Any) -> Any:
        known, outputs = await self._known(key)
        return outputs if known else await self._do(key, value, place)

    async def child(self, key: str, workflow: str, payload: Any) -> Any:
        known, outputs = await self._known(key)
        return outputs if known else await self._wait(f"/api/v1/workflows/{workflow}/run", self._below(key, payload))

    async def batch(self, key: str, workflow: str, payloads: Sequence[Any]) -> list[Any]:
        known, outputs = await self._known(key)
        if known:
            return list(outputs)
        members = [{"workflow_id": workflow, "payload": payload} for payload in payloads]
        return await self._wait("/api/v1/workflows/batch_run", {**self._below(key, None), "workflows": members})

    async def nap(self, key: str, seconds: float) -> None:
        if not (await self._known(key))[0]:
            until = datetime.now(UTC) + timedelta(seconds=seconds)
            await self._wait(
                f"{self._own}/wait", {"step_key": key, "wait_type": "time", "wait_until": until.isoformat()}
            )

    async def together(self, *waits: Awaitable[Any]) -> list[Any]:
        found = await asyncio.gather(*waits, return_exceptions=True)
        for error in found:
            if isinstance(error, BaseException):
                raise error
        return found

    async def hear(self, key: str, topic: str) -> Any:
        known, outputs = await self._known(key)
        if known:
            return outputs["data"]
        return await self._wait(f"{self._own}/wait", {"step_key": key, "wait_type": "event", "wait_topic": topic})

    async def ask(self, key: str) -> Any:
        known, outputs = await self._known(key)
        if known:
            return outputs["data"]
        question = {"event_type": f"suspend_{key}", "data": {}, "execution_id": self.run_id}
        await self._server.ask("POST", "/api/v1/events/publish", {"topic": self._topic, "events": [question]})
        return await self._wait(
            f"{self._own}/wait", {"step_key": key, "wait_type": "suspend", "wait_topic": self._topic}
        )

    async def command(self, key: str, machine_id: str, token: str) -> dict[str, Any]:
        known, outputs = await self._known(key)
        if known:
            return dict(outputs)
        pause = f"{self._server.random.uniform(0, 0.5):.2f}"
        argv = ["/bin/bash", "-c", COMMAND, token, self.run_id, key, str(self._server.marks.path), pause]
        body = {
            "step_key": key,
            "machine_id": machine_id,
            "execution": {"command": argv},
            "worker_id": self.worker_id,
        }
        return await self._wait(f"{self._own}/commands", body)

    # How it does that

    async def _known(self, key: str) -> tuple[bool, Any]:
        status, step = await self._server.ask("GET", f"{self._own}/steps/{quote(key)}", usual=(200, 404))
        return status == 200, step["outputs"] if status == 200 else None

    async def _do(self, key: str, value: Any, place: str = "") -> Any:
        self.busy = True
        self._mark(Kind.RAN, key)
        if place:
            self._mark(Kind.ENTERED, key, place)
        try:
            await others_run(self._server.random.uniform(0, 0.04))
        finally:
            if place:
                self._mark(Kind.LEFT, key, place)
            self._mark(Kind.DID, key)
            self.busy = False
        await self._server.ask("POST", f"{self._own}/steps", {"step_key": key, "outputs": value, "success": True})
        self._mark(Kind.ACKNOWLEDGED, key)
        return value

    def _mark(self, kind: Kind, key: str, detail: str = "-") -> None:
        self._server.marks.put(Mark(kind, self._who, self.run_id, key, detail))

    def _below(self, key: str, payload: Any) -> dict[str, Any]:
        return {
            "payload": payload,
            "deployment_id": self._order["deployment_id"],
            "parent_execution_id": self.run_id,
            "root_execution_id": self._order["root_execution_id"],
            "step_key": key,
            "wait_for_subworkflow": True,
        }

    async def _wait(self, path: str, body: Any) -> NoReturn:
        while True:
            answer = await self._server.once("POST", path, body)
            if answer is None:
                await self._check_still_own()
            elif answer[0] == 200:
                raise Unwound
            elif answer[0] not in COME_AGAIN:
                self._server.refused("POST", path, *answer)
                raise Dropped
            await self._server.pause()

    async def _fail(self, error: str) -> None:
        body = {"error": error, "worker_id": self.worker_id}
        while (await self._server.once("POST", f"{self._own}/fail", body)) is None:
            await self._check_still_own()

    async def _check_still_own(self) -> None:
        """Raise Unwound unless nothing has become of the run since it was given to this attempt."""
        while True:
            _, record = await self._server.ask("GET", f"/api/v1/executions/{self.run_id}")
            if record["status"] != "claimed":  # the push may not be known to have arrived yet, or may be another one
                break
            await self._server.pause()
        if record["status"] != "running" or record["assigned_to_worker"] != self.worker_id:
            raise Unwound
