"""Copies of disks: whole and clean whoever writes meanwhile, and nobody stands still for longer than it takes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from tests.node.machine_lab import (
    SMALL,
    Lab,
    OneImage,
    crash,
    image_under_test,
    lab,
    machine,
    needs_machines,
    new_machine_id,
    shell,
)
from tests.wait import wait_until, wait_until_async

from dormice.flock import try_lock
from dormice.node import copies, disks, freezing
from dormice.node.machines import ContainerRuntime
from dormice.node.runtime import RuntimeFailure

pytestmark = needs_machines
_WRITERS = """
cd /root; exec 9> gone; echo in use >&9; rm gone
for n in 1 2 3; do (i=0; while :; do i=$((i+1)); echo $i > w$n.new; mv w$n.new w$n; head -c 20000 /dev/urandom > r$n; rm -f r$n; done) & done
wait
"""


def new_snapshot_id() -> str:
    return f"snap-{uuid4()}"


@pytest.fixture(name="lab")
async def _lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with lab(tmp_path) as made:
        yield made


@pytest.fixture(name="runtime")
async def _runtime(lab: Lab) -> AsyncIterator[ContainerRuntime]:
    async with lab.opened() as runtime:
        yield runtime


def needs_recovery(image: Path) -> bool:
    """Whether an image was copied without having been held still (Documentation/filesystems/ext4/super.rst)."""
    with image.open("rb") as file:
        file.seek(1024 + 0x60)
        return bool(file.read(1)[0] & 0x4)


def checked(image: Path) -> str:
    """What e2fsck says of an image, once files are gone that were deleted and still in use, as is done when it is mounted."""
    if needs_recovery(image):
        return "its journal is not empty"
    subprocess.run(["e2fsck", "-p", str(image)], capture_output=True, check=False)
    done = subprocess.run(["e2fsck", "-f", "-n", str(image)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@contextmanager
def mounted(lab: Lab, runtime: ContainerRuntime, machine_id: str) -> Iterator[Path]:
    device = disks._device_of(runtime._disks._path(machine_id))
    assert device is not None
    with disks._mounted(device, lab.run / machine_id / "private" / "test") as _:
        yield lab.run / machine_id / "private" / "test"


async def test_a_copy_of_a_disk_that_is_written_to_is_clean_and_the_writers_go_on(
    lab: Lab, runtime: ContainerRuntime
) -> None:
    async with machine(runtime) as (running, inside):
        await inside.start(_WRITERS)
        for _ in range(5):
            snapshot_id = new_snapshot_id()
            size = await runtime.take_snapshot(running.machine_id, snapshot_id)
            image = lab.data / "disks" / "snapshots" / f"{snapshot_id}.ext4"
            assert checked(image) == ""
            assert 0 < size == image.stat().st_blocks * 512 < 64 << 20
            await runtime.delete_snapshot(snapshot_id)
        async with shell(running) as again:
            script = "a=$(cat /root/w1); for _ in $(seq 100); do sleep 0.05; [ $a != $(cat /root/w1) ] && exit 0; done; exit 1"
            assert (await again.run(script)).code == 0
    assert list((lab.data / "disks" / "snapshots").iterdir()) == []


async def kept(lab: Lab, runtime: ContainerRuntime, machine_id: str) -> Path:
    """A snapshot's image."""
    snapshot_id = new_snapshot_id()
    await runtime.take_snapshot(machine_id, snapshot_id)
    return lab.data / "disks" / "snapshots" / f"{snapshot_id}.ext4"


