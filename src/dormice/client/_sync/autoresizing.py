# Generated from _async/autoresizing.py by scripts/generate_sync_client.py; change that and run it again.
"""`client.machines.autoresizing` and `client.organization.autoresizing`: more memory for machines that are short of it."""

from __future__ import annotations

from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client.records import AutoresizingSetting, decode
from dormice.client.transport import Timeout


class Autoresizing:
    """Whether one machine's memory is raised when it is short. Off for a new machine."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def retrieve(self, machine_id: str, *, timeout: float | Timeout | None = None) -> AutoresizingSetting:
        """The setting."""
        reply = self._connection.call("GET", routes.autoresizing(machine_id), timeout=timeout)
        return decode(reply.content, AutoresizingSetting)

    def update(
        self,
        machine_id: str,
        *,
        enabled: bool,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> AutoresizingSetting:
        """Turn it on or off. What the machine has been given it keeps."""
        reply = self._connection.call(
            "PUT",
            routes.autoresizing(machine_id),
            body={"enabled": enabled},
            idempotency_key=idempotency_key,
            timeout=timeout,
        )
        return decode(reply.content, AutoresizingSetting)


class AutoresizingPolicy:
    """Whether the organization lets machines be given more memory. On at first; machines have to want it, too."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def retrieve(self, *, timeout: float | Timeout | None = None) -> AutoresizingSetting:
        """The policy."""
        reply = self._connection.call("GET", routes.POLICY, timeout=timeout)
        return decode(reply.content, AutoresizingSetting)

    def update(self, *, enabled: bool, timeout: float | Timeout | None = None) -> AutoresizingSetting:
        """Allow it or not. What machines have been given they keep."""
        reply = self._connection.call("PUT", routes.POLICY, body={"enabled": enabled}, timeout=timeout)
        return decode(reply.content, AutoresizingSetting)


class Organization:
    """`client.organization`: what holds for all machines of the organization."""

    def __init__(self, connection: Connection) -> None:
        self.autoresizing = AutoresizingPolicy(connection)
