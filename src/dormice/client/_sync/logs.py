# Generated from _async/logs.py by scripts/generate_sync_client.py; change that and run it again.
"""`client.machines.executions.logs`: an execution's log as a stream that a short-lived token reads."""

from __future__ import annotations

from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client.records import LogStatus, LogToken, decode
from dormice.client.transport import Timeout


class Logs:
    """Logs of executions, for whoever has no key."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def retrieve(self, machine_id: str, execution_id: str, *, timeout: float | Timeout | None = None) -> LogStatus:
        """Whether the log is complete, and its stream."""
        reply = self._connection.call("GET", routes.logs(machine_id, execution_id), timeout=timeout)
        return decode(reply.content, LogStatus)

    def reauthorize(self, machine_id: str, execution_id: str, *, timeout: float | Timeout | None = None) -> LogStatus:
        """The same: this server needs no permission to publish a log."""
        path = f"{routes.logs(machine_id, execution_id)}/reauthorize"
        return decode((self._connection.call("POST", path, timeout=timeout)).content, LogStatus)

    def create_token(self, machine_id: str, execution_id: str, *, timeout: float | Timeout | None = None) -> LogToken:
        """Make a token that reads this one log for a quarter of an hour, and is good for nothing else."""
        path = f"{routes.logs(machine_id, execution_id)}/token"
        return decode((self._connection.call("POST", path, timeout=timeout)).content, LogToken)
