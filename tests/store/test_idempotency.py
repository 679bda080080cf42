"""The port: an Idempotency-Key starts one thing."""

import asyncio

from dormice.domain.execution import Execution
from dormice.domain.machine import Machine
from dormice.store.interface import KeyReused, Replayed
from tests.store.world import MINUTE, World


async def test_the_same_request_again_answers_what_it_made(world: World) -> None:
    first = await world.store.executions.create(world.new(), world.key())
    assert isinstance(first, Execution)
    assert await world.store.executions.create(world.new(), world.key()) == Replayed(first.id)
    assert await world.store.executions.open() == [first]


async def test_another_request_with_the_key_is_refused_and_makes_nothing(world: World) -> None:
    first = await world.store.executions.create(world.new(), world.key())
    again = await world.store.executions.create(world.new(), world.key(request="other"))
    assert again == KeyReused("request", "other")
    assert await world.store.executions.open() == [first]


async def test_a_key_counts_in_its_scope_only(world: World) -> None:
    first = await world.store.executions.create(world.new(), world.key(scope="one"))
    second = await world.store.executions.create(world.new(), world.key(scope="two"))
    assert await world.store.executions.open() == [first, second]


async def test_a_key_past_its_time_counts_as_absent(world: World) -> None:
    claim = world.key()
    first = await world.store.executions.create(world.new(), claim)
    at_the_end = world.key(now=claim.keep_until, keep_until=claim.keep_until + MINUTE)
    assert isinstance(await world.store.executions.create(world.new(), at_the_end), Replayed)
    past = world.key(request="other", now=claim.keep_until + 1, keep_until=claim.keep_until + MINUTE)
    second = await world.store.executions.create(world.new(), past)
    assert isinstance(second, Execution)
    assert await world.store.executions.create(world.new(), past) == Replayed(second.id)
    assert await world.store.executions.open() == [first, second]


async def test_fifty_requests_at_once_with_one_key_make_one_execution(world: World) -> None:
    answers = await asyncio.gather(*(world.store.executions.create(world.new(), world.key()) for _ in range(50)))
    made = [answer for answer in answers if isinstance(answer, Execution)]
    assert len(made) == 1
    assert answers.count(Replayed(made[0].id)) == 49
    assert await world.store.executions.open() == made


async def test_a_request_that_fails_leaves_its_key_free(world: World) -> None:
    try:
        await world.store.executions.create(world.new(machine_id="dm-none"), world.key())
    except LookupError:
        pass
    else:
        raise AssertionError
    assert isinstance(await world.store.executions.create(world.new(), world.key()), Execution)


async def test_a_machine_is_made_once(world: World) -> None:
    first = await world.store.machines.create(world.new_machine(), world.key())
    assert isinstance(first, Machine)
    assert await world.store.machines.create(world.new_machine(), world.key()) == Replayed(first.id)
    reused = await world.store.machines.create(world.new_machine(), world.key(request="other"))
    assert reused == KeyReused("request", "other")
    assert await world.store.machines.live() == [world.machine, first]


async def test_pruning_forgets_what_no_longer_counts_and_nothing_else(world: World) -> None:
    end = world.now + MINUTE
    await asyncio.gather(
        *(world.store.executions.create(world.new(), world.key(str(n), keep_until=end)) for n in range(1_100))
    )
    kept = await world.store.executions.create(world.new(), world.key("kept", keep_until=end + 1))
    assert isinstance(kept, Execution)
    assert await world.store.prune_idempotency(end) == 0
    pruned = [await world.store.prune_idempotency(end + 1) for _ in range(6)]
    assert pruned[0] < 1_100  # bounded: no turn stops the writer for long
    assert sum(pruned) == 1_100
    assert await world.store.executions.create(world.new(), world.key("kept")) == Replayed(kept.id)


async def test_recalling_a_key_tells_what_it_made_and_claims_nothing(world: World) -> None:
    assert await world.store.recall(world.key()) is None
    first = await world.store.executions.create(world.new(), world.key())
    assert isinstance(first, Execution)
    assert await world.store.recall(world.key()) == Replayed(first.id)
    assert await world.store.recall(world.key(request="other")) == KeyReused("request", "other")
    assert await world.store.recall(world.key(scope="another")) is None
