"""Limits that bind: a machine can use up what it was promised, and nothing else."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.faults.small_disk import small_disk
from tests.node.machine_lab import SMALL, Lab, Shell, lab, machine, needs_machines
from tests.wait import wait_until_async

from dormice.node import quotas
from dormice.node.machines import ContainerRuntime
from dormice.node.runtime import MachineSpec, Running
from dormice.protocol.guest import End, How

pytestmark = needs_machines

_FORK_UNTIL_REFUSED = """
import os, signal
children = []
try:
    while len(children) < 5000:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError as error:
    print(error.errno, len(children))
for child in children:
    os.kill(child, 9)
"""

_FILL_SOCKETS = """
import socket, sys
def pair():
    if sys.argv[1] == "udp":
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind(("127.0.0.1", 0))
        one.connect(one.getsockname())
        return one, one
    return socket.create_connection(listener.getsockname()), listener.accept()[0]
listener = socket.create_server(("127.0.0.1", 0))
pairs, sent = [], 0
while sent < 600 << 20 and len(pairs) < 4000:
    sender, receiver = pair()
    pairs.append((sender, receiver))
    for end in (sender, receiver):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
    try:
        for _ in range(40 if sender is receiver else 4000):
            sent += sender.send(bytes(8000))
    except OSError:
        pass
held = 0
for _, receiver in pairs:
    try:
        while got := len(receiver.recv(1 << 20)):
            held += got
    except OSError:
        pass
print(held)
"""

_BURN = """
import time
start, used = time.monotonic(), time.process_time()
while time.monotonic() < start + 1.5:
    pass
print((time.process_time() - used) / (time.monotonic() - start))
"""


@pytest.fixture(name="host_disk")
def _host_disk(tmp_path: Path) -> Iterator[Path]:
    """What the lab's disks lie on: a file system of their own, where nobody else takes room."""
    # No tmpfs: with cgroup v2 the machine would be charged for what it holds of it.
    with small_disk("ext4", tmp_path / "node", 4096) as disk:
        yield disk.mountpoint


@pytest.fixture(name="on_own_disk")
async def _on_own_disk(host_disk: Path) -> AsyncIterator[tuple[Lab, Shell]]:
    async with lab(host_disk.parent) as made:
        assert made.data == host_disk
        async with made.opened() as runtime, machine(runtime) as (_, inside):
            yield made, inside


async def test_more_memory_than_promised_is_answered_by_the_oom_killer(
    runtime: ContainerRuntime, started: tuple[Running, Shell]
) -> None:
    running, inside = started
    assert runtime.oom_kills(running.machine_id) == 0
    hog = await inside.run("exec python3 -c 'bytearray(400 << 20)'")
    assert (hog.exited.how, hog.code) == (How.SIGNALLED, 9)
    assert runtime.oom_kills(running.machine_id) == 1
    assert (await inside.run("echo alive")).stdout == "alive\n"


@pytest.mark.parametrize("kind", ["udp", "tcp"])
async def test_what_waits_in_sockets_is_bounded_too(inside: Shell, kind: str) -> None:
    filled = await inside.run(f"python3 - {kind} <<'EOF'\n{_FILL_SOCKETS}\nEOF")
    # With cgroup v2 there is one limit for sockets and all else, and the OOM killer answers.
    assert filled.exited.flags & End.OOM or int(filled.stdout) < SMALL.memory_mib << 20


async def test_shared_memory_holds_half_of_the_memory(inside: Shell) -> None:
    hog = await inside.run("head -c 400M /dev/zero > /dev/shm/hog; stat -c %s /dev/shm/hog")
    assert "No space left on device" in hog.stderr
    assert int(hog.stdout) == SMALL.memory_mib // 2 << 20


async def test_processes_are_counted_and_refused(lab: Lab, inside: Shell) -> None:
    errno, count = (await inside.run(f"python3 -c '{_FORK_UNTIL_REFUSED}'")).stdout.split()
    assert int(errno) == 11  # EAGAIN
    assert lab.pids_limit - 20 < int(count) < lab.pids_limit


async def test_a_fork_bomb_ends_with_its_execution(inside: Shell) -> None:
    bomb = await inside.run("bomb() { bomb | bomb & }; bomb; sleep 1000", timeout_ms=1500)
    assert bomb.exited.how is How.SIGNALLED
    assert (await inside.run("ls -d /proc/[0-9]* | wc -l")).stdout.strip() <= "9"


async def test_a_full_disk_is_full_inside_and_nowhere_else(on_own_disk: tuple[Lab, Shell]) -> None:
    lab, inside = on_own_disk
    before = _free(lab.data)
    full = await inside.run("dd if=/dev/zero of=/root/big bs=1M count=2000")
    assert "No space left on device" in full.stderr
    assert before - _free(lab.data) < 1.1 * (1 << 30)
    size, available = (await inside.run("df --output=size,avail -BM / | tail -1 | tr -d M")).stdout.split()
    assert 900 <= int(size) <= 1024
    assert int(available) <= 2
    assert (await inside.run("rm /root/big && echo x > /root/small && cat /root/small")).stdout == "x\n"


