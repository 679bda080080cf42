# ruff: noqa: ASYNC109 - `timeout` is what clients of this kind call it, and the transport keeps it
"""`client.usage`: what machines have used."""

from __future__ import annotations

from datetime import date

from dormice.client import routes
from dormice.client._async.connection import AsyncConnection
from dormice.client.records import decode
from dormice.client.transport import Timeout
from dormice.client.usage_records import ComputeUsage, OrganizationUsage, StorageUsage


class AsyncUsage:
    """What machines of the organization have used. Days are in UTC, as a `date` or as text such as `2026-06-01`.

    `period_start` is the first of this month if it is left out, `period_end`, the last day that counts, is today.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def retrieve(
        self, *, period_start: date | str | None = None, timeout: float | Timeout | None = None
    ) -> OrganizationUsage:
        """All machines together, until now."""
        query = {"period_start": _day(period_start)}
        reply = await self._connection.call("GET", routes.USAGE, query=query, timeout=timeout)
        return decode(reply.content, OrganizationUsage)

    async def machine_compute(
        self,
        *,
        granularity: str | None = None,
        machine_id: str | None = None,
        period_start: date | str | None = None,
        period_end: date | str | None = None,
        timeout: float | Timeout | None = None,
    ) -> ComputeUsage:
        """Time awake, processor time and memory of each machine, or of one, in each hour, or `day`."""
        query = {
            "granularity": granularity,
            "machine_id": machine_id,
            "period_start": _day(period_start),
            "period_end": _day(period_end),
        }
        reply = await self._connection.call("GET", routes.COMPUTE_USAGE, query=query, timeout=timeout)
        return decode(reply.content, ComputeUsage)

    async def machine_storage(
        self,
        *,
        machine_id: str | None = None,
        period_start: date | str | None = None,
        period_end: date | str | None = None,
        timeout: float | Timeout | None = None,
    ) -> StorageUsage:
        """Disks of each machine, or of one, on each day."""
        query = {"machine_id": machine_id, "period_start": _day(period_start), "period_end": _day(period_end)}
        reply = await self._connection.call("GET", routes.STORAGE_USAGE, query=query, timeout=timeout)
        return decode(reply.content, StorageUsage)


def _day(day: date | str | None) -> str | None:
    return None if day is None else str(day)
