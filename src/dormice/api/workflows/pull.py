"""Routes of workers that fetch their work: one stream out, batches of reports in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

import msgspec
from msgspec import Raw, Struct, field

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.decoding import BodyDecoder
from dormice.api.http.operation import Operation
from dormice.api.http.replies import Stream, json_reply
from dormice.api.services import WorkflowServices
from dormice.api.workflows import wire
from dormice.api.workflows.door import Door, bad
from dormice.domain import documents
from dormice.domain.limits import Limits
from dormice.domain.run import Run, RunState
from dormice.engine.orders import Caller
from dormice.engine.runs.board import LiveWorker
from dormice.engine.runs.checks import check_given, check_positive
from dormice.engine.runs.pull import ConnectOrder, Offering, Presence
from dormice.engine.runs.reports import Answer, Report
from dormice.store.projects import Project
from dormice.workers.lines import KEEP_ALIVE, cancel_line, connected_line, run_line

MEDIA_TYPE = "application/x-ndjson"
PIECE_BYTES = 256 << 10
"""Lines are sent together up to about this size."""
KEEP_ALIVES = 3
"""Keep-alive lines in the time after which a silent worker is lost."""
LONGEST_SILENCE_SECONDS = 10.0
"""A worker takes a connection on which nothing comes for three times as long for dead."""


class OfferEntry(Struct, kw_only=True):
    """A workflow that the worker runs."""

    workflow_id: str
    queue_name: str | None = None
    concurrency_limit: int | None = None
    input_schema: Raw = field(default_factory=documents.nothing)
    output_schema: Raw = field(default_factory=documents.nothing)
    retry_policy: Raw = field(default_factory=documents.nothing)
    run_timeout_seconds: int | None = None
    """Of runs that name none."""
    scheduled: bool = False
    """Whether it may be put on a schedule."""
    trigger_on_event: bool = False


class ConnectRequest(Struct, kw_only=True):
    """A worker that comes, or comes again."""

    deployment_id: str
    max_concurrent: int
    workflows: list[OfferEntry]
    worker_id: str | None = None
    holding: dict[str, int] = {}
    """The runs that it has, with their fences."""


class ReportsRequest(Struct, kw_only=True):
    """What has happened to runs; an empty batch says that the worker is there."""

    items: list[Report] = []
    presence: Presence = Presence.WORKING


class Reported(Struct, kw_only=True):
    """What became of each item, in their order."""

    known: bool
    """False: the worker was lost. It has to let go of all its runs and to connect again."""
    answers: Sequence[Answer]


_CONNECT = BodyDecoder(ConnectRequest)
_REPORTS = BodyDecoder(ReportsRequest)


class PullRoutes:
    """Handlers over workers that fetch their work."""

    def __init__(self, services: WorkflowServices, limits: Limits, door: Door) -> None:
        self._services = services
        self._limits = limits
        self._door = door

    async def connect(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/workers/connect."""
        body = _CONNECT.decode(call.header("Content-Type"), await call.body(self._limits.workflow_body_bytes))
        check_given(body.deployment_id, "body.deployment_id")
        check_positive(body.max_concurrent, "body.max_concurrent")
        most = self._limits.workflows_per_worker
        if not 0 < len(body.workflows) <= most:
            raise bad(f"workflows must have from 1 to {most} entries (workflows_per_worker)", "body.workflows")
        order = ConnectOrder(
            deployment_id=body.deployment_id,
            max_concurrent=body.max_concurrent,
            worker_id=body.worker_id,
            offers=[_offer(entry) for entry in body.workflows],
        )
        live = await self._services.pull.connect(project, order)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return Stream(self._lines(live, body.holding), media_type=MEDIA_TYPE.encode(), headers=headers)

    async def _lines(self, live: LiveWorker, holding: Mapping[str, int]) -> AsyncGenerator[bytes, None]:
        pull = self._services.pull
        channel, runs = pull.attach(live, holding)
        silence = min(pull.lost_ms / 1000 / KEEP_ALIVES, LONGEST_SILENCE_SECONDS)
        try:
            yield connected_line(live.worker.id, pull.lost_ms, runs)
            while not channel.closed:
                news = await channel.take(silence)
                piece = bytearray() if news else bytearray(KEEP_ALIVE)
                for run in news:
                    piece += await self._line(run)
                    if len(piece) > PIECE_BYTES:
                        yield bytes(piece)
                        piece.clear()
                if piece:
                    yield bytes(piece)
        finally:
            pull.detach(live, channel)

    async def _line(self, run: Run) -> bytes:
        if run.state is RunState.PENDING_CANCEL:
            return cancel_line(run)
        found = await self._services.pull.assignment(run)
        if found is None:
            return b""
        given, steps = found
        return run_line(run, payload=given.payload, initial_state=given.initial_state, steps=steps)

    async def report(self, call: Call, _caller: Caller, project: Project) -> ASGIApp:
        """POST /api/v1/workers/{worker_id}/reports."""
        body = _REPORTS.decode(call.header("Content-Type"), await call.body(self._limits.workflow_body_bytes))
        if len(body.items) > self._limits.reports_per_request:
            raise bad(
                f"items must have at most {self._limits.reports_per_request} entries (reports_per_request)",
                "body.items",
            )
        known, answers = await self._services.batches.take(project, call.path["worker_id"], body.items, body.presence)
        return json_reply(Reported(known=known, answers=answers))

    def operations(self) -> list[Operation]:
        """Return the routes."""
        route = self._door.route
        return [
            route(
                "workers",
                "connectWorker",
                "POST",
                "/api/v1/workers/connect",
                "Be sent runs",
                self.connect,
                MEDIA_TYPE,
                body=ConnectRequest,
                description="One JSON document a line for as long as the connection lasts; an empty line says that it lasts.",
            ),
            route(
                "workers",
                "reportRuns",
                "POST",
                "/api/v1/workers/{worker_id}/reports",
                "Report what has happened to runs",
                self.report,
                Reported,
                body=ReportsRequest,
                description="Each item is judged by itself; those of a batch share a commit.",
            ),
        ]


def _offer(entry: OfferEntry) -> Offering:
    check_given(entry.workflow_id, "body.workflows.workflow_id")
    if entry.queue_name is not None:
        check_given(entry.queue_name, "body.workflows.queue_name")
    check_positive(entry.concurrency_limit, "body.workflows.concurrency_limit")
    check_positive(entry.run_timeout_seconds, "body.workflows.run_timeout_seconds")
    spec: dict[str, Raw | str | int] = {**wire.offered(entry)}
    if entry.queue_name is not None:
        spec["queue_name"] = entry.queue_name
    if entry.run_timeout_seconds is not None:
        spec["run_timeout_seconds"] = entry.run_timeout_seconds
    return Offering(
        workflow_id=entry.workflow_id,
        spec=msgspec.json.encode(spec),
        queue_name=entry.queue_name,
        concurrency_limit=entry.concurrency_limit,
        scheduled=entry.scheduled,
        trigger_on_event=entry.trigger_on_event,
    )
