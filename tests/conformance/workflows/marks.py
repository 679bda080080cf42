"""What workflows and tests tell each other through files: what has run, and what may go on.

Both sides import this: the workflows in the foreign SDK's environment, the tests in ours.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from tests.wait import others_run

PLACE = "DORMICE_FLOWS"
"""The variable that names the directory of these files."""
GATE_SECONDS = 60


def place() -> Path:
    """Return the directory that this process was given."""
    return Path(os.environ[PLACE])


def note(run: str, what: str, **more: Any) -> None:
    """Add a line to the diary, whole or not at all: every worker process writes to the same file."""
    line = json.dumps({"run": run, "what": what, **more}) + "\n"
    descriptor = os.open(place() / "diary", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read(directory: Path) -> list[dict[str, Any]]:
    """Return the diary's lines, oldest first."""
    diary = directory / "diary"
    return [json.loads(line) for line in diary.read_text().splitlines()] if diary.exists() else []


def open_gate(directory: Path, name: str) -> None:
    """Let everybody go on who waits at a gate, now or later."""
    (directory / f"gate-{name}").touch()


async def gate(name: str) -> None:
    """Wait until the test opens the gate. Many may wait at once, so that each looks ten times a second only."""
    path = place() / f"gate-{name}"
    async with asyncio.timeout(GATE_SECONDS):
        while not await asyncio.to_thread(path.exists):
            await others_run(0.1)


async def for_ever() -> None:
    """Wait until cancelled."""
    await asyncio.Event().wait()
