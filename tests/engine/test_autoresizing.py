"""A machine that is short of memory is given more, if its owner and his organization allow it and the host has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dormice.domain.limits import Limits
from dormice.domain.machine import Machine, ResizeState
from dormice.engine.autoresizing import next_memory_mib
from dormice.engine.orders import MachinePatch
from dormice.protocol import node as wire
from tests.engine.scripted_node import MovedClock, ScriptedNode, Server, asleep, serving
from tests.wait import wait_until_async

PLENTY = 100_000


@pytest.mark.parametrize(
    ("has", "host", "gets"),
    [
        (64, PLENTY, 128),
        (128, PLENTY, 192),
        (1000, PLENTY, 1512),
        (1024, PLENTY, 1536),
        (8192, PLENTY, 9216),
        (16_000, PLENTY, 16_384),
        (16_384, PLENTY, 16_384),
        (20_000, PLENTY, 20_000),
        (1024, 1200, 1200),
        (1024, 512, 1024),
    ],
)
def test_a_step_is_half_as_much_again_within_bounds_and_never_less(has: int, host: int, gets: int) -> None:
    assert next_memory_mib(has, Limits(), host) == gets


class Sleeper:
    """A machine that runs on a scripted node, and what it says of its memory."""

    def __init__(self, server: Server, node: ScriptedNode, machine: Machine, up: wire.StartMachine) -> None:
        self.server, self.node, self.machine, self.up = server, node, machine, up

    def short(self, memory_mib: int, available_mib: int = PLENTY, *, short: bool = True) -> None:
        self.node.say(wire.MachineShort(self.machine.id, self.up.boot_id, short, memory_mib, available_mib))

    def resized(self, resize: wire.ResizeMachine, code: str = "") -> None:
        self.node.say(wire.MachineResized(resize.machine_id, resize.request, code, code))

    async def until(self, **fields: object) -> Machine:
        async def there() -> Machine | None:
            now = await self.server.engine.machines.get(self.server.caller, self.machine.id)
            return now if {name: getattr(now, name) for name in fields} == fields else None

        found = await wait_until_async(there, 10, str(fields))
        assert found is not None
        return found


@pytest.fixture(name="sleeper")
async def _sleeper(server: Server) -> Sleeper:
    node = await server.node()
    machine, up = await server.machine(node)
    await enable(server, machine)
    await answered(node)
    return Sleeper(server, node, machine, up)


async def enable(server: Server, machine: Machine) -> None:
    changed = await server.engine.machines.set_autoresizing(server.caller, machine.id, enabled=True, idempotency=None)
    assert changed.autoresizing


async def answered(node: ScriptedNode) -> wire.ResizeMachine:
    """Let the node apply the next sizes."""
    resize = await node.hear(wire.ResizeMachine)
    node.say(wire.MachineResized(resize.machine_id, resize.request, "", ""))
    return resize


async def test_a_short_machine_is_given_more_and_says_so_once_it_has_it(sleeper: Sleeper) -> None:
    sleeper.short(1024)
    resize = await sleeper.node.hear(wire.ResizeMachine)
    assert resize.memory_mib == 1536
    asked = await sleeper.until(memory_mib=1536)
    assert (asked.assigned_mib, asked.autoresized_at) == (1024, None)
    sleeper.resized(resize)
    has = await sleeper.until(unapplied_from_mib=None)
    assert (has.assigned_mib, has.resize_state) == (1536, ResizeState.STABLE)
    assert has.autoresized_at is not None
    sleeper.short(1024)  # said before the raise
    sleeper.short(1536)
    assert (await answered(sleeper.node)).memory_mib == 2304


async def test_that_it_was_raised_outlives_the_server(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock) as server:
        node = await server.node()
        machine, up = await server.machine(node)
        await enable(server, machine)
        await answered(node)
        Sleeper(server, node, machine, up).short(1024)
        await node.hear(wire.ResizeMachine)  # and the server dies before it hears that it is done
    async with serving(tmp_path, clock) as server:
        node = await server.node(up)
        assert (await answered(node)).memory_mib == 1536
        has = await Sleeper(server, node, machine, up).until(unapplied_from_mib=None)
        assert has.autoresized_at is not None


async def test_without_leave_nothing_is_raised(sleeper: Sleeper) -> None:
    server, machine = sleeper.server, sleeper.machine
    await server.engine.autoresizing.set_policy(server.caller, enabled=False)
    sleeper.short(1024)
    await sleeper.node.hears_nothing_of(wire.ResizeMachine)
    await server.engine.autoresizing.set_policy(server.caller, enabled=True)
    await server.engine.machines.set_autoresizing(server.caller, machine.id, enabled=False, idempotency=None)
    await answered(sleeper.node)
    sleeper.short(1024)
    await sleeper.node.hears_nothing_of(wire.ResizeMachine)
    assert (await server.engine.machines.get(server.caller, machine.id)).memory_mib == 1024


async def test_a_word_of_an_earlier_boot_is_no_reason(sleeper: Sleeper) -> None:
    await asleep(sleeper.server, sleeper.node, sleeper.machine, sleeper.up)
    await sleeper.server.engine.machines.wake(
        sleeper.server.caller, sleeper.machine.id, revision=None, idempotency=None
    )
    await sleeper.node.start_machine()
    sleeper.short(1024)
    await sleeper.node.hears_nothing_of(wire.ResizeMachine)


async def test_where_the_host_has_nothing_the_machine_says_that_it_waits(sleeper: Sleeper) -> None:
    sleeper.short(1024, available_mib=100)
    waits = await sleeper.until(resize_state=ResizeState.PENDING_CAPACITY)
    assert waits.memory_mib == 1024
    sleeper.short(0, short=False)
    await sleeper.until(resize_state=ResizeState.STABLE)
    sleeper.short(1024, available_mib=512)
    await answered(sleeper.node)
    await sleeper.until(memory_mib=1536, unapplied_from_mib=None, resize_state=ResizeState.STABLE)


async def test_what_the_node_cannot_apply_is_an_error_until_it_can(sleeper: Sleeper) -> None:
    patch = MachinePatch(memory_mib=512)
    server, machine = sleeper.server, sleeper.machine
    await server.engine.machines.patch(server.caller, machine.id, patch, revision=None, idempotency=None)
    sleeper.resized(await sleeper.node.hear(wire.ResizeMachine), code="CAPACITY_EXCEEDED")
    failed = await sleeper.until(resize_state=ResizeState.ERROR)
    assert (failed.memory_mib, failed.assigned_mib) == (512, 1024)
    patch = MachinePatch(memory_mib=768)
    await server.engine.machines.patch(server.caller, machine.id, patch, revision=None, idempotency=None)
    await answered(sleeper.node)
    has = await sleeper.until(resize_state=ResizeState.STABLE)
    assert (has.assigned_mib, has.autoresized_at) == (768, None)
