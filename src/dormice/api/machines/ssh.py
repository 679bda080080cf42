"""Routes of SSH sessions."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Answer, Operation
from dormice.api.http.pagination import list_page
from dormice.api.http.replies import json_reply
from dormice.api.machines.parameters import idempotency_key, paging, wait_ms
from dormice.api.machines.wire import Time, time
from dormice.api.services import Services
from dormice.domain.execution import ErrorCode
from dormice.domain.ssh import SshSession, SshState
from dormice.engine.ssh_sessions import SshDoor

_PATH = "/v1/machines/{machine_id}/ssh"
_ONE = f"{_PATH}/{{session_id}}"


class CreateSshSessionRequest(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Who may log in."""

    public_key: Annotated[
        str,
        Meta(description="The public key as OpenSSH writes it, on one line: ed25519, ecdsa, or rsa of 2,048 bits on."),
    ]


class SshHostTrust(Struct, kw_only=True):
    """How to know the server: the line `@cert-authority HOST_PATTERN PUBLIC_KEY` of a known_hosts file."""

    kind: Literal["cert_authority"]
    host_pattern: str
    public_key: str


class SshConnection(Struct, kw_only=True):
    """How to log in."""

    endpoint: str
    port: int
    ssh_username: str
    user_certificate: str
    host_trust: SshHostTrust


class SshSessionRecord(Struct, omit_defaults=True, kw_only=True):
    """The right to log in to a machine by SSH, with one key and for a time."""

    session_id: str
    machine_id: str
    status: SshState
    created_at: Time
    expires_at: Time
    connection: SshConnection | None = None
    ready_at: Time | None = None
    retry_after_ms: int | None = None
    error_code: ErrorCode | None = None
    error_message: str | None = None


class SshSessionPage(Struct, omit_defaults=True, kw_only=True):
    """SSH sessions of a machine, newest first."""

    items: list[SshSessionRecord]
    next_cursor: str | None = None


_CREATE = BodyDecoder(CreateSshSessionRequest)
_RECORD = {200: Answer("The session.", SshSessionRecord)}


class SshRoutes:
    """Handlers over the SSH sessions."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sessions = services.ssh_sessions

    async def create(self, call: Call) -> ASGIApp:
        """POST …/ssh."""
        wait = call.wait_ms()
        call.idempotency(None, required=True)
        body = _CREATE.decode(call.header("Content-Type"), await call.body())
        idempotency = call.idempotency(body, required=True)
        made = await self._sessions.create(
            call.caller, call.path["machine_id"], body.public_key, idempotency, wait_ms=wait
        )
        return json_reply(self._record(made))

    async def page(self, call: Call) -> ASGIApp:
        """GET …/ssh."""
        machine_id = call.path["machine_id"]

        async def read(before: int | None, limit: int) -> list[SshSession]:
            return await self._sessions.page(call.caller, machine_id, before=before, limit=limit)

        records, cursor = await list_page(call, self._services.limits.page_default, read, self._record)
        return json_reply(SshSessionPage(items=records, next_cursor=cursor))

    async def get(self, call: Call) -> ASGIApp:
        """GET …/ssh/{session_id}."""
        path = call.path
        found = await self._sessions.get(call.caller, path["machine_id"], path["session_id"], wait_ms=call.wait_ms())
        return json_reply(self._record(found))

    async def delete(self, call: Call) -> ASGIApp:
        """DELETE …/ssh/{session_id}. Idempotent by itself: its key is only looked at."""
        call.idempotency(None)
        closed = await self._sessions.delete(call.caller, call.path["machine_id"], call.path["session_id"])
        return json_reply(self._record(closed))

    def _record(self, session: SshSession) -> SshSessionRecord:
        waits = session.state is SshState.WAKE_IN_PROGRESS
        door = self._sessions.door
        return SshSessionRecord(
            session_id=session.id,
            machine_id=session.machine_id,
            status=session.state,
            created_at=time(session.created_at),
            expires_at=time(session.expires_at),
            connection=_connection(session, door) if door is not None and session.state is SshState.READY else None,
            ready_at=None if session.ready_at is None else time(session.ready_at),
            retry_after_ms=self._services.limits.retry_after_ms if waits else None,
            error_code=ErrorCode.WAKE_FAILED if session.state is SshState.FAILED else None,
            error_message=session.error_message,
        )

    def operations(self) -> list[Operation]:
        """Return the routes."""
        limits = self._services.limits
        wait = wait_ms(limits, "its machine is up")
        return [
            Operation(
                id="listMachineSSHSessions",
                method="GET",
                path=_PATH,
                tag="ssh",
                summary="List the SSH sessions of a machine, newest first",
                handle=self.page,
                parameters=paging(limits.page_default, limits),
                answers={200: Answer("A page of sessions.", SshSessionPage)},
            ),
            Operation(
                id="createMachineSSHSession",
                method="POST",
                path=_PATH,
                tag="ssh",
                summary="Let the holder of a key log in to a machine",
                description=(
                    "A sleeping machine is woken. `ready` comes with a certificate for the key, which is accepted until "
                    "`expires_at`, or until the session is deleted; who is logged in then may stay."
                ),
                handle=self.create,
                parameters=(idempotency_key(limits, required=True), wait),
                body=CreateSshSessionRequest,
                answers=_RECORD,
                errors=frozenset({409}),
            ),
            Operation(
                id="getMachineSSHSession",
                method="GET",
                path=_ONE,
                tag="ssh",
                summary="Get an SSH session",
                handle=self.get,
                parameters=(wait,),
                answers=_RECORD,
            ),
            Operation(
                id="deleteMachineSSHSession",
                method="DELETE",
                path=_ONE,
                tag="ssh",
                summary="End an SSH session and its connections",
                handle=self.delete,
                parameters=(idempotency_key(limits, required=False),),
                answers=_RECORD,
            ),
        ]


def _connection(session: SshSession, door: SshDoor) -> SshConnection:
    return SshConnection(
        endpoint=door.endpoint,
        port=door.port,
        ssh_username=session.id,
        user_certificate=session.certificate,
        host_trust=SshHostTrust(kind="cert_authority", host_pattern=door.host_pattern, public_key=door.host_authority),
    )
