"""Machines as containers: what starts, what stays, what is left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.node.machine_lab import (
    SMALL,
    IsolatedNetworks,
    Lab,
    lab,
    machine,
    needs_machines,
    new_machine_id,
    readable,
    shell,
)

from dormice.node import oci
from dormice.node.ports import Network
from dormice.node.runtime import MachineSpec, RuntimeFailure
from dormice.protocol.guest import How

pytestmark = needs_machines


@pytest.fixture(name="lab")
async def _lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        yield made


async def test_a_machine_runs_commands_under_its_own_name(lab: Lab) -> None:
    async with lab.opened() as runtime, machine(runtime) as (running, inside):
        result = await inside.run("hostname; cat /etc/hostname; id -u; echo oops >&2; exit 3")
    assert result.stdout.split() == [running.machine_id, running.machine_id, "0"]
    assert (result.stderr, result.code) == ("oops\n", 3)


async def test_the_same_boot_again_returns_what_runs_and_another_boot_is_refused(lab: Lab) -> None:
    machine_id, boot = new_machine_id(), uuid4()
    async with lab.opened() as runtime:
        first = await runtime.start(machine_id, boot, SMALL)
        assert await runtime.start(machine_id, boot, SMALL) == first
        with pytest.raises(RuntimeFailure) as refused:
            await runtime.start(machine_id, uuid4(), SMALL)
        await runtime.end(machine_id)
    assert refused.value.code == "STILL_RUNNING"


async def test_the_disk_outlives_the_end_and_not_the_destruction(lab: Lab) -> None:
    machine_id = new_machine_id()
    async with lab.opened() as runtime:
        async with machine(runtime, machine_id=machine_id) as (_, inside):
            await inside.run("echo kept > /root/file; chown 7:8 /root/file; rm /etc/motd; touch /etc/motd.d")
        async with machine(runtime, machine_id=machine_id) as (_, inside):
            result = await inside.run("cat /root/file; stat -c %u:%g /root/file; test ! -e /etc/motd && echo gone")
            assert result.stdout.split() == ["kept", "7:8", "gone"]
        await runtime.destroy(machine_id)
        async with machine(runtime, machine_id=machine_id) as (_, inside):
            assert (await inside.run("test -e /root/file")).code == 1


async def test_a_machine_outlives_its_node_and_is_found_again(lab: Lab) -> None:
    machine_id = new_machine_id()
    async with lab.opened() as runtime:
        started = await runtime.start(machine_id, uuid4(), SMALL)
        async with shell(started) as inside:
            await inside.run("sleep 1000 & echo $! > /root/pid")
    runtime = lab.runtime()
    (found,) = await runtime.open()
    assert (found.machine_id, found.boot_id) == (machine_id, started.boot_id)
    async with shell(found) as inside:
        assert (await inside.run("kill -0 $(cat /root/pid)")).code == 0
    await runtime.end(machine_id)
    await runtime.close()


@pytest.mark.parametrize("how", ["moved", "copied"])
async def test_a_machine_is_found_again_in_a_directory_that_was_moved_and_ended_in_a_copy(
    lab: Lab, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A copy has disks of its own: what the machine goes on to write would not be in them."""
    machine_id, elsewhere = new_machine_id(), lab.data.with_name("elsewhere")
    async with lab.opened() as runtime:
        started = await runtime.start(machine_id, uuid4(), SMALL)
        async with shell(started) as inside:
            await inside.run("echo kept > /root/file; sync")
    lab.data.rename(elsewhere)
    if how == "copied":
        copying = await asyncio.create_subprocess_exec("cp", "-a", "--sparse=always", elsewhere, lab.data)
        assert await copying.wait() == 0
    else:
        lab.data.symlink_to(elsewhere)
    runtime = lab.runtime()
    found = await runtime.open()
    try:
        assert [one.boot_id for one in found] == ([started.boot_id] if how == "moved" else [])
        assert [machine_id in message for message in caplog.messages] == [True] * (how == "copied")
        await runtime.end(machine_id)
        async with machine(runtime, machine_id=machine_id) as (_, inside):
            assert (await inside.run("cat /root/file")).stdout == "kept\n"
    finally:
        await runtime.close()


async def test_a_machine_whose_process_1_died_unseen_is_cleared_at_the_next_start_of_the_node(lab: Lab) -> None:
    machine_id = new_machine_id()
    async with lab.opened() as runtime:
        started = await runtime.start(machine_id, uuid4(), SMALL)
        signal.pidfd_send_signal(started.pidfd, signal.SIGKILL)
        await readable(started.pidfd)
    async with lab.opened() as runtime:
        assert [name for name in lab.leftovers() if machine_id in name] == []
        async with machine(runtime, machine_id=machine_id) as (_, inside):
            assert (await inside.run("true")).code == 0


async def test_the_death_of_process_1_shows_on_its_pidfd(lab: Lab) -> None:
    async with lab.opened() as runtime:
        running = await runtime.start(new_machine_id(), uuid4(), SMALL)
        signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)
        await readable(running.pidfd)
        await runtime.end(running.machine_id)


