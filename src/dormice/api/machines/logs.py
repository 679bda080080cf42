"""Routes of an execution's log as a stream of its own, which a short-lived token reads that is good for nothing else.

This server publishes its logs itself: the stream is the execution, and nothing is ever queued or has to be authorized again.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from dormice.api.http.admission import Admission
from dormice.api.http.asgi import ASGIApp
from dormice.api.http.auth import bearer
from dormice.api.http.call import Call
from dormice.api.http.operation import Answer, Operation
from dormice.api.http.replies import json_reply
from dormice.api.machines import wire
from dormice.api.machines.events import events
from dormice.api.machines.parameters import event_parameters
from dormice.api.services import Services
from dormice.domain.execution import Execution

_PATH = "/v1/machines/{machine_id}/executions/{execution_id}/logs"
_STREAMS = "/v1/logs"


class LogPublication(Struct, kw_only=True):
    """How far the publication of a log is."""

    state: Literal["active", "closed"]
    complete: Annotated[bool, Meta(description="Nothing more will come.")]
    queued_messages: int


class LogStatusRecord(Struct, kw_only=True):
    """Where an execution's log can be read, and whether it is complete."""

    execution_id: str
    capture: wire.LogCapture
    stream_id: str
    publication: LogPublication


class LogTokenRecord(Struct, kw_only=True):
    """What reads one execution's log: `GET {base_url}/{stream_id}` with `Authorization: {token_type} {access_token}`."""

    access_token: Annotated[str, Meta(description="A secret.")]
    token_type: str
    base_url: str
    stream_id: str
    execution_id: str
    expires_at: wire.Time


class LogRoutes:
    """Handlers over the executions service."""

    def __init__(self, services: Services, admission: Admission) -> None:
        self._services = services
        self._admission = admission

    async def status(self, call: Call) -> ASGIApp:
        """GET …/logs and POST …/logs/reauthorize."""
        return json_reply(_status(await self._execution(call)))

    async def token(self, call: Call) -> ASGIApp:
        """POST …/logs/token."""
        execution = await self._execution(call)
        token, expires_at = self._services.log_tokens.mint(call.caller, execution)
        record = LogTokenRecord(
            access_token=token,
            token_type="Bearer",  # noqa: S106 - the word for how it is sent
            base_url=f"{call.origin()}{_STREAMS}",
            stream_id=execution.id,
            execution_id=execution.id,
            expires_at=wire.time(expires_at),
        )
        return json_reply(record, headers={"cache-control": "no-store"})

    async def read(self, call: Call) -> ASGIApp:
        """GET /v1/logs/{stream_id}."""
        grant = await self._services.log_tokens.grant(bearer(call.headers), call.path["stream_id"])
        await self._admission.let_in(call.scope, grant.caller)
        call.caller = grant.caller
        call.path = {"machine_id": grant.machine_id, "execution_id": grant.execution_id}
        return await events(call, self._services)

    async def _execution(self, call: Call) -> Execution:
        return await self._services.executions.get(call.caller, call.path["machine_id"], call.path["execution_id"])

    def operations(self) -> list[Operation]:
        """Return the routes."""
        status = {200: Answer("The log's state.", LogStatusRecord)}
        return [
            Operation(
                id="getMachineExecutionLogs",
                method="GET",
                path=_PATH,
                tag="executions",
                summary="Whether an execution's log is complete, and its stream",
                handle=self.status,
                answers=status,
            ),
            Operation(
                id="reauthorizeMachineExecutionLogs",
                method="POST",
                path=f"{_PATH}/reauthorize",
                tag="executions",
                summary="Renew the permission to publish an execution's log",
                description="This server needs none: the answer is that of `GET`.",
                handle=self.status,
                answers=status,
            ),
            Operation(
                id="createMachineExecutionLogToken",
                method="POST",
                path=f"{_PATH}/token",
                tag="executions",
                summary="Make a token that reads an execution's log for a short time",
                description=(
                    "For a browser, or somebody else: it reads this one log for `log_token_seconds` and does nothing else. "
                    "It ends earlier if the key that made it is revoked."
                ),
                handle=self.token,
                answers={200: Answer("The token, and where to read.", LogTokenRecord)},
            ),
            Operation(
                id="readLogStream",
                method="GET",
                path=f"{_STREAMS}/{{stream_id}}",
                tag="executions",
                summary="Read an execution's log with its token",
                description=(
                    "`Authorization: Bearer TOKEN`; API keys are not taken here. Otherwise as the execution's events: pages, "
                    "long polls, and server-sent events for `Accept: text/event-stream`."
                ),
                handle=self.read,
                parameters=event_parameters(self._services.limits),
                answers={200: Answer("A part of the log.", wire.EventPage, ("text/event-stream",))},
                public=True,
                guarded=True,
            ),
        ]


def _status(execution: Execution) -> LogStatusRecord:
    ended = execution.terminal
    return LogStatusRecord(
        execution_id=execution.id,
        capture=wire.LogCapture(),
        stream_id=execution.id,
        publication=LogPublication(state="closed" if ended else "active", complete=ended, queued_messages=0),
    )
