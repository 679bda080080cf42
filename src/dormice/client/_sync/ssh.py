# Generated from _async/ssh.py by scripts/generate_sync_client.py; change that and run it again.
"""`client.machines.ssh`: who may log in to a machine by SSH."""

from __future__ import annotations

from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client._sync.pagination import Page, paginate
from dormice.client.records import SSHSession, decode
from dormice.client.transport import Timeout


class SSH:
    """SSH sessions. `connection` of one that is `ready` says where to log in, and with which certificate."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self,
        machine_id: str,
        *,
        public_key: str,
        wait_ms: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> SSHSession:
        """Let the holder of a key log in to the machine.

        Args:
            machine_id: The machine. A sleeping one is woken.
            public_key: The line of a file ending in `.pub`: ed25519, ecdsa or rsa.
            wait_ms: Milliseconds (0 to 55,000) to wait for the machine to be up.
            idempotency_key: The same key with the same arguments gives the same session. Made up if left out.
            timeout: Seconds to wait for the server.

        """
        reply = self._connection.call(
            "POST",
            routes.ssh_sessions(machine_id),
            query={"wait_ms": wait_ms},
            body={"public_key": public_key},
            idempotency_key=idempotency_key,
            timeout=timeout,
        )
        return decode(reply.content, SSHSession)

    def retrieve(
        self,
        session_id: str,
        *,
        machine_id: str,
        wait_ms: int | None = None,
        timeout: float | Timeout | None = None,
    ) -> SSHSession:
        """The session as it is now, or as it is when the machine is up within `wait_ms` (0 to 55,000)."""
        path = routes.ssh_session(machine_id, session_id)
        reply = self._connection.call("GET", path, query={"wait_ms": wait_ms}, timeout=timeout)
        return decode(reply.content, SSHSession)

    def list(self, machine_id: str, *, limit: int | None = None, cursor: str | None = None) -> Page[SSHSession]:
        """The machine's sessions, newest first, `limit` to a page."""
        path = routes.ssh_sessions(machine_id)
        return paginate(self._connection, SSHSession, path, limit=limit, cursor=cursor)

    def delete(
        self,
        session_id: str,
        *,
        machine_id: str,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> SSHSession:
        """Let nobody log in with it any more, and end the connections of those who have."""
        path = routes.ssh_session(machine_id, session_id)
        reply = self._connection.call("DELETE", path, idempotency_key=idempotency_key, timeout=timeout)
        return decode(reply.content, SSHSession)
