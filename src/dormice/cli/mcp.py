"""`dormice mcp`: machines as tools of the Model Context Protocol."""

from __future__ import annotations

import argparse
import sys

from dormice.cli.commands import Parser
from dormice.cli.connect import server_options

WRONG = 2
DEFAULT_LISTEN = "127.0.0.1:7434"


def declare(parser: Parser) -> None:
    server_options(parser)
    parser.add_argument("--http", action="store_true", help="serve over HTTP, at /mcp, instead of stdin and stdout")
    parser.add_argument(
        "--listen", metavar="HOST:PORT", default=DEFAULT_LISTEN, help=f"where, with --http ({DEFAULT_LISTEN})"
    )
    parser.epilog = (
        "Needs `pip install dormice[mcp]`. Over HTTP, clients send `Authorization: Bearer KEY` with the same API key that this command "
        "uses (DORMICE_API_KEY). For example: `dormice mcp --http --listen 127.0.0.1:7434`."
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until the client or a signal ends it."""
    host, separator, port = arguments.listen.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65_535:
        print(
            f"dormice: --listen must be HOST:PORT such as {DEFAULT_LISTEN}, not {arguments.listen!r}", file=sys.stderr
        )
        return WRONG
    try:
        from dormice.mcp import server  # noqa: PLC0415 - an extra, which takes a second to load
    except ImportError as missing:
        if missing.name is None or missing.name.startswith("dormice"):
            raise
        print(f"dormice: {missing.name} is not installed: pip install dormice[mcp] has it", file=sys.stderr)
        return WRONG
    import asyncio  # noqa: PLC0415 - loaded when needed

    from dormice.client import AsyncDormice, settings  # noqa: PLC0415 - loaded when needed

    found = settings.resolve(base_url=arguments.base_url)
    client = AsyncDormice(base_url=found.base_url, api_key=found.api_key)
    if arguments.http:
        asyncio.run(server.serve_http(client, found.api_key, host.strip("[]"), int(port)))
    else:
        asyncio.run(server.serve_stdio(client))
    return 0
