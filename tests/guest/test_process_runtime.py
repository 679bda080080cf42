"""Driver `process`: machines as process trees, adopted, ended and destroyed like real ones."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from dormice.node import process, records
from dormice.node.process import ProcessRuntime
from dormice.node.runtime import MachineSpec, Running, RuntimeFailure
from tests.guest.conftest import CGROUPS
from tests.guest.guest_process import GUEST, Link, alive

SPEC = MachineSpec(vcpu=1, memory_mib=512, storage_gib=1)
MACHINE = "dm-019e39e7-3d1b-7a85-a772-475990a3bda1"


@pytest.fixture(name="directory")
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dormice-process-") as directory:
        yield Path(directory)


@pytest.fixture(name="runtime", params=["cgroup", "bare"])
async def _runtime(directory: Path, request: pytest.FixtureRequest) -> AsyncIterator[ProcessRuntime]:
    if request.param == "cgroup" and not CGROUPS:
        pytest.skip("needs root and a writable cgroup2")
    runtime = await another(directory, use_cgroups=request.param == "cgroup")
    yield runtime
    await runtime.destroy(MACHINE)
    await runtime.close()
    assert runtime._cgroups is None or not runtime._cgroups.exists()


async def another(directory: Path, *, use_cgroups: bool = True) -> ProcessRuntime:
    """A runtime of a node that has just started."""
    runtime = ProcessRuntime(
        data_dir=directory / "data", run_dir=directory / "run", guest=GUEST, use_cgroups=use_cgroups
    )
    await runtime.open()
    return runtime


def connect(running: Running, epoch: int = 1) -> Link:
    link = Link(running.guest_socket, running.boot_id, epoch)
    link.hello()
    return link


def dead(running: Running) -> bool:
    return bool(select.select([running.pidfd], [], [], 5)[0])


async def test_a_machine_runs_commands_in_a_directory_that_stays(runtime: ProcessRuntime, directory: Path) -> None:
    running = await runtime.start(MACHINE, uuid4(), SPEC)
    with connect(running) as link:
        outcome = link.shell('pwd; echo "$HOME"; echo kept > file', cwd="/root", env=running.environment)
        home = running.environment["HOME"]
        assert outcome.stdout == f"{home}\n{home}\n".encode()
    await runtime.end(MACHINE)
    running = await runtime.start(MACHINE, uuid4(), SPEC)
    with connect(running) as link:
        assert link.run("/bin/cat", "file", cwd="/root").stdout == b"kept\n"
    assert list((directory / "data/process").iterdir()) != []
    await runtime.destroy(MACHINE)
    assert list((directory / "data/process").iterdir()) == []
    assert list((directory / "run/process").iterdir()) == []


async def test_starting_is_idempotent_by_boot(runtime: ProcessRuntime) -> None:
    boot = uuid4()
    running = await runtime.start(MACHINE, boot, SPEC)
    assert await runtime.start(MACHINE, boot, SPEC) is running
    with pytest.raises(RuntimeFailure) as failure:
        await runtime.start(MACHINE, UUID(int=1), SPEC)
    assert (failure.value.code, failure.value.retryable) == ("STILL_RUNNING", True)


async def test_a_new_node_adopts_what_runs(runtime: ProcessRuntime, directory: Path) -> None:
    running = await runtime.start(MACHINE, uuid4(), SPEC)
    with connect(running) as link:
        execution = link.started("/bin/sleep", "1000")
    successor = ProcessRuntime(data_dir=directory / "data", run_dir=directory / "run", guest=GUEST)
    (adopted,) = await successor.open()
    assert (adopted.machine_id, adopted.boot_id, adopted.environment) == (MACHINE, running.boot_id, running.environment)
    with Link(adopted.guest_socket, adopted.boot_id, 2) as link:
        assert link.hello().executions == (execution,)
    await successor.close()


async def test_a_new_node_ends_what_runs_on_the_files_of_another_directory(
    runtime: ProcessRuntime, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Their paths are in its environment: they do not follow a directory that is moved or copied."""
    running = await runtime.start(MACHINE, uuid4(), SPEC)
    (directory / "data").rename(directory / "moved")
    successor = ProcessRuntime(data_dir=directory / "moved", run_dir=directory / "run", guest=GUEST)
    assert await successor.open() == []
    assert dead(running)
    assert f"machine {MACHINE} does not run on its disk" in caplog.text
    await successor.close()


async def test_a_new_node_removes_what_is_left_of_the_dead(runtime: ProcessRuntime, directory: Path) -> None:
    running = await runtime.start(MACHINE, uuid4(), SPEC)
    with connect(running) as link:
        link.started("/bin/sh", "-c", "setsid sleep 1000 & sleep 1000", env=running.environment)
    os.kill(_pid(directory), 9)
    assert dead(running)
    successor = ProcessRuntime(data_dir=directory / "data", run_dir=directory / "run", guest=GUEST)
    assert await successor.open() == []
    assert not _mine()
    await successor.close()


async def test_the_end_leaves_no_process_and_may_come_twice(runtime: ProcessRuntime) -> None:
    running = await runtime.start(MACHINE, uuid4(), SPEC)
    with connect(running) as link:
        link.started("/bin/sh", "-c", "trap '' TERM; (setsid sleep 1000 &); sleep 1000", env=running.environment)
    assert _mine()
    await runtime.end(MACHINE)
    await runtime.end(MACHINE)
    assert not _mine()


async def test_the_death_of_process_1_can_be_waited_for(runtime: ProcessRuntime, directory: Path) -> None:
    running = await runtime.start(MACHINE, uuid4(), SPEC)
    loop, died = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(running.pidfd, died.set)
    os.kill(_pid(directory), 9)
    await asyncio.wait_for(died.wait(), 5)
    loop.remove_reader(running.pidfd)
    await runtime.start(MACHINE, uuid4(), SPEC)


def test_a_process_that_nobody_has_reaped_is_dead() -> None:
    """An adopted guest is not our child: init reaps it, whenever that looks."""
    script = "import subprocess; child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True); input()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        pidfd = os.pidfd_open(pid)
        assert process._alive(pidfd)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], 10)[0]
        assert not process._alive(pidfd)
        os.close(pidfd)
        parent.communicate(b"\n")


async def test_it_says_loudly_that_it_isolates_nothing(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        runtime = await another(directory)
    assert "WITHOUT ANY ISOLATION" in caplog.text
    assert not runtime.isolated
    assert runtime.oom_kills(MACHINE) == 0
    await runtime.resize(MACHINE, SPEC)
    await runtime.close()


async def test_a_socket_path_that_is_too_long_is_explained(tmp_path: Path) -> None:
    runtime = await another(tmp_path / ("x" * 100))
    with pytest.raises(RuntimeFailure, match="shorter run directory"):
        await runtime.start(MACHINE, uuid4(), SPEC)
    await runtime.close()


def _pid(directory: Path) -> int:
    record = records.read(directory / f"run/process/{MACHINE}.json")
    assert record is not None
    assert record.process is not None
    return record.process.pid


def _mine() -> list[int]:
    return alive(process._marked(f"DORMICE_MACHINE={MACHINE}"))
