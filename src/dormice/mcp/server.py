"""The server: over standard input and output for one program, or over HTTP for those who have the key."""

from __future__ import annotations

import hmac
import json
import logging
import sys
from importlib.metadata import version
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import CallToolResult, InputRequiredResult
from pydantic import ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from dormice.client import AsyncDormice
from dormice.mcp.arguments import faults
from dormice.mcp.tools import Tools

INSTRUCTIONS = (
    "Isolated Linux machines that sleep when nobody needs them. Make one with create_machine, run commands on it, read and write its "
    "files, and delete it when it is not needed any more. Machines keep their disk while they sleep; commands wake them."
)
PATH = "/mcp"
MOST_SESSIONS = 1_000


async def serve_stdio(client: AsyncDormice) -> None:
    """Serve the program that has started this one, until its end of input."""
    _log_to_stderr()
    async with client:
        await _server(client).run_stdio_async()


async def serve_http(client: AsyncDormice, key: str, host: str, port: int) -> None:
    """Serve everybody who sends the key, until a signal."""
    _log_to_stderr()
    # Whoever calls needs the key, which no page of another origin has: names of hosts prove nothing beyond that.
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = _server(client).streamable_http_app(
        streamable_http_path=PATH, max_sessions=MOST_SESSIONS, transport_security=security, host=host
    )
    config = uvicorn.Config(
        Guarded(app, key), host=host, port=port, log_level="warning", access_log=False, server_header=False
    )
    server = uvicorn.Server(config)
    async with client:
        await server.serve()


def _server(client: AsyncDormice) -> MCPServer[None]:
    server = _Server("dormice", version=version("dormice"), instructions=INSTRUCTIONS, log_level="WARNING")
    Tools(client).add_to(server)
    return server


class _Server(MCPServer[None]):
    """Says in plain words which arguments are wrong."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[None, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool. Raises ToolError."""
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if not isinstance(wrong := error.__cause__, ValidationError):
                raise
            schema = next(tool.input_schema for tool in await self.list_tools() if tool.name == name)
            raise ToolError(faults(wrong, schema)) from wrong


class Guarded:
    """Lets nobody in without the bearer key."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what carries the key."""
        if scope["type"] == "http" and not self._knows(scope):
            body = json.dumps({"error": "send Authorization: Bearer KEY, with the API key of Dormice"}).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (b"www-authenticate", b'Bearer realm="dormice"'),
            ]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(shown) == 1 and hmac.compare_digest(shown[0], self._expected)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
