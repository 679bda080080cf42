"""What becomes of a command: how it is started, how it ends, and what of it is kept."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import StartLive
from tests.live import TERMINAL, Api, new_key, path_of
from tests.wait import wait_until

Record = dict[str, Any]


def processes_with(tag: str) -> list[str]:
    """Return the processes of this host that have `tag` among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if tag.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def _end(record: Record) -> tuple[object, ...]:
    return record["status"], record.get("error_code"), record.get("exit_code"), record.get("signal")


def test_argv_is_run_as_it_is_without_a_shell(api: Api, machine: str) -> None:
    record = api.execute(machine, "printf", "%s|", "a b", "$HOME", "*", "", "ü\n")
    assert api.output(record) == "a b|$HOME|*||ü\n|".encode()
    assert record["command"] == ["printf", "%s|", "a b", "$HOME", "*", "", "ü\n"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["no-such-program"], "command_not_found"),
        (["echo hello"], "command_not_found"),
        (["/no/such/program"], "command_not_found"),
        (["/etc/passwd"], "permission_denied"),
        (["/tmp"], "permission_denied"),
    ],
)
def test_a_program_that_cannot_be_started_is_a_failed_execution(
    api: Api, machine: str, command: list[str], code: str
) -> None:
    record = api.execute(machine, *command)
    assert _end(record) == ("failed", code, None, None)
    assert command[0] in record["error_message"]
    assert "started_at" not in record
    assert record["completed_at"] >= record["created_at"]


@pytest.mark.parametrize("code", [1, 42, 127, 255])
def test_an_exit_code_is_told(api: Api, machine: str, code: int) -> None:
    record = api.shell(machine, f"exit {code}")
    assert _end(record) == ("failed", "nonzero_exit", code, None)
    assert record["error_message"] == f"process exited with code {code}"


@pytest.mark.parametrize(("name", "number"), [("TERM", 15), ("KILL", 9), ("SEGV", 11)])
def test_a_signal_is_told(api: Api, machine: str, name: str, number: int) -> None:
    record = api.shell(machine, f"kill -{name} $$")
    assert _end(record) == ("failed", "signalled", None, number)


def test_times_are_those_of_the_process(api: Api, machine: str) -> None:
    record = api.shell(machine, "sleep 0.4")
    created, started, completed = (
        datetime.fromisoformat(record[name]) for name in ("created_at", "started_at", "completed_at")
    )
    assert created <= started <= completed
    assert 0.4 <= (completed - started).total_seconds() < 1.5


def test_the_environment_is_the_machines_and_what_was_added(api: Api, machine: str) -> None:
    record = api.execute(
        machine, "/bin/bash", "-c", 'echo "$A-${B-unset}-${HOME:+home}-${PATH:+path}"', env={"A": "é\n", "B": ""}
    )
    assert record["env_keys"] == ["A", "B"]
    assert api.output(record) == "é\n--home-path\n".encode()
    overridden = api.execute(machine, "/bin/bash", "-c", "echo $HOME", env={"HOME": "/tmp"})
    assert api.output(overridden) == b"/tmp\n"


def test_without_stdin_its_end_comes_at_once(api: Api, machine: str) -> None:
    record = api.execute(machine, "cat")
    assert (record["status"], record["stdout_bytes"]) == ("succeeded", 0)


def test_stdin_larger_than_any_pipe_arrives_whole(api: Api, machine: str) -> None:
    text = "0123456789abcdef" * 50_000
    record = api.execute(machine, "sha256sum", stdin=text)
    assert api.output(record).split()[0].decode() == hashlib.sha256(text.encode()).hexdigest()


def test_a_command_that_reads_no_stdin_still_ends(api: Api, machine: str) -> None:
    assert api.execute(machine, "true", stdin="x" * 500_000)["status"] == "succeeded"


