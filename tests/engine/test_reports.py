"""Which of the guests' reports is committed next."""

from __future__ import annotations

from dormice.domain.execution import Chunk, Stream
from dormice.engine.board import LiveMachine
from dormice.engine.reports import MOST_BYTES, MOST_EXECUTIONS, Reports
from tests.api.fakes import new_machine


def live(name: str) -> LiveMachine:
    return LiveMachine(new_machine(id=name), 0)


def test_machines_take_turns() -> None:
    reports, loud, quiet = Reports(), live("loud"), live("quiet")
    for number in range(100):
        reports.of(loud, f"loud-{number}").started_at = 1
    reports.of(quiet, "quiet-0").started_at = 1
    first = reports.take()
    assert len(first) == MOST_EXECUTIONS
    assert first[1].execution_id == "quiet-0"
    rest = [turn.execution_id for _ in range(10) for turn in reports.take()]
    assert [*(turn.execution_id for turn in first if turn.pending.live is loud), *rest] == [
        f"loud-{number}" for number in range(100)
    ]
    assert not reports


def test_a_commit_takes_a_bounded_amount_and_leaves_the_rest_in_order() -> None:
    reports, machine = Reports(), live("loud")
    size = MOST_BYTES // 4
    chunks = [Chunk(Stream.STDOUT, size * number, b"x" * size) for number in range(10)]
    reports.of(machine, "one").chunks += chunks[:9]
    taken: list[Chunk] = []
    [turn] = reports.take()
    assert not turn.whole
    reports.of(machine, "one").chunks.append(chunks[9])  # comes while the commit is under way
    reports.put_back(turn, len(turn.chunks))
    taken += turn.chunks
    while reports:
        [turn] = reports.take()
        assert sum(len(chunk.data) for chunk in turn.chunks) <= MOST_BYTES
        taken += turn.chunks
        if not turn.whole:
            reports.put_back(turn, len(turn.chunks))
    assert taken == chunks


def test_a_piece_larger_than_a_commit_is_taken_alone() -> None:
    reports, machine = Reports(), live("loud")
    reports.of(machine, "one").chunks += [Chunk(Stream.STDOUT, 0, b"x" * (2 * MOST_BYTES))]
    reports.of(machine, "two").started_at = 1
    assert [turn.execution_id for turn in reports.take()] == ["one"]
    assert [turn.execution_id for turn in reports.take()] == ["two"]


def test_what_is_forgotten_is_not_taken() -> None:
    reports, gone, other = Reports(), live("gone"), live("other")
    reports.of(gone, "one").started_at = 1
    reports.of(other, "two").started_at = 1
    reports.forget(gone)
    assert (reports.holds(gone), reports.holds(other)) == (False, True)
    assert [turn.execution_id for turn in reports.take()] == ["two"]
