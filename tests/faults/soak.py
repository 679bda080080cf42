"""Load, and kills at random, for as long as asked: `python -m tests.faults.soak MINUTES [--seed N] [--driver container]`.

A failing run names its seed. The same seed makes the same choices in the same order; what they meet depends on the host's timing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from shutil import rmtree

from dormice.crash_points import CrashPoint
from tests.faults.evidence import collect
from tests.faults.history import History, violations
from tests.faults.load import Load
from tests.faults.run_evidence import collect_runs
from tests.faults.run_history import RunHistory
from tests.faults.run_history import violations as violations_of_runs
from tests.faults.run_load import RunLoad
from tests.faults.run_workers import Workers, workers
from tests.faults.stack import KEPT_LIMIT, Victim, victim
from tests.wait import others_run


@dataclass(eq=False, slots=True)
class Soak:
    """One run."""

    victim: Victim
    seed: int
    clients: int = 200
    run_clients: int = 100
    faults: dict[str, int] = field(default_factory=dict)
    """How often each kind of fault was inflicted."""
    history: History = field(init=False)
    runs: RunHistory = field(init=False)
    most_in_flight: int = 0
    most_runs: int = 0

    async def run(self, seconds: float) -> list[str]:
        """Inflict faults for so long; return the promises that were broken."""
        random = Random(self.seed)
        self.history, self.runs = History(self.seed, KEPT_LIMIT), RunHistory(self.seed)
        marks = self.victim.live.directory / "runs"
        load = Load(self.victim, self.history, Random(random.getrandbits(64)))
        runs = RunLoad(self.victim, self.runs, Random(random.getrandbits(64)), marks)
        process = self.victim.live.driver == "process"  # in a container no command could leave its mark
        await load.begin(clients=self.clients, memory_mib=256 if process else 128)
        with workers(self.victim, marks) as made:
            await runs.begin(clients=self.run_clients, machines=load.machines.calm if process else ())
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                await others_run(random.uniform(0.2, 3))
                load.check()
                runs.check()
                await self._inflict(random, made)
            self.victim.disarm()
            await asyncio.gather(load.end(), runs.end())
            await asyncio.to_thread(collect, self.victim, self.history)
            await asyncio.to_thread(collect_runs, self.victim, self.runs, marks)
        self.most_in_flight, self.most_runs = load.most_in_flight, runs.most_in_flight
        self.runs.deaths = sum(self.faults.values())
        return [*violations(self.history), *violations_of_runs(self.runs)]

    async def _inflict(self, random: Random, made: Workers) -> None:
        kinds = (
            "server",
            "node",
            "both",
            "point",
            "two points",
            "supervisor",
            "everything",
            "freeze",
            "worker",
            "stop",
        )
        kind = random.choices(kinds, (4, 4, 3, 6, 4, 1, 1, 2, 5, 2))[0]
        points, role, pause = random.sample(list(CrashPoint), 2), random.choice(("server", "node")), random.random()
        self.faults[kind] = self.faults.get(kind, 0) + 1
        match kind:
            case "server" | "node":
                self.victim.kill(kind)
            case "both":
                self.victim.kill("server", "node")
            case "point":
                self.victim.arm(points[0])
            case "two points":
                self.victim.arm(*points)
            case "freeze":
                await self.victim.freeze(role, pause)
            case "worker":
                made.kill(random.randrange(2))
            case "stop":
                await made.stop(random.randrange(2))
            case "supervisor":
                self.victim.kill_supervisor()
                await asyncio.to_thread(self.victim.live.start)
            case _:
                self.victim.kill("server", "node")
                self.victim.kill_supervisor()
                await asyncio.to_thread(self.victim.live.start)

    def report(self) -> str:
        """Return what was done, in a few lines."""
        rows = self.history.found
        states = {state: sum(row.state == state for row in rows) for state in sorted({row.state for row in rows})}
        kept = sum(sum(row.kept) for row in rows)
        ends = Counter(row.state for row in self.runs.found)
        return (
            f"seed {self.seed}: {len(rows)} executions {states}, at most {self.most_in_flight} in flight, "
            f"{kept >> 20} MiB of output, {len(self.history.machines)} machines; {len(self.runs.found)} runs {dict(ends)}, "
            f"at most {self.most_runs} asked for at a time; faults: {self.faults}"
        )


def main() -> int:
    """Run from the command line. Returns 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="soak")
    parser.add_argument("minutes", type=float)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--driver", choices=("process", "container"), default="process")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--run-clients", type=int, default=250)
    arguments = parser.parse_args()
    print(f"soak with seed {arguments.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="dormice-soak-"))
    directory.chmod(0o755)
    with victim(directory, arguments.driver) as made:
        soak = Soak(made, arguments.seed, arguments.clients, arguments.run_clients)
        broken = asyncio.run(soak.run(arguments.minutes * 60))
        print(soak.report())
        for sentence in broken:
            print(f"BROKEN: {sentence}")
        if broken:
            print(f"its log and data are left in {directory}", flush=True)
            return 1
    rmtree(directory)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