async def test_a_disk_that_is_reached_through_a_link_is_held_still(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    lab.data.symlink_to(tmp_path / "elsewhere")
    async with lab.opened() as runtime, machine(runtime) as (running, inside):
        await inside.run("echo written > /root/file")
        assert not needs_recovery(await kept(lab, runtime, running.machine_id))


@contextmanager
def file_system_at(directory: Path) -> Iterator[None]:
    """A file system of its own for a directory."""
    image = directory.with_suffix(".img")
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1", str(image), "3G"], check=True)
    directory.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


async def test_a_disk_on_a_mount_that_an_earlier_node_saw_is_held_still(lab: Lab) -> None:
    with file_system_at(lab.data):
        async with lab.opened() as runtime:
            running = await runtime.start(new_machine_id(), uuid4(), SMALL)
        async with lab.opened() as runtime:
            async with shell(running) as inside:
                await inside.run("echo written > /root/file")
            assert not needs_recovery(await kept(lab, runtime, running.machine_id))
            await runtime.destroy(running.machine_id)


async def test_a_disk_that_is_in_use_but_cannot_be_held_still_is_not_copied(
    lab: Lab, runtime: ContainerRuntime
) -> None:
    async with machine(runtime) as (running, _):
        pass
    image = runtime._disks._path(running.machine_id)
    with image.open("rb") as used:
        assert try_lock(used.fileno())
        with pytest.raises(RuntimeFailure, match="in use") as raised:
            await kept(lab, runtime, running.machine_id)
        assert (raised.value.code, raised.value.retryable) == ("SNAPSHOT_FAILED", True)
    assert await kept(lab, runtime, running.machine_id)


async def test_what_was_written_before_is_on_the_copy_without_a_sync(runtime: ContainerRuntime) -> None:
    fork = new_machine_id()
    async with machine(runtime) as (running, inside):
        await inside.run("echo just now > /root/file; chown 7:8 /root/file")
        await runtime.copy_disk(fork, running.machine_id, 1)
        await runtime.copy_disk(fork, running.machine_id, 1)
    async with machine(runtime, machine_id=fork) as (_, inside):
        assert (await inside.run("cat /root/file; stat -c %u:%g /root/file")).stdout == "just now\n7:8\n"


class HeldUp(OneImage):
    """Images that are in use elsewhere: no snapshot can be taken before `released`."""

    released = threading.Event()
    waiting = threading.Semaphore(0)

    @contextmanager
    def held(self, user: Path) -> Iterator[None]:
        if user.name == "snapshots":
            self.waiting.release()
            assert self.released.wait(30)
        yield


async def test_others_are_started_and_ended_while_copies_take_long_and_nobody_stands_still_before_its_own(
    lab: Lab,
) -> None:
    lab.images = images = HeldUp(image_under_test())
    async with lab.opened() as runtime, machine(runtime) as (running, inside):
        copying = [
            asyncio.create_task(kept(lab, runtime, machine_id))
            for machine_id in (running.machine_id, *(new_machine_id() for _ in range(7)))
        ]
        try:
            assert await asyncio.to_thread(images.waiting.acquire, timeout=10)
            async with asyncio.timeout(20), machine(runtime) as (_, other):
                assert (await other.run("echo runs")).stdout == "runs\n"
            assert (await inside.run("echo on > /root/file && sync && cat /root/file")).stdout == "on\n"
        finally:
            images.released.set()
            image, *failures = await asyncio.gather(*copying, return_exceptions=True)
        assert isinstance(image, Path)
        assert checked(image) == ""
        assert [failure.code for failure in failures if isinstance(failure, RuntimeFailure)] == ["DISK_NOT_FOUND"] * 7


async def test_a_disk_of_nobody_is_not_copied(runtime: ContainerRuntime) -> None:
    for work in (
        runtime.copy_disk(new_machine_id(), new_machine_id(), 1),
        runtime.copy_disk(new_machine_id(), new_snapshot_id(), 1),
        runtime.take_snapshot(new_machine_id(), new_snapshot_id()),
    ):
        with pytest.raises(RuntimeFailure) as raised:
            await work
        assert raised.value.code == "DISK_NOT_FOUND"


async def test_ids_are_no_paths(runtime: ContainerRuntime) -> None:
    for evil in ("../../etc/passwd", "snap-../x", "", "dm-1"):
        with pytest.raises(ValueError, match="neither"):
            await runtime.copy_disk(new_machine_id(), evil, 1)
        with pytest.raises(ValueError, match="neither"):
            await runtime.take_snapshot(new_machine_id(), evil)
        with pytest.raises(ValueError, match="neither"):
            await runtime.delete_snapshot(evil)


async def test_a_copy_that_the_host_has_no_room_for_is_refused(lab: Lab, runtime: ContainerRuntime) -> None:
    async with machine(runtime) as (running, _):
        with pytest.raises(RuntimeFailure) as raised:
            await runtime.copy_disk(new_machine_id(), running.machine_id, 1 << 20)
        assert raised.value.code == "STORAGE_EXHAUSTED"
    assert not list((lab.data / "disks" / "machines").glob("*.new"))


@pytest.mark.parametrize("step", ["allocated", "Copies.take"])
async def test_a_node_killed_while_a_disk_stands_still_leaves_a_machine_that_goes_on(
    lab: Lab, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_id = new_machine_id()
    monkeypatch.setenv("DORMICE_TEST_SNAPSHOT", new_snapshot_id())
    await crash(lab, machine_id, step)
    runtime = lab.runtime()
    [running] = await runtime.open()
    async with shell(running) as inside:
        assert (await inside.run("echo goes on > /root/file && sync && cat /root/file")).stdout == "goes on\n"
    assert not (lab.run / machine_id / "private" / "still.mark").exists()
    assert list((lab.data / "disks" / "snapshots").iterdir()) == []
    await runtime.end(machine_id)
    await runtime.close()


async def test_a_disk_whose_watchdog_was_killed_too_is_thawed_by_the_next_node(lab: Lab) -> None:
    async with lab.opened() as runtime, machine(runtime) as (running, inside):

        def freeze() -> None:
            with mounted(lab, runtime, running.machine_id) as directory:
                subprocess.run(["fsfreeze", "--freeze", str(directory)], check=True)

        await runtime._threads.run(freeze)
        (lab.run / running.machine_id / "private" / "still.mark").touch()
        writing = await inside.start("echo written > /root/file && sync")
        await runtime._threads.run(lambda: runtime._copying.resume(running.machine_id))
        async with shell(running) as again:
            assert (await again.run("sync; cat /root/file")).stdout == "written\n"
        assert writing


async def test_a_copy_that_takes_too_long_is_given_up_and_the_disk_goes_on(lab: Lab, runtime: ContainerRuntime) -> None:
    async with machine(runtime) as (running, inside):
        frozen, thawed = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def hold() -> None:
            with mounted(lab, runtime, running.machine_id) as directory, freezing.frozen(directory, seconds=1):
                loop.call_soon_threadsafe(frozen.set)
                asyncio.run_coroutine_threadsafe(thawed.wait(), loop).result()

        holding = asyncio.create_task(runtime._threads.run(hold))
        await frozen.wait()
        assert (await inside.run("echo on > /root/file && sync && cat /root/file")).stdout == "on\n"
        thawed.set()
        with pytest.raises(RuntimeFailure, match="takes longer than 1 s"):
            await holding


@pytest.fixture(name="expedited")
def _expedited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the host's setting, which others use as well."""
    setting = tmp_path / "expedited"
    setting.write_text("0\n")
    monkeypatch.setattr(freezing, "_EXPEDITED", setting)
    return setting


def test_the_kernel_hurries_only_while_somebody_freezes(expedited: Path) -> None:
    with freezing._HURRY.held():
        with freezing._HURRY.held():
            assert expedited.read_text() == "1"
        assert expedited.read_text() == "1"
    assert expedited.read_text() == "0"
    expedited.write_text("1\n")
    with freezing._HURRY.held() as hurried:
        assert not hurried
    assert expedited.read_text() == "1\n"
    expedited.unlink()
    with freezing._HURRY.held():
        assert not expedited.exists()


_KILLED = """
import os, signal, sys
from pathlib import Path
from dormice.node import freezing
freezing._EXPEDITED = Path(sys.argv[1])
with freezing._HURRY.held() as hurried, freezing._watchdog(Path("/nowhere"), 30, hurried=hurried):
    assert Path(sys.argv[1]).read_text() == "1"
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_kernel_does_not_hurry_for_a_node_that_was_killed(expedited: Path) -> None:
    subprocess.run([sys.executable, "-c", _KILLED, str(expedited)], check=False)
    wait_until(lambda: expedited.read_text() == "0\n", 10, "it is undone")


async def test_a_disk_is_thawed_and_its_watchdog_gone_without_anybody_waiting(
    lab: Lab, runtime: ContainerRuntime
) -> None:
    async with machine(runtime) as (running, _):
        await kept(lab, runtime, running.machine_id)
        for watchdog in (thread for thread in threading.enumerate() if thread.name == "watchdog"):
            watchdog.join(10)
            assert not watchdog.is_alive()


async def test_a_node_that_stops_writes_out_what_it_has_just_copied(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dormice.node.machines.SETTLE_SECONDS", 3600)
    fork = new_machine_id()
    async with lab.opened() as runtime:
        async with machine(runtime) as (running, _):
            await runtime.copy_disk(fork, running.machine_id, 1)
        mark = lab.data / "disks" / "machines" / f"{fork}.unsynced"
        assert mark.exists()
    assert not mark.exists()
    async with lab.opened() as runtime:
        await runtime.destroy(fork)


async def test_a_copied_disk_is_written_out_and_one_that_was_not_when_the_host_went_down_is_not_started(
    lab: Lab, runtime: ContainerRuntime
) -> None:
    fork = new_machine_id()
    async with machine(runtime) as (running, _):
        await runtime.copy_disk(fork, running.machine_id, 1)
    mark = lab.data / "disks" / "machines" / f"{fork}.unsynced"

    async def settled() -> bool:
        return not mark.exists()

    await wait_until_async(settled, 10, "the copy is written out")
    mark.write_text("another boot of the host\n")
    copies.settle_unsynced(mark)
    with pytest.raises(RuntimeFailure) as raised:
        await runtime.start(fork, uuid4(), SMALL)
    assert raised.value.code == "DISK_LOST"
    # Half a copy is not copied any further: it would be taken for a whole one.
    with pytest.raises(RuntimeFailure) as raised:
        await runtime.take_snapshot(fork, new_snapshot_id())
    assert raised.value.code == "DISK_LOST"
    with pytest.raises(RuntimeFailure) as raised:
        await runtime.copy_disk(new_machine_id(), fork, 1)
    assert raised.value.code == "DISK_LOST"
    await runtime.destroy(fork)
    assert not mark.exists()
