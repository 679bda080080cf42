"""A killed server: everything that it had answered is there, whole, and logs have no gaps."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dormice.domain.execution import Execution, ExecutionState, Stream
from tests.store.conftest import open_sqlite
from tests.store.world import World

ROOT = Path(__file__).parents[2]
TEXT = bytes(range(251)) * 200


def killed(directory: Path, after: int) -> Iterator[list[str]]:
    """Run the child until it has said `after` lines, kill it, and yield every line it got out."""
    command = [sys.executable, "-m", "tests.store.crash_child", str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        for count, line in enumerate(child.stdout):
            if count == after:
                child.kill()
            if line.endswith("\n"):
                yield line.split()
        assert child.wait() == -signal.SIGKILL


async def check(directory: Path, answers: list[list[str]]) -> None:
    store = open_sqlite(directory)
    world = World(store, answers[0][1], machine=None)  # type: ignore[arg-type]
    machine = await store.machines.get(answers[0][1], answers[0][2])
    assert machine is not None
    found: dict[str, Execution] = {}
    before = None
    while page := await store.executions.page(world.organization, machine.id, before=before, limit=200):
        found |= {execution.id: execution for execution in page}
        before = page[-1].number
    for what, execution_id, *rest in answers[1:]:
        execution = found[execution_id]
        if what == "output":
            assert execution.stdout_kept >= int(rest[0])
        assert what != "ended" or execution.state is ExecutionState.SUCCEEDED
    for execution in found.values():
        entries = await world.log(execution)
        assert entries[0].state is ExecutionState.QUEUED
        assert not execution.terminal or entries[-1].state is execution.state
        kept = await store.executions.output(execution, Stream.STDOUT, start=0, end=1 << 20)
        assert kept == TEXT[: execution.stdout_kept]
        assert b"".join(entry.data for entry in entries) == kept
        env = await store.executions.environment(execution)
        assert env == ({"A": "secret"} if execution.started_at is None else {})
    await store.close()


@pytest.mark.parametrize("round_", range(4))
async def test_a_kill_at_any_moment_loses_nothing_that_was_answered(tmp_path: Path, round_: int) -> None:
    dice = random.Random(round_)
    for _ in range(2):
        answers = list(killed(tmp_path, dice.randrange(1, 2_000)))
        await check(tmp_path, answers)
