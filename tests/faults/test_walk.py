"""Every crash point is reached under load, in server and node, one by one and two at once: no promise is broken."""

from __future__ import annotations

import asyncio
import os
from random import Random

import pytest

from dormice.crash_points import CrashPoint
from tests.faults.evidence import collect
from tests.faults.history import History, violations
from tests.faults.load import Load
from tests.faults.stack import KEPT_LIMIT, ROLES, Victim
from tests.faults.walk import OF_MACHINES, strike_all

SEED = int(os.environ.get("DORMICE_FAULTS_SEED", str(int.from_bytes(os.urandom(4)))))
WALK_SECONDS = 150.0
ON_REAL_MACHINES = (
    CrashPoint.EXECUTION_COMMITTED,
    CrashPoint.WAKE_SENT,
    CrashPoint.MACHINE_DOWN_COMMITTED,
    CrashPoint.REPORT_COMMITTED,
    CrashPoint.MACHINE_LAUNCHED,
    CrashPoint.MACHINE_RECORDED,
    CrashPoint.GUEST_STOPPED,
    CrashPoint.DESTROY_HALF_WAY,
)
"""Those at which a container differs from a bare process, and some of each other kind."""


async def _walk(victim: Victim, points: list[CrashPoint], *, clients: int, calm: int, memory_mib: int) -> History:
    random = Random(SEED)
    history = History(SEED, KEPT_LIMIT)
    load = Load(victim, history, Random(random.getrandbits(64)))
    await load.begin(clients=clients, calm=calm, memory_mib=memory_mib)
    random.shuffle(points)
    async with asyncio.timeout(WALK_SECONDS):
        await asyncio.gather(*(strike_all(victim, load.check, role, points, SEED) for role in ROLES))
    await load.end()
    print(f"seed {SEED}: {len(history.asked)} executions, at most {load.most_in_flight} in flight")
    await asyncio.to_thread(collect, victim, history)
    return history


@pytest.mark.timeout(300)
async def test_no_promise_is_broken_at_any_crash_point(victim: Victim) -> None:
    history = await _walk(victim, list(OF_MACHINES), clients=200, calm=4, memory_mib=256)
    assert violations(history) == []


@pytest.mark.machines
@pytest.mark.timeout(300)
@pytest.mark.parametrize("victim", ["container"], indirect=True)
async def test_no_promise_is_broken_on_real_machines(victim: Victim) -> None:
    history = await _walk(victim, list(ON_REAL_MACHINES), clients=40, calm=2, memory_mib=128)
    assert violations(history) == []
