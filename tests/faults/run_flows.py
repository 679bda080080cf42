"""The workflows of the load of runs, and what each of them comes to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

TOPIC = "news"
NAP_SECONDS = 0.3
PLACES = ("a", "b", "c")
"""Concurrency keys."""
MEMBERS = 5
WORKED = {"status": "succeeded", "exit_code": 0}


class Steps(Protocol):
    """What a workflow is given: the steps of one attempt. Those that wait end the attempt."""

    retries: int
    """Attempts of the run that failed."""

    async def step(self, key: str, value: Any) -> Any:
        """Do something, once; return `value`."""
        ...

    async def stay(self, key: str, place: str, value: Any) -> Any:
        """Be in a place for a while, once."""
        ...

    async def child(self, key: str, workflow: str, payload: Any) -> Any:
        """Run a workflow and wait for its result."""
        ...

    async def batch(self, key: str, workflow: str, payloads: Sequence[Any]) -> list[Any]:
        """Run a workflow several times and wait for all results."""
        ...

    async def nap(self, key: str, seconds: float) -> None:
        """Wait for a moment."""
        ...

    async def together(self, *waits: Awaitable[Any]) -> list[Any]:
        """Wait for several things at the same time."""
        ...

    async def hear(self, key: str, topic: str) -> Any:
        """Wait for an event."""
        ...

    async def ask(self, key: str) -> Any:
        """Publish a question and wait for its answer."""
        ...

    async def command(self, key: str, machine_id: str, token: str) -> dict[str, Any]:
        """Run a command on a machine and wait for its record."""
        ...


class AttemptFailed(Exception):
    """This attempt of a workflow fails."""


Payload = dict[str, Any]


async def _three(steps: Steps, payload: Payload) -> Any:
    return [await steps.step(f"step {n}/of 3", f"{payload['token']}:{n}") for n in range(3)]


async def _retried(steps: Steps, payload: Payload) -> Any:
    first = await steps.step("first", payload["token"])
    if steps.retries == 0:
        raise AttemptFailed("the first attempt always fails")
    return [first, await steps.step("second", "again")]


async def _child(steps: Steps, payload: Payload) -> Any:
    return await steps.step("only", payload["token"])


async def _parent(steps: Steps, payload: Payload) -> Any:
    before = await steps.step("before", 1)
    result = await steps.child("invoke", "child", {"token": f"{payload['token']}.c"})
    return [before, result, await steps.step("after", 2)]


async def _batch(steps: Steps, payload: Payload) -> Any:
    members = [{"token": f"{payload['token']}.{n}"} for n in range(MEMBERS)]
    return await steps.batch("all", "child", members)


async def _tree(steps: Steps, payload: Payload) -> Any:
    left = await steps.child("left", "parent", {"token": f"{payload['token']}.l"})
    return [left, await steps.child("right", "batch", {"token": f"{payload['token']}.r"})]


async def _sleeper(steps: Steps, payload: Payload) -> Any:
    await steps.step("before", 1)
    await steps.nap("nap", NAP_SECONDS)
    return await steps.step("after", payload["token"])


async def _fork(steps: Steps, payload: Payload) -> Any:
    child = steps.child("invoke", "child", {"token": f"{payload['token']}.c"})
    _, result = await steps.together(steps.nap("nap", 2 * NAP_SECONDS), child)
    return await steps.step("after", result)


async def _listener(steps: Steps, payload: Payload) -> Any:
    return await steps.hear("heard", f"{TOPIC}/{payload['token']}")


async def _suspended(steps: Steps, payload: Payload) -> Any:
    await steps.step("before", 1)
    return [payload["token"], await steps.ask("approve")]


async def _single(steps: Steps, payload: Payload) -> Any:
    return await steps.stay("stay", "single", payload["token"])


async def _keyed(steps: Steps, payload: Payload) -> Any:
    return await steps.stay("stay", f"keyed {payload['place']}", payload["token"])


async def _commanded(steps: Steps, payload: Payload) -> Any:
    record = await steps.command("work", payload["machine"], payload["token"])
    await steps.step("after", 1)
    return {"status": record["status"], "exit_code": record["exit_code"]}


@dataclass(frozen=True, slots=True)
class Flow:
    """A workflow; `result` says what a run of it comes to, `steps` which steps do something."""

    run: Callable[[Steps, Payload], Awaitable[Any]]
    result: Callable[[str], Any]
    steps: tuple[str, ...]
    limit: int | None = None
    """How many of its runs with the same key may be with workers at once."""


def _members(token: str) -> list[dict[str, Any]]:
    return [
        {"result": f"{token}.{n}", "result_schema_name": None, "workflow_id": "child", "success": True}
        for n in range(MEMBERS)
    ]


def _family(token: str) -> list[Any]:
    return [1, f"{token}.c", 2]


FLOWS = {
    "three": Flow(_three, lambda token: [f"{token}:{n}" for n in range(3)], tuple(f"step {n}/of 3" for n in range(3))),
    "retried": Flow(_retried, lambda token: [token, "again"], ("first", "second")),
    "child": Flow(_child, lambda token: token, ("only",)),
    "parent": Flow(_parent, _family, ("before", "after")),
    "batch": Flow(_batch, _members, ()),
    "tree": Flow(_tree, lambda token: [_family(f"{token}.l"), _members(f"{token}.r")], ()),
    "sleeper": Flow(_sleeper, lambda token: token, ("before", "after")),
    "fork": Flow(_fork, lambda token: f"{token}.c", ("after",)),
    "listener": Flow(_listener, lambda token: {"heard": token}, ()),
    "suspended": Flow(_suspended, lambda token: [token, {"answer": token}], ("before",)),
    "single": Flow(_single, lambda token: token, ("stay",), limit=1),
    "keyed": Flow(_keyed, lambda token: token, ("stay",), limit=2),
    "commanded": Flow(_commanded, lambda token: WORKED, ("work", "after")),
}
LIMITS = {"single": 1, **{f"keyed {place}": 2 for place in PLACES}}
"""How many may be in each place."""
