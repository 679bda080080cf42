"""A worker: a process that runs workflow functions. It needs no address of its own, only the server's."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dormice.client.settings import resolve
from dormice.workflows import stalls
from dormice.workflows.definition import Workflow
from dormice.workflows.link import Link
from dormice.workflows.session import Session

log = logging.getLogger("dormice.workflows")

DEFAULT_DEPLOYMENT = "default"


class Worker:
    """Runs workflows until it is stopped; connects again for ever.

    Args:
        workflows: What it runs. Their ids must differ.
        base_url: Where the server is; default `DORMICE_BASE_URL`, else `http://127.0.0.1:7433`.
        api_key: Default `DORMICE_API_KEY`, else that of a server on this host; a server in local mode needs none.
        project_id: Default `DORMICE_PROJECT_ID`, else the default project of the key's organization.
        deployment_id: Runs are given to workers of the deployment that was the latest when they were started. Default
            `DORMICE_DEPLOYMENT_ID`, else `default`.
        max_concurrent: How many runs it has at once; one that waits takes no place.
        threads: How many steps that are not async run at once.
        grace_seconds: How long runs may go on after `stop` before they are given back.

    Raises:
        ConfigurationError: The base URL is none.
        ValueError: There is no workflow, two have the same id, or give one queue two limits, or a number is not positive.

    """

    def __init__(
        self,
        workflows: Iterable[Workflow[Any, Any]],
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        project_id: str | None = None,
        deployment_id: str | None = None,
        max_concurrent: int = 100,
        threads: int = 32,
        grace_seconds: float = 10.0,
    ) -> None:
        self.workflows: dict[str, Workflow[Any, Any]] = {}
        for workflow in workflows:
            if self.workflows.setdefault(workflow.id, workflow) is not workflow:
                raise ValueError(f"two workflows have the id {workflow.id!r}")
        if not self.workflows:
            raise ValueError("a worker needs at least one workflow")
        _check_queues(self.workflows.values())
        if max_concurrent < 1 or threads < 1 or grace_seconds < 0:
            raise ValueError("max_concurrent and threads must be at least 1, and grace_seconds at least 0")
        settings = resolve(base_url=base_url, api_key=api_key, key_required=False)
        self._link = Link(settings, project_id or os.environ.get("DORMICE_PROJECT_ID"))
        self.deployment_id = deployment_id or os.environ.get("DORMICE_DEPLOYMENT_ID") or DEFAULT_DEPLOYMENT
        self.max_concurrent = max_concurrent
        self._threads = threads
        self._grace_seconds = grace_seconds
        self._stop = asyncio.Event()
        self.connected = asyncio.Event()
        """Set once the server first knows the worker."""

    def __repr__(self) -> str:
        return f"<Worker of {', '.join(self.workflows)} at {self._link.base_url}>"

    def stop(self) -> None:
        """Have it take nothing more, finish or give back what it has, and end."""
        self._stop.set()

    async def run(self) -> None:
        """Run until `stop`."""
        threads = ThreadPoolExecutor(self._threads, thread_name_prefix="workflow-step")
        try:
            async with asyncio.TaskGroup() as group:
                session = Session(
                    self._link,
                    self.workflows,
                    deployment_id=self.deployment_id,
                    max_concurrent=self.max_concurrent,
                    threads=threads,
                    group=group,
                )
                session.connected = self.connected
                services = [
                    group.create_task(session.connect(), name="connection"),
                    group.create_task(session.report(), name="reports"),
                    group.create_task(session.watch(), name="lease"),
                ]
                with stalls.watched(session.holder):
                    await self._stop.wait()
                    await session.drain(self._grace_seconds)
                for service in services[1:]:
                    service.cancel()
                await asyncio.wait(services[1:])
                await session.leave()
                services[0].cancel()
        finally:
            self._link.close()
            threads.shutdown(wait=False, cancel_futures=True)

    def serve(self) -> None:
        """Run in an event loop of its own until SIGTERM or SIGINT; a second one ends it at once."""
        try:
            import uvloop  # noqa: PLC0415 - a dependency of the server that makes workers quicker too
        except ImportError:
            asyncio.run(self._serve())
        else:
            uvloop.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._signalled)
        await self.run()

    def _signalled(self) -> None:
        if self._stop.is_set():
            os._exit(1)  # threads of steps cannot be stopped in any other way
        log.info("stopping: runs have %.0f s to end", self._grace_seconds)
        self.stop()


def _check_queues(workflows: Iterable[Workflow[Any, Any]]) -> None:
    """Raise ValueError for a queue that has two limits."""
    limits: dict[str, tuple[int, str]] = {}
    for workflow in workflows:
        if (queue := workflow.queue) is not None and queue.limit is not None:
            limit, first = limits.setdefault(queue.name, (queue.limit, workflow.id))
            if limit != queue.limit:
                raise ValueError(
                    f"the queue {queue.name!r} has the limit {limit} with workflow {first!r} "
                    f"and {queue.limit} with {workflow.id!r}: share one Queue, or name it without a limit in the others"
                )
