"""Previews whose machines wake, fail, die or outstay their time, between any two steps of a server."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from dormice.domain.errors import Conflict, NotFound
from dormice.domain.execution import ErrorCode, Stream
from dormice.domain.limits import Limits
from dormice.domain.machine import Machine
from dormice.domain.preview import Preview, PreviewState
from dormice.engine import port_connections
from dormice.engine.key_tokens import KeyToken
from dormice.engine.orders import PreviewOrder
from dormice.protocol import node as wire
from tests.engine.scripted_node import MovedClock, ScriptedNode, Server, asleep, serving

WEEK = 7 * 24 * 3_600


async def _sleeping(server: Server) -> tuple[ScriptedNode, Machine]:
    node = await server.node()
    machine, up = await server.machine(node)
    await asleep(server, node, machine, up)
    return node, machine


async def _made(server: Server, machine: Machine, *, lifetime_seconds: int | None = None) -> Preview:
    order = PreviewOrder(port=80, lifetime_seconds=lifetime_seconds)
    return await server.engine.previews.create(server.caller, machine.id, order, None)


async def _settled(server: Server, preview: Preview) -> Preview:
    return await server.engine.previews.get(server.caller, preview.machine_id, preview.id, wait_ms=10_000)


async def test_a_preview_of_a_machine_that_is_awake_is_ready_at_once(server: Server) -> None:
    machine, _ = await server.machine(await server.node())
    assert (await _settled(server, await _made(server, machine))).state is PreviewState.READY
    assert (await _made(server, machine)).state is PreviewState.READY


async def test_a_preview_wakes_its_machine_and_is_ready_then(server: Server) -> None:
    node, machine = await _sleeping(server)
    made = await _made(server, machine)
    assert made.state is PreviewState.WAKE_IN_PROGRESS
    await node.start_machine()
    assert (await _settled(server, made)).state is PreviewState.READY


async def test_a_machine_that_cannot_start_fails_its_previews(server: Server) -> None:
    node, machine = await _sleeping(server)
    made = await _made(server, machine)
    start = await node.hear(wire.StartMachine)
    node.say(wire.MachineFailed(start.machine_id, start.boot_id, "no_room", "no room", retryable=False))
    failed = await _settled(server, made)
    assert (failed.state, failed.error_code) == (PreviewState.FAILED, ErrorCode.WAKE_FAILED)


async def test_a_machine_that_does_not_come_up_in_time_expires_its_previews(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock, Limits(channel_wake_ms=200)) as server:
        node, machine = await _sleeping(server)
        made = await _made(server, machine)
        await node.hear(wire.StartMachine)
        expired = await _settled(server, made)
        assert (expired.state, expired.error_code) == (PreviewState.EXPIRED, ErrorCode.START_DEADLINE_EXCEEDED)


async def test_a_preview_ends_with_its_time(server: Server, clock: MovedClock) -> None:
    machine, _ = await server.machine(await server.node())
    made, longer = await _made(server, machine), await _made(server, machine, lifetime_seconds=2 * WEEK)
    clock.forward(WEEK + 1)
    assert (await _settled(server, made)).state is PreviewState.EXPIRED
    await server.engine.previews.end_due()
    ended = await _settled(server, made)
    assert (ended.state, ended.ended_at is not None) == (PreviewState.EXPIRED, True)
    assert (await _settled(server, longer)).state is PreviewState.READY
    with pytest.raises(Conflict):
        await server.engine.previews.link(server.caller, machine.id, made.id, 60)
    assert (await server.engine.previews.close(server.caller, machine.id, made.id)).state is PreviewState.EXPIRED


async def test_a_link_lasts_no_longer_than_it_was_given_nor_than_its_preview(server: Server, clock: MovedClock) -> None:
    machine, _ = await server.machine(await server.node())
    made = await _made(server, machine, lifetime_seconds=3_600)
    previews = server.engine.previews
    _, short, _ = await previews.link(server.caller, machine.id, made.id, 60)
    _, long, expires_at = await previews.link(server.caller, machine.id, made.id, WEEK)
    assert expires_at <= made.expires_at
    clock.forward(61)
    # Whether the key is valid is asked of the store, which has none of this caller's.
    read = partial(server.engine.key_tokens.read, "preview", made.id)
    assert read(short) is None
    assert read(long) == KeyToken(server.caller.key_id, expires_at // 1_000_000 * 1_000_000)
    clock.forward(3_600)
    assert read(long) is None
    assert await previews.letting_in(made, [short, long, ""]) is None


async def _dialled(node: ScriptedNode) -> wire.StartExecution:
    """Have the guest connect to a port."""
    start = await node.hear(wire.StartExecution)
    node.say(wire.ExecutionStarted(start.machine_id, start.execution, 1))
    node.say(wire.Output(start.machine_id, start.execution, Stream.STDOUT.value, 0, b"+"))
    return start


async def test_a_port_that_takes_nothing_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    preview = await _settled(server, await _made(server, machine))
    with server.engine.previews.connections.request(preview) as place:
        dialling = asyncio.create_task(place.connect())
        start = await _dialled(node)
        connection, _ = await dialling
        monkeypatch.setattr(port_connections, "STALL_SECONDS", 0.1)
        async with asyncio.timeout(10):
            await connection.write(bytes(10_000_000))
        assert (await node.hear(wire.CancelExecution)).execution == start.execution


async def test_a_connection_that_is_made_while_its_preview_ends_is_cut(server: Server) -> None:
    node = await server.node()
    machine, _ = await server.machine(node)
    preview = await _settled(server, await _made(server, machine))
    previews = server.engine.previews
    with previews.connections.request(preview) as place:
        dialling = asyncio.create_task(place.connect())
        await server.engine.previews.close(server.caller, machine.id, preview.id)
        start = await _dialled(node)
        with pytest.raises(NotFound, match="is over"):
            await dialling
        assert (await node.hear(wire.CancelExecution)).execution == start.execution


async def test_a_preview_that_has_ended_since_it_was_found_serves_nothing(server: Server) -> None:
    machine, _ = await server.machine(await server.node())
    made = await _settled(server, await _made(server, machine))
    other = await _settled(server, await _made(server, machine))
    previews = server.engine.previews
    ends = previews.connections.ends
    found, still_there = await previews.find(made.id), await previews.find(other.id)
    await previews.close(server.caller, machine.id, made.id)
    with pytest.raises(NotFound, match="is over"):
        async with previews.request(found, ends):
            pass
    async with previews.request(still_there, ends):
        pass


async def test_a_wake_goes_on_when_the_server_is_started_again(tmp_path: Path, clock: MovedClock) -> None:
    async with serving(tmp_path, clock) as server:
        node, machine = await _sleeping(server)
        made = await _made(server, machine)
        await node.hear(wire.StartMachine)
    async with serving(tmp_path, clock) as server:
        node = await server.node()
        await node.start_machine()
        assert (await _settled(server, made)).state is PreviewState.READY
