"""What machines have used, as the API answers it."""

from __future__ import annotations

from datetime import datetime

import msgspec


class OrganizationUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What all machines of the organization have used. Nothing is billed: the names are those of other clients."""

    plan_slug: str
    billed_awake_seconds: int
    billed_cpu_millicore_seconds: int
    """Processor time: 1,000 is a second of one core."""
    billed_memory_mib_seconds: int
    """Memory assigned, while awake."""
    billed_logical_storage_mib_seconds: int
    """Size of disks, awake or asleep."""
    provisioned_storage_gib: int
    """Size of the disks that there are now."""
    included_storage_gib: int


class ComputeUsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine has used in one hour or day, while it had this size."""

    machine_id: str
    spec_fingerprint: str
    requested_vcpu: float
    requested_memory_mib: int
    requested_storage_gib: int
    bucket_start: datetime
    bucket_end: datetime
    awake_seconds: int
    cpu_millicore_seconds: int
    memory_mib_seconds: int
    window_count: int
    last_window_end: datetime


class ComputeUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What machines have used, ascending by time."""

    granularity: str
    period_start: datetime
    period_end: datetime
    rows: list[ComputeUsageRow]


class StorageUsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine's disk has taken up on one day."""

    machine_id: str
    bucket_start: datetime
    bucket_end: datetime
    logical_storage_bytes: int
    storage_mib_seconds: int


class StorageUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What disks have taken up, by machine and day."""

    period_start: datetime
    period_end: datetime
    rows: list[StorageUsageRow]
