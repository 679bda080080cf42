"""Routes by which workers report of the runs that they have."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.bodies import Incomplete, TooLarge
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Operation
from dormice.api.http.replies import json_reply
from dormice.api.machines.orders import execution_order
from dormice.api.services import WorkflowServices
from dormice.api.workflows import wire
from dormice.api.workflows.door import Door, bad, empty
from dormice.domain import documents
from dormice.domain.errors import Invalid
from dormice.domain.limits import Limits
from dormice.domain.moments import micros
from dormice.domain.run import NULL, Step, WaitKind
from dormice.engine.orders import Caller
from dormice.engine.runs.checks import check_step_key, check_topic
from dormice.store.projects import Project
from dormice.store.workflows import Attempt, NewWait, RunResult

_COMPLETE = BodyDecoder(wire.CompleteRequest)
_FAIL = BodyDecoder(wire.FailRequest)
_STEP = BodyDecoder(wire.StepRequest)
_WAIT = BodyDecoder(wire.WaitRequest)
_COMMAND = BodyDecoder(wire.CommandRequest)
_SPAN = BodyDecoder(wire.SpanRequest)
_WORKER = BodyDecoder(wire.WorkerReference)
_ANYBODY = Attempt()
_KINDS = {kind.value: kind for kind in (WaitKind.TIME, WaitKind.EVENT, WaitKind.SUSPEND)}
_END_BYTES = 64 << 10
SEARCHED_BYTES = 1 << 20
"""Of a document that cannot be read, what is searched for its sender. All of it could be 100 MiB, for which everybody would wait."""
_SENDER = re.compile(rb'"worker_id"\s*:\s*"([0-9a-f-]{36})"')
_PREFIX = "/internal/executions/{execution_id}"
_QUOTED = re.compile(rb"(?:%(?:2[02]|3[CE]|60|7[BD]|[89A-F][0-9A-F]))+")
"""What the foreign SDK's HTTP library quotes: spaces, `"<>{}`, the backquote, and all beyond ASCII."""


