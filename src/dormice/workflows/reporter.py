"""Tells the server what has happened to runs: all that comes in while a request is under way goes into the next one.

A batch is sent again until it is answered: every report may be repeated.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import msgspec
from msgspec import structs

from dormice.workflows import messages
from dormice.workflows.backoff import Backoff
from dormice.workflows.lease import Lease
from dormice.workflows.link import Link, LinkFailed
from dormice.workflows.messages import Answer, Command, Report

log = logging.getLogger("dormice.workflows")

MOST_ITEMS = 1_000
BATCH_BYTES = 8 << 20
"""A batch ends with the report that takes it beyond this."""
ANSWER_SECONDS = 30.0
_REFUSED = frozenset({400, 413, 422})
"""Sent again, it would be refused again."""


@dataclass(eq=False, slots=True)
class _Item:
    document: bytes
    answer: asyncio.Future[Answer]


class Reporter:
    """One for a worker."""

    def __init__(self, link: Link, lease: Lease) -> None:
        self._link = link
        self._lease = lease
        self._items: list[_Item] = []
        self._woken: asyncio.Future[None] | None = None
        self._due = False
        self.worker_id: str | None = None
        """None: not connected yet."""
        self.presence = "working"

    def put(self, report: Report) -> asyncio.Future[Answer]:
        """Have something reported; the future has the answer."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._items.append(_Item(messages.encode(report), answer))
        self._wake()
        return answer

    async def begin_command(self, run_id: str, command: Command) -> None:
        """Ask once for a command that a run waits for; it may be asked for again. Raises LinkFailed."""
        body = messages.encode(structs.replace(command, worker_id=self.worker_id))
        await self._link.ask(f"/internal/executions/{run_id}/commands", body, ANSWER_SECONDS)

    def announce(self) -> None:
        """Say now that the worker is there."""
        self._due = True
        self._wake()

    async def turn(self) -> bool:
        """Wait until something is to be said, and say it; return whether the server knows the worker."""
        await self._something()
        if self.worker_id is None:
            return True
        batch = self._next_batch()
        self._due = False
        sent = asyncio.get_running_loop().time()
        known, answers = await self._answered(batch)
        if known:
            self._lease.extend(sent)
        for item, answer in zip(batch, answers, strict=True):
            if not item.answer.done():  # whoever waited for it was cancelled
                item.answer.set_result(answer)
        return known

    async def _something(self) -> None:
        if not ((self._items or self._due) and self.worker_id is not None):
            loop = asyncio.get_running_loop()
            self._woken = loop.create_future()
            late = loop.call_later(self._lease.pause, self._wake)
            try:
                await self._woken
            finally:
                late.cancel()
                self._woken = None

    def _next_batch(self) -> list[_Item]:
        size = count = 0
        for item in self._items[:MOST_ITEMS]:
            count += 1
            size += len(item.document)
            if size > BATCH_BYTES:
                break
        batch, self._items = self._items[:count], self._items[count:]
        return batch

    async def _answered(self, batch: list[_Item]) -> tuple[bool, list[Answer]]:
        backoff = Backoff()
        while True:
            try:
                return await self._send(batch)
            except LinkFailed as failure:
                if failure.status in _REFUSED:
                    return await self._one_by_one(batch, failure)
                log.log(failure.level, "nothing could be reported, and is reported again: %s", failure)
            await backoff.pause()

    async def _send(self, batch: list[_Item]) -> tuple[bool, list[Answer]]:
        items = b",".join([item.document for item in batch])
        body = b'{"presence":"%s","items":[%s]}' % (self.presence.encode(), items)
        answer = await self._link.ask(f"/api/v1/workers/{self.worker_id}/reports", body, ANSWER_SECONDS)
        try:
            reported = messages.reported(answer)
        except msgspec.MsgspecError as error:
            raise LinkFailed(f"the answer is not what it should be: is the base URL right? ({error})") from None
        if len(reported.answers) != len(batch):
            raise LinkFailed("the answer does not fit the reports")
        return reported.known, list(reported.answers)

    async def _one_by_one(self, batch: list[_Item], failure: LinkFailed) -> tuple[bool, list[Answer]]:
        """Find the one that is refused."""
        if len(batch) == 1:
            return True, [Answer(status="error", message=str(failure))]
        found = [await self._answered([item]) for item in batch]
        return all(known for known, _ in found), [answer for _, answers in found for answer in answers]

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
