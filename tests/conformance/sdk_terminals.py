# mypy: ignore-errors
"""What a user of the foreign SDK does with terminals, run by that SDK's own interpreter: create, list, retrieve, connect, delete.

    .sdks/VERSION/bin/python sdk_terminals.py sync|async MACHINE

Connects as the SDK does by itself: without a key. Prints `lost me` when it may be disturbed, and waits for a line of standard input then;
at the end `served`. Responses are validated strictly. Only the SDK and what it depends on can be imported here.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import sys
from typing import Any

import dedalus_sdk

from tests.wait import wait_until_async

CONNECTS = dedalus_sdk.__version__ != "0.1.0"  # which asks for a path with braces in it
SIZE = {"width": 80, "height": 24}


def typed(text: str) -> dict[str, str]:
    return {"type": "input", "data": base64.b64encode(text.encode()).decode()}


async def value(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


async def ready(terminals: Any, machine: str, **options: Any) -> Any:
    """Open a terminal as the documentation of the SDK says, polling it."""
    terminal = await value(terminals.create(machine_id=machine, **SIZE, **options))
    if terminal.status == "wake_in_progress":
        assert terminal.retry_after_ms > 0, terminal

        async def woken() -> Any:
            found = await value(terminals.retrieve(machine_id=machine, terminal_id=terminal.terminal_id))
            return found if found.status != "wake_in_progress" else None

        terminal = await wait_until_async(woken, 30, "ready")
    assert (terminal.status, terminal.protocol) == ("ready", "websocket"), terminal
    assert terminal.stream_url.startswith("ws://"), terminal
    return terminal


def resume(event: Any) -> None:
    """Agree to every reconnection."""
    del event


async def rest(client: Any, machine: str) -> None:
    terminals = client.machines.terminals
    made = await ready(terminals, machine, shell="/bin/sh", cwd="/tmp", env={"A": "b"})
    page = terminals.list(machine_id=machine, limit=1)
    found = [item async for item in page] if hasattr(page, "__aiter__") else list(page)
    assert made.terminal_id in [item.terminal_id for item in found], found
    gone = await value(terminals.delete(machine_id=machine, terminal_id=made.terminal_id))
    assert gone.terminal_id == made.terminal_id, gone
    try:
        await value(terminals.retrieve(machine_id=machine, terminal_id="term-none"))
    except dedalus_sdk.NotFoundError:
        return
    raise AssertionError("found what is not there")


def disturbed() -> None:
    print("lost me", flush=True)
    sys.stdin.readline()


def connect_sync(client: Any, machine: str) -> None:
    terminal = asyncio.run(ready(client.machines.terminals, machine, env={"PS1": ""}))
    which = {"machine_id": machine, "terminal_id": terminal.terminal_id}
    with client.machines.terminals.connect(**which, on_reconnecting=resume) as connection:
        connection.send({"type": "resize", "width": 100, "height": 30})
        connection.send(typed("stty size; echo be''fore\n"))
        seen, asked = b"", False
        for event in connection:
            if event.type == "output":
                seen += base64.b64decode(event.data)
            if event.type == "closed":
                break
            if b"before\r\n" in seen and not asked:
                asked = True
                disturbed()
                seen = b""
            elif asked and b"before\r\n" in seen:  # the scrollback came again: this is another connection
                asked, seen = True, b""
                connection.send(typed("echo af''ter; exit\n"))
        assert event.type == "closed", event
        assert b"after\r\n" in seen, seen


async def connect_async(client: Any, machine: str) -> None:
    terminal = await ready(client.machines.terminals, machine, env={"PS1": ""})
    which = {"machine_id": machine, "terminal_id": terminal.terminal_id}
    async with client.machines.terminals.connect(**which, on_reconnecting=resume) as connection:
        await connection.send({"type": "resize", "width": 100, "height": 30})
        await connection.send(typed("stty size; echo be''fore\n"))
        seen, asked = b"", False
        async for event in connection:
            if event.type == "output":
                seen += base64.b64decode(event.data)
            if event.type == "closed":
                break
            if b"before\r\n" in seen and not asked:
                asked = True
                await asyncio.to_thread(disturbed)
                seen = b""
            elif asked and b"before\r\n" in seen:
                asked, seen = True, b""
                await connection.send(typed("echo af''ter; exit\n"))
        assert event.type == "closed", event
        assert b"after\r\n" in seen, seen


def main(mode: str, machine: str) -> None:
    if mode == "sync":
        client = dedalus_sdk.Dedalus(_strict_response_validation=True)
        asyncio.run(rest(client, machine))
        if CONNECTS:
            connect_sync(client, machine)
    else:

        async def all_of_it() -> None:
            client = dedalus_sdk.AsyncDedalus(_strict_response_validation=True)
            await rest(client, machine)
            if CONNECTS:
                await connect_async(client, machine)

        asyncio.run(all_of_it())
    print("served", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
