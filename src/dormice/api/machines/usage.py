"""Routes of usage, under both sets of paths that clients know.

Nothing is billed here: fields of a billing system are there because clients demand them, and are empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Annotated

from msgspec import Meta, Struct

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.errors import Fault, InvalidRequest
from dormice.api.http.operation import Answer, Handler, Operation, Parameter
from dormice.api.http.replies import json_reply
from dormice.api.machines.wire import Time, time
from dormice.api.services import Services
from dormice.domain.errors import NotFound
from dormice.domain.execution import Micros
from dormice.domain.ids import canonical_machine_id
from dormice.engine.usage import DAY_US, Period, StorageUse
from dormice.store.usage import ComputeUse

PLAN = "self-hosted"
HOUR_US = DAY_US // 24
_MACHINE_ID = {
    "type": "string",
    "pattern": "^((dm-)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})?$",
}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_EPOCH = date(1970, 1, 1)
_LAST = (date.max - _EPOCH).days * DAY_US + DAY_US - 1
"""The last moment that can be written."""
_SECOND_US = 1_000_000
_GIB_MIB = 1024


class OrgUsage(Struct, kw_only=True):
    """What all machines of the organization have used since `period_start`."""

    plan_slug: str
    billed_awake_seconds: Annotated[int, Meta(description="Seconds that machines were awake.")]
    billed_cpu_millicore_seconds: Annotated[
        int, Meta(description="Processor time used: 1,000 is a second of one core.")
    ]
    billed_memory_mib_seconds: Annotated[int, Meta(description="Memory assigned, while awake.")]
    billed_logical_storage_mib_seconds: Annotated[int, Meta(description="Size of disks, awake or asleep.")]
    provisioned_storage_gib: Annotated[int, Meta(description="Size of the disks that there are now.")]
    included_storage_gib: int


class ComputeRow(Struct, kw_only=True):
    """What a machine has used in one hour or day, while it had this size."""

    machine_id: str
    spec_fingerprint: Annotated[str, Meta(description="The same for the same size.")]
    requested_vcpu: float
    requested_memory_mib: int
    requested_storage_gib: int
    bucket_start: Time
    bucket_end: Time
    awake_seconds: int
    cpu_millicore_seconds: Annotated[int, Meta(description="Processor time used: 1,000 is a second of one core.")]
    memory_mib_seconds: Annotated[int, Meta(description="Memory assigned, while awake.")]
    window_count: Annotated[int, Meta(description="Reports that are in it.")]
    last_window_end: Time
    org_metering_bucket_ids: list[str]
    stripe_cpu_identifiers: list[str]
    stripe_memory_identifiers: list[str]


class ComputeUsage(Struct, kw_only=True):
    """What machines have used, ascending by time."""

    granularity: str
    period_start: Time
    period_end: Time
    rows: list[ComputeRow]


class StorageRow(Struct, kw_only=True):
    """What a machine's disk has taken up on one day."""

    machine_id: str
    bucket_start: Time
    bucket_end: Time
    logical_storage_bytes: Annotated[int, Meta(description="The disk's size; of a disk that has grown, the last.")]
    storage_mib_seconds: int
    org_metering_bucket_id: str
    stripe_storage_identifier: str


class StorageUsage(Struct, kw_only=True):
    """What disks have taken up, by machine and day."""

    period_start: Time
    period_end: Time
    rows: list[StorageRow]


@dataclass(frozen=True, slots=True)
class _Paths:
    """The paths of one set, and how the ids of its operations begin."""

    head: str
    totals: str
    compute: str
    storage: str


_SETS = (
    _Paths("get", "/v1/usage", "/v1/usage/machines/compute", "/v1/usage/machines/storage"),
    _Paths(
        "getOrg",
        "/v1/orgs/{org_id}/usage",
        "/v1/orgs/{org_id}/usage/machines",
        "/v1/orgs/{org_id}/usage/storage/machines",
    ),
)


