"""Routes of terminals."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.errors import Fault, InvalidRequest
from dormice.api.http.operation import Answer, Operation
from dormice.api.http.pagination import list_page
from dormice.api.http.replies import Reply, json_reply
from dormice.api.machines import wire
from dormice.api.machines.orders import command_faults, environment_faults, text_faults
from dormice.api.machines.parameters import idempotency_key, paging, wait_ms
from dormice.api.machines.terminal_stream import PURPOSE, STREAM_PATH, TOKEN_SECONDS
from dormice.api.services import Services
from dormice.domain.errors import Invalid
from dormice.domain.limits import Limits, MachineDefaults
from dormice.domain.terminal import LARGEST_SIDE, Terminal, TerminalStatus
from dormice.engine.orders import TerminalOrder

_PATH = "/v1/machines/{machine_id}/terminals"
_ONE = f"{_PATH}/{{terminal_id}}"
_CELLS = {"minimum": 1, "maximum": LARGEST_SIDE}
_SHELL = "/bin/bash"


class CreateTerminalRequest(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A terminal to be opened."""

    width: Annotated[int, Meta(description="Columns.", extra_json_schema=_CELLS)]
    height: Annotated[int, Meta(description="Rows.", extra_json_schema=_CELLS)]
    shell: Annotated[str | None, Meta(description="The program, looked up on PATH; `/bin/bash` by default.")] = None
    command: Annotated[
        list[str] | None,
        Meta(description="argv to run instead of a shell: the program and its arguments. Excludes `shell`."),
    ] = None
    cwd: Annotated[str | None, Meta(description="Working directory. A relative one is taken from the default.")] = None
    env: Annotated[
        dict[str, str] | None, Meta(description="Added to the machine's environment. Values are secrets.")
    ] = None


class TerminalRecord(Struct, omit_defaults=True, kw_only=True):
    """A shell on a pseudo terminal of a machine."""

    terminal_id: str
    machine_id: str
    status: TerminalStatus
    created_at: wire.Time
    width: int
    height: int
    protocol: Literal["websocket"]
    stream_url: str | None = None
    ready_at: wire.Time | None = None
    expires_at: wire.Time | None = None
    retry_after_ms: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    closed_at: wire.Time | None = None
    exit_code: int | None = None
    signal: int | None = None


class TerminalPage(Struct, omit_defaults=True, kw_only=True):
    """Terminals of a machine, newest first."""

    items: list[TerminalRecord]
    next_cursor: str | None = None


_CREATE = BodyDecoder(CreateTerminalRequest)
_RECORD = {200: Answer("The terminal.", TerminalRecord)}


