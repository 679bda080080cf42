"""The history checker of runs: what clients asked and were told, what the store says, and what steps really did. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.faults.run_flows import FLOWS, LIMITS, MEMBERS
from tests.faults.run_marks import Kind, Mark

TERMINAL = {"completed", "failed", "cancelled"}
MOST_CRASHES = 5
COMMAND = "command"
"""Who leaves the marks of a command."""


@dataclass(eq=False, slots=True)
class AskedRun:
    """A run as a client asked for it, perhaps several times with the same key."""

    token: str
    """Its idempotency key, which the run has in its payload too."""
    flow: str
    answered: list[str] = field(default_factory=list)
    """The id in every answer that came."""
    cancelled: bool = False
    """Somebody asked for its end."""
    cancel_taken: bool = False
    """And was told that it comes."""
    seen: tuple[str, Any] | None = None
    """How it ended, as its client was told, and with what result."""
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRun:
    """A run as the store has it."""

    id: str
    token: str
    flow: str
    state: str
    error: str | None = None
    crashes: int = 0
    parent_id: str | None = None
    step_key: str | None = None
    batch_id: str | None = None
    result: Any = None
    waits: int = 0
    """What it waits for, still."""
    open_commands: int = 0
    steps: tuple[str, ...] = ()


@dataclass(eq=False, slots=True)
class RunHistory:
    """Everything there is to judge."""

    seed: int
    asked: dict[str, AskedRun] = field(default_factory=dict)
    found: list[FoundRun] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    """Answers that no request should get."""
    deaths: int = 0
    """How often a worker or the server died."""


def violations(history: RunHistory) -> list[str]:
    """Return a sentence for each promise that was broken; empty when all were kept."""
    rows = {row.id: row for row in history.found}
    found = [
        *(f"a request was answered {answer}" for answer in history.strange),
        *_of_keys(history, rows),
        *_of_children(rows),
        *(sentence for row in history.found for sentence in _of_run(history, rows, row)),
        *_of_marks(history, rows),
        *_of_steps(history, rows),
        *_of_places(history),
    ]
    return [f"{sentence} (seed {history.seed})" for sentence in found]


def _of_keys(history: RunHistory, rows: dict[str, FoundRun]) -> Iterator[str]:
    made: dict[str, list[str]] = defaultdict(list)
    for row in rows.values():
        made[row.token].append(row.id)
        if row.parent_id is None and row.token not in history.asked:
            yield f"run {row.id} is in the store and nobody had asked for it"
    for token, ids in made.items():
        if len(ids) > 1:
            yield f"{token} made two runs: {', '.join(ids)}"
    for asked in history.asked.values():
        for run_id in sorted(set(asked.answered) - set(made[asked.token])):
            yield f"run {run_id} was acknowledged and is lost (key {asked.token})"
        if asked.refused:
            yield f"key {asked.token} was refused: {asked.refused}"


def _of_children(rows: dict[str, FoundRun]) -> Iterator[str]:
    below: dict[tuple[str, str | None], list[FoundRun]] = defaultdict(list)
    for row in rows.values():
        if row.parent_id is not None:
            below[row.parent_id, row.step_key].append(row)
    for (parent_id, step_key), children in below.items():
        parent, batches = rows.get(parent_id), {child.batch_id for child in children}
        if parent is None:
            yield f"run {children[0].id} has a parent that is not there: {parent_id}"
        elif len(children) != (1 if batches == {None} else MEMBERS) or len(batches) > 1:
            yield f"run {parent_id} has {len(children)} children of its step {step_key}, in {len(batches)} batches"


def _of_run(history: RunHistory, rows: dict[str, FoundRun], row: FoundRun) -> Iterator[str]:
    name = f"run {row.id} ({row.flow} {row.token})"
    if row.state not in TERMINAL:
        yield f"{name} is {row.state} for ever"
        return
    if row.waits or row.open_commands:
        yield f"{name} is {row.state} and waits: {row.waits} waits, {row.open_commands} commands"
    root = list(_chain(rows, row))[-1]
    asked = history.asked.get(root.token)
    if row.state == "cancelled" and not (asked is not None and asked.cancelled):
        yield f"{name} was cancelled, and nobody had asked for its end"
    if row.state == "failed" and not (row.crashes > MOST_CRASHES and history.deaths > MOST_CRASHES):
        yield f"{name} failed: {row.error}"
    expected = FLOWS[row.flow].result(row.token)
    if row.state == "completed" and row.result != expected and not _has_failed_below(rows, row):
        yield f"{name} came to {row.result!r}, not to {expected!r}"
    own = history.asked.get(row.token)
    if own is not None:
        if own.cancel_taken and row.state != "cancelled":
            yield f"{name} is {row.state}, and its client was told that it would be cancelled"
        if own.seen is not None and own.seen != (row.state, row.result):
            yield f"{name} is {row.state} with {row.result!r}, and its client was told {own.seen}"


def _has_failed_below(rows: dict[str, FoundRun], row: FoundRun) -> bool:
    return any(other.state == "failed" and row in _chain(rows, other) for other in rows.values())


def _chain(rows: dict[str, FoundRun], row: FoundRun) -> Iterator[FoundRun]:
    """Yield a run and all above it."""
    current: FoundRun | None = row
    while current is not None:
        yield current
        current = rows.get(current.parent_id or "")


def _of_marks(history: RunHistory, rows: dict[str, FoundRun]) -> Iterator[str]:
    """What steps did, in the order in which it happened."""
    acknowledged: set[tuple[str, str]] = set()
    ended: dict[str, str] = {}
    doing: dict[str, set[str]] = defaultdict(set)
    for mark in history.marks:
        name = f"step {mark.step} of run {mark.run}"
        match mark.kind:
            case Kind.RAN:
                if mark.run not in rows:
                    yield f"{name} ran, and there is no such run"
                if (mark.run, mark.step) in acknowledged:
                    yield f"{name} ran again after its record was acknowledged"
                if mark.run in ended:
                    yield f"{name} ran after its client was told that the run is {ended[mark.run]}"
                if doing[mark.run]:
                    yield f"{name} ran by {mark.who} while {', '.join(sorted(doing[mark.run]))} did a step of the run"
                doing[mark.run].add(mark.who)
            case Kind.DID:
                doing[mark.run].discard(mark.who)
            case Kind.ACKNOWLEDGED:
                acknowledged.add((mark.run, mark.step))
            case Kind.ENDED:
                ended[mark.run] = mark.detail
            case Kind.DIED:
                for whose in doing.values():
                    whose.difference_update([one for one in whose if one.partition(".")[0] == mark.who])
            case Kind.REPLACED:
                yield f"run {mark.run} was given to its worker again while it did a step of it"
            case Kind.STRANGE:
                yield f"a worker was answered {mark.detail}"
            case _:
                pass


def _of_steps(history: RunHistory, rows: dict[str, FoundRun]) -> Iterator[str]:
    count = Counter((mark.run, mark.step, mark.kind) for mark in history.marks)
    commands = Counter((mark.run, mark.step, mark.kind) for mark in history.marks if mark.who == COMMAND)
    for (run, step, kind), times in commands.items():
        if times > 1:
            yield f"the command of step {step} of run {run} took effect twice: it {kind.value} {times} times"
    for row in rows.values():
        for step in FLOWS[row.flow].steps if row.state == "completed" else ():
            if not (count[row.id, step, Kind.RAN] and count[row.id, step, Kind.DID]):
                yield f"run {row.id} ({row.flow}) is completed without its step {step}"
            if step not in row.steps:
                yield f"run {row.id} ({row.flow}) is completed, and the record of its step {step} is lost"
    for run, step in {(mark.run, mark.step) for mark in history.marks if mark.kind is Kind.ACKNOWLEDGED}:
        if run in rows and step not in rows[run].steps:
            yield f"step {step} of run {run} was acknowledged and is lost"


def _of_places(history: RunHistory) -> Iterator[str]:
    inside: dict[str, list[str]] = defaultdict(list)
    for mark in history.marks:
        place = inside[mark.detail]
        if mark.kind is Kind.ENTERED:
            place.append(mark.who)
            if len(place) > LIMITS[mark.detail]:
                yield f"{len(place)} runs were in {mark.detail} at once, and {LIMITS[mark.detail]} may be: {mark.run} too"
        elif mark.kind is Kind.LEFT and mark.who in place:
            place.remove(mark.who)
        elif mark.kind is Kind.DIED:
            for each in inside.values():
                each[:] = [who for who in each if who.partition(".")[0] != mark.who]
