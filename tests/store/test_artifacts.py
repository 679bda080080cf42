"""The port: a collection is made with its execution, is due once that has ended, and ends once."""

from __future__ import annotations

from dormice.domain.artifact import Artifact, CollectionEvent, CollectionState
from dormice.domain.execution import Execution, ExecutionEvent
from dormice.store.interface import Replayed
from tests.store.world import MINUTE, World, outcome


async def _made(world: World, *patterns: str) -> Execution:
    made = await world.store.executions.create(world.new(artifacts=patterns), None)
    assert isinstance(made, Execution)
    return made


async def _ended(world: World, execution: Execution) -> None:
    await world.store.executions.end_unstarted(execution.id, outcome(ExecutionEvent.CANCELLED, world.tick()))


def _artifact(world: World, execution: Execution, number: int, **fields: object) -> Artifact:
    known = {
        "id": f"art-{number}",
        "execution_id": execution.id,
        "organization_id": world.organization,
        "machine_id": world.machine.id,
        "name": b"out/\xff\n%d" % number,
        "size": number,
        "sha256": "0" * 64,
        "mime_type": "text/plain",
        "created_at": world.now,
        "expires_at": world.now + number * MINUTE,
    }
    return Artifact(**{**known, **fields})  # type: ignore[arg-type]


async def test_nothing_is_due_before_its_execution_has_ended(world: World) -> None:
    without = await _made(world)
    made = await _made(world, "out/*", "ümläut")
    store = world.store.artifacts
    assert await store.known() == {made.id}
    assert await store.due(limit=9) == []
    assert await store.collection(without.id) is None
    await _ended(world, made)
    (due,) = await store.due(limit=9)
    assert (due.execution_id, due.machine_id, due.cwd) == (made.id, world.machine.id, made.cwd)
    assert (due.patterns, due.state, due.started) == (("out/*", "ümläut"), CollectionState.PENDING, False)


async def test_the_oldest_is_due_first(world: World) -> None:
    made = [await _made(world, "x") for _ in range(5)]
    for execution in reversed(made):
        await _ended(world, execution)
    assert [due.execution_id for due in await world.store.artifacts.due(limit=3)] == [one.id for one in made[:3]]


async def test_what_may_not_begin_is_passed_over(world: World) -> None:
    made = [await _made(world, "x") for _ in range(2)]
    for execution in made:
        await _ended(world, execution)
    store = world.store.artifacts
    assert [due.execution_id for due in await store.due(limit=9, executions=[made[0].id, "x"])] == [made[1].id]
    assert await store.due(limit=9, machines=["x", world.machine.id]) == []
    assert await store.due(limit=9, organizations=[world.organization]) == []
    assert len(await store.due(limit=9, executions=["x"], machines=["x"], organizations=["x"])) == 2


async def test_it_is_known_how_much_an_organization_keeps(world: World) -> None:
    made, store = await _made(world, "x"), world.store.artifacts
    assert await store.kept_bytes(world.organization) == 0
    await store.end(made.id, CollectionEvent.COPIED, [_artifact(world, made, number) for number in (3, 4)], "")
    assert await store.kept_bytes(world.organization) == 7
    assert await store.kept_bytes("another") == 0


async def test_a_collection_ends_once_and_with_all_that_was_copied(world: World) -> None:
    made, store = await _made(world, "x"), world.store.artifacts
    await _ended(world, made)
    copied = [_artifact(world, made, number) for number in (1, 2)]
    assert await store.end(made.id, CollectionEvent.COPIED, copied, "one was left out")
    assert not await store.end(made.id, CollectionEvent.LOST, [_artifact(world, made, 3)], "")
    found = await store.collection(made.id)
    assert found is not None
    collection, artifacts = found
    assert (collection.state, collection.message) == (CollectionState.COLLECTED, "one was left out")
    assert [(one.id, one.name, one.size, one.expires_at) for one in artifacts] == [
        (one.id, one.name, one.size, one.expires_at) for one in copied
    ]
    assert await store.due(limit=9) == []
    assert await store.ids() == {"art-1", "art-2"}


async def test_artifacts_are_found_by_their_machine_and_by_nobody_else(world: World) -> None:
    made, store = await _made(world, "x"), world.store.artifacts
    await store.end(made.id, CollectionEvent.COPIED, [_artifact(world, made, number) for number in range(5)], "")
    page = await store.page(world.organization, world.machine.id, before=None, limit=2)
    assert [one.id for one in page] == ["art-4", "art-3"]
    rest = await store.page(world.organization, world.machine.id, before=page[-1].number, limit=9)
    assert [one.id for one in rest] == ["art-2", "art-1", "art-0"]
    assert await store.get(world.organization, world.machine.id, "art-1") == rest[1] == await store.find("art-1")
    assert await store.get("another", world.machine.id, "art-1") is None
    assert await store.get(world.organization, "dm-other", "art-1") is None
    assert await store.page("another", world.machine.id, before=None, limit=9) == []
    await store.delete("art-1")
    await store.delete("art-1")
    assert await store.find("art-1") is None


async def test_those_whose_time_is_over_are_known(world: World) -> None:
    made, store = await _made(world, "x"), world.store.artifacts
    kept = _artifact(world, made, 9, expires_at=None)
    await store.end(made.id, CollectionEvent.COPIED, [*(_artifact(world, made, n) for n in (3, 1, 2)), kept], "")
    assert await store.expired(world.now + 3 * MINUTE, limit=9) == ["art-1", "art-2"]
    assert await store.expired(world.now + 99 * MINUTE, limit=2) == ["art-1", "art-2"]
    assert await store.expired(world.now, limit=9) == []


async def test_a_key_that_is_used_again_makes_no_second_collection(world: World) -> None:
    made = await world.store.executions.create(world.new(artifacts=("x",)), world.key())
    assert isinstance(made, Execution)
    assert await world.store.executions.create(world.new(artifacts=("x",)), world.key()) == Replayed(made.id)
    assert await world.store.artifacts.known() == {made.id}


async def test_a_collection_goes_with_its_execution_and_artifacts_stay_their_time(world: World) -> None:
    made, store = await _made(world, "x"), world.store.artifacts
    await _ended(world, made)
    await store.end(made.id, CollectionEvent.COPIED, [_artifact(world, made, 1)], "")
    while await world.store.delete_finished(world.now + MINUTE):
        pass
    assert await store.known() == set()
    assert await store.ids() == {"art-1"}
