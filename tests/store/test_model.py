"""The port against a model: whatever is done in whatever order, the store answers as a few dictionaries would."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from dormice.domain.execution import (
    TERMINAL,
    TRANSITIONS,
    Execution,
    ExecutionEvent,
    ExecutionState,
    StdinMode,
    Stream,
)
from dormice.domain.transitions import IllegalTransition
from dormice.store.interface import KeyReused, LostRace, Replayed, StdinRefusal
from tests.store.conftest import ADAPTERS
from tests.store.world import World, err, out, outcome

T = TypeVar("T")
S, E = ExecutionState, ExecutionEvent

ENDS = (E.SUCCEEDED, E.FAILED, E.CANCELLED, E.EXPIRED)
BOOTS = st.integers(0, 1)
WHICH = st.integers(0, 7)
OURS = st.sampled_from([True, True, True, False])
"""Whether a report is about the boot that has the claim, or about another one."""
OFFSETS = st.integers(0, 12)
PIECES = st.binary(max_size=6)


@dataclass
class Expected:
    """What is known of one execution."""

    state: ExecutionState
    env: dict[str, str]
    boot: UUID | None = None
    fence: int = 0
    started: bool = False
    asked: bool = False
    states: list[ExecutionState] = field(default_factory=list)
    output: dict[Stream, bytes] = field(default_factory=lambda: {Stream.STDOUT: b"", Stream.STDERR: b""})
    stdin: bytes = b""
    trimmed: int = 0
    eof: bool = False

    def move(self, event: ExecutionEvent) -> bool:
        """Follow the table; False when it forbids."""
        if event not in TRANSITIONS[self.state]:
            return False
        self.state = TRANSITIONS[self.state][event]
        self.states.append(self.state)
        return True

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL


class StoreMachine(RuleBasedStateMachine):
    """Two machines, two boots, and everything that can be done to executions."""

    adapter = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.store = self.do(self.open())
        self.world = self.do(World.made(self.store))
        self.machines = [self.world.machine, self.do(self.world.create_machine())]
        self.boots = [uuid4(), uuid4()]
        self.expected: dict[str, Expected] = {}
        self.records: dict[str, Execution] = {}
        self.keys: dict[str, tuple[str, str]] = {}
        for place in range(6):  # enough to do something to from the first step on
            boot = None if place % 3 else place // 3
            self.create(place % 2, awake=place != 1, boot=boot, env={"A": "1"}, key="none", request="r")

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(what)

    async def open(self) -> Any:
        return ADAPTERS[self.adapter](Path(self.directory.name))

    @rule()
    def look_at_everything(self) -> None:
        self.logs_tell_the_whole_life()
        self.secrets_are_there_for_as_long_as_they_are_needed()
        self.open_and_listed_are_what_they_should_be()

    def teardown(self) -> None:
        self.look_at_everything()
        self.do(self.store.close())
        self.runner.close()
        self.directory.cleanup()

    @rule(
        machine=st.integers(0, 1),
        awake=st.booleans(),
        boot=st.none() | BOOTS,
        env=st.dictionaries(st.sampled_from("AB"), st.text(max_size=3)),
        key=st.sampled_from(["none", "a", "b"]),
        request=st.sampled_from(["r", "s"]),
    )
    def create(
        self, machine: int, *, awake: bool, boot: int | None, env: dict[str, str], key: str, request: str
    ) -> None:
        boot_id = self.boots[boot] if boot is not None and awake else None
        new = self.world.new(
            machine_id=self.machines[machine].id, awake=awake, boot_id=boot_id, env=env, stdin_mode=StdinMode.OPEN
        )
        claim = None if key == "none" else self.world.key(key, request)
        answer = self.do(self.store.executions.create(new, claim))
        if key in self.keys:
            made, used = self.keys[key]
            assert answer == (Replayed(made) if used == request else KeyReused(used, request))
            return
        assert isinstance(answer, Execution)
        state = S.QUEUED if awake else S.WAKE_IN_PROGRESS
        self.expected[new.id] = Expected(state, env, boot_id, int(boot_id is not None), states=[state])
        self.records[new.id] = answer
        if claim is not None:
            self.keys[key] = (new.id, request)

    def pick(self, which: int, *, claimed: bool = False) -> tuple[str, Expected]:
        """One of all, or (mostly) of those that have not ended, or of those that are claimed."""
        likely = [
            one for one, expected in self.expected.items()
            if not expected.terminal and (expected.boot is not None or not claimed)
        ]  # fmt: skip
        among = list(self.expected) if which == 0 or not likely else likely
        execution = among[which % len(among)]
        return execution, self.expected[execution]

    def boot_of(self, expected: Expected, *, ours: bool) -> UUID:
        return expected.boot if ours and expected.boot is not None else uuid4()

    def settle(self, execution: str, answer: object, *, changed: bool) -> None:
        """Compare an answer: the record as it is now, or a lost race that shows the record as it was."""
        if changed:
            assert isinstance(answer, Execution)
            self.records[execution] = answer
        else:
            assert answer == LostRace(self.records[execution])

    @rule(which=WHICH, boot=BOOTS)
    def claim(self, which: int, boot: int) -> None:
        execution, expected = self.pick(which)
        answer = self.do(self.store.executions.claim(execution, self.boots[boot], self.world.tick()))
        free = expected.state is S.QUEUED and expected.boot is None
        if free:
            expected.boot = self.boots[boot]
            expected.fence += 1
        self.settle(execution, answer, changed=free)

    @rule(machine=st.integers(0, 1), boot=st.none() | BOOTS, slots=st.integers(0, 3))
    def machine_ready(self, machine: int, *, boot: int | None, slots: int) -> None:
        boot_id = None if boot is None else self.boots[boot]
        ready = self.store.executions.machine_ready(
            self.machines[machine].id, self.world.tick(), boot_id=boot_id, slots=slots
        )
        moved = self.do(ready)
        waiting = [
            one for one, expected in self.expected.items()
            if expected.state is S.WAKE_IN_PROGRESS and self.records[one].machine_id == self.machines[machine].id
        ]  # fmt: skip
        assert [one.id for one in moved] == waiting
        for index, one in enumerate(moved):
            expected = self.expected[one.id]
            expected.move(E.MACHINE_READY)
            if boot_id is not None and index < slots:
                expected.boot = boot_id
                expected.fence += 1
            self.records[one.id] = one

    @rule(which=WHICH)
    def start(self, which: int) -> None:
        self.progress(which, ours=True, start=True, pieces=[], end=None)

    @rule(which=WHICH, stream=st.sampled_from(Stream), data=PIECES)
    def output(self, which: int, stream: Stream, data: bytes) -> None:
        self.progress(which, ours=True, start=False, pieces=[(stream, 0, data)], end=None)

    @rule(
        which=WHICH,
        ours=OURS,
        start=st.booleans(),
        pieces=st.lists(st.tuples(st.sampled_from(Stream), st.integers(-2, 1), PIECES), max_size=4),
        end=st.sampled_from([None, None, None, *ENDS]),
    )
    def progress(
        self,
        which: int,
        *,
        ours: bool,
        start: bool,
        pieces: list[tuple[Stream, int, bytes]],
        end: ExecutionEvent | None,
    ) -> None:
        execution, expected = self.pick(which, claimed=True)
        boot_id = self.boot_of(expected, ours=ours)
        known = dict(expected.output)
        chunks = []
        legal = True
        for stream, shift, data in pieces:
            offset = max(0, len(known[stream]) + shift)
            chunks.append((out if stream is Stream.STDOUT else err)(offset, data))
            fresh = data[len(known[stream]) - offset :] if offset <= len(known[stream]) else b""
            running = expected.state is S.RUNNING or start
            legal = legal and offset <= len(known[stream]) and (running or not fresh)
            known[stream] += fresh
        lost = expected.terminal or expected.boot != boot_id
        after = S.RUNNING if start else expected.state
        refused = not lost and (not legal or (end is not None and end not in TRANSITIONS[after]))
        report = self.world.try_report(
            self.records[execution],
            boot_id=boot_id,
            started_at=self.world.tick() if start else None,
            chunks=chunks,
            outcome=None if end is None else outcome(end, self.world.tick()),
        )
        if refused:
            with pytest.raises((ValueError, IllegalTransition)):
                self.do(report)
            return
        self.settle(execution, self.do(report), changed=not lost)
        if not lost:
            if start and expected.state is S.QUEUED:
                expected.move(E.STARTED)
                expected.started = True
            expected.output = known
            if end is not None:
                expected.move(E.CANCELLED if expected.asked else end)

    @rule(which=WHICH, ours=OURS)
    def requeue(self, which: int, *, ours: bool) -> None:
        execution, expected = self.pick(which, claimed=True)
        boot_id = self.boot_of(expected, ours=ours)
        legal = expected.state is S.QUEUED and expected.boot == boot_id
        answer = self.do(self.world.try_report(self.records[execution], boot_id=boot_id, requeue=True))
        self.settle(execution, answer, changed=legal)
        if legal:
            expected.boot = None
            if expected.asked:
                expected.move(E.CANCELLED)

    @rule(which=WHICH, end=st.sampled_from(ENDS))
    def end_unstarted(self, which: int, end: ExecutionEvent) -> None:
        execution, expected = self.pick(which)
        ending = self.store.executions.end_unstarted(execution, outcome(end, self.world.tick()))
        if expected.terminal or expected.boot is not None:
            self.settle(execution, self.do(ending), changed=False)
        elif expected.move(end):
            self.settle(execution, self.do(ending), changed=True)
        else:
            with pytest.raises(IllegalTransition):
                self.do(ending)

    @rule(machine=st.integers(0, 1), boot=st.none() | BOOTS)
    def end_boot(self, machine: int, *, boot: int | None) -> None:
        machine_id = self.machines[machine].id
        boot_id = None if boot is None else self.boots[boot]
        lost = outcome(E.FAILED, self.world.tick())
        ended = self.do(self.store.executions.end_boot(machine_id, boot_id, lost))
        affected = [
            one for one, expected in self.expected.items()
            if self.records[one].machine_id == machine_id and not expected.terminal
            and (boot_id is None or expected.boot == boot_id)
        ]  # fmt: skip
        assert [one.id for one in ended] == affected
        for one in ended:
            self.expected[one.id].move(E.CANCELLED if self.expected[one.id].asked else E.FAILED)
            self.records[one.id] = one

    @rule(which=WHICH)
    def request_cancel(self, which: int) -> None:
        execution, expected = self.pick(which)
        answer = self.do(self.store.executions.request_cancel(execution, self.world.tick()))
        if not expected.terminal and not expected.asked:
            expected.asked = True
            if expected.boot is None:
                expected.move(E.CANCELLED)
            self.settle(execution, answer, changed=True)
        assert answer == self.records[execution]

    @rule(which=WHICH, shift=st.integers(-2, 1), data=PIECES, eof=st.sampled_from([False, False, True]))
    def append_stdin(self, which: int, shift: int, data: bytes, *, eof: bool) -> None:
        execution, expected = self.pick(which)
        offset = max(0, len(expected.stdin) + shift)
        answer = self.do(self.store.executions.append_stdin(execution, offset, data, eof=eof, now=self.world.tick()))
        known, end = len(expected.stdin), offset + len(data)
        if expected.terminal:
            assert answer is StdinRefusal.ENDED
        elif offset > known:
            assert answer is StdinRefusal.GAP
        elif expected.eof and end > known:
            assert answer is StdinRefusal.CLOSED
        elif eof and end < known:
            assert answer is StdinRefusal.GAP
        else:
            expected.stdin += data[known - offset :]
            expected.eof = expected.eof or eof
            self.settle(execution, answer, changed=True)

    @rule(which=WHICH, offset=OFFSETS)
    def trim_stdin(self, which: int, offset: int) -> None:
        execution, expected = self.pick(which)
        self.do(self.store.executions.trim_stdin(execution, offset))
        expected.trimmed = max(expected.trimmed, min(offset, len(expected.stdin)))

    @rule(age=st.integers(0, 30))
    def delete_finished(self, age: int) -> None:
        before = self.world.now - age * 1_000
        while self.do(self.store.delete_finished(before)):
            pass
        due = [one for one, record in self.records.items() if (record.completed_at or before) < before]
        for one in due:
            assert self.expected.pop(one).terminal
            gone = self.records.pop(one)
            assert self.do(self.store.executions.get(gone.organization_id, gone.machine_id, one)) is None
            assert self.do(self.store.executions.entries(gone, after=0, limit=100, max_bytes=1 << 20)) == []
        if not self.expected:  # something to do something to
            self.create(0, awake=True, boot=None, env={}, key="none", request="r")

    @rule()
    def reopen(self) -> None:
        """What was answered is what was stored."""
        self.do(self.store.close())
        self.store = self.world.store = self.do(self.open())

    @invariant()
    def records_are_as_they_were_answered_and_as_expected(self) -> None:
        for execution, expected in self.expected.items():
            record = self.do(self.world.stored(self.records[execution]))
            assert record == self.records[execution]
            assert (record.state, record.boot_id, record.fence) == (expected.state, expected.boot, expected.fence)
            assert (record.started_at is not None, record.completed_at is not None) == (
                expected.started,
                expected.terminal,
            )
            assert (record.cancel_requested_at is not None) == expected.asked
            assert (record.stdin_offset, record.stdin_eof) == (len(expected.stdin), expected.eof)

    def logs_tell_the_whole_life(self) -> None:
        for execution, expected in self.expected.items():
            entries = self.do(self.world.log(self.records[execution]))
            assert [entry.state for entry in entries if entry.state is not None] == expected.states
            for stream in Stream:
                pieces = [entry for entry in entries if entry.stream is stream]
                assert b"".join(entry.data for entry in pieces) == expected.output[stream]
                assert [entry.offset for entry in pieces] == [
                    sum(len(before.data) for before in pieces[:place]) for place in range(len(pieces))
                ]
            assert not expected.terminal or entries[-1].state is expected.state

    def secrets_are_there_for_as_long_as_they_are_needed(self) -> None:
        for execution, expected in self.expected.items():
            record = self.records[execution]
            env = self.do(self.store.executions.environment(record))
            assert env == ({} if expected.started or expected.terminal else expected.env)
            segments = self.do(self.store.executions.stdin(record, offset=expected.trimmed, max_bytes=1 << 20))
            if expected.terminal:
                assert segments == []
            elif segments:
                skip = expected.trimmed - segments[0].offset
                assert b"".join(one.data for one in segments)[skip:] == expected.stdin[expected.trimmed :]
            else:
                assert expected.trimmed == len(expected.stdin)

    def open_and_listed_are_what_they_should_be(self) -> None:
        opened = self.do(self.store.executions.open())
        assert [one.id for one in opened] == [one for one, expected in self.expected.items() if not expected.terminal]
        for machine in self.machines:
            page = self.do(self.store.executions.page(self.world.organization, machine.id, before=None, limit=1_000))
            assert page == [one for one in reversed(self.records.values()) if one.machine_id == machine.id]


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_store_is_its_model(adapter: str) -> None:
    machine = type("Machine", (StoreMachine,), {"adapter": adapter})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
