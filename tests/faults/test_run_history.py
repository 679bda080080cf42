"""The checker of runs itself: a history in which all is well has no violations, and each kind of violation is seen and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.run_flows import FLOWS, LIMITS
from tests.faults.run_history import COMMAND, AskedRun, FoundRun, RunHistory, violations
from tests.faults.run_load import WEIGHTS
from tests.faults.run_marks import Kind, Mark


def _did(run: str, step: str, who: str = "7.1", place: str = "") -> list[Mark]:
    return [
        Mark(Kind.RAN, who, run, step),
        *([Mark(Kind.ENTERED, who, run, step, place), Mark(Kind.LEFT, who, run, step, place)] if place else []),
        Mark(Kind.DID, who, run, step),
        *([] if who == COMMAND else [Mark(Kind.ACKNOWLEDGED, who, run, step)]),
    ]


def _run(run_id: str, flow: str, token: str, **fields: Any) -> FoundRun:
    result = FLOWS[flow].result(token)
    steps = FLOWS[flow].steps
    return FoundRun(id=run_id, token=token, flow=flow, state="completed", result=result, steps=steps, **fields)


def _good() -> RunHistory:
    """A parent with its child, a command, a run in a queue with a limit."""
    history = RunHistory(seed=7)
    history.found = [
        _run("p", "parent", "tp"),
        _run("c", "child", "tp.c", parent_id="p", step_key="invoke"),
        _run("x", "commanded", "tx"),
        _run("s", "single", "ts"),
    ]
    for row in history.found:
        if row.parent_id is None:
            asked = AskedRun(row.token, row.flow, answered=[row.id, row.id], seen=(row.state, row.result))
            history.asked[row.token] = asked
    history.marks = [
        *_did("p", "before"),
        *_did("c", "only", "8.1"),
        *_did("p", "after"),
        *_did("x", "work", COMMAND),
        *_did("x", "after"),
        *_did("s", "stay", place="single"),
        *(Mark(Kind.ENDED, "client", run, detail="completed") for run in "pxs"),
    ]
    return history


def _change(history: RunHistory, number: int, **changes: Any) -> None:
    row = history.found[number] = replace(history.found[number], **changes)
    if row.token in history.asked:
        history.asked[row.token].seen = None


def _add(history: RunHistory, *marks: Mark) -> None:
    history.marks = [*history.marks, *marks]


def _first(history: RunHistory, *marks: Mark) -> None:
    history.marks = [*marks, *history.marks]


def _drop(history: RunHistory, run: str, step: str, kind: Kind) -> None:
    history.marks = [mark for mark in history.marks if (mark.run, mark.step, mark.kind) != (run, step, kind)]


def _take_cancel(history: RunHistory) -> None:
    history.asked["ts"].cancelled = history.asked["ts"].cancel_taken = True


def _refuse(history: RunHistory) -> None:
    history.asked["ts"].refused = "404"


def _tell_failure(history: RunHistory) -> None:
    history.asked["ts"].seen = ("failed", None)


BROKEN: dict[str, Callable[[RunHistory], Any]] = {
    "a request was answered 500": lambda h: h.strange.append("500 to GET /"),
    "run s2 was acknowledged and is lost (key ts)": lambda h: h.asked["ts"].answered.append("s2"),
    "ts made two runs: s, s2": lambda h: h.found.append(_run("s2", "single", "ts")),
    "run s is in the store and nobody had asked": lambda h: h.asked.pop("ts"),
    "key ts was refused: 404": _refuse,
    "run p has 2 children of its step invoke": lambda h: h.found.append(
        _run("c2", "child", "other", parent_id="p", step_key="invoke")
    ),
    "run c has a parent that is not there: q": lambda h: _change(h, 1, parent_id="q"),
    "is waiting for ever": lambda h: _change(h, 3, state="waiting"),
    "is completed and waits: 1 waits, 0 commands": lambda h: _change(h, 3, waits=1),
    "is completed and waits: 0 waits, 1 commands": lambda h: _change(h, 2, open_commands=1),
    "was cancelled, and nobody had asked": lambda h: _change(h, 3, state="cancelled"),
    "failed: no reason": lambda h: _change(h, 3, state="failed", error="no reason"),
    "came to [1], not to": lambda h: _change(h, 0, result=[1]),
    "and its client was told that it would be cancelled": _take_cancel,
    "and its client was told ('failed', None)": _tell_failure,
    "step before of run q ran, and there is no such run": lambda h: _first(h, *_did("q", "before")),
    "ran again after its record was acknowledged": lambda h: _add(h, *_did("c", "only")),
    "ran after its client was told that the run is completed": lambda h: _add(h, *_did("s", "another")),
    "ran by 8.1 while 7.1 did a step of the run": lambda h: _first(
        h, Mark(Kind.RAN, "7.1", "s", "x"), Mark(Kind.RAN, "8.1", "s", "x")
    ),
    "run s was given to its worker again": lambda h: _add(h, Mark(Kind.REPLACED, "7.2", "s")),
    "a worker was answered 500": lambda h: _add(h, Mark(Kind.STRANGE, "7", detail="500")),
    "the command of step work of run x took effect twice": lambda h: _first(h, *_did("x", "work", COMMAND)),
    "is completed without its step work": lambda h: _drop(h, "x", "work", Kind.DID),
    "is completed without its step stay": lambda h: _drop(h, "s", "stay", Kind.RAN),
    "the record of its step stay is lost": lambda h: _change(h, 3, steps=()),
    "step only of run c was acknowledged and is lost": lambda h: _change(h, 1, steps=()),
    "2 runs were in single at once, and 1 may be: s too": lambda h: _first(
        h, Mark(Kind.ENTERED, "9.1", "other", "stay", "single")
    ),
}


def test_a_history_in_which_all_is_well_has_no_violations() -> None:
    assert violations(_good()) == []


@pytest.mark.parametrize("words", BROKEN)
def test_a_broken_promise_is_named(words: str) -> None:
    history = _good()
    BROKEN[words](history)
    found = violations(history)
    assert any(words in sentence for sentence in found), found
    assert all(sentence.endswith("(seed 7)") for sentence in found)


def test_a_step_may_run_again_when_its_worker_died_before_its_record_was_acknowledged() -> None:
    history = _good()
    _first(
        history,
        Mark(Kind.RAN, "9.1", "s", "stay"),
        Mark(Kind.ENTERED, "9.1", "s", "stay", "single"),
        Mark(Kind.DIED, "9"),
    )
    assert violations(history) == []


def test_a_run_may_be_cancelled_by_whoever_asked_for_it() -> None:
    history = _good()
    _change(history, 0, state="cancelled", result=None)
    _change(history, 1, state="cancelled", result=None)
    history.marks = [mark for mark in history.marks if mark.run not in ("p", "c")]
    history.asked["tp"].cancelled = history.asked["tp"].cancel_taken = True
    assert violations(history) == []


def test_a_run_may_fail_that_many_workers_died_with() -> None:
    history = _good()
    _change(history, 1, state="failed", result=None, error="given up", crashes=6)
    _change(history, 0, result=[1, None, 2])
    history.deaths = 6
    assert violations(history) == []


def test_every_workflow_is_run_and_every_place_has_a_limit() -> None:
    assert FLOWS.keys() == WEIGHTS.keys() | {"child"}
    assert all(limit == FLOWS[place.partition(" ")[0]].limit for place, limit in LIMITS.items())
