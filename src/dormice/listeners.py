"""The sockets on which the server waits: made by root, before it gives that up."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from dormice.config import SettingsError

BACKLOG = 1024


def tcp(listen: str, address: tuple[str, int]) -> socket.socket:
    """Listen for HTTP or SSH. Raises SettingsError, which says where it was to listen."""
    host, port = address
    try:
        family, kind, _, _, resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(resolved)
    except OSError as error:
        raise SettingsError(f"cannot listen on {listen}: {error}") from None
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def unix(path: Path) -> socket.socket:
    """Listen for the node, where only the owner may connect. Raises SettingsError."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise SettingsError(f"cannot listen on {path}: {error}") from None
    finally:
        os.umask(before)
    listener.listen(1)
    listener.setblocking(False)
    return listener
