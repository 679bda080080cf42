"""What a worker has: a connection, which is made again for ever, a lease, and attempts of runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor

import msgspec

from dormice.workflows import documents, messages
from dormice.workflows.attempt import Attempt, Stop
from dormice.workflows.backoff import Backoff
from dormice.workflows.definition import Workflow
from dormice.workflows.lease import Lease
from dormice.workflows.link import Link, LinkFailed
from dormice.workflows.messages import (
    Abandoned,
    Assignment,
    Cancel,
    Connect,
    Connected,
    Ended,
    Offer,
    PutSchedule,
    PutTrigger,
    RetryPolicy,
)
from dormice.workflows.reporter import Reporter
from dormice.workflows.steps import Retry

log = logging.getLogger("dormice.workflows")

SILENCE_SECONDS = 30.0
"""How long nothing may come before a connection counts as dead; the server says something far more often."""
_REFUSED = frozenset({400, 404, 409, 413, 422})
"""Asked again, it would be refused again."""


class Session:
    """The life of one worker with one server."""

    def __init__(
        self,
        link: Link,
        workflows: Mapping[str, Workflow[object, object]],
        *,
        deployment_id: str,
        max_concurrent: int,
        threads: Executor,
        group: asyncio.TaskGroup,
    ) -> None:
        self._link = link
        self._workflows = workflows
        self._offers = [_offer(workflow) for workflow in workflows.values()]
        self._deployment_id = deployment_id
        self._max_concurrent = max_concurrent
        self._threads = threads
        self._group = group
        self._lease = Lease()
        self._reporter = Reporter(link, self._lease)
        self._attempts: dict[str, Attempt] = {}
        self._connected_at = 0.0
        self._stopping = False
        self.connected = asyncio.Event()
        """Set once the worker was first taken."""

    def holder(self, task: asyncio.Task[object] | None) -> str:
        """Say which run a task belongs to."""
        attempts = list(self._attempts.values())
        return next((str(attempt) for attempt in attempts if task is not None and attempt.runs(task)), "something")

    async def connect(self) -> None:
        """Be connected, for ever."""
        backoff = Backoff()
        while True:
            try:
                began = asyncio.get_running_loop().time()
                await self._listen()
                log.info("the connection to %s has ended; connecting again", self._link.base_url)
            except LinkFailed as failure:
                log.log(failure.level, "not connected, trying again: %s", failure)
            except msgspec.MsgspecError as error:
                log.error("what came from %s is not what it should be: %s", self._link.base_url, error)  # noqa: TRY400 - no fault of ours
            if self._connected_at >= began:
                backoff.reset()
            await backoff.pause()

    async def report(self) -> None:
        """Report, for ever; a server that does not know the worker any more has given its runs to others."""
        while True:
            if not await self._reporter.turn():
                self._let_go(Stop.LOST, "the server has given this worker up")

    async def watch(self) -> None:
        """Let go of everything when the lease ends, for ever. The server may hear of this worker again before it gives it up: it is told."""
        while True:
            if self._lease.held:
                await asyncio.sleep(self._lease.left)
            else:
                self._let_go(Stop.ABANDONED, "the server was not heard of for too long")
                await asyncio.sleep(self._lease.pause)

    async def drain(self, seconds: float) -> None:
        """Take nothing more, finish what is under way, and give back what is not finished in time, unless the server is away until the lease ends."""
        self._stopping = True
        self._reporter.presence = "draining"
        self._reporter.announce()
        if not await self._all_ended(seconds):
            for attempt in list(self._attempts.values()):
                attempt.stop(Stop.ABANDONED)
            while not await self._all_ended(max(self._lease.left, 0)):
                if not self._lease.held:  # they are not this worker's any more: nothing needs to be said of them
                    self._let_go(Stop.LOST, "the server is not heard of")
                    break
            await self._all_ended(None)  # a thread cannot be stopped: until it ends, its run is given to nobody else
        self._reporter.presence = "leaving"

    async def leave(self) -> None:
        """Say good-bye, when nothing else is being said, unless the server is away until the lease ends."""
        if self._reporter.worker_id is None:
            return
        self._reporter.announce()
        try:
            async with asyncio.timeout(max(self._lease.left, 0)):
                await self._reporter.turn()
        except TimeoutError:
            log.warning("the server is not heard of: it does not know that this worker has left")

    async def _all_ended(self, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while self._attempts:
                    await next(iter(self._attempts.values())).ended.wait()
                    await asyncio.sleep(0)  # it takes itself out of the list
        except TimeoutError:
            return False
        return True

    async def _listen(self) -> None:
        request = Connect(
            deployment_id=self._deployment_id,
            max_concurrent=self._max_concurrent,
            workflows=self._offers,
            worker_id=self._reporter.worker_id,
            holding={attempt.run_id: attempt.fence for attempt in self._attempts.values() if not attempt.lost},
        )
        sent = asyncio.get_running_loop().time()
        async for line in self._link.lines("/api/v1/workers/connect", messages.encode(request), SILENCE_SECONDS):
            if not line:
                continue
            match messages.line(line):
                case Assignment() as assignment:
                    self._begin(assignment)
                case Cancel() as cancel:
                    self._cancel(cancel)
                case Connected() as connected:
                    if connected.worker_id != self._reporter.worker_id:
                        await self._arrange()
                    self._take_up(connected, sent)

    async def _arrange(self) -> None:
        """Have the server start runs by itself, of the workflows that say when. What it refuses is said, and left out."""
        for workflow in self._workflows.values():
            for path, body in _starts(workflow, self._deployment_id):
                try:
                    await self._link.ask(path, messages.encode(body), SILENCE_SECONDS)
                except LinkFailed as failure:
                    if failure.status not in _REFUSED:
                        raise
                    log.error("%s does not start by itself: %s", workflow.id, failure)  # noqa: TRY400 - no fault of ours

    def _take_up(self, connected: Connected, sent: float) -> None:
        self._lease.begin(connected.lost_ms, sent)
        self._connected_at = asyncio.get_running_loop().time()
        for attempt in self._attempts.values():
            if connected.runs.get(attempt.run_id) != attempt.fence:
                attempt.stop(Stop.LOST)
        if self._reporter.worker_id != connected.worker_id:
            log.info("worker %s takes runs of deployment %s", connected.worker_id, self._deployment_id)
        self._reporter.worker_id = connected.worker_id
        self._reporter.announce()
        self.connected.set()

    def _begin(self, assignment: Assignment) -> None:
        before = self._attempts.get(assignment.run_id)
        if before is not None and before.fence == assignment.fence and not before.lost:
            return
        if self._stopping:
            self._reporter.put(Abandoned(run_id=assignment.run_id, fence=assignment.fence))
            return
        workflow = self._workflows.get(assignment.workflow_id)
        attempt = Attempt(assignment, workflow, self._reporter, self._threads)
        self._attempts[assignment.run_id] = attempt
        self._group.create_task(self._run(attempt, before), name=f"run {assignment.run_id}")

    async def _run(self, attempt: Attempt, before: Attempt | None) -> None:
        if before is not None:
            before.stop(Stop.LOST)
            await before.ended.wait()
        await attempt.run()
        if self._attempts.get(attempt.run_id) is attempt:
            del self._attempts[attempt.run_id]

    def _cancel(self, cancel: Cancel) -> None:
        attempt = self._attempts.get(cancel.run_id)
        if attempt is not None and attempt.fence == cancel.fence and not attempt.lost:
            attempt.stop(Stop.CANCELLED)
        else:
            self._reporter.put(Ended(run_id=cancel.run_id, fence=cancel.fence))

    def _let_go(self, how: Stop, why: str) -> None:
        going_on = [attempt for attempt in self._attempts.values() if not attempt.stopping]
        if going_on:
            log.warning("letting go of %d runs: %s", len(going_on), why)
        for attempt in self._attempts.values() if how is Stop.LOST else going_on:
            attempt.stop(how)


def _starts(workflow: Workflow[object, object], deployment_id: str) -> Iterator[tuple[str, PutSchedule | PutTrigger]]:
    """Yield what a workflow is to be started by, and where that is told."""
    if (schedule := workflow.schedule) is not None:
        yield (
            "/api/v1/schedules",
            PutSchedule(
                workflow_id=workflow.id,
                cron=schedule.cron,
                timezone=schedule.timezone,
                key=schedule.key,
                catch_up=schedule.catch_up,
                overlap=schedule.overlap,
            ),
        )
    if (trigger := workflow.trigger) is not None:
        yield (
            "/api/v1/event-triggers/register",
            PutTrigger(
                workflow_id=workflow.id,
                deployment_id=deployment_id,
                event_topic=trigger.topic,
                batch_size=trigger.batch_size,
                batch_timeout_seconds=trigger.batch_timeout,
                queue_name=None if workflow.queue is None else workflow.queue.name,
            ),
        )


def _offer(workflow: Workflow[object, object]) -> Offer:
    return Offer(
        workflow_id=workflow.id,
        queue_name=None if workflow.queue is None else workflow.queue.name,
        concurrency_limit=None if workflow.queue is None else workflow.queue.limit,
        input_schema=documents.schema(workflow.payload_type) if workflow.takes_payload else None,
        output_schema=documents.schema(workflow.result_type),
        retry_policy=None if workflow.retry is None else _policy(workflow.retry),
        run_timeout_seconds=None if workflow.timeout is None else round(workflow.timeout),
        scheduled=True,
        trigger_on_event=workflow.trigger is not None,
    )


def _policy(retry: Retry) -> RetryPolicy:
    return RetryPolicy(
        max_retries=retry.attempts - 1,
        initial_ms=round(min(retry.first_pause, retry.longest_pause) * 1000),
        multiplier=retry.factor,
        max_ms=round(retry.longest_pause * 1000),
    )