def test_every_byte_survives(api: Api, machine: str) -> None:
    script = "import os,sys\nfor n in range(256):\n os.write(1, bytes([n]))\nos.write(2, b'\\xff\\xfe'*1000)"
    record = api.execute(machine, "python3", "-c", script)
    assert api.output(record) == bytes(range(256))
    assert api.output(record, "stderr") == b"\xff\xfe" * 1000
    text = api.get(f"{path_of(record)}/output").json()
    assert text["stdout"] == bytes(range(256)).decode(errors="replace")
    assert text["stdout_bytes"] == 256
    assert text["stderr"] == "\ufffd" * 2000


def test_characters_are_not_torn_by_the_edges_of_chunks(api: Api, machine: str) -> None:
    script = "import os,time\nfor b in 'aü€\U0001f42d'.encode()*3:\n os.write(1, bytes([b])); time.sleep(0.003)"
    record = api.execute(machine, "python3", "-c", script)
    items = api.get(f"{path_of(record)}/events").json()["items"]
    assert "".join(item.get("chunk", "") for item in items) == "aü€\U0001f42d" * 3
    assert "\ufffd" not in str(items)


def test_both_streams_keep_their_order_in_one_log(api: Api, machine: str) -> None:
    script = "for i in 1 2 3; do echo out$i; sleep 0.05; echo err$i >&2; sleep 0.05; done"
    record = api.shell(machine, script)
    items = api.get(f"{path_of(record)}/events").json()["items"]
    assert [item["sequence"] for item in items] == list(range(1, len(items) + 1))
    spoken = [item["chunk"].strip() for item in items if "chunk" in item]
    assert spoken == ["out1", "err1", "out2", "err2", "out3", "err3"]
    assert [item["at"] for item in items] == sorted(item["at"] for item in items)


def test_a_talkative_command_is_never_killed_and_its_head_is_kept(start_live: StartLive) -> None:
    with start_live(DORMICE_LIMIT_KEPT_OUTPUT_BYTES="100000") as live, live.client() as api:
        machine = api.create_machine()
        record = api.shell(machine, "seq 1 400000; echo end >&2")
        whole = b"".join(b"%d\n" % n for n in range(1, 400_001))
        assert record["status"] == "succeeded"
        assert record["stdout_bytes"] == len(whole)
        assert (record["stdout_truncated"], record["stderr_truncated"]) == (True, False)
        assert api.output(record) == whole[:100_000]
        assert api.output(record, "stderr") == b"end\n"
        exact = api.shell(machine, "head -c 100000 /dev/zero")
        assert (exact["stdout_bytes"], exact["stdout_truncated"]) == (100_000, False)


def test_output_of_many_megabytes_is_whole(api: Api, machine: str) -> None:
    script = "import os,hashlib\nh=hashlib.sha256()\nfor n in range(240):\n b=os.urandom(65536)\n h.update(b)\n os.write(1,b)\n"
    record = api.execute(machine, "python3", "-c", f"{script}os.write(2,h.hexdigest().encode())")
    assert record["stdout_bytes"] == 240 * 65_536
    assert not record["stdout_truncated"]
    digest = hashlib.sha256(api.output(record)).hexdigest()
    assert api.output(record, "stderr").decode() == digest


