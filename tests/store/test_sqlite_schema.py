"""SQLite: the words of the CHECKs are the domain's, and no query walks through what has piled up."""

import re
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

import apsw
import pytest

from dormice.domain.artifact import CollectionState
from dormice.domain.execution import ErrorCode, ExecutionState, StdinMode, Stream
from dormice.domain.machine import DesiredState, Phase, ResizeState
from dormice.domain.run import RunState, WaitKind
from dormice.domain.snapshot import SnapshotState
from dormice.domain.ssh import SshState
from dormice.domain.webhook import DeliveryState, EventType
from dormice.store.sealing import SecretKind
from dormice.store.sqlite import statements
from dormice.store.sqlite.connection import open_writer

CHECKED: dict[str, Iterable[Enum]] = {
    "machine_desired_state": DesiredState,
    "machine_phase": Phase,
    "execution_state": ExecutionState,
    "execution_error_code": ErrorCode,
    "request_stdin_mode": StdinMode,
    "log_state": ExecutionState,
    "log_output": Stream,
    "secret_kind": SecretKind,
    "resize_state": ResizeState,
    "artifact_collection_state": CollectionState,
    "run_state": RunState,
    "wait_kind": WaitKind,
    "webhook_delivery_type": EventType,
    "webhook_delivery_state": DeliveryState,
    "snapshot_state": [state for state in SnapshotState if state is not SnapshotState.DELETED],
    "ssh_session_state": SshState,
}

WALKS = {
    (
        "artifacts.sql",
        "known",
    ): "SCAN artifact_collections USING COVERING INDEX sqlite_autoindex_artifact_collections_1",
    ("artifacts.sql", "ids"): "SCAN artifacts USING COVERING INDEX sqlite_autoindex_artifacts_1",
    ("artifacts.sql", "due"): "SCAN c USING INDEX artifact_collections_pending",
    ("executions.sql", "open"): "SCAN e USING INDEX executions_open",
    ("machines.sql", "live"): "SCAN m USING INDEX machines_live",
    ("snapshots.sql", "unsettled"): "SCAN snapshots USING INDEX snapshots_unsettled",
    ("survey.sql", "snapshots"): "SCAN snapshots",
    ("survey.sql", "failed_snapshots"): "SCAN snapshots",
    ("survey.sql", "gone"): "SCAN machines USING INDEX machines_destroyed",
    ("survey.sql", "has_snapshots"): "SCAN sqlite_schema",
    ("keys.sql", "of"): "SCAN k",
    ("survey.sql", "live"): "SCAN machines USING INDEX machines_live",
    ("projects.sql", "projects"): "SCAN projects",
    ("projects.sql", "restrictions"): "SCAN project_keys",
    ("projects.sql", "deployments"): "SCAN deployments",
    ("projects.sql", "definitions"): "SCAN definitions",
    ("projects.sql", "queues"): "SCAN queues",
    ("projects.sql", "workers"): "SCAN workers",
    ("run_commands.sql", "open"): "SCAN c USING INDEX run_commands_open",
    ("runs.sql", "open"): "SCAN runs USING INDEX runs_open",
    ("schedules.sql", "all"): "SCAN schedules",
    ("triggers.sql", "all"): "SCAN event_triggers",
    ("waits.sql", "open"): "SCAN w",
    ("webhooks.sql", "due"): "SCAN w",
    ("webhooks.sql", "pending"): "SCAN w",
}
"""What reads a whole index or table, because it is asked for all of it."""
LED_BY = {
    "all": "runs_of",
    "open": "runs_open",
    "ended": "runs_ended_in",
    "of_workflow": "runs_of_workflow",
    "of_queue": "runs_of_queue",
    "of_session": "runs_of_session",
    "of_user": "runs_of_user",
    "of_batch": "runs_of_batch",
    "of_parent": "runs_under",
}
"""The index of each list of runs: any other one would have it read runs that it passes over, without bound."""
MADE_AT_OPEN = {"schema.sql", "additions.sql", "workflows-schema.sql"}


