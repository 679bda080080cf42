"""Routes by which people answer what runs ask. They need no key: who has a run's id may answer (contract, section 1.10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta, Raw, Struct

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Handler, Operation
from dormice.api.http.replies import json_reply
from dormice.api.services import WorkflowServices
from dormice.api.workflows import approval_page
from dormice.api.workflows.approval_form import Form, FormFaults, form_of, read_answer
from dormice.api.workflows.door import Door, answered, bad, empty, operation, refusal, retry_after
from dormice.domain import documents
from dormice.domain.errors import Conflict, DormiceError, NotFound
from dormice.domain.limits import Limits
from dormice.domain.run import Run
from dormice.engine.runs.approvals import Asked
from dormice.engine.runs.checks import check_step_key

_SUBMIT = "/submit"
_MOST_FIELDS = 1_000


class ApprovalRecord(Struct, kw_only=True):
    """What a run asks at a step."""

    execution_id: str
    step_key: str
    status: Annotated[str, Meta(description="The state of the run whose id was given.")]
    data: Annotated[Raw, Meta(description="What it asks; null when no answer is waited for.")]


class ApprovalAnswer(Struct, kw_only=True):
    """An answer."""

    data: Raw


_ANSWER = BodyDecoder(ApprovalAnswer)


class ApprovalRoutes:
    """Handlers over questions and answers. Bodies are small here: anybody may send them."""

    def __init__(self, services: WorkflowServices, limits: Limits, door: Door) -> None:
        self._approvals = services.approvals
        self._limits = limits
        self._door = door

    async def get(self, call: Call) -> ASGIApp:
        """GET /api/v1/approvals/{root_execution_id}/{step_key}."""
        await self._door.let_in(call)
        step_key = self._step_key(call)
        asked = await self._approvals.get(call.path["root_execution_id"], step_key)
        event = asked.question.asked if asked.question.pending else None
        return json_reply(
            ApprovalRecord(
                execution_id=asked.run.id,
                step_key=step_key,
                status=asked.run.state.value,
                data=documents.raw(None if event is None else event.data),
            )
        )

    async def submit(self, call: Call) -> ASGIApp:
        """POST /api/v1/approvals/{root_execution_id}/{step_key}/submit."""
        await self._door.let_in(call)
        step_key = self._step_key(call)
        if not step_key.endswith(_SUBMIT):
            raise NotFound("no such route: an answer is sent to .../submit")
        body = _ANSWER.decode(call.header("Content-Type"), await call.body())
        step_key = step_key.removesuffix(_SUBMIT)
        check_step_key(step_key, self._limits)
        await self._approvals.answer(call.path["root_execution_id"], step_key, bytes(body.data))
        return empty()

    async def show(self, call: Call) -> ASGIApp:
        """GET /approve/{root_execution_id}/{step_key}."""
        await self._door.let_in(call)
        asked = await self._approvals.get(call.path["root_execution_id"], self._step_key(call))
        if not asked.question.pending:
            return _closed(asked)
        form, question = _form(asked)
        return approval_page.form_page(form, question)

    async def receive(self, call: Call) -> ASGIApp:
        """POST /approve/{root_execution_id}/{step_key}."""
        await self._door.let_in(call)
        root_id, step_key = call.path["root_execution_id"], self._step_key(call)
        sent = _form_fields(call.header("Content-Type") or "", await call.body())
        asked = await self._approvals.get(root_id, step_key)
        if not asked.question.pending:
            return _closed(asked, status=409)
        form, question = _form(asked)
        if sent.get("question") != str(question):
            return approval_page.notice(
                "Asked anew", "The run has asked again since this page was opened: open it again.", status=409
            )
        try:
            data = msgspec.json.encode(read_answer(form, sent))
        except FormFaults as error:
            return approval_page.form_page(form, question, sent=sent, faults=error.faults)
        await self._approvals.answer(root_id, step_key, data, shown=asked.question)
        return approval_page.notice("Sent", "Your answer has reached the run. You may close this page.")

    def _step_key(self, call: Call) -> str:
        query: bytes = call.scope["query_string"]
        key = call.path["step_key"] + (f"?{query.decode('latin-1')}" if query else "")  # the SDK does not quote it
        check_step_key(key.removesuffix(_SUBMIT) or key, self._limits)
        return key

    def operations(self) -> Sequence[Operation]:
        """Return the routes."""
        path = "/api/v1/approvals/{root_execution_id}/{step_key*}"
        page = "/approve/{root_execution_id}/{step_key*}"
        return [
            operation(
                "approvals",
                "getApproval",
                "GET",
                path,
                "Read what a run asks",
                answered(self.get),
                ApprovalRecord,
                guarded=False,
            ),
            operation(
                "approvals",
                "answerApproval",
                "POST",
                path,
                "Answer what a run asks",
                answered(self.submit),
                body=ApprovalAnswer,
                description="409 when no answer is waited for: the first one counts. Under the id of a root run, of several questions at this step "
                "in its tree the last one is answered; under the id of another run, that of this very run.",
                shown=f"/api/v1/approvals/{{root_execution_id}}/{{step_key}}{_SUBMIT}",
                guarded=False,
            ),
            operation(
                "approvals",
                "approvalPage",
                "GET",
                page,
                "The page on which a person answers what a run asks",
                _as_page(self.show),
                "text/html",
                guarded=False,
            ),
            operation(
                "approvals",
                "sendApprovalPage",
                "POST",
                page,
                "Send that page",
                _as_page(self.receive),
                "text/html",
                guarded=False,
            ),
        ]


def _form_fields(content_type: str, body: bytes) -> dict[str, str]:
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise bad("send the form as application/x-www-form-urlencoded", "header.Content-Type")
    try:
        return dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError:
        raise bad(f"the form must have at most {_MOST_FIELDS} fields", "body") from None


def _form(asked: Asked) -> tuple[Form, int]:
    """Return the form, and what tells it from one that comes later."""
    event = asked.question.asked
    return (form_of(None), 0) if event is None else (form_of(event.data), event.sequence)


def _closed(asked: Asked, *, status: int = 200) -> ASGIApp:
    run: Run = asked.run
    if asked.question.answered:
        return approval_page.notice(
            "Answered", "This has been answered already: the first answer counts.", status=status
        )
    if run.terminal:
        return approval_page.notice("Over", f"The run is {run.state.value}: it asks nothing any more.", status=status)
    text = "The run waits for no answer here: it has not asked yet, or the time for the answer is over."
    return approval_page.notice("Nothing to answer", text, status=status)


def _as_page(handle: Handler) -> Handler:
    """Return a handler whose refusals are pages."""

    async def serve(call: Call) -> ASGIApp:
        try:
            return await handle(call)
        except Conflict as error:
            return approval_page.notice("Answered", error.message, status=409)
        except DormiceError as error:
            title = "Not found" if isinstance(error, NotFound) else "That did not work"
            return approval_page.notice(title, error.message, status=refusal(error).status, headers=retry_after(error))

    return serve
