"""What the node tells of machines is counted once, whoever dies meanwhile; nothing of an earlier boot is taken for the present one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dormice.domain.errors import Invalid
from dormice.domain.limits import Limits
from dormice.domain.machine import Machine
from dormice.engine.usage import COUNT_EVERY_SECONDS, Period
from dormice.node.gauge import LOOK_EVERY_SECONDS, TELL_EVERY_SECONDS
from dormice.protocol import node as wire
from tests.engine.faulty_store import Faults
from tests.engine.scripted_node import MovedClock, Server, asleep, serving
from tests.wait import wait_until_async

SECOND = 1_000_000
EVER = Period(0, 1 << 62)


def told(up: wire.StartMachine, awake: int, cpu: int, *, last: bool = True, memory_mib: int = 0) -> wire.MachineUsed:
    """What a boot has used, in seconds; it is counted at once if it is the last."""
    memory = memory_mib or up.memory_mib
    return wire.MachineUsed(
        up.machine_id, up.boot_id, awake * SECOND, cpu * SECOND, up.vcpu, memory, up.storage_gib, last
    )


async def counted(server: Server, awake: int, cpu: int) -> None:
    """Wait until so many seconds are counted."""

    async def there() -> bool:
        rows = await server.engine.usage.compute(server.caller, EVER, machine_id=None, by_day=True)
        sums = sum(row.awake_us for row in rows) // SECOND, sum(row.cpu_us for row in rows) // SECOND
        return sums == (awake, cpu)

    await wait_until_async(there, 10, f"{awake} s awake, {cpu} s of processors")


async def test_sums_are_counted_once_across_restarts_of_node_and_server(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock) as server:
        node = await server.node()
        _, up = await server.machine(node)
        node.say(told(up, 10, 1, last=False), told(up, 20, 2))
        await counted(server, 20, 2)
        node = await server.node(up)
        node.say(told(up, 25, 3))
        await counted(server, 25, 3)
    async with serving(tmp_path, clock) as server:
        node = await server.node(up)
        node.say(told(up, 25, 3), told(up, 40, 8))
        await counted(server, 40, 8)


async def test_the_next_boot_is_counted_besides_and_the_last_one_no_more(server: Server) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    node.say(told(up, 10, 1))
    await asleep(server, node, machine, up)
    await server.engine.machines.wake(server.caller, machine.id, revision=None, idempotency=None)
    again = await node.start_machine()
    node.say(told(up, 99, 99), told(again, 5, 5))
    await counted(server, 15, 6)


async def test_the_end_of_a_boot_that_is_told_with_the_hello_is_counted_though_the_machine_starts_anew(
    server: Server,
) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    node.say(told(up, 10, 1))
    await counted(server, 10, 1)
    await node.hang_up()
    await server.without_node()
    await server.execute(machine)
    node = await server.node(last=[told(up, 30, 3)])
    again = await node.start_machine()
    node.say(told(again, 5, 5))
    await counted(server, 35, 8)


async def test_a_size_that_changes_between_two_commits_has_its_share(server: Server) -> None:
    node = await server.node()
    _, up = await server.machine(node)
    node.say(told(up, 10, 0, last=False), told(up, 30, 0, last=False, memory_mib=2048), told(up, 35, 0))
    await counted(server, 35, 0)
    rows = await server.engine.usage.compute(server.caller, EVER, machine_id=None, by_day=True)
    shares = dict.fromkeys((up.memory_mib, 2048), 0)
    for row in rows:
        shares[row.memory_mib] += row.awake_us // SECOND
    assert shares == {up.memory_mib: 15, 2048: 20}


async def test_what_could_not_be_committed_is_counted_later(tmp_path: Path, clock: MovedClock) -> None:
    faults = Faults()
    async with serving(tmp_path, clock, wrap=faults.wrap) as server:
        node = await server.node()
        _, up = await server.machine(node)
        faults.fail("count", 2)
        node.say(told(up, 10, 1))
        await counted(server, 10, 1)


async def test_too_many_rows_are_refused_and_never_cut(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock, Limits(usage_rows=2)) as server:
        node = await server.node()
        machine, up = await server.machine(node)
        node.say(told(up, 3 * 3600, 0))
        await counted_by_day(server, machine)
        with pytest.raises(Invalid, match="usage_rows"):
            await server.engine.usage.compute(server.caller, EVER, machine_id=machine.id)


async def counted_by_day(server: Server, machine: Machine) -> None:
    async def there() -> bool:
        return bool(await server.engine.usage.compute(server.caller, EVER, machine_id=machine.id, by_day=True))

    await wait_until_async(there, 10, "it is counted")


async def test_a_disk_counts_while_its_machine_sleeps(server: Server, clock: MovedClock) -> None:
    node = await server.node()
    machine, up = await server.machine(node)
    await asleep(server, node, machine, up)
    clock.forward(3600)
    rows = await server.engine.usage.storage(server.caller, EVER, machine_id=None)
    hours = sum(row.gib_us for row in rows) / machine.storage_gib / 3600 / SECOND
    assert 1 <= hours < 1.1
    assert (await server.engine.usage.totals(server.caller, 0)).provisioned_gib == machine.storage_gib


def test_the_page_says_how_old_the_last_committed_sum_is_at_most() -> None:
    seconds = TELL_EVERY_SECONDS + LOOK_EVERY_SECONDS + COUNT_EVERY_SECONDS
    page = Path(__file__).resolve().parents[2] / "docs" / "usage.md"
    assert f"at most about **{seconds:.0f} s** old" in page.read_text(encoding="utf-8")
