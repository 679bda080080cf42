"""A service of runs that fails shows in `/readyz` until it works again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dormice.engine.orders import Caller
from dormice.engine.runs.orders import RunOrder, Submission, WorkerOrder
from tests.engine.faulty_store import Faults
from tests.engine.run_lab import RunLab, StoppedClock, lab
from tests.wait import wait_until_async


async def _tick(at: RunLab) -> None:
    await at.schedule("* * * * *")
    at.clock.forward(60)
    at.engine.wake()


async def _fire(at: RunLab) -> None:
    at.engine.triggers.published(at.project.id, "t", 1)


async def _claim(at: RunLab) -> None:
    order = WorkerOrder(deployment_id="d1", mode="push", url="http://127.0.0.1:9", max_concurrent=1, capabilities=b"{}")
    worker = await at.engine.workers.register(at.project, order)
    at.engine.workers.online(at.project, worker.id)
    caller = Caller(at.project.organization_id, "key", admin=True)
    await at.engine.runs.submit(caller, at.project, Submission(runs=[RunOrder(workflow_id="flow", payload=b"1")]))


async def _services(at: RunLab, wanted: tuple[bool, str]) -> None:
    async def reached() -> bool:
        return at.health.parts()["services"] == wanted

    await wait_until_async(reached, 10, f"services are {wanted}")


@pytest.mark.parametrize(
    ("service", "operation", "act"),
    [("agenda", "tick", _tick), ("triggers", "pending", _fire), ("run dispatcher", "claim", _claim)],
)
async def test_a_service_that_fails_is_not_ready(
    tmp_path: Path, service: str, operation: str, act: Callable[[RunLab], Awaitable[None]]
) -> None:
    faults = Faults()
    async with lab(tmp_path, StoppedClock("2026-06-01T12:00:00+00:00"), wrap=faults.wrap) as at:
        await at.register("d1", scheduled=True, trigger_on_event=True)
        assert at.health.parts()["services"] == (True, "")
        await at.trigger()
        faults.fail(operation, times=1_000)
        await act(at)
        await _services(at, (False, f"{service} fails"))
        faults.heal()
        await _services(at, (True, ""))
