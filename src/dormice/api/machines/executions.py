"""Routes of executions."""

from __future__ import annotations

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import INT64_MAX, Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Answer, Handler, Operation, Parameter
from dormice.api.http.pagination import list_page
from dormice.api.http.replies import json_reply
from dormice.api.machines import wire
from dormice.api.machines.events import events
from dormice.api.machines.orders import CreateExecutionRequest, execution_order
from dormice.api.machines.output import output, raw_output
from dormice.api.machines.parameters import ENCODING, event_parameters, idempotency_key, paging, wait_ms
from dormice.api.services import Services
from dormice.domain.artifact import Artifact, Collection
from dormice.domain.execution import Execution, Stream

_CREATE = BodyDecoder(CreateExecutionRequest)
_PATH = "/v1/machines/{machine_id}/executions"
_ONE = f"{_PATH}/{{execution_id}}"
_RECORD = {200: Answer("The execution.", wire.ExecutionRecord)}
_OCTETS = ("application/octet-stream",)
_RANGE = Parameter("Range", "header", {"type": "string"}, "`bytes=a-b`: only these bytes (206, or 416).")


class ExecutionRoutes:
    """Handlers over the executions service."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._executions = services.executions

    async def create(self, call: Call) -> ASGIApp:
        """POST …/executions."""
        services = self._services
        wait = call.wait_ms()
        call.idempotency(None, required=True)
        body = _CREATE.decode(call.header("Content-Type"), await call.body())
        order = execution_order(body, services.limits, services.defaults)
        idempotency = call.idempotency(body, required=True)
        made = await self._executions.create(call.caller, call.path["machine_id"], order, idempotency, wait_ms=wait)
        call.note(execution_id=made.id)
        return await self._reply(made)

    async def page(self, call: Call) -> ASGIApp:
        """GET …/executions."""
        limits, machine_id = self._services.limits, call.path["machine_id"]
        collected: dict[str, tuple[Collection, list[Artifact]] | None] = {}

        async def read(before: int | None, limit: int) -> list[Execution]:
            found = await self._executions.page(call.caller, machine_id, before=before, limit=limit)
            for execution in found:
                collected[execution.id] = await self._services.artifacts.of(execution)
            return found

        def record(execution: Execution) -> wire.ExecutionRecord:
            return wire.execution(execution, limits, collected[execution.id])

        records, cursor = await list_page(call, limits.page_default, read, record)
        return json_reply(wire.ExecutionPage(items=records, next_cursor=cursor))

    async def get(self, call: Call) -> ASGIApp:
        """GET …/executions/{execution_id}."""
        path = call.path
        found = await self._executions.get(
            call.caller, path["machine_id"], path["execution_id"], wait_ms=call.wait_ms()
        )
        return await self._reply(found)

    async def cancel(self, call: Call) -> ASGIApp:
        """DELETE …/executions/{execution_id}. Idempotent by itself: its key is only looked at."""
        call.idempotency(None)
        asked = await self._executions.cancel(call.caller, call.path["machine_id"], call.path["execution_id"])
        return await self._reply(asked)

    async def events(self, call: Call) -> ASGIApp:
        """GET …/events."""
        return await events(call, self._services)

    async def output(self, call: Call) -> ASGIApp:
        """GET …/output."""
        return await output(call, self._services)

    async def stdout(self, call: Call) -> ASGIApp:
        """GET …/output/stdout."""
        return await raw_output(call, self._services, Stream.STDOUT)

    async def stderr(self, call: Call) -> ASGIApp:
        """GET …/output/stderr."""
        return await raw_output(call, self._services, Stream.STDERR)

    async def write_stdin(self, call: Call) -> ASGIApp:
        """PUT …/stdin."""
        path = call.path
        offset, eof = call.required_integer("offset"), call.boolean("eof")
        data = await call.body(self._services.limits.stdin_segment_bytes)
        written = await self._executions.write_stdin(
            call.caller, path["machine_id"], path["execution_id"], offset=offset, data=data, eof=eof
        )
        return json_reply(wire.StdinRecord(execution_id=written.id, offset=written.stdin_offset, eof=written.stdin_eof))

    async def _reply(self, execution: Execution) -> ASGIApp:
        collected = await self._services.artifacts.of(execution)
        return json_reply(wire.execution(execution, self._services.limits, collected))

    def operations(self) -> list[Operation]:
        """Return the routes."""
        limits = self._services.limits
        wait = wait_ms(limits, "it has ended")
        return [
            Operation(
                id="listMachineExecutions",
                method="GET",
                path=_PATH,
                tag="executions",
                summary="List a machine's executions, newest first",
                handle=self.page,
                parameters=paging(limits.page_default, limits),
                answers={200: Answer("A page of executions.", wire.ExecutionPage)},
            ),
            Operation(
                id="createMachineExecution",
                method="POST",
                path=_PATH,
                tag="executions",
                summary="Run a command",
                description="On a machine that sleeps, the machine is woken and the execution goes on by itself.",
                handle=self.create,
                parameters=(idempotency_key(limits, required=True), wait),
                body=CreateExecutionRequest,
                answers=_RECORD,
                errors=frozenset({409}),
            ),
            Operation(
                id="getMachineExecution",
                method="GET",
                path=_ONE,
                tag="executions",
                summary="Get an execution",
                handle=self.get,
                parameters=(wait,),
                answers=_RECORD,
            ),
            Operation(
                id="deleteMachineExecution",
                method="DELETE",
                path=_ONE,
                tag="executions",
                summary="Cancel an execution",
                description="SIGTERM to all its processes, a grace, SIGKILL. A finished one is answered unchanged.",
                handle=self.cancel,
                parameters=(idempotency_key(limits, required=False),),
                answers=_RECORD,
            ),
            Operation(
                id="listMachineExecutionEvents",
                method="GET",
                path=f"{_ONE}/events",
                tag="executions",
                summary="Read an execution's log",
                description=(
                    "Changes of status and pieces of output in one ascending order. While the execution lives, a page "
                    "that has items has a next_cursor; the last page of an ended one has none. With "
                    "`Accept: text/event-stream` the log comes as server-sent events, `id:` being the sequence, and "
                    "ends after the last event of the ended execution."
                ),
                handle=self.events,
                parameters=event_parameters(limits),
                answers={
                    200: Answer("A page of events, or the stream of them.", wire.EventPage, ("text/event-stream",))
                },
            ),
            Operation(
                id="getMachineExecutionOutput",
                method="GET",
                path=f"{_ONE}/output",
                tag="executions",
                summary="Read what an execution has written",
                description="At any time: before the end, what has been kept so far.",
                handle=self.output,
                parameters=(ENCODING,),
                answers={200: Answer("Both streams.", wire.OutputRecord)},
            ),
            *(self._raw_output(name, handle) for name, handle in (("stdout", self.stdout), ("stderr", self.stderr))),
            self._stdin(),
        ]

    def _raw_output(self, name: str, handle: Handler) -> Operation:
        return Operation(
            id=f"getMachineExecution{name.capitalize()}",
            method="GET",
            path=f"{_ONE}/output/{name}",
            tag="executions",
            summary=f"Read the exact bytes of {name}",
            description=(
                "`X-Dormice-Total-Bytes` is what the process has written, `X-Dormice-Truncated` whether less is kept."
            ),
            handle=handle,
            parameters=(_RANGE,),
            answers={
                200: Answer("All kept bytes.", media_types=_OCTETS),
                206: Answer("The range.", media_types=_OCTETS),
            },
        )

    def _stdin(self) -> Operation:
        offset = {"type": "integer", "format": "int64", "minimum": 0, "maximum": INT64_MAX}
        return Operation(
            id="putMachineExecutionStdin",
            method="PUT",
            path=f"{_ONE}/stdin",
            tag="executions",
            summary="Write to an open standard input",
            description=(
                f"At most {self._services.limits.stdin_segment_bytes} bytes, committed before the answer. Bytes below the "
                "committed offset are skipped, so a retry is harmless; a gap is 409 with `details.expected_offset`."
            ),
            handle=self.write_stdin,
            parameters=(
                Parameter("offset", "query", offset, "Where in standard input the body begins.", required=True),
                Parameter("eof", "query", {"type": "boolean", "default": False}, "Nothing follows."),
            ),
            raw_body=True,
            answers={200: Answer("How much is committed.", wire.StdinRecord)},
            errors=frozenset({409}),
        )