class TerminalRoutes:
    """Handlers over the terminals service."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._terminals = services.terminals

    async def create(self, call: Call) -> ASGIApp:
        """POST …/terminals."""
        wait = call.wait_ms()
        call.idempotency(None, required=True)
        body = _CREATE.decode(call.header("Content-Type"), await call.body())
        order = terminal_order(body, self._services.limits, self._services.defaults)
        idempotency = call.idempotency(body, required=True)
        made = await self._terminals.create(call.caller, call.path["machine_id"], order, idempotency, wait_ms=wait)
        return json_reply(self._record(call, made))

    async def page(self, call: Call) -> ASGIApp:
        """GET …/terminals."""

        async def read(before: int | None, limit: int) -> list[Terminal]:
            return await self._terminals.page(call.caller, call.path["machine_id"], before=before, limit=limit)

        default = self._services.limits.page_default
        records, cursor = await list_page(call, default, read, lambda found: self._record(call, found))
        return json_reply(TerminalPage(items=records, next_cursor=cursor))

    async def get(self, call: Call) -> ASGIApp:
        """GET …/terminals/{terminal_id}."""
        return json_reply(self._record(call, await self._one(call, call.wait_ms())))

    async def close(self, call: Call) -> ASGIApp:
        """DELETE …/terminals/{terminal_id}. Idempotent by itself: its key is only looked at."""
        call.idempotency(None)
        return json_reply(self._record(call, await self._terminals.close(await self._one(call))))

    async def shown(self, call: Call) -> ASGIApp:
        """GET …/terminals/{terminal_id}/output."""
        start, data = await self._terminals.shown(await self._one(call))
        headers = {"x-dormice-offset": str(start), "x-content-type-options": "nosniff"}
        return Reply(data, media_type=b"application/octet-stream", headers=headers)

    async def no_socket(self, call: Call) -> ASGIApp:
        """GET …/terminals/{terminal_id}/stream, without an upgrade."""
        await self._one(call)
        raise Invalid("this is a WebSocket: send `Connection: Upgrade` and `Upgrade: websocket`", status=426)

    async def _one(self, call: Call, wait: int = 0) -> Terminal:
        return await self._terminals.get(call.caller, call.path["machine_id"], call.path["terminal_id"], wait_ms=wait)

    def _record(self, call: Call, terminal: Terminal) -> TerminalRecord:
        execution, status = terminal.execution, terminal.status
        open_ = status in (TerminalStatus.READY, TerminalStatus.WAKE_IN_PROGRESS)
        waking = status is TerminalStatus.WAKE_IN_PROGRESS
        failed = status in (TerminalStatus.FAILED, TerminalStatus.EXPIRED)
        return TerminalRecord(
            terminal_id=terminal.id,
            machine_id=execution.machine_id,
            status=status,
            created_at=wire.time(terminal.created_at),
            width=terminal.width,
            height=terminal.height,
            protocol="websocket",
            stream_url=self._url(call, terminal) if open_ else None,
            ready_at=None if execution.started_at is None else wire.time(execution.started_at),
            retry_after_ms=self._services.limits.retry_after_ms if waking else None,
            error_code=execution.error_code.value if failed and execution.error_code else None,
            error_message=execution.error_message if failed else None,
            closed_at=None if execution.completed_at is None else wire.time(execution.completed_at),
            exit_code=execution.exit_code,
            signal=execution.signal,
        )

    def _url(self, call: Call, terminal: Terminal) -> str:
        token = self._services.key_tokens.make(PURPOSE, terminal.id, call.caller.key_id, seconds=TOKEN_SECONDS)
        path = STREAM_PATH.format(machine_id=terminal.execution.machine_id, terminal_id=terminal.id)
        return f"{call.websocket_origin()}{path}?token={token}"

    def operations(self) -> list[Operation]:
        """Return the routes."""
        limits = self._services.limits
        wait = wait_ms(limits, "it is ready, or has ended")
        return [
            Operation(
                id="listMachineTerminals",
                method="GET",
                path=_PATH,
                tag="terminals",
                summary="List a machine's terminals, newest first",
                handle=self.page,
                parameters=paging(limits.page_default, limits),
                answers={200: Answer("A page of terminals.", TerminalPage)},
            ),
            Operation(
                id="createMachineTerminal",
                method="POST",
                path=_PATH,
                tag="terminals",
                summary="Open a terminal",
                description="On a machine that sleeps, the machine is woken and the terminal becomes ready by itself.",
                handle=self.create,
                parameters=(idempotency_key(limits, required=True), wait),
                body=CreateTerminalRequest,
                answers=_RECORD,
                errors=frozenset({409}),
            ),
            Operation(
                id="getMachineTerminal",
                method="GET",
                path=_ONE,
                tag="terminals",
                summary="Get a terminal",
                description="`stream_url` holds a token that is good for 15 minutes: it is all that a WebSocket client needs.",
                handle=self.get,
                parameters=(wait,),
                answers=_RECORD,
            ),
            Operation(
                id="deleteMachineTerminal",
                method="DELETE",
                path=_ONE,
                tag="terminals",
                summary="Hang up a terminal",
                description="Its shell and all that it started end. What it has shown can still be read.",
                handle=self.close,
                parameters=(idempotency_key(limits, required=False),),
                answers=_RECORD,
            ),
            Operation(
                id="getMachineTerminalOutput",
                method="GET",
                path=f"{_ONE}/output",
                tag="terminals",
                summary="What a terminal has shown",
                description="The last MiB, exactly, also after its end. `X-Dormice-Offset` says where that begins.",
                handle=self.shown,
                answers={200: Answer("Bytes.", media_types=("application/octet-stream",))},
            ),
            Operation(
                id="streamMachineTerminal",
                method="GET",
                path=STREAM_PATH,
                tag="terminals",
                summary="Use a terminal (WebSocket)",
                description="Text messages, each a JSON object: see docs/terminals.md. Without an upgrade: 426.",
                handle=self.no_socket,
                answers={101: Answer("The connection is a WebSocket from now on.")},
                errors=frozenset({409}),
            ),
        ]


def terminal_order(body: CreateTerminalRequest, limits: Limits, defaults: MachineDefaults) -> TerminalOrder:
    """Return the order. Raises Invalid with everything that is wrong."""
    faults = [
        *_size_faults(body),
        *text_faults(body.shell or "", "shell", limits.cwd_bytes, "cwd_bytes"),
        *(() if body.command is None else command_faults(body.command, limits)),
        *text_faults(body.cwd or "", "cwd", limits.cwd_bytes, "cwd_bytes"),
        *environment_faults(body.env or {}, limits),
    ]
    if body.shell and body.command is not None:
        faults.append(Fault("shell and command exclude each other: send one of them", "body.command"))
    if faults:
        raise InvalidRequest(faults)
    return TerminalOrder(
        width=body.width,
        height=body.height,
        command=tuple(body.command or (body.shell or _SHELL,)),
        cwd=posixpath.join(defaults.cwd, body.cwd) if body.cwd else defaults.cwd,
        env=body.env or {},
    )


def _size_faults(body: CreateTerminalRequest) -> Iterator[Fault]:
    for name, value in (("width", body.width), ("height", body.height)):
        if not 1 <= value <= LARGEST_SIDE:
            yield Fault(f"{name} must be from 1 to {LARGEST_SIDE}", f"body.{name}")
