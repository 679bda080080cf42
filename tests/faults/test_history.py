"""The checker itself: a history in which all is well has no violations, and each kind of violation is seen and named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.commands import END, START, Writes
from tests.faults.history import Asked, Entry, Found, History, violations

MACHINE, RUN = "dm-1", "exec-1"
COMMAND = Writes(2, 10, 0)
OUT, ERR = COMMAND.output("key")
CAP = 50


def _log(state: str = "succeeded") -> tuple[Entry, ...]:
    pieces = [("queued", None, 0, b""), ("running", None, 0, b"")]
    output = [(None, 1, 0, OUT[:30]), (None, 2, 0, ERR[:CAP]), (None, 1, 30, OUT[30:CAP])]
    all_of_it: list[tuple[Any, ...]] = [*pieces, *output, (state, None, 0, b"")]
    return tuple(Entry(n, 1000 + n, *piece) for n, piece in enumerate(all_of_it, 1))


def _good() -> History:
    found = Found(
        id=RUN,
        token="key",
        machine_id=MACHINE,
        state="succeeded",
        error_code=None,
        created_at=1000,
        started_at=1001,
        completed_at=1002,
        written=(len(OUT), len(ERR)),
        kept=(CAP, CAP),
        log=_log(),
    )
    history = History(
        seed=7,
        kept_limit=CAP,
        asked={"key": Asked("key", MACHINE, COMMAND, answered=[RUN, RUN])},
        found=[found],
        marks=Counter({("key", START): 1, ("key", END): 1}),
        machines={MACHINE: "running"},
    )
    history.machines_asked["m"].add(MACHINE)
    history.followed[RUN] = [replace(entry, at=0) for entry in found.log]
    return history


def _change(history: History, **changes: Any) -> None:
    history.found[0] = replace(history.found[0], **changes)


def _end(history: History, state: str, error_code: str | None = None) -> None:
    history.followed.clear()
    _change(history, state=state, error_code=error_code, log=_log(state))


def _without(history: History, number: int) -> None:
    history.followed.clear()
    log = history.found[0].log
    _change(history, log=(*log[:number], *log[number + 1 :]))


def _with_data(history: History, number: int, data: bytes) -> None:
    history.followed.clear()
    log = list(history.found[0].log)
    log[number] = replace(log[number], data=data)
    _change(history, log=tuple(log))


def _fail_disturbed(history: History) -> None:
    history.disturbed.add(MACHINE)
    _end(history, "failed", "spawn_failed")


def _lose(history: History) -> None:
    """The end of what a cancelled command had written, which succeeded executions are not alone to keep."""
    history.asked["key"].cancelled = True
    _end(history, "cancelled", "cancelled")
    log = list(history.found[0].log)
    log[3] = replace(log[3], data=ERR[:40])
    _change(history, log=tuple(log), kept=(CAP, 40))


def _refuse(history: History) -> None:
    history.asked["key"].refused = "409"


def _keep_more(history: History) -> None:
    history.kept_limit = CAP + 1


def _damage(history: History) -> None:
    history.integrity = ["row 5 missing"]


BROKEN: dict[str, Callable[[History], Any]] = {
    "acknowledged and is lost (key key)": lambda h: h.asked["key"].answered.append("exec-2"),
    "is running for ever": lambda h: _end(h, "running"),
    "key key made two executions": lambda h: h.found.append(replace(h.found[0], id="exec-2")),
    "in the store and nobody had asked": lambda h: h.asked.clear(),
    "a command named other ran": lambda h: h.marks.update([("other", START)]),
    "was refused by a machine that nobody had touched": _refuse,
    "took effect twice: 2 starts and 1 ends": lambda h: h.marks.update([("key", START)]),
    "took effect twice: 1 starts and 2 ends": lambda h: h.marks.update([("key", END)]),
    "succeeded without its effect: 1 starts and 0 ends": lambda h: h.marks.pop(("key", END)),
    "succeeded without its effect: 0 starts and 0 ends": lambda h: h.marks.clear(),
    "ended expired / start_deadline_exceeded, and it ran": lambda h: _end(h, "expired", "start_deadline_exceeded"),
    "ended failed / wake_failed, and it ran": lambda h: _end(h, "failed", "wake_failed"),
    "has no time at which it started, and it ran": lambda h: _change(h, started_at=None),
    "key key has no execution, and its command ran: 1 starts and 1 ends": lambda h: h.found.clear(),
    "machine dm-1 is failed, and nobody had touched it": lambda h: h.machines.update({MACHINE: "failed"}),
    "and nobody had asked for its end": lambda h: _end(h, "cancelled", "cancelled"),
    "ended failed / machine_lost on a machine that nobody had touched": lambda h: _end(h, "failed", "machine_lost"),
    "which no sleep and no death of its machine explains": _fail_disturbed,
    "has a log with gaps: 4 after 2": lambda h: _without(h, 2),
    "has a log that does not end once": lambda h: _without(h, 5),
    "has a log that contradicts when it started": lambda h: _without(h, 1),
    "has times in disorder": lambda h: _change(h, completed_at=999),
    "has wrong stdout from byte 5 on": lambda h: _with_data(h, 2, OUT[:5] + b"?" + OUT[6:30]),
    "has wrong stderr from byte 0 on": lambda h: _with_data(h, 3, ERR[1 : CAP + 1]),
    "has stdout at offset 30 where 20 was next": lambda h: _with_data(h, 2, OUT[:20]),
    "counts 50 bytes of stderr as kept, and 40 are": lambda h: _with_data(h, 3, ERR[:40]),
    "bytes of stdout, and": lambda h: _change(h, written=(len(OUT) - 1, len(ERR))),
    "kept 50 of": _keep_more,
    "counts 210 bytes of stderr and keeps 40, with room for 50": _lose,
    "counts 220 and keeps 50 bytes of stderr, out of": lambda h: _change(h, written=(len(OUT), len(ERR) + 10)),
    "was told otherwise to one who followed it: 5 entries, unlike the log from entry 3 on": lambda h: h.followed[
        RUN
    ].pop(2),
    "key m made two machines": lambda h: h.machines_asked["m"].add("dm-2"),
    "machine dm-2 was acknowledged and is lost": lambda h: h.machines_asked["n"].add("dm-2"),
    "machine dm-2 was made and nobody was told": lambda h: h.machines.update({"dm-2": "running"}),
    "machine dm-1 is stopping for ever": lambda h: h.machines.update({MACHINE: "stopping"}),
    "the database is not whole: row 5 missing": _damage,
    "a request was answered 500": lambda h: h.strange.append("500 to GET /"),
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


@pytest.mark.parametrize(("state", "code"), [("cancelled", "cancelled"), ("failed", "machine_lost")])
def test_an_execution_may_be_cut_short_by_what_was_done_to_it(state: str, code: str) -> None:
    history = _good()
    _end(history, state, code)
    history.asked["key"].cancelled = state == "cancelled"
    history.disturbed |= {MACHINE} if state == "failed" else set()
    history.marks.pop(("key", END))
    assert violations(history) == []


def test_the_marks_of_a_deleted_disk_are_not_asked_for() -> None:
    history = _good()
    history.marks.clear()
    history.unseen.add(MACHINE)
    assert violations(history) == []
