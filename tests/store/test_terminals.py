"""The port: terminals are executions with a size and an id of their own, of whose output the end is kept."""

from __future__ import annotations

import os
from dataclasses import replace

from dormice.domain import ids
from dormice.domain.execution import TTY, Execution, ExecutionEvent, StdinMode
from dormice.domain.terminal import Terminal, TerminalStatus
from dormice.store.interface import KeyReused, Replayed, StdinRefusal
from dormice.store.terminals import NewTerminal
from tests.store.world import World, out, outcome

PIECE = 10_000


def new(world: World, **fields: object) -> NewTerminal:
    execution = world.new(command=(TTY, "80", "24", "/bin/bash"), stdin_mode=StdinMode.OPEN, boot_id=world.boot)
    return NewTerminal(id=ids.terminal_id(os.urandom(20)), width=80, height=24, execution=replace(execution, **fields))  # type: ignore[arg-type]


async def made(world: World, **fields: object) -> Terminal:
    terminal = new(world, **fields)
    execution = await world.store.terminals.create(terminal, None)
    assert isinstance(execution, Execution)
    return Terminal(id=terminal.id, width=80, height=24, execution=execution)


async def get(world: World, terminal: Terminal) -> Terminal | None:
    return await world.store.terminals.get(world.organization, world.machine.id, terminal.id)


async def test_a_terminal_is_found_by_its_ids_and_by_those_who_own_it(world: World) -> None:
    terminal = await made(world)
    terminals = world.store.terminals
    assert await get(world, terminal) == terminal
    assert await terminals.find(terminal.id) == terminal
    assert await terminals.of_execution(terminal.execution.id) == terminal
    stranger = await world.store.keys.ensure_organization("other", world.tick())
    other = await world.create_machine()
    assert await terminals.get(stranger, world.machine.id, terminal.id) is None
    assert await terminals.get(world.organization, other.id, terminal.id) is None
    assert await terminals.find("term-" + "0" * 40) is None
    assert await terminals.page(stranger, world.machine.id, before=None, limit=10) == []
    assert await terminals.page(world.organization, other.id, before=None, limit=10) == []


async def test_lists_are_newest_first_and_do_not_mix_with_those_of_executions(world: World) -> None:
    terminals = [await made(world) for _ in range(5)]
    plain = await world.create()
    page = await world.store.terminals.page(world.organization, world.machine.id, before=None, limit=3)
    assert page == terminals[:1:-1]
    rest = await world.store.terminals.page(world.organization, world.machine.id, before=page[-1].number, limit=3)
    assert rest == terminals[1::-1]
    assert await world.store.executions.page(world.organization, world.machine.id, before=None, limit=10) == [plain]


async def test_a_key_makes_one_terminal(world: World) -> None:
    claim = world.key()
    first = await world.store.terminals.create(new(world), claim)
    assert isinstance(first, Execution)
    assert await world.store.terminals.create(new(world), claim) == Replayed(resource_id=first.id)
    other = await world.store.terminals.create(new(world), replace(claim, request_hash="another"))
    assert isinstance(other, KeyReused)
    assert len(await world.store.terminals.page(world.organization, world.machine.id, before=None, limit=10)) == 1


async def test_the_size_that_was_asked_for_last_is_kept(world: World) -> None:
    terminal = await made(world)
    await world.store.terminals.resize(terminal.id, 65_535, 1)
    assert await get(world, terminal) == replace_size(terminal, 65_535, 1)


def replace_size(terminal: Terminal, width: int, height: int) -> Terminal:
    return Terminal(id=terminal.id, width=width, height=height, execution=terminal.execution)


async def test_the_end_of_the_output_is_kept_and_the_log_does_not_grow(world: World) -> None:
    terminal = await made(world)
    execution = await world.report(terminal.execution, started_at=world.tick())
    scrollback, slack, entry = 5 * PIECE, 64 * 1024, b"x" * PIECE
    for number in range(40):
        data = b"%04d" % number + entry[4:]
        execution = await world.report(execution, chunks=[out(number * PIECE, data)], scrollback=scrollback)
    assert execution.stdout_kept == 40 * PIECE
    kept = await world.store.executions.output(
        execution, out(0, b"").stream, start=35 * PIECE, end=execution.stdout_kept
    )
    assert [kept[at : at + 4] for at in range(0, len(kept), PIECE)] == [b"%04d" % number for number in range(35, 40)]
    begin = execution.stdout_kept - scrollback - slack - PIECE
    assert await world.store.executions.output(execution, out(0, b"").stream, start=0, end=begin) == b""
    ended = await world.report(
        execution, outcome=outcome(ExecutionEvent.SUCCEEDED, world.tick()), scrollback=scrollback
    )
    found = await get(world, terminal)
    assert found is not None
    assert (found.status, found.execution) == (TerminalStatus.CLOSED, ended)


async def test_what_is_not_read_is_bounded(world: World) -> None:
    execution = (await made(world)).execution
    append, now = world.store.executions.append_stdin, world.tick()
    fed = await append(execution.id, 0, b"x" * 150, eof=False, now=now, most_kept=100)
    assert isinstance(fed, Execution), "one that is larger than the bound goes where none waits"
    assert await append(execution.id, 150, b"x", eof=False, now=now, most_kept=100) is StdinRefusal.FULL
    await world.store.executions.trim_stdin(execution.id, 150)
    for offset in (150, 200):
        assert isinstance(await append(execution.id, offset, b"y" * 50, eof=False, now=now, most_kept=100), Execution)
    assert await append(execution.id, 250, b"z", eof=False, now=now, most_kept=100) is StdinRefusal.FULL
    assert isinstance(await append(execution.id, 250, b"z", eof=False, now=now), Execution), "no bound, as ever"


async def test_retention_takes_terminals(world: World) -> None:
    terminal = await made(world)
    execution = await world.report(
        terminal.execution, started_at=world.tick(), chunks=[out(0, b"shown")], scrollback=10
    )
    ended = await world.report(execution, outcome=outcome(ExecutionEvent.SUCCEEDED, world.tick()))
    assert ended.completed_at is not None
    while await world.store.delete_finished(ended.completed_at + 1):
        pass
    assert await world.store.terminals.find(terminal.id) is None
    assert await world.store.terminals.of_execution(execution.id) is None
    assert await world.store.terminals.page(world.organization, world.machine.id, before=None, limit=10) == []
