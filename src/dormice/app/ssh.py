"""The SSH server's place in the server process. What it rests on is loaded only where SSH is not turned off."""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dormice import listeners
from dormice.config import Settings, SettingsError
from dormice.domain.limits import Limits
from dormice.engine.engine import Engine

if TYPE_CHECKING:
    from dormice.ssh.authority import Authority
    from dormice.ssh.server import SshServer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SshDoorway:
    """Where SSH clients are waited for, and by which name they come."""

    listener: socket.socket
    endpoint: str
    port: int


def doorway(settings: Settings) -> SshDoorway | None:
    """Listen for SSH, as root still; None: it is turned off. Raises SettingsError."""
    address = settings.ssh_address()
    if address is None:
        return None
    try:
        listener = listeners.tcp(settings.ssh_listen, address)
    except SettingsError as error:
        raise SettingsError(f"{error} (ssh_listen: another address, or off)") from None
    endpoint, port = settings.ssh_name()
    return SshDoorway(listener, endpoint, port or listener.getsockname()[1])


class Ssh:
    """The SSH server, whose keys are there before the engine is, and which listens after it."""

    def __init__(self, doorway: SshDoorway, authority: Authority, limits: Limits) -> None:
        self.authority = authority
        self._doorway = doorway
        self._limits = limits
        self._server: SshServer | None = None

    async def listen(self, engine: Engine) -> None:
        """Begin to take connections."""
        from dormice.ssh.server import SshServer  # noqa: PLC0415 - see the module

        self._server = SshServer(
            authority=self.authority, sessions=engine.ssh_sessions, channels=engine.channels, limits=self._limits
        )
        await self._server.listen(self._doorway.listener)
        log.info("SSH clients are waited for at %s port %d", *self._doorway.listener.getsockname()[:2])

    async def close(self) -> None:
        """Hang up on everybody."""
        if self._server is not None:
            await self._server.close()


def open_ssh(doorway: SshDoorway | None, directory: Path, limits: Limits) -> Ssh | None:
    """Return the SSH server with its keys in `directory`; None: it is turned off. Raises SettingsError."""
    if doorway is None:
        return None
    from dormice.ssh.authority import Authority, BrokenAuthority  # noqa: PLC0415 - see the module

    try:
        authority = Authority(directory, limits, endpoint=doorway.endpoint, port=doorway.port)
    except (BrokenAuthority, OSError) as error:
        raise SettingsError(f"the keys of the SSH server cannot be used: {error}") from error
    return Ssh(doorway, authority, limits)