async def test_twenty_lives_leave_nothing_behind(lab: Lab) -> None:
    machine_id = new_machine_id()
    async with lab.opened() as runtime:
        async with machine(runtime, machine_id=machine_id):
            pass
        before = _held()
        for _ in range(20):
            async with machine(runtime, machine_id=machine_id):
                pass
        await runtime.destroy(machine_id)
        after = _held()
    assert after[0] <= before[0] + 4  # the pool may be a slot ahead
    assert after[1] <= before[1] + 4  # threads are made as they are needed, four at most
    assert lab.leftovers() == []
    assert list((lab.data / "disks/pool").iterdir()) == []


async def test_many_machines_start_at_once(lab: Lab) -> None:
    async with lab.opened() as runtime:
        names = [new_machine_id() for _ in range(6)]
        boots = await asyncio.gather(*(runtime.start(name, uuid4(), SMALL) for name in names))
        assert {running.machine_id for running in boots} == set(names)
        await asyncio.gather(*(runtime.destroy(name) for name in names))


async def test_ending_what_never_ran_is_no_error(lab: Lab) -> None:
    async with lab.opened() as runtime:
        await runtime.end(new_machine_id())
        await runtime.destroy(new_machine_id())


async def test_only_machine_ids_are_names(lab: Lab) -> None:
    async with lab.opened() as runtime:
        for name in ("../../etc", "dm-", "dm-0", "", "DM-" + str(uuid4()), f"dm-{uuid4()}/x"):
            with pytest.raises(ValueError, match="machine id"):
                await runtime.start(name, uuid4(), SMALL)


async def test_a_disk_larger_than_the_host_can_promise_is_refused_and_leaves_nothing(lab: Lab) -> None:
    async with lab.opened() as runtime:
        with pytest.raises(RuntimeFailure) as refused:
            await runtime.start(new_machine_id(), uuid4(), MachineSpec(vcpu=1, memory_mib=256, storage_gib=1 << 20))
    assert refused.value.code == "STORAGE_EXHAUSTED"


async def test_limits_follow_a_resize_while_the_machine_runs(lab: Lab) -> None:
    async with lab.opened() as runtime, machine(runtime) as (running, inside):
        await runtime.resize(running.machine_id, MachineSpec(vcpu=2, memory_mib=512, storage_gib=1))
        result = await inside.run("python3 -c 'x = bytearray(380 << 20); print(len(x) >> 20)'")
    assert result.stdout == "380\n"


async def test_a_disk_that_was_given_more_room_has_it_after_the_next_start(lab: Lab) -> None:
    machine_id = new_machine_id()
    larger = MachineSpec(vcpu=1, memory_mib=256, storage_gib=3)
    async with lab.opened() as runtime:
        async with machine(runtime, machine_id=machine_id) as (_, inside):
            await inside.run("echo kept > /root/file")
            await runtime.resize(machine_id, larger)
        async with machine(runtime, larger, machine_id) as (_, inside):
            result = await inside.run("cat /root/file; df --output=size -BM / | tail -1 | tr -dc 0-9")
    kept, size = result.stdout.split()
    assert kept == "kept"
    assert int(size) > 2_900


async def test_runc_will_do_where_there_is_no_crun(lab: Lab) -> None:
    if shutil.which("runc") is None:
        pytest.skip("runc is not installed")
    lab.oci_runtimes = ("runc",)
    async with lab.opened() as runtime, machine(runtime) as (_, inside):
        hog = await inside.run("exec python3 -c 'bytearray(400 << 20)'")
        assert (hog.exited.how, hog.code) == (How.SIGNALLED, 9)
    assert lab.leftovers() == []


async def test_a_runtime_may_be_a_script(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = tmp_path / "bin" / "crun"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("crun")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(wrapper.parent), prepend=os.pathsep)
    async with lab.opened() as runtime, machine(runtime) as (_, inside):
        assert (await inside.run("echo alive")).stdout == "alive\n"
    assert lab.leftovers() == []


async def test_a_runtime_that_starts_nothing_is_quoted(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci, "GUEST_PATH", "/proc/no/such/place")
    async with lab.opened() as runtime:
        with pytest.raises(RuntimeFailure, match=r"started nothing: .*/proc/no") as failure:
            await runtime.start(new_machine_id(), uuid4(), SMALL)
    assert failure.value.code == "OCI_RUNTIME_FAILED"
    assert lab.leftovers() == []


def _held() -> tuple[int, int]:
    """How many files are open and how many threads run."""
    return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))


class CancellingNetworks(IsolatedNetworks):
    """Cancels the start that asks for a network as soon as it waits for the next thing: its thread."""

    async def acquire(self, machine_id: str) -> Network:
        network = await super().acquire(machine_id)
        task = asyncio.current_task()
        assert task
        asyncio.get_running_loop().call_soon(task.cancel)
        return network


async def test_a_cancelled_start_leaves_nothing(tmp_path: Path) -> None:
    machine_id = new_machine_id()
    async with lab(tmp_path) as made:
        kept, made.networks = made.networks, CancellingNetworks(made.run / "networks")
        async with made.opened() as runtime:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.ensure_future(runtime.start(machine_id, uuid4(), SMALL))
            assert [name for name in made.leftovers() if machine_id in name] == []
        made.networks = kept
        async with made.opened() as runtime, machine(runtime, machine_id=machine_id) as (_, inside):
            assert (await inside.run("true")).code == 0
