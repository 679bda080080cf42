"""`python -m bench [NAME …]`: run benchmarks and print what they found."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import (
    asleep,
    command_line,
    execution_latency,
    execution_rate,
    file_transfer,
    foreign_worker,
    fork,
    idle_memory,
    machine_start,
    neighbours,
    output_flood,
    preview_rate,
    store_size,
    terminal_echo,
    workflow_idle,
    workflow_rate,
    workflow_shapes,
    workflow_store,
    workflow_wakes,
)
from bench.figures import Result
from bench.workbench import Workbench

BENCHMARKS: dict[str, Callable[[Workbench], Result]] = {
    "execution-latency": execution_latency.run,
    "execution-rate": execution_rate.run,
    "machine-start": machine_start.run,
    "output-flood": output_flood.run,
    "idle-memory": idle_memory.run,
    "store-size": store_size.run,
    "command-line": command_line.run,
    "terminal-echo": terminal_echo.run,
    "neighbours": neighbours.run,
    "file-transfer": file_transfer.run,
    "workflow-rate": workflow_rate.run,
    "workflow-shapes": workflow_shapes.run,
    "workflow-wakes": workflow_wakes.run,
    "workflow-idle": workflow_idle.run,
    "workflow-store": workflow_store.run,
    "foreign-worker": foreign_worker.run,
    "fork": fork.run,
    "preview-rate": preview_rate.run,
    "asleep": asleep.run,
}


def main() -> int:
    arguments = _arguments()
    if os.geteuid() != 0:
        print("bench: machines and the peers need root", file=sys.stderr)
        return 2
    host = _host()
    print(" · ".join(f"{name} {value}" for name, value in host.items()), flush=True)
    results: list[Result] = []
    began = time.monotonic()
    with Workbench(quick=arguments.quick) as bench:
        for name in arguments.names or BENCHMARKS:
            result = BENCHMARKS[name](bench)
            results.append(result)
            result.show(lambda line: print(line, flush=True))
    budgets = [budget for result in results for budget in result.budgets]
    missed = sum(not budget.passed for budget in budgets)
    print(f"\n{len(budgets) - missed} of {len(budgets)} budgets kept, in {time.monotonic() - began:.0f} s")
    if arguments.json:
        document = {"host": host, "quick": arguments.quick, "results": [result.document() for result in results]}
        Path(arguments.json).write_text(json.dumps(document, indent=2) + "\n")
    return 1 if missed and arguments.strict else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Dormice, its peers and physical limits.")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *BENCHMARKS], help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer rounds: two minutes")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a budget is missed")
    return parser.parse_args()


def _host() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    crun = subprocess.run(["crun", "--version"], check=False, capture_output=True, text=True).stdout.splitlines()
    return {
        "cpus": f"{os.cpu_count()} × {_processor()}",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "crun": crun[0].rpartition(" ")[2] if crun else "none",
        "load": f"{os.getloadavg()[0]:.2f}",
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