ESCAPES = {
    "a child": "sleep 600.{tag} & wait",
    "a child in a session of its own": "setsid sleep 600.{tag} & wait",
    "a double fork": "(setsid sh -c 'sleep 600.{tag} >/dev/null 2>&1 </dev/null &' &) ; sleep 600",
    "a child that ignores SIGTERM": "trap '' TERM; (trap '' TERM; sleep 600.{tag}) & wait",
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_timeout_kills_the_whole_tree(api: Api, machine: str, escape: str) -> None:
    tag = str(uuid4().int)[:16]
    record = api.shell(machine, "echo begun; " + ESCAPES[escape].format(tag=tag), timeout_ms=400)
    assert _end(record) == ("failed", "timeout", None, 9)
    assert record["error_message"] == "killed after 400 ms (timeout_ms)"
    assert api.output(record) == b"begun\n"
    wait_until(lambda: not processes_with(f"600.{tag}"), 5, "nobody of the tree is left")


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_cancel_ends_the_whole_tree(api: Api, machine: str, escape: str) -> None:
    tag = str(uuid4().int)[:16]
    record = api.shell(machine, "echo begun; " + ESCAPES[escape].format(tag=tag), wait_ms=0)
    api.wait_for_output(record, b"begun\n")
    wait_until(lambda: processes_with(f"sleep\x00600.{tag}"), 5, "the tree has grown")
    assert api.delete(path_of(record)).status_code == 200
    ended = api.finished(record)
    assert ended["status"] == ended["error_code"] == "cancelled"
    assert api.output(ended) == b"begun\n"
    wait_until(lambda: not processes_with(f"600.{tag}"), 5, "nobody of the tree is left")


def test_a_cancelled_command_may_say_goodbye(api: Api, machine: str) -> None:
    record = api.shell(machine, "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.02; done", wait_ms=0)
    api.wait_for_output(record, b"ready\n")
    api.delete(path_of(record))
    ended = api.finished(record)
    assert ended["status"] == "cancelled"
    assert api.output(ended) == b"ready\nbye\n"


def test_a_daemon_that_keeps_the_pipes_does_not_keep_the_execution(api: Api, machine: str) -> None:
    tag = str(uuid4().int)[:16]
    record = api.shell(machine, f"echo started; setsid sleep 600.{tag} &", wait_ms=5_000)
    assert record["status"] == "succeeded"
    assert api.output(record) == b"started\n"
    if processes_with(f"600.{tag}"):
        api.execute(machine, "pkill", "-f", f"600.{tag}")
    wait_until(lambda: not processes_with(f"600.{tag}"), 5, "the daemon is gone")


def test_fifty_requests_with_one_key_start_one_process(api: Api, machine: str) -> None:
    file = f"/tmp/dormice-once-{uuid4().hex}"
    key = new_key()
    body = {"command": ["/bin/bash", "-c", f"echo ran >> {file}; sleep 0.2"]}

    def post(_: int) -> tuple[int, Record]:
        answer = api.post(f"/v1/machines/{machine}/executions", json=body, headers=key)
        return answer.status_code, answer.json()

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(post, range(50)))
    assert {status for status, _ in answers} <= {200, 429}
    made = {record["execution_id"] for status, record in answers if status == 200}
    assert len(made) == 1
    record = next(record for status, record in answers if status == 200)
    assert api.finished(record)["status"] == "succeeded"
    assert api.output(api.execute(machine, "cat", file)) == b"ran\n"
    api.execute(machine, "rm", file)


def test_another_body_under_the_same_key_is_a_conflict(api: Api, machine: str) -> None:
    key, path = new_key(), f"/v1/machines/{machine}/executions"
    first = api.post(path, json={"command": ["true"], "env": {"A": "1", "B": "2"}}, headers=key)
    reordered = api.post(path, content=b'{"env": {"B":"2","A":"1"}, "command":["true"]}', headers=key)
    assert reordered.json()["execution_id"] == first.json()["execution_id"]
    for body in ({"command": ["false"]}, {"command": ["true"], "env": {"A": "1", "B": "3"}}):
        answer = api.post(path, json=body, headers=key)
        assert answer.status_code == 409
        assert answer.headers["x-should-retry"] == "false"
        error = answer.json()
        assert error["error_code"] == "IDEMPOTENCY_KEY_REUSED"
        assert len(error["details"]["expected_request_hash"]) == 8
        assert error["details"]["expected_request_hash"] != error["details"]["provided_request_hash"]
    other = api.create_machine()
    elsewhere = api.post(f"/v1/machines/{other}/executions", json={"command": ["false"]}, headers=key)
    assert elsewhere.status_code == 200, "a key belongs to its route"


