"""A node that kills itself with SIGKILL when it reaches a given function: `python -m tests.node.crashing_node DATA RUN UID MACHINE STEP`.

STEP is a function's qualified name, or `sent` for the moment after the OCI runtime was asked to start.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from uuid import uuid4

from tests.node.machine_lab import SMALL, IsolatedNetworks, Lab


def _die_at(step: str) -> None:
    def watch(frame: FrameType, event: str, _: object) -> None:
        name, caller = frame.f_code.co_qualname, frame.f_back and frame.f_back.f_code.co_qualname
        if event == "call" and (name == step or (step, name, caller) == ("sent", "Standby._wait", "Standby.run")):
            os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(watch)
    sys.setprofile(watch)


async def main(data: str, run: str, first_uid: str, machine_id: str, step: str) -> None:
    lab = Lab(Path(data), Path(run), Path(run).name, int(first_uid), IsolatedNetworks(Path(run) / "networks"))
    runtime = lab.runtime()
    _die_at(step)
    await runtime.open()
    await runtime.start(machine_id, uuid4(), SMALL)
    if snapshot_id := os.environ.get("DORMICE_TEST_SNAPSHOT"):
        await runtime.take_snapshot(machine_id, snapshot_id)
    await runtime.end(machine_id)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:6]))
