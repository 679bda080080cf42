"""Terminals through our own SDK, both of its kinds, against a live server."""

from __future__ import annotations

import pytest

from dormice import AsyncDormice, AuthenticationError, ConflictError, Dormice, TerminalError
from tests.conformance.terminals import PLAIN
from tests.live import LONGEST_WAIT_MS, Live


def test_a_terminal_is_used_left_and_come_back_to(live: Live, machine: str) -> None:
    with Dormice(base_url=live.base_url, api_key=live.api_key) as client:
        terminals = client.machines.terminals
        made = terminals.create(machine, width=90, env=PLAIN, cwd="/tmp", wait_ms=LONGEST_WAIT_MS)
        assert (made.status, made.width, made.height) == ("ready", 90, 24)
        with terminals.connect(made.terminal_id, machine_id=machine) as connection:
            connection.resize(100, 30)
            connection.send(b"stty size; pwd\n")
            seen = b""
            while b"30 100\r\n/tmp\r\n" not in seen:
                seen += next(connection)
            assert connection.after == len(seen)
        with terminals.connect(made.terminal_id, machine_id=machine, after=connection.after) as again:
            again.send(b"exit 3\n")
            rest = b"".join(again)
            assert list(again) == []
        ended = terminals.retrieve(made.terminal_id, machine_id=machine)
        assert (ended.status, ended.exit_code, ended.stream_url) == ("closed", 3, None)
        assert terminals.output(made.terminal_id, machine_id=machine) == seen + rest
        assert made.terminal_id in [one.terminal_id for one in terminals.list(machine, limit=2)]
        assert terminals.delete(made.terminal_id, machine_id=machine).status == "closed"
        with pytest.raises(ConflictError) as raised:
            terminals.connect(made.terminal_id, machine_id=machine)
        assert raised.value.details["current_status"] == "closed"


async def test_the_asynchronous_client_does_the_same(live: Live, machine: str) -> None:
    async with AsyncDormice(base_url=live.base_url, api_key=live.api_key) as client:
        terminals = client.machines.terminals
        made = await terminals.create(machine, command=["cat"], wait_ms=LONGEST_WAIT_MS)
        async with await terminals.connect(made.terminal_id, machine_id=machine) as connection:
            await connection.send(b"a line\n")
            seen = b""
            while seen.count(b"a line\r\n") < 2:
                seen += await anext(connection)
            await connection.resize(0, 0)
            with pytest.raises(TerminalError, match="width and height") as refused:
                await anext(connection)
            assert refused.value.code == "INVALID_MESSAGE"
            await connection.send(b"\x04")
            assert [piece async for piece in connection] == []
        assert await terminals.output(made.terminal_id, machine_id=machine) == seen
        ids = [one.terminal_id async for one in terminals.list(machine)]
        assert ids[0] == made.terminal_id
    async with AsyncDormice(base_url=live.base_url, api_key="x" * 40) as stranger:
        with pytest.raises(AuthenticationError):
            await stranger.machines.terminals.connect(made.terminal_id, machine_id=machine)
