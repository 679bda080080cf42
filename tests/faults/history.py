"""The history checker: what clients asked, what the store says and what commands did, against the promises. Pure.

A promise that is broken becomes a sentence that names the execution and the seed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from tests.faults.commands import END, START, Command

TERMINAL = {"succeeded", "failed", "cancelled", "expired"}
CUT_SHORT = {"machine_lost", "execution_runner_interrupted", "wake_failed"}
"""How an execution may fail whose machine was put to sleep, killed or deleted."""
STEADY = {"running", "sleeping", "destroyed", "failed"}
STREAMS = {1: "stdout", 2: "stderr"}


@dataclass(eq=False, slots=True)
class Asked:
    """One execution as a client asked for it, perhaps several times with the same key."""

    token: str
    """Its idempotency key, which the command has as an argument too."""
    machine_id: str
    command: Command
    answered: list[str] = field(default_factory=list)
    """The id in every answer that came."""
    cancelled: bool = False
    """Somebody asked for its end."""
    refused: str = ""
    """The refusal, if it was refused for good."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a log: a state, or output."""

    sequence: int
    at: int
    state: str | None = None
    stream: int | None = None
    offset: int = 0
    data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One execution as the store has it."""

    id: str
    token: str
    machine_id: str
    state: str
    error_code: str | None
    created_at: int
    started_at: int | None
    completed_at: int | None
    written: tuple[int, int]
    """Bytes of standard output and standard error, counted."""
    kept: tuple[int, int]
    log: tuple[Entry, ...]


NEVER_STARTED = frozenset({"start_deadline_exceeded", "wake_failed"})


@dataclass(eq=False, slots=True)
class History:
    """Everything there is to judge."""

    seed: int
    kept_limit: int
    """Bytes of each stream that are kept."""
    asked: dict[str, Asked] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)
    marks: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each token left its start mark and its end mark."""
    disturbed: set[str] = field(default_factory=set)
    """Machines that were put to sleep, killed or deleted while they had executions."""
    unseen: set[str] = field(default_factory=set)
    """Machines whose marks went with their disks."""
    machines_asked: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The machine ids that were answered to each key."""
    machines: dict[str, str] = field(default_factory=dict)
    """Machine id -> phase, destroyed ones too."""
    followed: dict[str, list[Entry]] = field(default_factory=dict)
    """What a client that followed a log was told, over all its connections."""
    strange: list[str] = field(default_factory=list)
    """Answers that no request should get."""
    integrity: list[str] = field(default_factory=lambda: ["ok"])
    """What the database says of itself."""


def violations(history: History) -> list[str]:
    """Return a sentence for each promise that was broken; empty when all were kept."""
    found = [
        *_of_store(history),
        *_of_machines(history),
        *_of_keys(history),
        *(sentence for row in history.found for sentence in _of_execution(history, row)),
    ]
    return [f"{sentence} (seed {history.seed})" for sentence in found]


def _of_store(history: History) -> Iterator[str]:
    if history.integrity != ["ok"]:
        yield f"the database is not whole: {'; '.join(history.integrity)}"
    for answer in history.strange:
        yield f"a request was answered {answer}"


def _of_machines(history: History) -> Iterator[str]:
    for machine_id, phase in history.machines.items():
        if phase not in STEADY:
            yield f"machine {machine_id} is {phase} for ever"
        if phase == "failed" and machine_id not in history.disturbed:
            yield f"machine {machine_id} is failed, and nobody had touched it"
    for key, ids in history.machines_asked.items():
        if len(ids) > 1:
            yield f"key {key} made two machines: {', '.join(sorted(ids))}"
    answered = {machine_id for ids in history.machines_asked.values() for machine_id in ids}
    for machine_id in answered - history.machines.keys():
        yield f"machine {machine_id} was acknowledged and is lost"
    for machine_id in history.machines.keys() - answered:
        yield f"machine {machine_id} was made and nobody was told"


def _of_keys(history: History) -> Iterator[str]:
    made: dict[str, list[Found]] = defaultdict(list)
    for row in history.found:
        made[row.token].append(row)
    for token, rows in made.items():
        if len(rows) > 1:
            yield f"key {token} made two executions: {', '.join(row.id for row in rows)}"
    for asked in history.asked.values():
        stored = {row.id for row in made[asked.token]}
        for execution_id in set(asked.answered) - stored:
            yield f"execution {execution_id} was acknowledged and is lost (key {asked.token})"
        if asked.refused and asked.machine_id not in history.disturbed:
            yield f"key {asked.token} was refused by a machine that nobody had touched: {asked.refused}"
    for token in history.asked:
        starts, ends = history.marks[token, START], history.marks[token, END]
        if not made[token] and (starts or ends):
            yield f"key {token} has no execution, and its command ran: {starts} starts and {ends} ends"
    for token, _ in history.marks.keys() - {(t, m) for t in history.asked for m in (START, END)}:
        yield f"a command named {token} ran and nobody had asked for it"


def _of_execution(history: History, row: Found) -> Iterator[str]:
    asked = history.asked.get(row.token)
    if asked is None:
        yield f"execution {row.id} is in the store and nobody had asked for it"
        return
    if row.state not in TERMINAL:
        yield f"execution {row.id} is {row.state} for ever"
        return
    for sentence in (
        *_of_ending(history, asked, row),
        *_of_marks(history, row),
        *_of_log(row),
        *_of_output(history, asked, row),
        *_of_follower(history, row),
    ):
        yield f"execution {row.id} {sentence}"


def _of_ending(history: History, asked: Asked, row: Found) -> Iterator[str]:
    ending = f"ended {row.state} / {row.error_code}"
    if row.state == "cancelled":
        if not asked.cancelled:
            yield f"{ending}, and nobody had asked for its end"
    elif row.state != "succeeded":
        if row.machine_id not in history.disturbed:
            yield f"{ending} on a machine that nobody had touched"
        elif row.error_code not in CUT_SHORT:
            yield f"{ending}, which no sleep and no death of its machine explains"


def _of_marks(history: History, row: Found) -> Iterator[str]:
    starts, ends = history.marks[row.token, START], history.marks[row.token, END]
    if max(starts, ends) > 1:
        yield f"took effect twice: {starts} starts and {ends} ends"
    if row.state == "succeeded" and row.machine_id not in history.unseen and min(starts, ends) < 1:
        yield f"succeeded without its effect: {starts} starts and {ends} ends"
    if starts and row.error_code in NEVER_STARTED:
        yield f"ended {row.state} / {row.error_code}, and it ran"
    if starts and row.started_at is None and row.machine_id not in history.disturbed:
        yield "has no time at which it started, and it ran"


def _of_log(row: Found) -> Iterator[str]:
    sequences = [entry.sequence for entry in row.log]
    if sequences != list(range(1, len(sequences) + 1)):
        yield f"has a log with gaps: {_first_gap(sequences)}"
    states = [entry.state for entry in row.log if entry.state is not None]
    ends = [state for state in states if state in TERMINAL]
    if len(ends) != 1 or row.log[-1].state != row.state:
        yield f"has a log that does not end once, with its state: {' '.join(states)}"
    if states.count("running") != (row.started_at is not None):
        yield f"has a log that contradicts when it started: {' '.join(states)}"
    if row.completed_at is None or not row.created_at <= (row.started_at or row.created_at) <= row.completed_at:
        yield f"has times in disorder: {row.created_at}, {row.started_at}, {row.completed_at}"


def _first_gap(sequences: list[int]) -> str:
    return next((f"{b} after {a}" for a, b in pairwise([0, *sequences]) if b != a + 1), "none")


def _of_output(history: History, asked: Asked, row: Found) -> Iterator[str]:
    for index, (stream, expected) in enumerate(zip(STREAMS, asked.command.output(row.token), strict=True)):
        name, written, kept = STREAMS[stream], row.written[index], row.kept[index]
        entries = [entry for entry in row.log if entry.stream == stream]
        at = 0
        for entry in entries:
            if entry.offset != at:
                yield f"has {name} at offset {entry.offset} where {at} was next"
            at = entry.offset + len(entry.data)
        data = b"".join(entry.data for entry in entries)
        if kept != len(data):
            yield f"counts {kept} bytes of {name} as kept, and {len(data)} are"
        if data != expected[: len(data)]:
            yield f"has wrong {name} from byte {_first_difference(data, expected)} on"
        if row.state == "succeeded" and written != len(expected):
            yield f"counts {written} bytes of {name}, and {len(expected)} were written"
        if len(data) != min(written, history.kept_limit):
            yield f"counts {written} bytes of {name} and keeps {len(data)}, with room for {history.kept_limit}"
        if row.state == "succeeded" and len(data) != min(len(expected), history.kept_limit):
            yield f"kept {len(data)} of {len(expected)} bytes of {name}, with room for {history.kept_limit}"
        if not len(data) <= written <= len(expected) or len(data) > history.kept_limit:
            yield f"counts {written} and keeps {len(data)} bytes of {name}, out of {len(expected)}"


def _first_difference(one: bytes, other: bytes) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _of_follower(history: History, row: Found) -> Iterator[str]:
    told = history.followed.get(row.id)
    if told is None:
        return
    stored = [(entry.sequence, entry.state, entry.stream, entry.offset, entry.data) for entry in row.log]
    seen = [(entry.sequence, entry.state, entry.stream, entry.offset, entry.data) for entry in told]
    if seen != stored:
        place = next((n for n, pair in enumerate(zip(seen, stored, strict=False)) if pair[0] != pair[1]), len(seen))
        yield f"was told otherwise to one who followed it: {len(seen)} entries, unlike the log from entry {place + 1} on"
