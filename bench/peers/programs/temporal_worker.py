"""Temporal's worker: each step is an activity."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from bench.peers.programs.steps import STEPS, Step, step

QUEUE = "bench"
TIMEOUT = timedelta(seconds=60)


@activity.defn
async def run_step(number: int) -> Step:
    return step(number)


@workflow.defn
class ThreeSteps:
    @workflow.run
    async def run(self) -> list[Step]:
        return [await workflow.execute_activity(run_step, number, start_to_close_timeout=TIMEOUT) for number in STEPS]


@workflow.defn
class Child:
    @workflow.run
    async def run(self, number: int) -> int:
        return number


@workflow.defn
class FanOut:
    @workflow.run
    async def run(self, children: int) -> int:
        return sum(await asyncio.gather(*(workflow.execute_child_workflow(Child.run, n) for n in range(children))))


@workflow.defn
class Steps:
    @workflow.run
    async def run(self, count: int) -> list[Step]:
        return [await workflow.execute_activity(run_step, n, start_to_close_timeout=TIMEOUT) for n in range(count)]


@workflow.defn
class Sleeper:
    @workflow.run
    async def run(self, due: float) -> float:
        await workflow.sleep(max(0.001, due - workflow.now().timestamp()))
        return workflow.now().timestamp()


async def main() -> None:
    client = await Client.connect(sys.argv[1])
    await Worker(
        client, task_queue=QUEUE, workflows=[ThreeSteps, Child, FanOut, Steps, Sleeper], activities=[run_step]
    ).run()


if __name__ == "__main__":
    asyncio.run(main())
