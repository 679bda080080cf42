# Generated from _async/terminal_connection.py by scripts/generate_sync_client.py; change that and run it again.
"""A connection to a terminal: what is typed goes in, what it shows comes out."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from types import TracebackType
from typing import Any, Self

from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client._sync.websocket import WebSocket, open_websocket
from dormice.client.errors import APIResponseError, TerminalError

PIECE_BYTES = 65_536


class TerminalConnection:
    """Iterate over it for the bytes that the terminal shows, until it has ended.

    Iterating and `send` raise APIConnectionError when the connection is lost: the terminal goes on, and a new connection with `after`
    goes on where this one ended.
    """

    def __init__(self, websocket: WebSocket, after: int) -> None:
        self._websocket = websocket
        self._closed = False
        self.after = after
        """The offset behind what has come: counted from the first byte that the terminal has ever shown."""

    def send(self, data: bytes) -> None:
        """Type these bytes. Returning says that they were sent, not that the shell has read them."""
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            self._say({"type": "input", "data": b64encode(piece).decode()})

    def resize(self, width: int, height: int) -> None:
        """Give the terminal another size: columns and rows, 1 to 65535 each."""
        self._say({"type": "resize", "width": width, "height": height})

    def _say(self, message: dict[str, Any]) -> None:
        self._websocket.send(json.dumps(message))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        """Raises TerminalError when the server has not taken what was sent; iterating may go on."""
        while not self._closed:
            message = _decoded(self._websocket.receive())
            match message["type"]:
                case "output":
                    data = b64decode(message["data"])
                    self.after = int(message.get("offset", self.after)) + len(data)
                    return data
                case "error":
                    raise TerminalError(message.get("error_message") or "", code=message.get("error_code"))
                case "closed":
                    self._closed = True
        raise StopIteration

    def close(self) -> None:
        """End the connection, not the terminal."""
        self._websocket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _decoded(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except ValueError:
        message = None
    if not isinstance(message, dict) or "type" not in message:
        raise APIResponseError("the server's message is not one of a terminal: is the base URL right?")
    return message


def open_terminal(
    connection: Connection, machine_id: str, terminal_id: str, *, after: int | None
) -> TerminalConnection:
    """Connect with the key of `connection`. Raises APIStatusError or APIConnectionError."""
    path = routes.with_query(f"{routes.terminal(machine_id, terminal_id)}/stream", {"after": after})
    url = "ws" + connection.settings.base_url.removeprefix("http") + path
    headers = {"user-agent": "dormice-python", **connection.settings.headers()}
    websocket = open_websocket(url, headers, seconds=connection.timeout.connect)
    return TerminalConnection(websocket, after or 0)
