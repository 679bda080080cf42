"""What has a workflow run by itself: the clock, or events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec


@dataclass(frozen=True, slots=True)
class Schedule:
    """Runs at set times, whose payload is a `Tick`. It stays when the worker goes: `dormice schedules` pauses and deletes it."""

    cron: str
    """Minute, hour, day of the month, month, day of the week: `0 8 * * mon-fri`."""
    timezone: str = "UTC"
    """Such as `Europe/Vienna`."""
    key: str = "default"
    """Tells the schedules of a workflow apart."""
    catch_up: Literal["none", "one", "all"] | None = None
    """What becomes of times that were missed; None: as it is, and none for a new one."""
    overlap: bool | None = None
    """Whether a run begins while an earlier one goes on; None: as it is, and no for a new one."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """A run for each event of a topic, whose payload is an `Event`; with a batch size or timeout for several, and it is `Events`."""

    topic: str
    batch_size: int = 1
    """Events that a run is given at most."""
    batch_timeout: int | None = None
    """Seconds that an event waits for others at most."""


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """A time of a schedule."""

    timestamp: datetime
    """The time itself; the run may begin later."""
    last_timestamp: datetime | None
    """The one before that made a run."""
    timezone: str
    schedule_id: str
    key: str
    upcoming: datetime | None
    """The one after it."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was published."""

    id: str
    sequence_id: int
    topic: str
    event_type: str | None
    data: Any
    created_at: datetime


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """Events of a topic, in their order."""

    events: list[Event]
