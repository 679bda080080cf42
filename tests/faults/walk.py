"""Walks through crash points: arms them, a few at a time, until each was reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from dormice.crash_points import CrashPoint
from tests.faults.stack import ROLES, Victim
from tests.wait import others_run

OF_RUNS = (
    CrashPoint.RUNS_LOADED,
    CrashPoint.WORKER_COMMITTED,
    CrashPoint.WORKER_FORGOTTEN,
    CrashPoint.RUN_COMMITTED,
    CrashPoint.RUN_CLAIMED,
    CrashPoint.PUSH_SENT,
    CrashPoint.PUSH_ANSWERED,
    CrashPoint.ACCEPT_COMMITTED,
    CrashPoint.RELEASE_COMMITTED,
    CrashPoint.STEP_COMMITTED,
    CrashPoint.WAIT_COMMITTED,
    CrashPoint.TIMER_FIRED,
    CrashPoint.EVENT_PUBLISHED,
    CrashPoint.CHILD_RESUMED,
    CrashPoint.COMMAND_BEGUN,
    CrashPoint.COMMAND_TOLD,
    CrashPoint.RUN_RETRIED,
    CrashPoint.RUN_ENDED,
    CrashPoint.RUN_CANCEL_COMMITTED,
    CrashPoint.RUN_CANCELLED,
)
"""Reached under a load of runs only."""
OF_WEBHOOKS = (CrashPoint.WEBHOOK_CREATED, CrashPoint.WEBHOOK_ANSWERED, CrashPoint.WEBHOOK_COMMITTED)
"""Reached only where somebody is told (tests/webhooks/test_crashes.py)."""
OF_SNAPSHOTS = (
    CrashPoint.SNAPSHOT_COMMITTED,
    CrashPoint.SNAPSHOT_SETTLED,
    CrashPoint.SNAPSHOT_DELETE_COMMITTED,
    CrashPoint.DISK_STILL,
    CrashPoint.DISK_COPIED,
    CrashPoint.SNAPSHOT_TAKEN,
    CrashPoint.SNAPSHOT_DELETED,
)
"""Reached where disks are copied; tests/faults/test_snapshots.py does."""
OF_MACHINES = tuple(point for point in CrashPoint if point not in {*OF_RUNS, *OF_WEBHOOKS, *OF_SNAPSHOTS})
AFTER_A_RESTART = {
    CrashPoint.ENGINE_LOADED,
    CrashPoint.NODE_JOINED,
    CrashPoint.ADOPTED,
    CrashPoint.WELCOMED,
    CrashPoint.RUNS_LOADED,
}
"""Reached only by a process that has come back."""
AT_ONCE = 3
"""How many points of each role are armed at a time: some take longer to be reached than others."""
LOOK_SECONDS = 0.1


async def strike_all(
    victim: Victim, check: Callable[[], None], role: str, points: Iterable[CrashPoint], seed: int
) -> None:
    """Arm the points of a role until each was reached. What keeps one of them waiting is in the failure."""
    waiting, armed = [point for point in points if point.role == role], set[CrashPoint]()
    try:
        while waiting or armed:
            check()
            armed = {point for point in armed if not victim.struck(point)}
            if len(armed) < AT_ONCE and waiting:
                armed.add(point := waiting.pop())
                victim.arm(point)
            elif armed and armed <= AFTER_A_RESTART:
                victim.kill(*ROLES)
            await others_run(LOOK_SECONDS)
    except asyncio.CancelledError:
        raise AssertionError(f"never reached: {sorted(armed)}, nor {waiting} (seed {seed})") from None