class UsageRoutes:
    """Handlers over the usage service."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._usage = services.usage

    async def totals(self, call: Call) -> ASGIApp:
        """GET /v1/usage."""
        _check_organization(call)
        now = self._usage.now()
        start = _day(call, "period_start")
        totals = await self._usage.totals(call.caller, _first_of_month(now) if start is None else start)
        record = OrgUsage(
            plan_slug=PLAN,
            billed_awake_seconds=totals.awake_us // _SECOND_US,
            billed_cpu_millicore_seconds=totals.cpu_us // 1000,
            billed_memory_mib_seconds=totals.memory_mib_us // _SECOND_US,
            billed_logical_storage_mib_seconds=totals.storage_gib_us * _GIB_MIB // _SECOND_US,
            provisioned_storage_gib=totals.provisioned_gib,
            included_storage_gib=0,
        )
        return json_reply(record)

    async def compute(self, call: Call) -> ASGIApp:
        """GET /v1/usage/machines/compute."""
        _check_organization(call)
        by_day, machine_id, period = _by_day(call), _machine_id(call), self._period(call)
        rows = await self._usage.compute(call.caller, period, machine_id=machine_id, by_day=by_day)
        record = ComputeUsage(
            granularity="day" if by_day else "hour",
            period_start=time(period.start),
            period_end=time(period.end),
            rows=[_compute_row(row, DAY_US if by_day else HOUR_US) for row in rows],
        )
        return json_reply(record)

    async def storage(self, call: Call) -> ASGIApp:
        """GET /v1/usage/machines/storage."""
        _check_organization(call)
        machine_id, period = _machine_id(call), self._period(call)
        rows = await self._usage.storage(call.caller, period, machine_id=machine_id)
        record = StorageUsage(
            period_start=time(period.start), period_end=time(period.end), rows=[_storage_row(row) for row in rows]
        )
        return json_reply(record)

    def _period(self, call: Call) -> Period:
        now = self._usage.now()
        start, last = _day(call, "period_start"), _day(call, "period_end")
        end = now if last is None else min(last + DAY_US, _LAST)
        begin = _first_of_month(now if last is None else min(last, now)) if start is None else start
        if last is not None and end <= begin:
            raise InvalidRequest([Fault("period_end must not be before period_start", "query.period_end")])
        return Period(begin, max(begin, end))

    def operations(self) -> list[Operation]:
        """Return the routes."""
        return [operation for paths in _SETS for operation in self._of(paths)]

    def _of(self, paths: _Paths) -> Iterable[Operation]:
        start = _date_parameter(
            "period_start", "The first day, in UTC; without it, the first of this month, or of that of `period_end`."
        )
        end = _date_parameter("period_end", "The last day, in UTC, not before the first; without it, until now.")
        machine = Parameter("machine_id", "query", _MACHINE_ID, "Only of this machine, also a deleted one.")
        granularity = Parameter(
            "granularity", "query", {"type": "string", "enum": ["hour", "day"], "default": "hour"}, "How long a row is."
        )
        limits = self._services.limits
        bound = f"At most {limits.usage_rows} rows (`usage_rows`); what asks for more is refused."

        def operation(
            name: str, path: str, summary: str, handle: Handler, parameters: tuple[Parameter, ...], body: type[Struct]
        ) -> Operation:
            return Operation(
                id=f"{paths.head}{name}",
                method="GET",
                path=path,
                tag="usage",
                summary=summary,
                description="" if body is OrgUsage else bound,
                handle=handle,
                parameters=parameters,
                answers={200: Answer("The usage.", body)},
            )

        yield operation("Usage", paths.totals, "What all machines have used", self.totals, (start,), OrgUsage)
        yield operation(
            "MachineComputeUsage",
            paths.compute,
            "What machines have used, hour by hour or day by day",
            self.compute,
            (granularity, machine, start, end),
            ComputeUsage,
        )
        yield operation(
            "MachineStorageUsage",
            paths.storage,
            "What disks of machines have taken up, day by day",
            self.storage,
            (machine, start, end),
            StorageUsage,
        )


def _check_organization(call: Call) -> None:
    wanted = call.path.get("org_id")
    if wanted is not None and wanted != call.caller.organization_id:
        raise NotFound("no such organization: a key sees its own")


def _by_day(call: Call) -> bool:
    granularity = call.query.get("granularity") or "hour"
    if granularity not in {"hour", "day"}:
        raise InvalidRequest([Fault("granularity must be hour or day", "query.granularity")])
    return granularity == "day"


def _machine_id(call: Call) -> str | None:
    text = call.query.get("machine_id")
    if not text:
        return None
    machine_id = canonical_machine_id(text)
    if machine_id is None:
        raise InvalidRequest([Fault("machine_id must be the id of a machine: dm- and a UUID", "query.machine_id")])
    return machine_id


def _day(call: Call, name: str) -> Micros | None:
    """The moment at which a day begins, in UTC."""
    text = call.query.get(name)
    if not text:
        return None
    try:
        day = date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        raise InvalidRequest([Fault(f"{name} must be a day such as 2026-06-01", f"query.{name}")])
    return (day - _EPOCH).days * DAY_US


def _first_of_month(now: Micros) -> Micros:
    today = date.fromordinal(_EPOCH.toordinal() + now // DAY_US)
    return (today.replace(day=1) - _EPOCH).days * DAY_US


def _date_parameter(name: str, description: str) -> Parameter:
    return Parameter(name, "query", {"type": "string", "format": "date"}, description)


def _compute_row(use: ComputeUse, width: Micros) -> ComputeRow:
    return ComputeRow(
        machine_id=use.machine_id,
        spec_fingerprint=f"vcpu-{use.vcpu:g}.memory-{use.memory_mib}.storage-{use.storage_gib}",
        requested_vcpu=use.vcpu,
        requested_memory_mib=use.memory_mib,
        requested_storage_gib=use.storage_gib,
        bucket_start=time(use.start),
        bucket_end=time(use.start + width),
        awake_seconds=use.awake_us // _SECOND_US,
        cpu_millicore_seconds=use.cpu_us // 1000,
        memory_mib_seconds=use.awake_us * use.memory_mib // _SECOND_US,
        window_count=use.windows,
        last_window_end=time(use.last_window_end),
        org_metering_bucket_ids=[],
        stripe_cpu_identifiers=[],
        stripe_memory_identifiers=[],
    )


def _storage_row(use: StorageUse) -> StorageRow:
    return StorageRow(
        machine_id=use.machine_id,
        bucket_start=time(use.start),
        bucket_end=time(use.start + DAY_US),
        logical_storage_bytes=use.storage_gib << 30,
        storage_mib_seconds=use.gib_us * _GIB_MIB // _SECOND_US,
        org_metering_bucket_id="",
        stripe_storage_identifier="",
    )
