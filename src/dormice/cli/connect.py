"""The server that a command talks to."""

from __future__ import annotations

import argparse

from dormice.client import settings
from dormice.client._sync.connection import Connection
from dormice.client.socket_transport import SocketTransport
from dormice.client.transport import Timeout, Transport

RETRIES = 2


def server_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that talks to a server."""
    parser.add_argument("--base-url", metavar="URL", help="where the server is (DORMICE_BASE_URL)")


def connect(arguments: argparse.Namespace, *, retries: int = RETRIES) -> Connection:
    """Raises ConfigurationError if there is no key, or if the base URL is none."""
    return connection(settings.resolve(base_url=arguments.base_url), retries=retries)


def connection(found: settings.ClientSettings, *, retries: int = RETRIES) -> Connection:
    """Return a connection to the server of these settings."""
    return Connection(found, _transport(found.base_url), timeout=Timeout(), max_retries=retries)


def _transport(base_url: str) -> Transport:
    """The one on httpx where a proxy may be needed, else what loads faster."""
    if not settings.is_loopback(base_url):
        from urllib.request import getproxies  # noqa: PLC0415 - loaded when needed

        if getproxies():
            from dormice.client.httpx_transport import HttpxTransport  # noqa: PLC0415 - loaded when needed

            return HttpxTransport(base_url)
    return SocketTransport()
