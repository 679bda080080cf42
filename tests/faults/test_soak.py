"""A short soak: the long ones are `make soak MINUTES=n`."""

from __future__ import annotations

import os

import pytest

from dormice import crash_points
from dormice.crash_points import CrashPoint
from tests.faults.soak import Soak
from tests.faults.stack import Victim

SEED = int(os.environ.get("DORMICE_FAULTS_SEED", str(int.from_bytes(os.urandom(4)))))
SECONDS = 110.0


@pytest.mark.timeout(400)
async def test_a_short_soak_breaks_no_promise(victim: Victim) -> None:
    soak = Soak(victim, SEED, clients=100, run_clients=40)
    broken = await soak.run(SECONDS)
    print(soak.report())
    assert broken == []


def test_crash_points_are_off_unless_the_environment_asks_for_them() -> None:
    assert crash_points.VARIABLE not in os.environ
    assert crash_points.reached is crash_points._off
    assert crash_points.reached_once_sent is crash_points._off


def test_every_crash_point_belongs_to_a_process() -> None:
    assert {point.role for point in CrashPoint} == {"server", "node"}
