"""What holds on to a key ends when it is revoked, and nothing else does."""

from __future__ import annotations

import asyncio

import pytest

from dormice.domain.errors import Unauthenticated
from dormice.engine.revocations import Revocations
from tests.wait import others_run


async def test_a_block_is_cancelled_wherever_it_waits_and_others_are_not() -> None:
    revocations = Revocations()
    cleaned = []

    async def hold(key_id: str) -> None:
        try:
            async with revocations.while_valid(key_id), asyncio.TaskGroup() as group:
                await group.create_task(asyncio.Event().wait())
        finally:
            cleaned.append(key_id)

    one, same, other = (asyncio.create_task(hold(key_id)) for key_id in ("key-1", "key-1", "key-2"))
    await others_run()
    revocations.announce("key-1")
    for task in (one, same):
        with pytest.raises(Unauthenticated, match="revoked"):
            await asyncio.wait_for(task, 5)
    assert cleaned == ["key-1", "key-1"]
    assert not other.done()
    other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await other


async def test_who_comes_after_a_revocation_is_not_let_in() -> None:
    revocations = Revocations()
    revocations.announce("key-1")
    revocations.announce("key-1")
    with pytest.raises(Unauthenticated):
        async with revocations.while_valid("key-1"):
            pytest.fail("it is revoked")
    with pytest.raises(Unauthenticated), revocations.heard("key-1", lambda: None):
        pytest.fail("it is revoked")


@pytest.mark.parametrize(
    "error", [TimeoutError("its own"), Unauthenticated("its own"), asyncio.CancelledError("its own")]
)
async def test_what_a_block_raises_itself_is_left_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error), match="its own"):
        async with Revocations().while_valid("key-1"):
            raise error


async def test_nothing_is_kept_of_those_who_have_left() -> None:
    revocations, told = Revocations(), []
    with revocations.heard("key-1", lambda: told.append(1)), revocations.heard("key-1", lambda: told.append(2)):
        pass
    async with revocations.while_valid("key-1"):
        pass
    revocations.announce("key-1")
    await others_run()
    assert told == []
