"""Every crash point of the engine of runs is reached under load, while workers are killed too: no run's promise is broken."""

from __future__ import annotations

import asyncio
import os
from random import Random

import pytest

from tests.faults.run_evidence import collect_runs
from tests.faults.run_history import RunHistory, violations
from tests.faults.run_load import RunLoad
from tests.faults.run_workers import Workers, workers
from tests.faults.stack import Victim
from tests.faults.walk import OF_RUNS, strike_all
from tests.wait import others_run

SEED = int(os.environ.get("DORMICE_FAULTS_SEED", str(int.from_bytes(os.urandom(4)))))
CLIENTS = 60
WALK_SECONDS = 150.0


async def _kill_workers(made: Workers, random: Random, enough: asyncio.Event) -> None:
    while not enough.is_set():
        await others_run(random.uniform(1, 4))
        if random.random() < 0.7:
            made.kill(random.randrange(2))
        else:
            await made.stop(random.randrange(2))


async def walk(victim: Victim, seed: int) -> RunHistory:
    """Reach every point, and return what has happened."""
    random, history = Random(seed), RunHistory(seed)
    marks = victim.live.directory / "runs"
    points = list(OF_RUNS)
    random.shuffle(points)
    with workers(victim, marks) as made:
        load = RunLoad(victim, history, Random(random.getrandbits(64)), marks)
        await load.begin(clients=CLIENTS, machines=(await load.make_machine(),))
        enough = asyncio.Event()
        killing = asyncio.get_running_loop().create_task(_kill_workers(made, random, enough))
        async with asyncio.timeout(WALK_SECONDS):
            await strike_all(victim, load.check, "server", points, seed)
        enough.set()
        await killing
        await load.end()
        await asyncio.to_thread(collect_runs, victim, history, marks)
        history.deaths = made.deaths + len(points)
    print(
        f"seed {seed}: {len(history.found)} runs, at most {load.most_in_flight} in flight, {made.deaths} dead workers"
    )
    return history


@pytest.mark.timeout(300)
async def test_no_promise_of_runs_is_broken_at_any_crash_point(victim: Victim) -> None:
    history = await walk(victim, SEED)
    assert violations(history) == []