@pytest.mark.parametrize(("constraint", "words"), CHECKED.items())
def test_a_check_knows_exactly_the_words_of_the_domain(constraint: str, words: Iterable[Enum]) -> None:
    schema = re.sub(r"--.*", "", "".join(map(statements.read, sorted(MADE_AT_OPEN))))
    body = schema.split(f"CONSTRAINT {constraint} CHECK", 1)[1].split("CONSTRAINT ", 1)[0].split(") STRICT", 1)[0]
    found: set[object]
    if constraint == "log_output":
        listed = re.search(r"stream IN \(([\d, ]+)\)", body)
        assert listed
        found = {int(number) for number in listed[1].split(",")}
    else:
        found = set(re.findall(r"(?:WHEN|[(,]\s*)\s*'([\w.]+)'", body))
    assert found == {word.value for word in words}


def test_every_table_is_strict(tmp_path: Path) -> None:
    db = open_writer(tmp_path / "x.sqlite3")
    loose = db.execute("SELECT name FROM pragma_table_list WHERE type = 'table' AND NOT strict").fetchall()
    db.close()
    assert {name for (name,) in loose} <= {"sqlite_schema", "sqlite_temp_schema", "sqlite_sequence"}


def queries() -> list[tuple[str, str, str]]:
    files = sorted(
        path.name for path in Path(statements.__file__).parent.glob("*.sql") if path.name not in MADE_AT_OPEN
    )
    return [(file, name, sql) for file in files for name, sql in statements.load(file).items()]


@pytest.mark.parametrize(("file", "name", "sql"), queries(), ids=lambda value: value if len(value) < 30 else "")
def test_every_statement_finds_its_rows_by_an_index(tmp_path: Path, file: str, name: str, sql: str) -> None:
    db = open_writer(tmp_path / "x.sqlite3")
    values = [1] * max([sql.count("?"), *(int(number) for number in re.findall(r"\?(\d+)", sql))])
    distinct = len(set(re.findall(r"\?\d+", sql))) or len(values)
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", tuple(values[:distinct]))]
    db.close()
    own = ("CONSTANT", "json_each", "SCAN b")  # b: what a recursive query has found
    walks = [step for step in plan if step.startswith("SCAN") and not any(word in step for word in own)]
    assert walks == [WALKS[file, name]] if (file, name) in WALKS else not walks
    sorts = [step for step in plan if "TEMP B-TREE" in step]
    assert not sorts or name in {"open", "live"}


@pytest.mark.parametrize(("name", "index"), LED_BY.items())
def test_a_list_of_runs_reads_no_others(tmp_path: Path, name: str, index: str) -> None:
    db = open_writer(tmp_path / "x.sqlite3")
    plan = db.execute(f"EXPLAIN QUERY PLAN {statements.load('run_lists.sql')[name]}", ("p", 9, "x")).fetchall()
    db.close()
    assert [f"INDEX {index} " in f"{step[3]} " for step in plan] == [True]


@pytest.mark.parametrize(
    "change",
    [
        "state = 'running'",
        "state = 'succeeded', completed_at = 5, exit_code = 0",
        "completed_at = 5",
        "exit_code = 0",
        "error_code = 'timeout', error_message = 'x'",
        "state = 'failed', completed_at = 5, error_code = 'no such code', error_message = 'x'",
        "state = 'failed', completed_at = 5",
        "state = 'failed', completed_at = 5, started_at = 4, error_code = 'timeout', error_message = 'x', exit_code = 1, signal = 9",
        "state = 'expired', completed_at = 5, started_at = 4, error_code = 'timeout', error_message = 'x'",
        "started_at = 5",
        "boot_id = x'00'",
        "boot_id = zeroblob(16)",
        "stdout_kept = 1",
        "state = 'waiting'",
        "last_sequence = 0",
    ],
)
def test_a_row_that_contradicts_itself_is_refused(tmp_path: Path, change: str) -> None:
    db = open_writer(tmp_path / "x.sqlite3")
    db.execute("INSERT INTO organizations VALUES ('o', 'o', 1)")
    db.execute(
        statements.load("machines.sql")["insert"],
        ("dm-1", "o", 1.0, 1, 1, "default", 0, "running", "accepted", "Accepted", 0, 1, 1, 1, 1, 1),
    )
    db.execute(statements.load("executions.sql")["insert"], ("o", "dm-1", "exec-1", "queued", 1, 2, None, 0, 0, 1))
    db.execute("UPDATE executions SET stdin_offset = 1")  # the row itself may change
    assert db.changes() == 1
    with pytest.raises(apsw.ConstraintError):
        db.execute(f"UPDATE executions SET {change}")
    db.close()


def test_a_block_stands_in_its_file_once() -> None:
    with pytest.raises(ValueError, match="one stands there twice"):
        statements.parse("x.sql", "-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;\n")
