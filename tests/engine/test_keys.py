"""When a project's key was last used is kept, to a minute, and costs no request a write."""

from __future__ import annotations

from pathlib import Path

from dormice.domain.execution import Micros
from dormice.store.interface import Key
from tests.engine.faulty_store import Faults
from tests.engine.run_lab import RunLab, StoppedClock, lab
from tests.wait import others_run, wait_until_async


async def last_use(at: RunLab) -> Micros | None:
    [key] = await at.store.keys.of_project(at.project.id)
    assert isinstance(key, Key)
    return key.used_at


async def used_at(at: RunLab, moment: Micros) -> None:
    async def recorded() -> bool:
        return await last_use(at) == moment

    await wait_until_async(recorded, 10, f"a use at {moment}")


async def test_a_use_is_recorded_once_a_minute(tmp_path: Path) -> None:
    faults, clock = Faults(), StoppedClock("2026-06-01T12:00:00+00:00")
    async with lab(tmp_path, clock, wrap=faults.wrap) as at:
        keys = at.keys
        _, secret = await keys.create_for_project(at.project.organization_id, at.project.id, "k")
        assert await last_use(at) is None
        first = clock.now()
        for _ in range(100):
            await keys.authenticate(secret)
            await others_run()
        await used_at(at, first)
        clock.forward(59)
        await keys.authenticate(secret)
        await others_run(0.01)
        assert faults.calls["use"] == 1
        clock.forward(1)
        faults.fail("use", times=2)
        await keys.authenticate(secret)
        await used_at(at, first + 60_000_000)
        assert faults.calls["use"] == 4


async def test_a_use_is_known_after_a_start(tmp_path: Path) -> None:
    clock = StoppedClock("2026-06-01T12:00:00+00:00")
    async with lab(tmp_path, clock) as at:
        _, secret = await at.keys.create_for_project(at.project.organization_id, at.project.id, "k")
        await at.keys.authenticate(secret)
        await used_at(at, clock.now())
    async with lab(tmp_path, clock) as at:
        clock.forward(1)
        assert await last_use(at) == clock.now() - 1_000_000
        await at.keys.authenticate(secret)
        await used_at(at, clock.now())
