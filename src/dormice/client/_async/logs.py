# ruff: noqa: ASYNC109 - `timeout` is what clients of this kind call it, and the transport keeps it
"""`client.machines.executions.logs`: an execution's log as a stream that a short-lived token reads."""

from __future__ import annotations

from dormice.client import routes
from dormice.client._async.connection import AsyncConnection
from dormice.client.records import LogStatus, LogToken, decode
from dormice.client.transport import Timeout


class AsyncLogs:
    """Logs of executions, for whoever has no key."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def retrieve(
        self, machine_id: str, execution_id: str, *, timeout: float | Timeout | None = None
    ) -> LogStatus:
        """Whether the log is complete, and its stream."""
        reply = await self._connection.call("GET", routes.logs(machine_id, execution_id), timeout=timeout)
        return decode(reply.content, LogStatus)

    async def reauthorize(
        self, machine_id: str, execution_id: str, *, timeout: float | Timeout | None = None
    ) -> LogStatus:
        """The same: this server needs no permission to publish a log."""
        path = f"{routes.logs(machine_id, execution_id)}/reauthorize"
        return decode((await self._connection.call("POST", path, timeout=timeout)).content, LogStatus)

    async def create_token(
        self, machine_id: str, execution_id: str, *, timeout: float | Timeout | None = None
    ) -> LogToken:
        """Make a token that reads this one log for a quarter of an hour, and is good for nothing else."""
        path = f"{routes.logs(machine_id, execution_id)}/token"
        return decode((await self._connection.call("POST", path, timeout=timeout)).content, LogToken)
