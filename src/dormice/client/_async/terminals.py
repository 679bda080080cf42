# ruff: noqa: ASYNC109 - `timeout` is what clients of this kind call it, and the transport keeps it
"""`client.machines.terminals`: shells on pseudo terminals of a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dormice.client import routes
from dormice.client._async.connection import AsyncConnection
from dormice.client._async.pagination import AsyncPaginator, paginate
from dormice.client.argv import as_argv
from dormice.client.records import Terminal, decode
from dormice.client.transport import Timeout

if TYPE_CHECKING:
    from dormice.client._async.terminal_connection import AsyncTerminalConnection


class AsyncTerminals:
    """Open terminals, use them, come back to them. A terminal lives until its shell ends, whoever is connected to it."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def create(
        self,
        machine_id: str,
        *,
        width: int = 80,
        height: int = 24,
        shell: str | None = None,
        command: Sequence[str] | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        wait_ms: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Terminal:
        """Open a terminal and return at once, or after at most `wait_ms` (0 to 55,000) if it is ready within them.

        Args:
            machine_id: The machine to open it on. A sleeping one is woken.
            width: Columns, 1 to 65535.
            height: Rows, 1 to 65535.
            shell: The program, `/bin/bash` by default.
            command: argv to run instead of a shell.
            cwd: Working directory, `/root` by default.
            env: Variables added to the machine's.
            wait_ms: Milliseconds to wait until it is ready before answering.
            idempotency_key: The same key with the same arguments gives the same terminal. Made up if left out.
            timeout: Seconds to wait for the server.

        Raises:
            TypeError: The command is one string instead of a sequence of them.

        """
        body = {
            "width": width,
            "height": height,
            "shell": shell,
            "command": as_argv(command) if command is not None else None,
            "cwd": cwd,
            "env": dict(env) if env is not None else None,
        }
        reply = await self._connection.call(
            "POST",
            routes.terminals(machine_id),
            query={"wait_ms": wait_ms},
            body=body,
            idempotency_key=idempotency_key,
            timeout=timeout,
        )
        return decode(reply.content, Terminal)

    async def retrieve(
        self,
        terminal_id: str,
        *,
        machine_id: str,
        wait_ms: int | None = None,
        timeout: float | Timeout | None = None,
    ) -> Terminal:
        """The record as it is now, or as it is when the terminal is ready within `wait_ms` (0 to 55,000)."""
        path = routes.terminal(machine_id, terminal_id)
        reply = await self._connection.call("GET", path, query={"wait_ms": wait_ms}, timeout=timeout)
        return decode(reply.content, Terminal)

    def list(self, machine_id: str, *, limit: int | None = None, cursor: str | None = None) -> AsyncPaginator[Terminal]:
        """The machine's terminals, newest first, `limit` to a page."""
        return paginate(self._connection, Terminal, routes.terminals(machine_id), limit=limit, cursor=cursor)

    async def delete(
        self,
        terminal_id: str,
        *,
        machine_id: str,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Terminal:
        """Hang up: its shell and all that it started end. Nothing happens if it has ended; what it has shown stays."""
        path = routes.terminal(machine_id, terminal_id)
        reply = await self._connection.call("DELETE", path, idempotency_key=idempotency_key, timeout=timeout)
        return decode(reply.content, Terminal)

    async def output(self, terminal_id: str, *, machine_id: str, timeout: float | Timeout | None = None) -> bytes:
        """The last MiB of what it has shown, also after its end."""
        path = f"{routes.terminal(machine_id, terminal_id)}/output"
        headers = {"accept": "application/octet-stream"}
        return (await self._connection.call("GET", path, headers=headers, timeout=timeout)).content

    async def connect(self, terminal_id: str, *, machine_id: str, after: int | None = None) -> AsyncTerminalConnection:
        """Connect to a terminal that is ready; to be used as a context manager.

        It shows the last MiB of what was shown before, or what came behind the offset `after` (that of the connection before). Raises
        ConflictError when the terminal is not ready yet, or has ended.
        """
        # Here, because not everybody needs the library that it rests on.
        from dormice.client._async.terminal_connection import open_terminal  # noqa: PLC0415

        return await open_terminal(self._connection, machine_id, terminal_id, after=after)
