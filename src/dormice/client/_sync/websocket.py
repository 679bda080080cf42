"""WebSockets by the library websockets, which is loaded only by those who open one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from dormice.client.errors import APIConnectionError, status_error
from dormice.client.settings import is_loopback

CLOSE_SECONDS = 1.0


class WebSocket:
    """One connection, of text messages."""

    def __init__(self, connection: ClientConnection, held: ExitStack) -> None:
        self._connection = connection
        self._held = held

    def send(self, message: str) -> None:
        """Raises APIConnectionError when the connection is lost."""
        try:
            self._connection.send(message)
        except (ConnectionClosed, OSError) as error:
            raise APIConnectionError(f"the connection was lost: {error}") from None

    def receive(self) -> str:
        """Return the next message. Raises APIConnectionError when the connection is lost, or was closed."""
        try:
            return str(self._connection.recv(decode=True))
        except (ConnectionClosed, OSError) as error:
            raise APIConnectionError(f"the connection was lost: {error}") from None

    def close(self) -> None:
        """End the connection."""
        self._held.close()


def open_websocket(url: str, headers: Mapping[str, str], *, seconds: float) -> WebSocket:
    """Connect within so many seconds. Raises APIStatusError when that is refused, else APIConnectionError."""
    agent = headers.get("user-agent")
    others = {name: value for name, value in headers.items() if name != "user-agent"}
    held = ExitStack()  # the library takes its connections as context managers only
    try:
        opening = connect(
            url,
            additional_headers=others,
            user_agent_header=agent,
            open_timeout=seconds,
            close_timeout=CLOSE_SECONDS,
            proxy=None if is_loopback(url) else True,
        )
        connection = held.enter_context(opening)
    except InvalidStatus as error:
        answer = error.response
        fields = {name.lower(): value for name, value in answer.headers.raw_items()}
        raise status_error(answer.status_code, fields, bytes(answer.body)) from None
    except (InvalidHandshake, ConnectionClosed, OSError, TimeoutError, EOFError) as error:
        raise APIConnectionError(f"no WebSocket: {error}") from None
    return WebSocket(connection, held)
