# Generated from _async/previews.py by scripts/generate_sync_client.py; change that and run it again.
"""`client.machines.previews`: ports of machines, served under an address."""

from __future__ import annotations

from typing import Literal

from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client._sync.pagination import Page, paginate
from dormice.client.records import Preview, PreviewLink, decode
from dormice.client.transport import Timeout


class Previews:
    """Previews of machines."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self,
        machine_id: str,
        *,
        port: int,
        protocol: Literal["http", "https"] | None = None,
        visibility: Literal["private", "org", "public"] | None = None,
        expires_in_seconds: int | None = None,
        wait_ms: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Preview:
        """Serve a port of a machine. A sleeping machine is woken, now and whenever somebody opens `url`.

        Args:
            machine_id: The machine.
            port: Where something listens, or will, on the machine's loopback.
            protocol: What it speaks, `http` by default; of `https` the certificate is not checked.
            visibility: `private` (the default: this key, and links made with it), `org` or `public`.
            expires_in_seconds: How long it is open.
            wait_ms: Answer once the machine is awake, or could not be woken, or after so long.
            idempotency_key: The same key with the same arguments gives the same preview. Made up if left out.
            timeout: Seconds to wait for the server.

        """
        body = {
            "port": port,
            "protocol": protocol,
            "visibility": visibility,
            "expires_in_seconds": expires_in_seconds,
        }
        reply = self._connection.call(
            "POST",
            routes.previews(machine_id),
            query={"wait_ms": wait_ms},
            body=body,
            idempotency_key=idempotency_key,
            timeout=timeout,
        )
        return decode(reply.content, Preview)

    def retrieve(
        self, machine_id: str, preview_id: str, *, wait_ms: int | None = None, timeout: float | Timeout | None = None
    ) -> Preview:
        """The preview as it is now; `wait_ms` as in `create`."""
        path = routes.preview(machine_id, preview_id)
        reply = self._connection.call("GET", path, query={"wait_ms": wait_ms}, timeout=timeout)
        return decode(reply.content, Preview)

    def list(self, machine_id: str, *, limit: int | None = None, cursor: str | None = None) -> Page[Preview]:
        """A machine's previews, newest first, `limit` to a page; also those that have ended."""
        return paginate(self._connection, Preview, routes.previews(machine_id), limit=limit, cursor=cursor)

    def delete(
        self,
        machine_id: str,
        preview_id: str,
        *,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Preview:
        """Serve it no longer, and cut what is open through it."""
        path = routes.preview(machine_id, preview_id)
        reply = self._connection.call("DELETE", path, idempotency_key=idempotency_key, timeout=timeout)
        return decode(reply.content, Preview)

    def link(
        self,
        machine_id: str,
        preview_id: str,
        *,
        expires_in_seconds: int | None = None,
        timeout: float | Timeout | None = None,
    ) -> PreviewLink:
        """Make a signed link: whoever opens it is let in without a key, until it expires (after one hour by default)."""
        path = f"{routes.preview(machine_id, preview_id)}/links"
        body = {"expires_in_seconds": expires_in_seconds}
        return decode((self._connection.call("POST", path, body=body, timeout=timeout)).content, PreviewLink)