class AttemptRoutes:
    """Handlers over what workers report. The foreign SDK names itself at the end of a run only: a step may come from anybody."""

    def __init__(self, services: WorkflowServices, limits: Limits, door: Door) -> None:
        self._attempts = services.attempts
        self._services = services
        self._limits = limits
        self._door = door

    async def complete(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST …/complete."""
        run_id = call.path["execution_id"]
        text = b""
        try:
            text = await call.body(self._limits.workflow_body_bytes, end_bytes=_END_BYTES)
            body = _COMPLETE.decode(call.header("Content-Type"), text)
        except Incomplete:  # its worker died, or will send it again
            raise
        except Invalid as error:
            # The SDK sends it again some times and then forgets the run, which would run for ever.
            sender = sender_of(error.end if isinstance(error, TooLarge) else text)
            if sender is not None:
                attempt = Attempt(worker_id=sender)
                reason = f"its result could not be taken: {error.message}"
                await self._attempts.fail(project, run_id, attempt, reason, retryable=False)
            raise
        result = RunResult(
            result=bytes(body.result),
            output_schema_name=body.output_schema_name,
            final_state=documents.json(body.final_state),
        )
        attempt = Attempt(worker_id=body.worker_id)
        await self._attempts.complete(project, run_id, attempt, result)
        return empty()

    async def fail(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST …/fail."""
        body = _FAIL.decode(call.header("Content-Type"), await self._body(call))
        await self._attempts.fail(
            project,
            call.path["execution_id"],
            Attempt(worker_id=body.worker_id),
            body.error,
            retryable=body.retryable,
            final_state=documents.json(body.final_state),
        )
        return empty()

    async def ended(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST …/confirm-cancellation."""
        body = _WORKER.decode(call.header("Content-Type"), await self._body(call))
        await self._attempts.ended(project, call.path["execution_id"], Attempt(worker_id=body.worker_id))
        return empty()

    async def put_step(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST …/steps."""
        body = _STEP.decode(call.header("Content-Type"), await self._body(call))
        check_step_key(body.step_key, self._limits)
        step = Step(
            step_key=body.step_key,
            outputs=documents.json(body.outputs) or NULL,
            error=documents.json(body.error),
            success=documents.json(body.error) is None if body.success is None else body.success,
            source_run_id=body.source_execution_id,
            output_schema_name=body.output_schema_name,
            completed_at=self._services.now(),
        )
        await self._attempts.put_step(project, call.path["execution_id"], _ANYBODY, step)
        return empty()

    async def step(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET …/steps/{step_key}."""
        key = _step_key(call.scope["raw_path"], call.scope["query_string"]) or call.path["step_key"]
        return json_reply(wire.step(await self._attempts.step(project, call.path["execution_id"], key)))

    async def steps(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """GET …/steps."""
        found = await self._attempts.steps(project, call.path["execution_id"])
        return json_reply(wire.StepList(steps=[wire.step(one) for one in found]))

    async def wait(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST …/wait."""
        body = _WAIT.decode(call.header("Content-Type"), await self._body(call))
        check_step_key(body.step_key, self._limits)
        kind = _KINDS.get(body.wait_type)
        if kind is None:
            raise bad("wait_type must be time, event or suspend", "body.wait_type")
        if kind is not WaitKind.TIME and not body.wait_topic:
            raise bad(f"wait_topic is required for a wait of type {kind.value}", "body.wait_topic")
        topic = None if kind is WaitKind.TIME else body.wait_topic
        if topic is not None:
            check_topic(topic, self._limits, "body.wait_topic")
        due = body.wait_until if kind is WaitKind.TIME else body.expires_at
        if kind is WaitKind.TIME and due is None:
            raise bad("wait_until is required for a wait of type time", "body.wait_until")
        wait = NewWait(
            step_key=body.step_key,
            kind=kind,
            due_at=None if due is None else _moment(due, "wait_until" if kind is WaitKind.TIME else "expires_at"),
            topic=topic,
            event_type=f"resume_{body.step_key}" if kind is WaitKind.SUSPEND else None,
        )
        await self._attempts.wait(project, call.path["execution_id"], _ANYBODY, wait)
        return json_reply(wire.Waiting(execution_id=call.path["execution_id"]))

    async def begin_command(self, call: Call, caller: Caller, project: Project) -> ASGIApp:
        """POST …/commands."""
        body = _COMMAND.decode(call.header("Content-Type"), await self._body(call))
        check_step_key(body.step_key, self._limits)
        order = execution_order(body.execution, self._limits, self._services.defaults)
        attempt = Attempt(worker_id=body.worker_id, fence=body.fence)
        run_id = call.path["execution_id"]
        await self._attempts.begin_command(caller, project, run_id, attempt, body.step_key, body.machine_id, order)
        return json_reply(wire.Waiting(execution_id=run_id))

    async def span(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """PUT …/otel-span-id."""
        body = _SPAN.decode(call.header("Content-Type"), await self._body(call))
        await self._attempts.unwound(project, call.path["execution_id"], body.otel_span_id)
        return empty()

    async def _body(self, call: Call) -> bytes:
        return await call.body(self._limits.workflow_body_bytes)

    def operations(self) -> list[Operation]:
        """Return the routes."""
        route = self._door.route
        return [
            route(
                "attempts",
                "completeRun",
                "POST",
                f"{_PREFIX}/complete",
                "End a run well",
                self.complete,
                body=wire.CompleteRequest,
            ),
            route(
                "attempts",
                "failRun",
                "POST",
                f"{_PREFIX}/fail",
                "End an attempt badly",
                self.fail,
                body=wire.FailRequest,
            ),
            route(
                "attempts",
                "confirmCancellation",
                "POST",
                f"{_PREFIX}/confirm-cancellation",
                "Say that what ran was cancelled",
                self.ended,
                body=wire.WorkerReference,
            ),
            route(
                "attempts", "putStep", "POST", f"{_PREFIX}/steps", "Record a step", self.put_step, body=wire.StepRequest
            ),
            route(
                "attempts", "listSteps", "GET", f"{_PREFIX}/steps", "Read all steps of a run", self.steps, wire.StepList
            ),
            route(
                "attempts",
                "getStep",
                "GET",
                f"{_PREFIX}/steps/{{step_key*}}",
                "Read a step",
                self.step,
                wire.StepRecord,
            ),
            route(
                "attempts",
                "waitRun",
                "POST",
                f"{_PREFIX}/wait",
                "Have a run wait",
                self.wait,
                wire.Waiting,
                body=wire.WaitRequest,
            ),
            route(
                "attempts",
                "beginCommand",
                "POST",
                f"{_PREFIX}/commands",
                "Run a command on a machine as a step, for whose end the run waits",
                self.begin_command,
                wire.Waiting,
                body=wire.CommandRequest,
            ),
            route(
                "attempts",
                "putSpan",
                "PUT",
                f"{_PREFIX}/otel-span-id",
                "Say that an attempt has let go of a run that waits",
                self.span,
                body=wire.SpanRequest,
            ),
        ]


def _moment(text: str, field: str) -> int:
    try:
        return micros(text)
    except (ValueError, OverflowError):
        raise bad(f"{field} must be a moment as ISO 8601 writes it", f"body.{field}") from None


def sender_of(document: bytes) -> str | None:
    """Who has sent a document that cannot be read, or of which only the end is known: SDKs name the worker after the result."""
    found = _SENDER.findall(document, max(len(document) - SEARCHED_BYTES, 0))
    return found[-1].decode() if found else None


def _step_key(path: bytes, query: bytes) -> str:
    """Return the key that the foreign SDK asks for; it puts keys into the path as they are, so that `%2F` is no slash."""
    key = path.partition(b"/steps/")[2] + (b"?" + query if query else b"")
    return _QUOTED.sub(lambda quoted: unquote_to_bytes(quoted[0]), key).decode(errors="replace")
