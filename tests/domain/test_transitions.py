"""The state tables: what they allow, what they refuse, and that nothing else exists."""

from collections.abc import Mapping
from enum import StrEnum
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from dormice.domain import artifact, execution, machine, preview, ssh
from dormice.domain.artifact import CollectionEvent, CollectionState
from dormice.domain.execution import Execution, ExecutionEvent, ExecutionState, StdinMode
from dormice.domain.machine import DesiredState, Machine, MachineEvent, Phase
from dormice.domain.preview import Preview, PreviewEvent, PreviewProtocol, PreviewState, Visibility
from dormice.domain.ssh import SshEvent, SshState
from dormice.domain.transitions import IllegalTransition, follow

TABLES: list[tuple[Mapping[Any, Mapping[Any, Any]], type[StrEnum], type[StrEnum]]] = [
    (execution.TRANSITIONS, ExecutionState, ExecutionEvent),
    (machine.TRANSITIONS, Phase, MachineEvent),
    (preview.TRANSITIONS, PreviewState, PreviewEvent),
    (ssh.TRANSITIONS, SshState, SshEvent),
    (artifact.TRANSITIONS, CollectionState, CollectionEvent),
]


def an_execution(state: ExecutionState) -> Execution:
    return Execution(
        number=1,
        id="exec-1",
        organization_id="o",
        machine_id="dm-1",
        state=state,
        command=("true",),
        cwd="/root",
        env_keys=(),
        stdin_mode=StdinMode.EMPTY,
        timeout_ms=None,
        created_at=1,
        start_by=2,
    )


def a_machine(phase: Phase) -> Machine:
    return Machine(
        number=1,
        id="dm-1",
        organization_id="o",
        vcpu=1,
        memory_mib=256,
        storage_gib=1,
        image="default",
        autosleep_seconds=0,
        desired_state=DesiredState.RUNNING,
        phase=phase,
        reason="Accepted",
        retryable=False,
        revision=1,
        created_at=1,
        last_transition_at=1,
        last_progress_at=1,
        last_activity_at=1,
        boot_id=UUID(int=1),
    )


def a_preview(state: PreviewState) -> Preview:
    return Preview(
        number=1,
        id="pv-1",
        organization_id="o",
        machine_id="dm-1",
        created_by="key-1",
        port=80,
        protocol=PreviewProtocol.HTTP,
        visibility=Visibility.PRIVATE,
        state=state,
        created_at=1,
        expires_at=2,
    )


@pytest.mark.parametrize(("table", "states", "events"), TABLES)
def test_a_table_names_every_state_and_every_event_and_nothing_else(
    table: Mapping[Any, Mapping[Any, Any]], states: type[StrEnum], events: type[StrEnum]
) -> None:
    assert set(table) == set(states)
    assert {event for row in table.values() for event in row} == set(events)
    assert {state for row in table.values() for state in row.values()} <= set(states)


@pytest.mark.parametrize(("table", "states", "events"), TABLES)
def test_every_state_can_be_reached_and_every_open_one_can_end(
    table: Mapping[Any, Mapping[Any, Any]], states: type[StrEnum], events: type[StrEnum]
) -> None:
    beginnings = {ExecutionState.WAKE_IN_PROGRESS, ExecutionState.QUEUED, Phase.ACCEPTED, PreviewState.WAKE_IN_PROGRESS}
    first = {state for state in states if state in beginnings}
    first = {ExecutionState.WAKE_IN_PROGRESS, ExecutionState.QUEUED, Phase.ACCEPTED, CollectionState.PENDING} & set(
        table
    )
    reached = set(first)
    while more := {after for state in reached for after in table[state].values()} - reached:
        reached |= more
    assert reached == set(states)
    ends = {state for state in states if not table[state]}
    for state in states:
        ahead = {state}
        while more := {after for here in ahead for after in table[here].values()} - ahead:
            ahead |= more
        assert ahead & ends


def test_terminal_states_are_those_without_a_way_out() -> None:
    assert {state for state, row in execution.TRANSITIONS.items() if not row} == execution.TERMINAL
    assert {state for state, row in preview.TRANSITIONS.items() if not row} == preview.TERMINAL
    assert {phase for phase, row in machine.TRANSITIONS.items() if not row} == {Phase.DESTROYED}


@pytest.mark.parametrize(("state", "event"), list(product(ExecutionState, ExecutionEvent)))
def test_an_execution_follows_its_table_or_raises_and_names_both(state: ExecutionState, event: ExecutionEvent) -> None:
    before = an_execution(state)
    if event in execution.TRANSITIONS[state]:
        assert before.on(event) is execution.TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition) as raised:
            before.on(event)
        assert (raised.value.state, raised.value.event) == (state, event)
        assert repr(state.value) in str(raised.value)
        assert repr(event.value) in str(raised.value)
    assert before == an_execution(state)
    assert before.terminal is (state in execution.TERMINAL)


@pytest.mark.parametrize(("phase", "event"), list(product(Phase, MachineEvent)))
def test_a_machine_follows_its_table_or_raises_and_names_both(phase: Phase, event: MachineEvent) -> None:
    before = a_machine(phase)
    if event in machine.TRANSITIONS[phase]:
        assert before.on(event) is machine.TRANSITIONS[phase][event]
    else:
        with pytest.raises(IllegalTransition) as raised:
            before.on(event)
        assert (raised.value.state, raised.value.event) == (phase, event)
        assert repr(phase.value) in str(raised.value)
        assert repr(event.value) in str(raised.value)
    assert before == a_machine(phase)


@pytest.mark.parametrize(("state", "event"), list(product(PreviewState, PreviewEvent)))
def test_a_preview_follows_its_table_or_raises_and_names_both(state: PreviewState, event: PreviewEvent) -> None:
    before = a_preview(state)
    if event in preview.TRANSITIONS[state]:
        assert before.on(event) is preview.TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition) as raised:
            before.on(event)
        assert (raised.value.state, raised.value.event) == (state, event)
    assert before == a_preview(state)
    assert before.terminal is (state in preview.TERMINAL)


@pytest.mark.parametrize(
    ("first", "events", "last"),
    [
        (
            Phase.ACCEPTED,
            ["start", "started", "stop", "stopped", "start", "started", "destroy", "destroyed"],
            "destroyed",
        ),
        (Phase.ACCEPTED, ["no_node", "start", "start_failed", "start", "died"], "sleeping"),
        (Phase.RUNNING, ["stop", "died", "no_node", "destroy", "destroyed"], "destroyed"),
    ],
)
def test_the_lives_of_a_machine(first: Phase, events: list[str], last: str) -> None:
    phase = first
    for event in events:
        phase = follow(machine.TRANSITIONS, phase, MachineEvent(event))
    assert phase.value == last