def test_commands_queue_in_order_and_run_as_many_as_allowed(start_live: StartLive) -> None:
    with start_live(DORMICE_LIMIT_RUNNING_PER_MACHINE="2") as live, live.client() as api:
        machine = api.create_machine()
        file = f"/tmp/dormice-order-{uuid4().hex}"
        script = f"echo $0 >> {file}; sleep 0.1"
        made = [api.execute(machine, "/bin/bash", "-c", script, str(n), wait_ms=0) for n in range(8)]
        assert [record["status"] for record in made[4:]] == ["queued"] * 4
        assert all("expires_at" in record for record in made[4:])
        ended = [api.finished(record) for record in made]
        assert [record["status"] for record in ended] == ["succeeded"] * 8
        order = [int(line) for line in api.output(api.execute(machine, "cat", file)).split()]
        assert all(abs(place - number) <= 1 for place, number in enumerate(order)), order
        started = [record["started_at"] for record in ended]
        assert all(first <= second for first, second in zip(started, started[2:], strict=False)), started
        spans = [(record["started_at"], record["completed_at"]) for record in ended]
        assert max(sum(start <= moment < end for start, end in spans) for moment, _ in spans) <= 2
        api.execute(machine, "rm", file)


def test_what_cannot_start_in_time_expires(start_live: StartLive) -> None:
    with start_live(DORMICE_LIMIT_RUNNING_PER_MACHINE="1") as live, live.client() as api:
        machine = api.create_machine()
        first = api.execute(machine, "sleep", "600", wait_ms=0)
        second = api.execute(machine, "echo", "never", start_timeout_ms=300)
        assert _end(second) == ("expired", "start_deadline_exceeded", None, None)
        assert "started_at" not in second
        assert second["error_message"]
        assert api.output(second) == b""
        third = api.execute(machine, "true", wait_ms=0)
        cancelled = api.delete(path_of(third)).json()
        assert cancelled["status"] == "cancelled", "what waits is cancelled at once"
        api.delete(path_of(first))
        assert api.finished(first)["status"] == "cancelled"
        assert api.execute(machine, "true")["status"] == "succeeded"


def test_sleep_interrupts_what_runs_and_says_so(api: Api) -> None:
    machine = api.create_machine()
    record = api.shell(machine, "echo begun; sleep 600", wait_ms=0)
    api.wait_for_output(record, b"begun\n")
    slept = api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 20_000}, headers=new_key()).json()
    assert slept["phase"] == "sleeping"
    ended = api.finished(record)
    assert (ended["status"], ended["error_code"]) == ("failed", "execution_runner_interrupted")
    assert ended["error_message"]
    assert api.output(ended) == b"begun\n"


def test_delete_interrupts_what_runs_and_the_record_stays(api: Api) -> None:
    machine = api.create_machine()
    record = api.shell(machine, "echo begun; sleep 600", wait_ms=0)
    api.wait_for_output(record, b"begun\n")
    assert api.delete(f"/v1/machines/{machine}", params={"wait_ms": 20_000}).json()["phase"] == "destroyed"
    ended = api.get(path_of(record)).json()
    assert ended["status"] in TERMINAL
    assert ended["error_code"] == "execution_runner_interrupted"
    assert api.output(ended) == b"begun\n"


def test_many_commands_that_wait_for_one_wake_all_run(api: Api) -> None:
    machine = api.create_machine()
    api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 20_000}, headers=new_key())
    made = [api.execute(machine, "echo", str(n), wait_ms=0) for n in range(10)]
    assert made[0]["status"] == "wake_in_progress"
    assert [api.output(api.finished(record)) for record in made] == [b"%d\n" % n for n in range(10)]


def test_a_key_counts_however_its_path_is_written(api: Api, machine: str) -> None:
    bare = machine.removeprefix("dm-")
    paths = [
        f"/v1/machines/{machine}/executions",
        f"//v1/machines//{machine}/executions/",
        f"/v1/machines/{bare}/executions",
    ]
    headers = {"Idempotency-Key": uuid4().hex}
    records = [
        api.post(f"{str(api.base_url).rstrip('/')}{path}", json={"command": ["true"]}, headers=headers).json()
        for path in paths
    ]
    assert len({record["execution_id"] for record in records}) == 1
