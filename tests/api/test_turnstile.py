"""Who is served next."""

from __future__ import annotations

import asyncio

from dormice.api.http.turnstile import PER_TURN, Turnstile
from tests.wait import others_run


async def test_a_few_requests_do_not_wait() -> None:
    turnstile = Turnstile()
    for _ in range(PER_TURN):
        entering = asyncio.create_task(turnstile.enter("one"))
        entering.cancel()  # before its first step: had it to wait, it would be cancelled
        await asyncio.wait([entering])
    await asyncio.wait_for(turnstile.enter("one"), 1)


async def test_organizations_take_turns_and_keep_their_own_order() -> None:
    turnstile = Turnstile()
    entered: list[tuple[str, int]] = []

    async def request(organization: str, number: int) -> None:
        await turnstile.enter(organization)
        entered.append((organization, number))

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(request("many", number))
        for number in range(3):
            group.create_task(request("few", number))
    assert [number for organization, number in entered if organization == "many"] == list(range(100))
    assert [number for organization, number in entered if organization == "few"] == [0, 1, 2]
    assert max(entered.index(("few", number)) for number in range(3)) <= PER_TURN + 6


async def test_long_work_goes_on_when_the_others_have_had_their_turn() -> None:
    turnstile = Turnstile()
    steps: list[str] = []

    async def long() -> None:
        await turnstile.enter("long")
        for _ in range(5):
            steps.append("slice")
            await turnstile.step_back("long")

    async def short() -> None:
        await turnstile.enter("short")
        steps.append("short")

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(long())
        group.create_task(short())
    assert steps.count("slice") == 100
    assert steps.index("short") < 10


async def test_a_request_that_is_given_up_takes_nobodys_turn() -> None:
    turnstile = Turnstile()
    waiting = [asyncio.create_task(turnstile.enter("one")) for _ in range(3 * PER_TURN)]
    await others_run()
    for task in waiting[PER_TURN:]:
        task.cancel()
    await asyncio.wait_for(turnstile.enter("one"), 1)
    await asyncio.wait(waiting)