async def test_a_disk_without_inodes_is_so_inside_and_nowhere_else(on_own_disk: tuple[Lab, Shell]) -> None:
    lab, inside = on_own_disk
    before = os.statvfs(lab.data)
    fill = "import os\nos.mkdir('/root/many')\ntry:\n    for n in range(1 << 20): os.mknod(f'/root/many/{n}')"
    full = await inside.run(f'python3 -c "{fill}\nexcept OSError as e: print(e.errno)"')
    assert full.stdout == "28\n"
    assert before.f_ffree - os.statvfs(lab.data).f_ffree < 1000
    assert _free(lab.data) > before.f_bfree * before.f_frsize - 1.1 * (1 << 30)
    assert (await inside.run("rm -rf /root/many && echo x > /root/small && cat /root/small")).stdout == "x\n"


async def test_a_sparse_file_takes_no_room_of_the_host(on_own_disk: tuple[Lab, Shell]) -> None:
    lab, inside = on_own_disk
    before = _free(lab.data)
    assert (await inside.run("truncate -s 4T /root/sparse && stat -c %s /root/sparse")).stdout == f"{4 << 40}\n"
    assert before - _free(lab.data) < 256 << 20


async def test_deleted_files_give_their_room_back_to_the_host(lab: Lab, started: tuple[Running, Shell]) -> None:
    running, inside = started
    disk = lab.data / "disks/machines" / f"{running.machine_id}.ext4"
    await inside.run("dd if=/dev/zero of=/root/big bs=1M count=300 && sync")
    written = disk.stat().st_blocks * 512
    assert written > 300 << 20
    await inside.run("rm /root/big && sync")

    async def given_back() -> bool:  # the kernel does it after the file system's next commit
        return disk.stat().st_blocks * 512 < 100 << 20

    await wait_until_async(given_back, 20, "the room is given back")


async def test_half_a_core_is_half_a_core(runtime: ContainerRuntime) -> None:
    async with machine(runtime, MachineSpec(vcpu=0.5, memory_mib=256, storage_gib=1)) as (_, inside):
        share = float((await inside.run(f"python3 -c '{_BURN}'")).stdout)
    assert share < 0.62


async def test_one_machine_cannot_use_up_a_quota_of_the_whole_kernel(lab: Lab, runtime: ContainerRuntime) -> None:
    """The host has room for the tasks, terminals and open files of a thousand machines."""
    del runtime  # opened, which raises them
    quota = {name: _sysctl(name) for name in quotas.HOST}
    assert min(quota["kernel/pid_max"], quota["kernel/threads-max"]) >= 1_000 * 4096 > lab.pids_limit
    assert quota["kernel/pty/max"] - _sysctl("kernel/pty/reserve") >= 1_000 * 256
    assert quota["fs/file-max"] > os.sysconf("SC_PHYS_PAGES") * 4096 // 256


def test_a_quota_is_raised_and_never_lowered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "SYSCTL", tmp_path)
    (tmp_path / "low").write_text("5\n")
    (tmp_path / "high").write_text("50\n")
    quotas.raise_to({"low": 10, "high": 10, "missing": 10})
    assert ((tmp_path / "low").read_text(), (tmp_path / "high").read_text()) == ("10", "50\n")


async def test_terminals_are_counted_per_machine(inside: Shell) -> None:
    script = "import os\nn = 0\ntry:\n    while n < 400:\n        os.openpty(); n += 1\nexcept OSError: pass\nprint(n)"
    assert int((await inside.run(f"python3 -c '{script}'")).stdout) <= 256


def _sysctl(name: str) -> int:
    return int(Path("/proc/sys", name).read_text())


def _free(path: Path) -> int:
    stats = os.statvfs(path)
    return stats.f_bfree * stats.f_frsize


async def test_what_a_machine_writes_at_once_is_bounded(lab: Lab) -> None:
    if not _controllers() & {"blkio", "io"}:
        pytest.skip("this host has no cgroup controller of disks")
    lab.disk_bytes_per_second = 32 << 20
    async with lab.opened() as runtime, machine(runtime) as (_, inside):
        said = (await inside.run("dd if=/dev/zero of=/root/big bs=1M count=64 conv=fsync 2>&1 | tail -1")).stdout
        assert float(said.split(" copied, ")[1].split(" s")[0]) > 1.5


def _controllers() -> set[str]:
    lines = Path("/proc/cgroups").read_text().splitlines()[1:]
    on_v2 = Path("/sys/fs/cgroup/cgroup.controllers")
    return {line.split()[0] for line in lines if line.split()[1] != "0"} | (
        set(on_v2.read_text().split()) if on_v2.exists() else set()
    )
