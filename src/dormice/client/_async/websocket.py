"""WebSockets by the library websockets, which is loaded only by those who open one."""

from __future__ import annotations

from collections.abc import Mapping

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from dormice.client.errors import APIConnectionError, status_error
from dormice.client.settings import is_loopback

CLOSE_SECONDS = 1.0


class AsyncWebSocket:
    """One connection, of text messages."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, message: str) -> None:
        """Raises APIConnectionError when the connection is lost."""
        try:
            await self._connection.send(message)
        except (ConnectionClosed, OSError) as error:
            raise APIConnectionError(f"the connection was lost: {error}") from None

    async def receive(self) -> str:
        """Return the next message. Raises APIConnectionError when the connection is lost, or was closed."""
        try:
            return str(await self._connection.recv(decode=True))
        except (ConnectionClosed, OSError) as error:
            raise APIConnectionError(f"the connection was lost: {error}") from None

    async def aclose(self) -> None:
        """End the connection."""
        await self._connection.close()


async def open_websocket(url: str, headers: Mapping[str, str], *, seconds: float) -> AsyncWebSocket:
    """Connect within so many seconds. Raises APIStatusError when that is refused, else APIConnectionError."""
    agent = headers.get("user-agent")
    others = {name: value for name, value in headers.items() if name != "user-agent"}
    try:
        connection = await connect(
            url,
            additional_headers=others,
            user_agent_header=agent,
            open_timeout=seconds,
            close_timeout=CLOSE_SECONDS,
            proxy=None if is_loopback(url) else True,
        )
    except InvalidStatus as error:
        answer = error.response
        fields = {name.lower(): value for name, value in answer.headers.raw_items()}
        raise status_error(answer.status_code, fields, bytes(answer.body)) from None
    except (InvalidHandshake, ConnectionClosed, OSError, TimeoutError, EOFError) as error:
        raise APIConnectionError(f"no WebSocket: {error}") from None
    return AsyncWebSocket(connection)
