"""The states of snapshots."""

from __future__ import annotations

from itertools import product

import pytest

from dormice.domain.snapshot import TRANSITIONS, SnapshotEvent, SnapshotState
from dormice.domain.transitions import IllegalTransition, follow


@pytest.mark.parametrize(("state", "event"), list(product(SnapshotState, SnapshotEvent)))
def test_the_table_says_all(state: SnapshotState, event: SnapshotEvent) -> None:
    if event in TRANSITIONS[state]:
        assert follow(TRANSITIONS, state, event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition):
            follow(TRANSITIONS, state, event)


def test_every_state_has_a_way_to_the_end() -> None:
    for state in SnapshotState:
        reached = {state}
        for _ in SnapshotState:
            reached |= {after for before in reached for after in TRANSITIONS[before].values()}
        assert SnapshotState.DELETED in reached
