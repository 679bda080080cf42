"""The other commands as processes, against a real HTTP server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Dormice
from tests.client.fake_server import Answer, FakeServer


def lines(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


def test_a_machine_is_made_changed_and_destroyed(dormice: Dormice, server: FakeServer) -> None:
    sizes = ["--vcpu", "0.5", "--memory-mib", "256", "--storage-gib", "2", "--autosleep", "never", "--image", "big"]
    made = json.loads(dormice("machines", "create", *sizes, "--wait", "--json").stdout)
    assert server.sent("POST")[0].body == {
        "vcpu": 0.5,
        "memory_mib": 256,
        "storage_gib": 2,
        "autosleep": "never",
        "image": "big",
    }
    which = ["--machine-id", made["machine_id"], "--json"]
    assert json.loads(dormice("machines", "update", *which, "--memory-mib", "512").stdout)["memory_mib"] == 512
    assert json.loads(dormice("machines", "sleep", *which).stdout)["phase"] == "sleeping"
    assert json.loads(dormice("machines", "wake", *which, "--wait").stdout)["phase"] == "running"
    assert json.loads(dormice("machines", "watch", *which).stdout)["phase"] == "running"
    for name in ("retrieve", "get"):
        assert json.loads(dormice("machines", name, *which).stdout)["machine_id"] == made["machine_id"]
    assert json.loads(dormice("machines", "delete", *which).stdout)["desired_state"] == "destroyed"


def test_people_get_of_the_status_what_they_can_read(dormice: Dormice, server: FakeServer) -> None:
    machine_id = server.machine()
    server.machines[machine_id]["status"]["last_error"] = "guest_lost: it went away"
    rows = dict(line.split(maxsplit=1) for line in lines(dormice("machines", "get", "--machine-id", machine_id)))
    assert rows["phase"] == "running"
    assert rows["reason"] == "DesiredStateReached"
    assert rows["last_error"] == "guest_lost: it went away"
    assert "status" not in rows


def in_phase(server: FakeServer, machine_id: str, phase: str, wanted: str, **status: str) -> Answer:
    """The answer that shows the machine on its way."""
    machine = server.machines[machine_id]
    return Answer(
        200,
        body={
            **machine,
            "phase": phase,
            "desired_state": wanted,
            "status": {**machine["status"], "phase": phase, **status},
        },
    )


@pytest.mark.parametrize(("phase", "wanted"), [("failed", "running"), ("sleeping", "sleeping")])
def test_a_wait_for_a_machine_that_fails_says_why(
    dormice: Dormice, server: FakeServer, phase: str, wanted: str
) -> None:
    machine_id = server.machine(asleep=True)
    why = {"reason": "RuntimeWakeFailed", "last_error": "no_space: the disk\nis full"}
    server.planned.append(in_phase(server, machine_id, "starting", "running"))
    server.planned.append(in_phase(server, machine_id, phase, wanted, **why))
    done = dormice("machines", "wake", "--machine-id", machine_id, "--wait")
    assert done.returncode == 1
    expected = f"dormice: {machine_id} is {phase}, not running: RuntimeWakeFailed: no_space: the disk is full\n"
    assert done.stderr.decode() == expected


def test_a_wait_without_a_node_says_so_once(dormice: Dormice, server: FakeServer) -> None:
    machine_id = server.machine()
    server.planned += [in_phase(server, machine_id, "placement_pending", "running")] * 3
    done = dormice("machines", "wake", "--machine-id", machine_id, "--wait")
    assert done.returncode == 0
    assert done.stderr.decode() == f"dormice: {machine_id}: no node is connected to run it, waiting\n"


def test_people_get_a_table_and_programs_a_line_of_json_for_each(dormice: Dormice, server: FakeServer) -> None:
    ids = [server.machine() for _ in range(5)]
    head, *rows = lines(dormice("machines", "list", "--limit", "2"))
    assert head.split()[:3] == ["MACHINE", "ID", "PHASE"]
    assert [row.split()[:2] for row in rows] == [[machine_id, "running"] for machine_id in ids]
    documents = lines(dormice("machines", "list", "--json", "--max-items", "3"))
    assert [json.loads(document)["machine_id"] for document in documents] == ids[:3]


def test_the_children_of_a_run_are_asked_for_once(dormice: Dormice, server: FakeServer) -> None:
    run = dict.fromkeys(("workflow_id", "status", "created_at", "completed_at", "retry_count", "step_key", "error"))
    command = dict.fromkeys(("machine_id", "status", "created_at", "completed_at", "exit_code", "step_key"))
    command["execution_id"] = "exec-1"
    server.planned += [
        Answer(200, body={"executions": [{**run, "id": "1"}], "next_cursor": "b1", "commands": [command]}),
        Answer(200, body={"executions": [{**run, "id": "2"}], "next_cursor": None, "commands": []}),
    ]
    found = lines(dormice("runs", "children", "0"))
    assert [line.split()[0] for line in found] == ["RUN", "1", "2", "EXECUTION", "exec-1"]
    assert [request.query for request in server.sent("GET")] == [{}, {"cursor": "b1"}]


def test_an_empty_list_is_its_head_for_people_and_nothing_for_programs(dormice: Dormice) -> None:
    assert lines(dormice("machines", "list"))[0].startswith("MACHINE ID")
    assert lines(dormice("machines", "list", "--json")) == []


def test_the_commands_of_the_documents_work_with_their_flags(dormice: Dormice, server: FakeServer) -> None:
    machine = ["--machine-id", server.machine()]
    environment = ["--env", '{"A": "1"}', "--cwd", "/", "--timeout-ms", "9"]
    base = ["machines", "executions"]
    made = json.loads(
        dormice(*base, "create", *machine, "--command", '["cat"]', "--stdin", "hi\n", *environment, "--json").stdout
    )
    assert server.sent("POST")[0].body == {
        "command": ["cat"],
        "cwd": "/",
        "env": {"A": "1"},
        "stdin": "hi\n",
        "timeout_ms": 9,
    }
    which = [*machine, "--execution-id", made["execution_id"]]
    assert "succeeded" in dormice(*base, "retrieve", *which).stdout.decode()
    assert [json.loads(line)["type"] for line in lines(dormice(*base, "events", *which, "--json"))] == [
        "lifecycle",
        "stdout",
        "lifecycle",
    ]
    assert [line.split()[2] for line in lines(dormice(*base, "events", *which, "--follow"))[1:]] == [
        "lifecycle",
        "stdout",
        "lifecycle",
    ]
    assert dormice(*base, "output", *which).stdout == b"hi\n"
    assert json.loads(dormice(*base, "output", *which, "--json").stdout)["stdout"] == "hi\n"
    assert lines(dormice(*base, "list", *machine))[1].split()[:4] == [made["execution_id"], "succeeded", "exit", "0"]
    assert dormice(*base, "delete", *which).returncode == 0


def test_output_of_both_streams_is_exact(dormice: Dormice, server: FakeServer) -> None:
    machine = ["--machine-id", server.machine()]
    created = dormice("machines", "executions", "create", *machine, "--command", '["both"]', "--json")
    which = [*machine, "--execution-id", json.loads(created.stdout)["execution_id"]]
    done = dormice("machines", "executions", "output", *which)
    assert (done.stdout, done.stderr) == (b"out\nmore\n", b"err\xff\n")


@pytest.mark.parametrize("text", ["whoami", '["echo hello', "[1]", "[]", '"whoami"', "null"])
def test_a_command_that_is_no_argv_is_refused_before_any_request(
    dormice: Dormice, server: FakeServer, text: str
) -> None:
    done = dormice("machines", "executions", "create", "--machine-id", "dm-1", "--command", text)
    assert done.returncode == 2
    assert b"must be a JSON array of strings" in done.stderr
    assert not server.requests


def test_keys_are_made_listed_and_revoked(dormice: Dormice) -> None:
    made = json.loads(dormice("keys", "create", "--organization", "other", "--name", "ci", "--admin", "--json").stdout)
    assert made["key"] == "dk-abcdefgh"
    listed = dormice("keys", "list").stdout.decode()
    assert made["key_id"] in listed
    assert made["key"] not in listed
    assert dormice("keys", "revoke", made["key_id"]).returncode == 0


def test_limits_are_shown(dormice: Dormice) -> None:
    assert lines(dormice("limits"))[0].split() == ["limits.argv_bytes", "131071"]
    assert json.loads(dormice("limits", "--json").stdout)["limits"] == {"argv_bytes": 131071}


def test_a_refusal_is_one_line_with_its_code_and_what_may_help(dormice: Dormice) -> None:
    done = dormice("machines", "list", DORMICE_API_KEY="wrong-key")
    assert done.returncode == 1
    assert done.stderr == b"dormice: AUTH_INVALID: no such key; look at DORMICE_API_KEY\n"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AUTH_SCOPE_FORBIDDEN", "this needs an admin key"),
        ("IDEMPOTENCY_KEY_REUSED", "send a new key with a new request"),
    ],
)
def test_what_the_server_says_is_not_said_twice(dormice: Dormice, server: FakeServer, code: str, message: str) -> None:
    server.planned.append(Answer(403, body={"error_code": code, "message": message}))
    assert dormice("keys", "list").stderr.decode() == f"dormice: {code}: {message}\n"


def test_a_refusal_is_one_json_object_for_programs(dormice: Dormice) -> None:
    done = dormice("machines", "get", "--machine-id", "dm-nowhere", "--json")
    assert done.returncode == 1
    assert json.loads(done.stderr)["error"] == {
        "code": "HTTP 404",
        "message": "there is no such thing",
        "hint": None,
        "status": 404,
        "retryable": False,
    }


def test_no_server_and_no_key_have_an_exit_code_of_their_own(dormice: Dormice, tmp_path: Path) -> None:
    unreachable = dormice("limits", DORMICE_BASE_URL="http://127.0.0.1:9")
    assert (unreachable.returncode, unreachable.stderr.count(b"\n")) == (3, 1)
    assert b"dormice up" in unreachable.stderr
    keyless = dormice("limits", DORMICE_API_KEY="")
    assert keyless.returncode == 3
    assert str(tmp_path / "api-key").encode() in keyless.stderr
    (tmp_path / "api-key").write_text("key-of-the-fake-server-0123456789\n")
    assert dormice("limits", DORMICE_API_KEY="").returncode == 0


def test_an_answer_that_is_no_json_is_one_line(dormice: Dormice, server: FakeServer) -> None:
    server.planned.append(Answer(200, raw=b"<html>"))
    done = dormice("machines", "list")
    assert done.returncode == 1
    assert done.stderr == b"dormice: UNEXPECTED_ANSWER: the server's answer is not JSON: is the base URL right?\n"


def test_wrong_usage_is_one_line_and_exit_code_two(dormice: Dormice) -> None:
    for words in ([], ["nonsense"], ["machines"], ["machines", "create", "--vcpu", "many"], ["keys", "revoke"]):
        done = dormice(*words)
        assert done.returncode == 2
        assert done.stderr.count(b"\n") == 1 if words else done.stdout.startswith(b"usage:")


def test_options_cannot_be_abbreviated(dormice: Dormice) -> None:
    assert dormice("machines", "create", "--mem", "256").returncode == 2


def test_a_machine_is_named_by_an_option_or_alone_whichever_is_usual(dormice: Dormice, server: FakeServer) -> None:
    machine_id = server.machine()
    for words in (
        ("machines", "get", machine_id, "--json"),
        ("machines", "get", "--json", machine_id),
        ("machines", "update", "--memory-mib", "512", machine_id),
        ("exec", "--machine-id", machine_id, "--", "echo", "--machine-id"),
        ("exec", "--no-stdin", f"--machine-id={machine_id}", "--", "echo", "--machine-id"),
        ("exec", machine_id, "--", "echo", "--machine-id"),
    ):
        done = dormice(*words)
        assert done.returncode == 0, done.stderr
    assert done.stdout == b"--machine-id\n"
    assert b"--machine-id" in dormice("machines", "get").stderr
    assert b"MACHINE" in dormice("exec", "--", "echo").stderr


def test_a_machine_alone_is_its_home_for_who_only_looks(dormice: Dormice, server: FakeServer) -> None:
    server.planned.append(Answer(200, body={"items": []}))
    assert dormice("files", "ls", "dm-1").returncode == 0
    (asked,) = server.sent("GET")
    assert (asked.path, asked.query["path"]) == ("/v1/machines/dm-1/files/list", ".")
    assert dormice("files", "rm", "-r", "dm-1").returncode == 2


def test_a_port_is_a_number(dormice: Dormice) -> None:
    done = dormice("preview", "dm-1", "http")
    assert done.returncode == 2
    assert b"'http' is not a number from 1 to 65535" in done.stderr
