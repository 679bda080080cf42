# ruff: noqa: ASYNC109 - `timeout` is what clients of this kind call it, and the transport keeps it
"""`client.machines.executions`: commands on a machine."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Literal

from dormice.client import routes
from dormice.client._async.connection import AsyncConnection
from dormice.client._async.logs import AsyncLogs
from dormice.client._async.pagination import AsyncPaginator, paginate
from dormice.client._async.streams import AsyncEventStream, events_of_execution
from dormice.client.argv import as_argv
from dormice.client.errors import APIStatusError, WaitTimeoutError
from dormice.client.records import Execution, ExecutionEvent, ExecutionOutput, StdinPosition, decode
from dormice.client.transport import Timeout

LONGEST_POLL_MS = 30_000


class AsyncExecutions:
    """Start commands, follow them, read what they wrote."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.logs = AsyncLogs(connection)

    async def create(
        self,
        machine_id: str,
        *,
        command: Sequence[str] | None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout_ms: int | None = None,
        stdin_open: bool | None = None,
        start_timeout_ms: int | None = None,
        artifacts: Sequence[str] | None = None,
        wait_ms: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Execution:
        """Start a command and return at once, or after at most `wait_ms` (0 to 55,000) if it ends within them.

        Args:
            machine_id: The machine to run it on. A sleeping one is woken.
            command: argv. The first element is the program, looked up in the machine's PATH; no shell is involved.
            cwd: Working directory, `/root` by default.
            env: Variables added to the machine's.
            stdin: Text piped to the process; without it, and without `stdin_open`, stdin is empty.
            timeout_ms: Milliseconds of running after which the whole tree of processes is killed.
            stdin_open: Keep stdin open for `write_stdin`.
            start_timeout_ms: Milliseconds from now within which it must start, or else it becomes `expired`.
            artifacts: Patterns of files to keep once it has ended, however it ended: absolute, or from `cwd` on; `*`, `?`,
                `[...]`, and `**` for any number of directories. `artifacts_status` of the record says how far that is.
            wait_ms: Milliseconds to wait for its end before answering.
            idempotency_key: The same key with the same arguments gives the same execution. Made up if left out.
            timeout: Seconds to wait for the server.

        Raises:
            TypeError: The command is one string instead of a sequence of them.

        """
        body = {
            "command": as_argv(command) if command is not None else None,
            "cwd": cwd,
            "env": dict(env) if env is not None else None,
            "stdin": stdin,
            "timeout_ms": timeout_ms,
            "stdin_open": stdin_open,
            "start_timeout_ms": start_timeout_ms,
            "artifacts": list(artifacts) if artifacts is not None else None,
        }
        reply = await self._connection.call(
            "POST",
            routes.executions(machine_id),
            query={"wait_ms": wait_ms},
            body=body,
            idempotency_key=idempotency_key,
            timeout=timeout,
        )
        return decode(reply.content, Execution)

    async def retrieve(
        self,
        execution_id: str,
        *,
        machine_id: str,
        wait_ms: int | None = None,
        timeout: float | Timeout | None = None,
    ) -> Execution:
        """The record as it is now, or as it is when the execution ends within `wait_ms` (0 to 55,000)."""
        path = routes.execution(machine_id, execution_id)
        reply = await self._connection.call("GET", path, query={"wait_ms": wait_ms}, timeout=timeout)
        return decode(reply.content, Execution)

    def list(
        self, machine_id: str, *, limit: int | None = None, cursor: str | None = None
    ) -> AsyncPaginator[Execution]:
        """The machine's executions, newest first, `limit` to a page."""
        path = routes.executions(machine_id)
        return paginate(self._connection, Execution, path, limit=limit, cursor=cursor)

    async def delete(
        self,
        execution_id: str,
        *,
        machine_id: str,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Execution:
        """Cancel it. Nothing happens if it has ended; the record and the output stay in either case."""
        path = routes.execution(machine_id, execution_id)
        reply = await self._connection.call("DELETE", path, idempotency_key=idempotency_key, timeout=timeout)
        return decode(reply.content, Execution)

    async def wait(self, execution_id: str, *, machine_id: str, timeout: float | None = None) -> Execution:
        """The record once the execution has ended.

        Raises WaitTimeoutError if that takes more than `timeout` seconds (default: any time); it runs on then.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LONGEST_POLL_MS if until is None else max(0, int((until - time.monotonic()) * 1000))
            poll = min(left, LONGEST_POLL_MS)
            execution = await self.retrieve(execution_id, machine_id=machine_id, wait_ms=poll)
            if execution.finished:
                return execution
            if left == 0:
                raise WaitTimeoutError(f"{execution_id} is still {execution.status} after {timeout} s")

    def events(
        self,
        execution_id: str,
        *,
        machine_id: str,
        cursor: str | None = None,
        limit: int | None = None,
        wait_ms: int | None = None,
        encoding: Literal["base64"] | None = None,
    ) -> AsyncPaginator[ExecutionEvent]:
        """The log so far, oldest entry first, from behind `cursor` (a sequence number), `limit` to a page.

        With `wait_ms`, waits up to so many milliseconds for an entry if there is none. With `encoding="base64"`
        output is exact (`event.data`), else it is text. `stream` follows the log as it grows.
        """
        path = f"{routes.execution(machine_id, execution_id)}/events"
        return paginate(
            self._connection, ExecutionEvent, path, cursor=cursor, limit=limit, wait_ms=wait_ms, encoding=encoding
        )

    def stream(self, execution_id: str, *, machine_id: str, after: int = 0) -> AsyncEventStream[ExecutionEvent]:
        """The log from behind entry `after`, live and to its end; output is exact (`event.data`).

        A connection that breaks is made again where it broke: each entry comes once and in order.
        """

        async def entries() -> AsyncGenerator[ExecutionEvent, None]:
            events = events_of_execution(self._connection, machine_id, execution_id, after=after)
            async with aclosing(events):
                async for event in events:
                    yield decode(event.data.encode(), ExecutionEvent)

        return AsyncEventStream(entries())

    async def output(
        self, execution_id: str, *, machine_id: str, timeout: float | Timeout | None = None
    ) -> ExecutionOutput:
        """What was kept of both streams so far, as text. Bytes that are not UTF-8 are replaced by U+FFFD."""
        path = f"{routes.execution(machine_id, execution_id)}/output"
        return decode((await self._connection.call("GET", path, timeout=timeout)).content, ExecutionOutput)

    async def read_output(
        self,
        execution_id: str,
        *,
        machine_id: str,
        stream: Literal["stdout", "stderr"] = "stdout",
        start: int = 0,
        end: int | None = None,
        timeout: float | Timeout | None = None,
    ) -> bytes:
        """The exact bytes `start` to `end` (not included; default: all there is) of what was kept of one stream.

        Beyond the end of what was kept there are none. Raises ValueError unless 0 <= start <= end.
        """
        if start < 0 or (end is not None and end < start):
            raise ValueError("start and end must satisfy 0 <= start <= end")
        if end == start:
            return b""
        headers = {"accept": "application/octet-stream"}
        if start or end is not None:
            headers["range"] = f"bytes={start}-{'' if end is None else end - 1}"
        path = f"{routes.execution(machine_id, execution_id)}/output/{stream}"
        try:
            return (await self._connection.call("GET", path, headers=headers, timeout=timeout)).content
        except APIStatusError as error:
            if error.status_code == 416:
                return b""
            raise

    async def write_stdin(
        self,
        execution_id: str,
        *,
        machine_id: str,
        offset: int,
        data: bytes = b"",
        eof: bool = False,
        timeout: float | Timeout | None = None,
    ) -> StdinPosition:
        """Append `data` (at most 1 MiB) to the stdin of an execution made with `stdin_open`, and end it with `eof`.

        `offset` is where the data begins, counted from the first byte ever written. The server has it on disk before
        this returns; bytes it had already are passed over. Raises ConflictError for a gap (`details` has
        `expected_offset`), after `eof` and after the end of the process.
        """
        path = f"{routes.execution(machine_id, execution_id)}/stdin"
        reply = await self._connection.call(
            "PUT",
            path,
            query={"offset": offset, "eof": eof or None},
            content=data,
            headers={"content-type": "application/octet-stream"},
            timeout=timeout,
        )
        return decode(reply.content, StdinPosition)
