"""The SSH server itself: logs in by certificate, and by nothing else."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from contextlib import ExitStack

import asyncssh

from dormice.domain.errors import Forbidden, RateLimited, Unauthenticated, Unavailable
from dormice.domain.limits import Limits
from dormice.engine.channel import Channel, ChannelOrder
from dormice.engine.channels import Channels
from dormice.engine.orders import Caller
from dormice.engine.ssh_sessions import SshSessions
from dormice.engine.ssh_traffic import SshTraffic
from dormice.ssh.authority import Authority
from dormice.ssh.connection import Connection
from dormice.ssh.doorkeeper import Doorkeeper
from dormice.ssh.forwarding import ForwardedSession, forwarded, is_here
from dormice.ssh.relay import WINDOW_BYTES
from dormice.ssh.shell import ShellSession

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 30
KEEP_ALIVES = 3
"""So many unanswered ones, and the client is taken for dead."""
MOST_TRIES = 20
"""Keys that one connection may show."""
CLOSE_SECONDS = 3.0


class SshServer:
    """Listens for SSH clients."""

    def __init__(self, *, authority: Authority, sessions: SshSessions, channels: Channels, limits: Limits) -> None:
        self.authority = authority
        self.sessions = sessions
        self.channels = channels
        self.limits = limits
        self.doorkeeper = Doorkeeper(limits, asyncio.get_running_loop().time, sessions.traffic)
        self._logins: set[_Login] = set()
        self._listening: asyncio.Server | None = None

    async def listen(self, listener: socket.socket) -> None:
        """Begin to take connections."""
        asyncssh.set_log_level(logging.WARNING)  # below it writes every command down
        options = asyncssh.SSHServerConnectionOptions(
            server_factory=lambda: _Login(self),
            server_host_keys=[self.authority.host_keys],
            server_version="Dormice",
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_host=None,
            agent_forwarding=False,
            x11_forwarding=False,
            line_editor=False,
            encoding=None,
            window=WINDOW_BYTES,
            login_timeout=self.limits.ssh_login_ms / 1000,
            keepalive_interval=KEEP_ALIVE_SECONDS,
            keepalive_count_max=KEEP_ALIVES,
        )
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(lambda: Connection(loop, options), sock=listener)

    async def close(self) -> None:
        """Take no more, and hang up on everybody: their processes end with them."""
        if self._listening is None:
            return
        self._listening.close()
        logins = list(self._logins)
        for login in logins:
            login.hang_up("the server stops")
        if logins:
            await asyncio.wait([login.gone for login in logins], timeout=CLOSE_SECONDS)

    def enter(self, login: _Login) -> None:
        """Know a connection."""
        self._logins.add(login)

    def leave(self, login: _Login) -> None:
        """Forget it."""
        self._logins.discard(login)


class _Login(asyncssh.SSHServer):
    """One connection: first a stranger, then the holder of a session."""

    def __init__(self, server: SshServer) -> None:
        self._server = server
        self._connection: asyncssh.SSHServerConnection | None = None
        self._address = ""
        self._admitted = self._inside = False
        self._tries = 0
        self._caller: Caller | None = None
        self._session_id = self._machine_id = self._peer = ""
        self._held = ExitStack()
        self._open: set[Channel] = set()
        self._asked = 0
        """How much the client has open, or wants to open."""
        self._shells: set[ShellSession] = set()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # The way in

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        peer, here = conn.get_extra_info("peername"), conn.get_extra_info("sockname")
        self._address = str(peer[0])
        self._peer = f"{peer[0]} {peer[1]} {here[0]} {here[1]}"
        refusal = self._server.doorkeeper.admit(self._address)
        if refusal is not None:
            log.info("an SSH connection from %s is refused: %s", self._address, refusal)
            conn.abort()
            return
        self._admitted = True
        self._server.enter(self)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        self._try()
        return False

    async def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        # That the certificate is this user's, and not over, is looked at next by asyncssh.
        self._try()
        return self._server.authority.has_signed(key) and await self._server.sessions.admit(username) is not None

    def _try(self) -> None:
        self._tries += 1
        if self._tries > MOST_TRIES:
            raise asyncssh.DisconnectError(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "too many keys")

    async def auth_completed(self) -> None:
        connection, sessions = self._connection, self._server.sessions
        if connection is None:
            return
        self._server.doorkeeper.logged_in()
        self._inside = True
        session_id = str(connection.get_extra_info("username"))
        caller = await sessions.admit(session_id)
        if caller is None or self.gone.done():
            self.hang_up("this SSH session was closed")
            return
        try:
            machine_id = await sessions.machine_of(session_id)
            self._held.enter_context(sessions.logged_in(caller, session_id, machine_id, self.hang_up))
        except (Forbidden, RateLimited, Unauthenticated) as error:
            self.hang_up(error.message)
            return
        self._caller, self._session_id, self._machine_id = caller, session_id, machine_id
        words = {"machine_id": machine_id, "ssh_session_id": session_id}
        log.info("%s has logged in to %s by SSH", self._address, machine_id, extra=words)

    # The way out

    def hang_up(self, why: str) -> None:
        """End the connection, and tell the client why."""
        if self._connection is not None:
            for shell in self._shells:
                shell.tell(why)
            self._connection.disconnect(asyncssh.DISC_BY_APPLICATION, why)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._admitted:
            self._server.doorkeeper.left(self._address, logged_in=self._inside)
            self._server.leave(self)
        if not self.gone.done():
            self.gone.set_result(None)
        for channel in self._open:
            channel.close()
        self._open.clear()
        self._held.close()

    # What is opened

    def session_requested(self) -> ShellSession:
        self._enter()
        shell = ShellSession(self, self._peer)
        self._shells.add(shell)
        return shell

    def connection_requested(
        self,
        dest_host: str,
        dest_port: int,
        orig_host: str,  # noqa: ARG002
        orig_port: int,  # noqa: ARG002
    ) -> tuple[asyncssh.SSHTCPChannel[bytes], Awaitable[ForwardedSession]]:
        if self._connection is None or not is_here(dest_host, self._machine_id):
            text = "only ports of the machine itself: localhost"
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, text)
        self._enter()
        return self._connection.create_tcp_channel(window=WINDOW_BYTES), forwarded(dest_port, self)

    def _enter(self) -> None:
        if self._caller is None or self._asked >= self._server.limits.channels_per_machine:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too much is open")
        self._asked += 1

    def left(self, session: ShellSession | None = None) -> None:
        self._asked -= 1
        if session is not None:
            self._shells.discard(session)

    @property
    def traffic(self) -> SshTraffic:
        return self._server.sessions.traffic

    async def open(self, order: ChannelOrder) -> Channel:
        if self._caller is None:
            raise Forbidden("nobody is logged in")
        machine_id = await self._server.sessions.machine_of(self._session_id)
        channel = await self._server.channels.open(self._caller, machine_id, order)
        if self.gone.done():
            channel.close()
            raise Unavailable("the connection is gone")
        self._open.add(channel)
        return channel

    def close(self, channel: Channel) -> None:
        channel.close()
        self._open.discard(channel)
