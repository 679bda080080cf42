"""Whose disk is copied next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dormice.turns import Turns
from tests.wait import wait_until_async


async def until(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await wait_until_async(holds, 10, "the turn comes")


class Copies:
    """Copies that last until they are told to end."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._turns = Turns(2)
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    def ask(self, *names: str) -> list[asyncio.Task[None]]:
        """The first letter of a name is whose the copy is."""
        return [self._group.create_task(self._copy(name)) for name in names]

    async def _copy(self, name: str) -> None:
        async with self._turns.turn(name[0]):
            self.begun.append(name)
            await self._ends.setdefault(name, asyncio.Event()).wait()

    def end(self, *names: str) -> None:
        for name in names:
            self._ends.setdefault(name, asyncio.Event()).set()


async def test_organizations_take_turns_and_none_has_two_at_once() -> None:
    async with asyncio.TaskGroup() as group:
        copies = Copies(group)
        copies.ask("a1", "a2", "a3", "b1", "c1")
        await until(lambda: copies.begun == ["a1", "b1"])
        copies.ask("b2", "d1")
        copies.end("b1")
        await until(lambda: copies.begun[2:] == ["c1"])
        copies.end("a1", "c1")
        await until(lambda: copies.begun[3:] == ["a2", "b2"])
        copies.end("a2")
        await until(lambda: copies.begun[5:] == ["d1"])
        copies.end("b2", "d1")
        await until(lambda: copies.begun[6:] == ["a3"])
        copies.end("a3")


async def test_a_copy_that_is_given_up_keeps_nobody_waiting() -> None:
    async with asyncio.TaskGroup() as group:
        copies = Copies(group)
        first, second, third = copies.ask("a1", "b1", "c1")
        await until(lambda: copies.begun == ["a1", "b1"])
        third.cancel()
        copies.ask("d1")
        copies.end("b1")
        await second
        await until(lambda: copies.begun[2:] == ["d1"])
        copies.ask("a2")
        first.cancel()
        copies.end("d1")
        await until(lambda: copies.begun[3:] == ["a2"])
        late = copies.ask("a3")[0]
        copies.end("a2", "a4")
        await until(lambda: copies.begun[4:] == ["a3"])
        late.cancel()
        copies.ask("a4")
        await until(lambda: copies.begun[5:] == ["a4"])


async def test_a_turn_that_comes_as_it_is_given_up_passes_on() -> None:
    turns = Turns(1)
    async with asyncio.TaskGroup() as group:
        entered: list[str] = []

        async def copy(name: str) -> None:
            async with turns.turn(name):
                entered.append(name)

        async with turns.turn("a"):
            given_up = group.create_task(copy("b"))
            await until(lambda: "b" in turns._waiting)
            group.create_task(copy("c"))
            await until(lambda: "c" in turns._waiting)
        given_up.cancel()  # its turn has come, and it has not gone on yet
    assert entered == ["c"]
