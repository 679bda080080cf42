# ruff: noqa: ASYNC109 - `timeout` is what clients of this kind call it
"""Starting runs of workflows and reading what came of them: `AsyncWorkflows`."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Any, Self, TypeVar, overload
from urllib.parse import quote

import msgspec

from dormice.client._async.connection import AsyncConnection
from dormice.client.errors import WaitTimeoutError
from dormice.client.records import decode
from dormice.client.settings import resolve
from dormice.client.transport import AsyncTransport, Timeout
from dormice.workflows import documents
from dormice.workflows.definition import Workflow
from dormice.workflows.errors import RunFailed
from dormice.workflows.records import Published, RunPage, Started, WorkflowRun

P = TypeVar("P")
R = TypeVar("R")

LONGEST_POLL_MS = 30_000


class AsyncWorkflows:
    """A client of the workflow runs of one project. Use it in a `with` block, or close it at the end.

    Args:
        base_url: Where the server is; default `DORMICE_BASE_URL`, else `http://127.0.0.1:7433`.
        api_key: Default `DORMICE_API_KEY`, else that of a server on this host; a server in local mode needs none.
        project_id: Default `DORMICE_PROJECT_ID`, else the default project of the key's organization.
        timeout: Seconds to wait for each piece of an answer (60), or a `Timeout`.
        max_retries: Further tries after a failure that may pass.
        transport: What carries requests, instead of a connection pool of the client's own.

    Raises:
        ConfigurationError: The base URL is none.

    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        project_id: str | None = None,
        timeout: float | Timeout | None = None,
        max_retries: int = 2,
        transport: AsyncTransport | None = None,
    ) -> None:
        found = resolve(base_url=base_url, api_key=api_key, key_required=False)
        if transport is None:
            from dormice.client.aiohttp_transport import AiohttpTransport  # noqa: PLC0415 - slow to load

            transport = AiohttpTransport(found.base_url)
        patience = timeout if isinstance(timeout, Timeout) else Timeout() if timeout is None else Timeout(read=timeout)
        self._connection = AsyncConnection(found, transport, timeout=patience, max_retries=max_retries)
        project = project_id or os.environ.get("DORMICE_PROJECT_ID")
        self._headers = {} if project is None else {"x-project-id": project}

    def __repr__(self) -> str:
        return f"<AsyncWorkflows {self._connection.settings.base_url}>"

    async def start(
        self,
        workflow: Workflow[P, Any] | str,
        payload: P | None = None,
        *,
        deployment_id: str | None = None,
        concurrency_key: str | None = None,
        priority: int = 0,
        session_id: str | None = None,
        user_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Have a workflow run, and return the run's id at once.

        Args:
            workflow: The workflow, or its id.
            payload: What it is given: JSON, or what msgspec can write as JSON.
            deployment_id: Whose workers run it; default: the latest deployment.
            concurrency_key: The limit of its queue holds for each key by itself.
            priority: Greater goes first within the queue.
            session_id: What it belongs to; a new one by default.
            user_id: For whom it is run.
            idempotency_key: The same key with the same arguments gives the same run. Made up if left out.

        Raises:
            NotJson: The payload cannot be written as JSON.
            APIError: As other requests do.

        """
        started = await self._submit(
            workflow,
            payload,
            {
                "deployment_id": deployment_id,
                "concurrency_key": concurrency_key,
                "priority": priority,
                "session_id": session_id,
                "user_id": user_id,
            },
            idempotency_key=idempotency_key,
        )
        return started.execution_id

    async def get(self, run_id: str, *, wait_ms: int = 0) -> WorkflowRun:
        """The run as it is, or once it has ended if that is within `wait_ms` (0 to 55,000)."""
        path = f"/api/v1/executions/{quote(run_id, safe='')}"
        reply = await self._connection.call("GET", path, query={"wait_ms": wait_ms or None}, headers=self._headers)
        return decode(reply.content, WorkflowRun)

    async def wait(self, run_id: str, *, timeout: float | None = None) -> WorkflowRun:
        """The run once it has ended.

        Raises WaitTimeoutError if that takes more than `timeout` seconds (default: any time); it goes on then.
        """
        return await self._wait(run_id, None if timeout is None else time.monotonic() + timeout, timeout)

    @overload
    async def run(self, workflow: Workflow[None, R], *, timeout: float | None = ...) -> R: ...
    @overload
    async def run(self, workflow: Workflow[P, R], payload: P, *, timeout: float | None = ...) -> R: ...
    @overload
    async def run(self, workflow: str, payload: Any = ..., *, timeout: float | None = ...) -> Any: ...
    async def run(
        self, workflow: Workflow[Any, Any] | str, payload: Any = None, *, timeout: float | None = None
    ) -> Any:
        """Have a workflow run, wait for it, and return its result.

        Raises RunFailed if it fails or is cancelled, and WaitTimeoutError as `wait` does.
        """
        until = None if timeout is None else time.monotonic() + timeout
        started = await self._submit(workflow, payload, {}, wait_ms=_left_ms(until))
        run = started.execution
        if run is None or not run.finished:
            run = await self._wait(started.execution_id, until, timeout)
        if run.status != "completed":
            raise RunFailed(run.id, run.error or f"it was {run.status}")
        wanted = workflow.result_type if isinstance(workflow, Workflow) else Any
        return documents.decode(msgspec.json.encode(run.result), wanted, f"the result of run {run.id}")

    async def list(
        self,
        *,
        workflow: Workflow[Any, Any] | str | None = None,
        status: str | None = None,
        session_id: str | None = None,
        parent: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> RunPage:
        """A page of the project's runs, the newest first, without payloads and results; `cursor` is the `next_cursor` of the page before."""
        query = {
            "workflow_id": workflow.id if isinstance(workflow, Workflow) else workflow,
            "status": status,
            "session_id": session_id,
            "parent": parent,
            "limit": limit,
            "cursor": cursor,
        }
        reply = await self._connection.call("GET", "/api/v1/executions", query=query, headers=self._headers)
        return decode(reply.content, RunPage)

    async def cancel(self, run_id: str) -> WorkflowRun:
        """Ask for the end of a run and of all below it, and return it as it is; one that has ended stays as it is."""
        run = await self.get(run_id)
        if not run.finished:
            await self._post(f"/api/v1/executions/{quote(run_id, safe='')}/cancel", {}, None)
            run = await self.get(run_id)
        return run

    async def publish(self, topic: str, data: object = None, *, event_type: str | None = None) -> int:
        """Publish an event, and return its sequence; runs that wait for one of the topic go on.

        If the connection breaks, it may be published twice.
        """
        event = {"data": documents.encode(data, "the data of the event"), "event_type": event_type}
        answer = await self._post("/api/v1/events/publish", {"topic": topic, "events": [event]}, None)
        return decode(answer, Published).sequence_ids[0]

    async def aclose(self) -> None:
        """End all connections. Runs go on."""
        await self._connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _submit(
        self,
        workflow: Workflow[Any, Any] | str,
        payload: object,
        options: dict[str, Any],
        *,
        idempotency_key: str | None = None,
        wait_ms: int = 0,
    ) -> Started:
        body = {"payload": documents.encode(payload, "the payload"), **options}
        workflow_id = workflow
        if isinstance(workflow, Workflow):
            workflow_id = workflow.id
            if workflow.queue is not None:
                body |= {"queue_name": workflow.queue.name, "queue_concurrency_limit": workflow.queue.limit}
            if workflow.timeout is not None:
                body["run_timeout_seconds"] = round(workflow.timeout)
        path = f"/api/v1/workflows/{quote(str(workflow_id), safe='')}/run"
        return decode(await self._post(path, body, idempotency_key, wait_ms), Started)

    async def _wait(self, run_id: str, until: float | None, timeout: float | None) -> WorkflowRun:
        while True:
            left = _left_ms(until)
            run = await self.get(run_id, wait_ms=left)
            if run.finished:
                return run
            if left == 0:
                raise WaitTimeoutError(f"{run_id} is still {run.status} after {timeout} s")

    async def _post(self, path: str, body: dict[str, Any], idempotency_key: str | None, wait_ms: int = 0) -> bytes:
        reply = await self._connection.call(
            "POST",
            path,
            query={"wait_ms": wait_ms or None},
            content=msgspec.json.encode(body),
            headers={**self._headers, "content-type": "application/json"},
            idempotency_key=idempotency_key,
        )
        return reply.content


def _left_ms(until: float | None) -> int:
    """How long one request may wait for the end of a run."""
    left = LONGEST_POLL_MS if until is None else max(0, int((until - time.monotonic()) * 1000))
    return min(left, LONGEST_POLL_MS)
