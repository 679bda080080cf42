"""The host of a node runs out of something: a machine fails to start with a clear code, and nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from dormice.node.process import ProcessRuntime
from dormice.node.runtime import Runtime, RuntimeFailure
from tests.conftest import GUEST
from tests.faults.small_disk import small_disk
from tests.node.machine_lab import SMALL, Lab, lab, machine, needs_machines, new_machine_id

pytestmark = needs_machines


@pytest.fixture(name="made")
async def _made(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        yield made


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) - 1


def _highest_file() -> int:
    return max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())


def _guests_of(place: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if str(place).encode() in (entry / "cmdline").read_bytes():
                found.append(entry.name)
    return found


@contextmanager
def _spare_files(count: int) -> Iterator[None]:
    """Have room for exactly so many more descriptors for as long as the block lasts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        highest = _highest_file()
        while (gap := os.dup(0)) < highest:  # the limit is one of numbers: those below must be taken
            stack.callback(os.close, gap)
        os.close(gap)
        resource.setrlimit(resource.RLIMIT_NOFILE, (gap + count, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        yield


async def _start(runtime: Runtime, machine_id: str) -> RuntimeFailure | None:
    try:
        await runtime.start(machine_id, uuid4(), SMALL)
    except RuntimeFailure as failure:
        return failure
    await runtime.end(machine_id)
    return None


async def test_wherever_descriptors_run_out_a_start_fails_whole(made: Lab) -> None:
    async with made.opened() as runtime:
        async with machine(runtime):
            pass
        failures = []
        for spare in range(40):
            machine_id = new_machine_id()
            with _spare_files(spare):
                failure = await _start(runtime, machine_id)
            if failure is None:
                break
            assert (failure.code, failure.retryable) == ("OCI_RUNTIME_FAILED", True), failure
            failures.append(failure)
            await runtime.destroy(machine_id)
        assert failures
        assert failure is None, "it starts where there are enough"
        before = _open_files()
        async with machine(runtime):
            pass
        assert _open_files() <= before + 4  # the pool may be a slot ahead
    assert made.leftovers() == []


async def test_a_full_disk_of_the_node_is_said_by_its_code_and_leaves_nothing(made: Lab) -> None:
    with small_disk("tmpfs", made.data, 16) as disk:
        async with made.opened() as runtime:
            for blocks in (0, 1, 300):
                disk.fill(but=blocks)
                failure = await _start(runtime, machine_id := new_machine_id())
                assert failure is not None
                assert failure.code == "STORAGE_EXHAUSTED"
                await runtime.destroy(machine_id)
                disk.free()
            assert [path for path in made.data.rglob("*") if path.is_file()] == []


async def test_a_used_up_quota_of_the_node_is_a_full_disk_until_it_is_raised(made: Lab) -> None:
    with small_disk("btrfs", made.data, 64) as disk:
        async with made.opened() as runtime:
            for blocks in (0, 1, 32, 100):
                disk.fill(but=blocks)
                failure = await _start(runtime, machine_id := new_machine_id())
                assert failure is not None
                assert (failure.code, failure.retryable) == ("STORAGE_EXHAUSTED", True), failure
                await runtime.destroy(machine_id)
                disk.free()
            assert [path for path in made.data.rglob("*") if path.is_file()] == []
            async with machine(runtime):
                pass


async def test_wherever_a_run_directory_fills_up_a_start_fails_whole(made: Lab) -> None:
    with small_disk("tmpfs", made.run, 4) as disk:
        made.run.chmod(0o711)
        async with made.opened() as runtime:
            async with machine(runtime):
                pass
            codes = []
            for blocks in range(40):
                disk.fill(but=blocks)
                failure = await _start(runtime, machine_id := new_machine_id())
                disk.free()
                await runtime.destroy(machine_id)
                if failure is None:
                    break
                codes.append(failure.code)
            assert set(codes) <= {"STORAGE_EXHAUSTED", "OCI_RUNTIME_FAILED", "NETWORK_FAILED"}, codes
            assert codes.count("STORAGE_EXHAUSTED") > 3
            async with machine(runtime):
                pass
        assert [left for left in made.leftovers() if "dm-" in left] == []


async def test_a_bare_process_that_cannot_be_kept_track_of_is_not_left_behind(directory: Callable[[], Path]) -> None:
    place = directory()
    with small_disk("tmpfs", place / "run", 1) as disk:
        runtime = ProcessRuntime(data_dir=place / "data", run_dir=disk.mountpoint, guest=GUEST)
        await runtime.open()
        failures: list[RuntimeFailure | None] = []
        for spare in range(20):
            with _spare_files(spare):
                failures.append(await _start(runtime, new_machine_id()))
        assert None in failures
        assert {failure.code for failure in failures if failure} == {"OCI_RUNTIME_FAILED"}
        disk.fill()
        failure = await _start(runtime, new_machine_id())
        assert failure is not None
        assert failure.code == "STORAGE_EXHAUSTED"
        disk.free()
        await runtime.close()
    assert _guests_of(place) == []
