"""The WebSocket of a terminal (`contract` section 3.4): JSON text messages out; these and the older binary form in."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from typing import Literal

import msgspec

from dormice.api.http.admission import Admission
from dormice.api.http.call import Call
from dormice.api.http.websocket import POLICY_VIOLATION, Disconnected, Socket, WebSocket
from dormice.api.services import Services
from dormice.domain.errors import Conflict, DormiceError, Unauthenticated
from dormice.domain.terminal import LARGEST_SIDE, Terminal, TerminalStatus

STREAM_PATH = "/v1/machines/{machine_id}/terminals/{terminal_id}/stream"
PURPOSE = "terminal"
"""Of the tokens in a `stream_url`."""
TOKEN_SECONDS = 15 * 60
_RETRY_MS = 1_000
_DONE, _GOING_AWAY, _FAILED = 1000, 1001, 1011


class _Message(msgspec.Struct):
    """What a client says: input, a new size, or (without a type) a new size as older clients write it."""

    type: Literal["input", "resize", ""] = ""
    data: str = ""
    width: int = 0
    height: int = 0
    cols: int = 0
    rows: int = 0


class _Output(msgspec.Struct, tag="output"):
    data: str
    offset: int
    """Where it begins, counted from the first byte that the terminal has ever shown: what comes behind has `after` = offset + length."""


class _Error(msgspec.Struct, tag="error"):
    error_code: str
    error_message: str


_message = msgspec.json.Decoder(_Message)
_CLOSED = '{"type":"closed"}'


class TerminalStream:
    """Serves connections to terminals: any number to each."""

    def __init__(self, services: Services, admission: Admission) -> None:
        self._terminals = services.terminals
        self._tokens = services.key_tokens
        self._keys = services.keys
        self._by_id = services.terminals_by_id
        self._admission = admission

    def socket(self) -> Socket:
        """Return the route."""
        return Socket(path=STREAM_PATH, handle=self.serve)

    async def serve(self, call: Call, websocket: WebSocket) -> None:
        """Serve one, until the terminal ends, the client goes, or the key that has let him in is revoked."""
        terminal, key_id = await self._admit(call)
        after = call.integer("after", default=0) if "after" in call.query else None
        _check_ready(terminal)
        await websocket.accept()
        try:
            async with self._keys.while_valid(key_id):
                await self._connect(terminal, websocket, after)
        except Unauthenticated as error:
            if not websocket.closed:
                await _tell(websocket, error.code, error.message)
                await websocket.close(POLICY_VIOLATION, error.message)

    async def _connect(self, terminal: Terminal, websocket: WebSocket, after: int | None) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(self._listen(terminal, websocket))
                await self._show(terminal, websocket, after)
                listening.cancel()
        except* (Disconnected, OSError):
            pass  # the client has gone: the terminal stays

    async def _admit(self, call: Call) -> tuple[Terminal, str]:
        """Return the terminal, and the key that lets in: empty where none is needed."""
        machine_id, terminal_id = call.path["machine_id"], call.path["terminal_id"]
        token = call.query.get("token")
        made = await self._tokens.valid(PURPOSE, terminal_id, token) if token else None
        if made is not None:
            return await self._find(call), made.key_id
        if not any(name in call.headers for name in (b"authorization", b"x-api-key")):
            if self._by_id:
                return await self._find(call), ""
            if token:
                raise Unauthenticated(
                    "the token is none of ours, too old, or of a key that was revoked: get the terminal for a new stream_url"
                )
        caller = await self._admission.admit(call.scope, call.headers)
        return await self._terminals.get(caller, machine_id, terminal_id), caller.key_id

    async def _find(self, call: Call) -> Terminal:
        """Return the terminal to somebody who need not say who he is."""
        terminal = await self._terminals.find(call.path["machine_id"], call.path["terminal_id"])
        await self._admission.enter(call.scope, terminal.execution.organization_id)
        return terminal

    async def _listen(self, terminal: Terminal, websocket: WebSocket) -> None:
        while True:
            said = await websocket.receive()
            try:
                await self._take(terminal, said)
            except DormiceError as error:
                await _tell(websocket, error.code or "INVALID_MESSAGE", error.message)
            except (msgspec.DecodeError, Base64Error, ValueError) as error:
                await _tell(websocket, "INVALID_MESSAGE", str(error)[:200])

    async def _take(self, terminal: Terminal, said: str | bytes) -> None:
        if isinstance(said, bytes):
            await self._terminals.type(terminal, said)
            return
        message = _message.decode(said)
        if message.type == "input":
            await self._terminals.type(terminal, b64decode(message.data, validate=True))
            return
        width, height = message.width or message.cols, message.height or message.rows
        if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
            raise ValueError(f"width and height must be from 1 to {LARGEST_SIDE}")
        await self._terminals.resize(terminal, width, height)

    async def _show(self, terminal: Terminal, websocket: WebSocket, after: int | None) -> None:
        try:
            async for offset, piece in self._terminals.follow(terminal, after=after):
                if piece:
                    output = _Output(data=b64encode(piece).decode(), offset=offset)
                    await websocket.send(msgspec.json.encode(output).decode())
            if self._terminals.closing:
                await websocket.close(_GOING_AWAY, "the server stops: come again")
            else:
                await websocket.send(_CLOSED)
                await websocket.close(_DONE)
        except DormiceError as error:
            await _tell(websocket, error.code or "INVALID_STATE", error.message)
            await websocket.close(_FAILED)


def _check_ready(terminal: Terminal) -> None:
    if terminal.status is TerminalStatus.READY:
        return
    waking = terminal.status is TerminalStatus.WAKE_IN_PROGRESS
    raise Conflict(
        "terminal not ready for streaming",
        retryable=waking,
        retry_after_ms=_RETRY_MS if waking else None,
        details={"current_status": terminal.status.value, "expected_status": TerminalStatus.READY.value},
    )


async def _tell(websocket: WebSocket, code: str, message: str) -> None:
    await websocket.send(msgspec.json.encode(_Error(code, message)).decode())
