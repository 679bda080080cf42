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
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from shutil import rmtree

from dormice.crash_points import CrashPoint
from tests.faults.evidence import collect
from tests.faults.history import History, violations
from tests.faults.load import Load
from tests.faults.stack import KEPT_LIMIT, Victim, victim
from tests.wait import others_run


@dataclass(eq=False, slots=True)
class Soak:
    """One run."""

    victim: Victim
    seed: int
    clients: int = 200
    faults: dict[str, int] = field(default_factory=dict)
    """How often each kind of fault was inflicted."""
    history: History = field(init=False)
    most_in_flight: int = 0

    async def run(self, seconds: float) -> list[str]:
        """Inflict faults for so long; return the promises that were broken."""
        random = Random(self.seed)
        self.history = History(self.seed, KEPT_LIMIT)
        load = Load(self.victim, self.history, Random(random.getrandbits(64)))
        memory_mib = 256 if self.victim.live.driver == "process" else 128
        await load.begin(clients=self.clients, memory_mib=memory_mib)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await others_run(random.uniform(0.2, 3))
            load.check()
            await self._inflict(random)
        self.victim.disarm()
        await load.end()
        self.most_in_flight = load.most_in_flight
        await asyncio.to_thread(collect, self.victim, self.history)
        return violations(self.history)

    async def _inflict(self, random: Random) -> None:
        kinds = ("server", "node", "both", "point", "two points", "supervisor", "everything", "freeze")
        kind = random.choices(kinds, (4, 4, 3, 6, 4, 1, 1, 2))[0]
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
        return (
            f"seed {self.seed}: {len(rows)} executions {states}, at most {self.most_in_flight} in flight, "
            f"{kept >> 20} MiB of output, {len(self.history.machines)} machines; faults: {self.faults}"
        )


def main() -> int:
    """Run from the command line. Returns 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="soak")
    parser.add_argument("minutes", type=float)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--driver", choices=("process", "container"), default="process")
    parser.add_argument("--clients", type=int, default=200)
    arguments = parser.parse_args()
    print(f"soak with seed {arguments.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="dormice-soak-"))
    directory.chmod(0o755)
    with victim(directory, arguments.driver) as made:
        soak = Soak(made, arguments.seed, arguments.clients)
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
