"""Artifacts are collected from machines that are slow or lie, beside those of others, and while the store is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from dormice.domain.artifact import Collection, CollectionState
from dormice.domain.limits import Limits
from dormice.domain.machine import Machine
from dormice.engine.orders import Caller
from dormice.protocol import node as wire
from dormice.store.artifact_files import ArtifactFiles
from tests.engine.faulty_store import Faults
from tests.engine.scripted_node import MovedClock, ScriptedNode, Server, ended, serving
from tests.wait import wait_until_async


@dataclass
class World:
    """An engine that collects, its faults, and its node."""

    server: Server
    node: ScriptedNode
    faults: Faults
    kept: Path
    heard: list[wire.StartExecution] = field(default_factory=list)

    async def left_behind(self, machine: Machine, *patterns: str) -> str:
        """Run a command that leaves something behind, and return its id."""
        execution_id = await self.server.execute(machine, artifacts=patterns)
        self.node.exited(await self.hear_of("true"))
        return execution_id

    async def hear_of(self, word: str) -> wire.StartExecution:
        """Return the next start of a program or a tool; those of others stay for later."""
        while True:
            for index, start in enumerate(self.heard):
                if start.argv[0] == word:
                    return self.heard.pop(index)
            self.heard.append(await self.node.hear(wire.StartExecution))

    async def answer(self, tool: str, said: bytes) -> None:
        """Let the next tool say this."""
        self.node.exited(await self.hear_of(tool), output=said)

    async def serve_file(self, content: bytes) -> None:
        """Let the next file that is read hold this."""
        start = await self.hear_of("read")
        name = unquote(start.argv[1]).rpartition("/")[2].encode()
        self.node.exited(start, output=b"f 644 0 0 %d 1000 %b \n" % (len(content), name) + content)

    async def ended(self, execution_id: str) -> Collection:
        """Return a collection once it has ended."""

        async def found() -> Collection | None:
            known = await self.server.engine.artifacts._store.collection(execution_id)
            return known[0] if known and known[0].state is not CollectionState.PENDING else None

        return await wait_until_async(found, 10, "the collection ends")


@asynccontextmanager
async def collecting(
    directory: Path, clock: MovedClock, *, reserve_bytes: int = 0, **limits: int
) -> AsyncIterator[World]:
    faults, kept = Faults(), directory / "artifacts"
    contents = ArtifactFiles(kept, reserve_bytes=reserve_bytes)
    async with serving(directory, clock, Limits(**limits), faults.wrap, contents=contents) as server:
        yield World(server, await server.node(), faults, kept)


def _found(*names: str, size: int = 3) -> bytes:
    return b"".join(b"f 644 0 0 %d 1000 %b \n" % (size, name.encode()) for name in names)


async def test_a_search_that_takes_too_long_is_given_up_in_the_end(tmp_path: Path, clock: MovedClock) -> None:
    async with collecting(tmp_path, clock) as world:
        machine, _ = await world.server.machine(world.node)
        execution_id = await world.left_behind(machine, "**/**/nomatch")
        for _ in range(3):
            start = await world.hear_of("glob")
            world.node.say(wire.ExecutionStarted(start.machine_id, start.execution, 1))
            world.node.say(ended(start, 9, how=2, timed_out=True))
            clock.forward(60)
        collection = await world.ended(execution_id)
        assert (collection.state, collection.message) == (
            CollectionState.FAILED,
            "looking for the files took too long",
        )


async def test_one_organization_does_not_keep_others_waiting(tmp_path: Path, clock: MovedClock) -> None:
    async with collecting(tmp_path, clock) as world:
        greedy = [(await world.server.machine(world.node))[0] for _ in range(9)]
        for machine in [greedy[0], *greedy]:
            await world.left_behind(machine, "**")
        searched = [await world.hear_of("glob") for _ in range(2)]
        assert [start.machine_id for start in searched] == [greedy[0].id, greedy[1].id]
        await world.node.hears_nothing_of(wire.StartExecution)
        organization = await world.server.engine._store.keys.ensure_organization("another", clock.now())
        world.server.caller = Caller(organization, "key-2", admin=True)
        other, _ = await world.server.machine(world.node)
        execution_id = await world.left_behind(other, "out")
        await world.answer("glob", b"")
        assert (await world.ended(execution_id)).state is CollectionState.COLLECTED
        world.node.say(ended(searched[0]))
        assert (await world.hear_of("glob")).machine_id == greedy[0].id


async def test_what_was_copied_is_not_copied_again_while_the_store_is_away(tmp_path: Path, clock: MovedClock) -> None:
    async with collecting(tmp_path, clock) as world:
        machine, _ = await world.server.machine(world.node)
        world.faults.fail("end", 2)
        execution_id = await world.left_behind(machine, "a")
        await world.answer("glob", _found("a"))
        await world.serve_file(b"one")
        assert (await world.ended(execution_id)).state is CollectionState.COLLECTED
        (artifact,) = await world.server.engine.artifacts.page(world.server.caller, machine.id, before=None, limit=9)
        assert [path.name for path in world.kept.iterdir()] == [artifact.id]
        assert world.faults.calls["end"] == 3


async def test_an_organization_keeps_no_more_than_it_may(tmp_path: Path, clock: MovedClock) -> None:
    async with collecting(tmp_path, clock, artifacts_bytes_per_organization=10) as world:
        machine, _ = await world.server.machine(world.node)
        first = await world.left_behind(machine, "*")
        await world.answer("glob", _found("a", "b"))
        await world.serve_file(b"123456")
        await world.serve_file(b"12345")
        assert "b: artifacts_bytes_per_organization (10)" in (await world.ended(first)).message
        second = await world.left_behind(machine, "*")
        await world.answer("glob", _found("c", "d"))
        await world.serve_file(b"1234")
        await world.serve_file(b"1")
        assert (await world.ended(second)).message.startswith("d: artifacts_bytes_per_organization")
        assert len([*world.kept.iterdir()]) == 2


async def test_the_reserve_of_the_disk_stays_free(tmp_path: Path, clock: MovedClock) -> None:
    async with collecting(tmp_path, clock, reserve_bytes=1 << 62) as world:
        machine, _ = await world.server.machine(world.node)
        execution_id = await world.left_behind(machine, "a")
        await world.answer("glob", _found("a"))
        await world.serve_file(b"123")
        collection = await world.ended(execution_id)
        assert "a: the server's disk has no room for it" in collection.message
        assert [*world.kept.iterdir()] == []


async def test_it_looks_again_when_something_is_due_and_not_all_the_time(tmp_path: Path, clock: MovedClock) -> None:
    async with collecting(tmp_path, clock) as world:
        machine, _ = await world.server.machine(world.node)
        await world.left_behind(machine, "a")
        world.node.say(ended(await world.hear_of("glob"), 9, how=2))
        collector = world.server.engine._collector
        assert collector is not None

        async def postponed() -> bool:
            return collector._patience() < 1.0

        await wait_until_async(postponed, 10, "it is put off")
        clock.forward(60)
        await world.hear_of("glob")
        assert collector._patience() > 1.0


async def test_what_retention_has_deleted_is_forgotten(tmp_path: Path, clock: MovedClock) -> None:
    async with collecting(tmp_path, clock) as world:
        machine, _ = await world.server.machine(world.node)
        execution_id = await world.left_behind(machine, "a")
        await world.answer("glob", b"")
        await world.ended(execution_id)
        collector = world.server.engine._collector
        assert collector is not None
        assert execution_id in collector._hints.known
        clock.forward(1_000 * 3_600)
        while await world.server.engine._retention.delete():
            pass
        collector._hints.due.set()

        async def forgotten() -> bool:
            return execution_id not in collector._hints.known

        await wait_until_async(forgotten, 10, "it is forgotten")
