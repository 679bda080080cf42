"""(7) How long the command line takes to do nothing much."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from bench.figures import Result
from bench.workbench import Workbench

TITLE = "(7) command line, from start to exit"


def run(bench: Workbench) -> Result:
    result = Result("command-line", TITLE)
    program = str(Path(sys.executable).with_name("dormice"))
    stack = bench.stack
    environment = os.environ | {
        "DORMICE_BASE_URL": f"http://{stack.address[0]}:{stack.address[1]}",
        "DORMICE_API_KEY": stack.key,
    }
    with stack.machine() as machine:
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "dormice --help": [program, "--help"],
            "dormice exec MACHINE -- true": [program, "exec", machine, "--", "true"],
        }
        took: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(bench.amount(40, 10)):
            for name, command in commands.items():
                began = perf_counter()
                subprocess.run(
                    command, check=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                )
                took[name].append(perf_counter() - began)
    for name, values in took.items():
        result.add(name, "ms", (1000 * value for value in values))
    return result
