"""Our own SDK and command line against a live server."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from dormice import AsyncDormice, ConflictError, Dormice, NotFoundError
from tests.live import Api, Live, path_of
from tests.wait import wait_until

COMMAND = [sys.executable, "-m", "dormice.cli"]


@pytest.fixture(name="environment")
def _environment(live: Live, tmp_path: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DORMICE_")}
    return {
        **inherited,
        "DORMICE_BASE_URL": live.base_url,
        "DORMICE_API_KEY": live.api_key,
        "DORMICE_DATA_DIR": str(tmp_path),
    }


def _dormice(environment: dict[str, str], *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *words], env=environment, input=stdin, capture_output=True, timeout=60, check=False
    )


def test_run_returns_the_record_and_both_streams(live: Live, machine: str) -> None:
    with Dormice(base_url=live.base_url, api_key=live.api_key) as client:
        script = 'cat; echo "$A" >&2; exit 4'
        done = client.machines.run(machine, ["/bin/bash", "-c", script], env={"A": "err"}, stdin=bytes(range(256)))
        assert (done.status, done.exit_code, done.error_code) == ("failed", 4, "nonzero_exit")
        assert (done.stdout, done.stderr) == (bytes(range(256)), b"err\n")


def test_run_hands_output_over_as_it_comes(live: Live, machine: str) -> None:
    heard: list[tuple[str, bytes]] = []
    with Dormice(base_url=live.base_url, api_key=live.api_key) as client:
        done = client.machines.run(
            machine,
            ["/bin/bash", "-c", "for i in 1 2 3; do echo $i; sleep 0.05; echo e$i >&2; sleep 0.05; done"],
            on_stdout=lambda data: heard.append(("out", data)),
            on_stderr=lambda data: heard.append(("err", data)),
        )
    assert heard == [
        ("out", b"1\n"),
        ("err", b"e1\n"),
        ("out", b"2\n"),
        ("err", b"e2\n"),
        ("out", b"3\n"),
        ("err", b"e3\n"),
    ]
    assert (done.stdout, done.stderr) == (b"1\n2\n3\n", b"e1\ne2\ne3\n")


def test_run_with_its_key_again_comes_back_to_the_same_execution(live: Live, machine: str) -> None:
    with Dormice(base_url=live.base_url, api_key=live.api_key) as client:
        key, command = uuid4().hex, ["/bin/bash", "-c", "echo $RANDOM$RANDOM"]
        first = client.machines.run(machine, command, idempotency_key=key)
        second = client.machines.run(machine, command, idempotency_key=key)
        assert first == second
        with pytest.raises(ConflictError) as refused:
            client.machines.run(machine, ["false"], idempotency_key=key)
        assert refused.value.error_code == "IDEMPOTENCY_KEY_REUSED"


def test_the_tree_of_resources_is_that_of_the_seed(live: Live) -> None:
    with Dormice(base_url=live.base_url, api_key=live.api_key) as client:
        made = client.machines.create(memory_mib=256, storage_gib=1, wait_ms=20_000)
        assert made.phase == "running"
        assert made.machine_id in [item.machine_id for item in client.machines.list(limit=2)]
        execution = client.machines.executions.create(made.machine_id, command=["echo", "hi"])
        executions, name = client.machines.executions, execution.execution_id
        ended = executions.wait(name, machine_id=made.machine_id)
        assert executions.retrieve(name, machine_id=made.machine_id) == ended
        assert executions.output(name, machine_id=made.machine_id).stdout == "hi\n"
        assert [event.type for event in executions.events(name, machine_id=made.machine_id)][-1] == "lifecycle"
        assert [item.execution_id for item in executions.list(made.machine_id)] == [name]
        assert executions.delete(name, machine_id=made.machine_id) == ended
        assert client.machines.sleep(made.machine_id, wait_ms=20_000).phase == "sleeping"
        assert client.machines.wake(made.machine_id, wait_ms=20_000).phase == "running"
        assert client.machines.update(made.machine_id, memory_mib=300).memory_mib == 300
        assert client.machines.delete(made.machine_id, wait_ms=20_000).phase == "destroyed"
        with pytest.raises(NotFoundError):
            client.machines.retrieve("dm-01234567-89ab-7cde-8f01-23456789abcd")


async def test_the_asynchronous_client_runs_commands_too(live: Live, machine: str) -> None:
    async with AsyncDormice(base_url=live.base_url, api_key=live.api_key) as client:
        done = await client.machines.run(machine, ["cat"], stdin="piped")
        assert (done.status, done.stdout) == ("succeeded", b"piped")


def test_exec_gives_each_stream_and_the_exit_code(environment: dict[str, str], machine: str) -> None:
    done = _dormice(environment, "exec", machine, "--", "bash", "-c", "printf '\\xff\\0out'; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"\xff\0out", b"err\n")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["bash", "-c", "kill -9 $$"], 137),
        (["bash", "-c", "kill -TERM $$"], 143),
        (["no-such-program"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_exec_ends_as_the_command_did(environment: dict[str, str], machine: str, command: list[str], code: int) -> None:
    assert _dormice(environment, "exec", machine, "--", *command).returncode == code


def test_exec_forwards_stdin_of_any_size_and_bytes(environment: dict[str, str], machine: str) -> None:
    data = os.urandom(3_000_000)
    done = _dormice(environment, "exec", machine, "--", "sha256sum", stdin=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert _dormice(environment, "exec", "--no-stdin", machine, "--", "cat", stdin=b"x").stdout == b""


def test_exec_options_reach_the_command(environment: dict[str, str], machine: str) -> None:
    words = ["exec", "--env", "A=b c", "--cwd", "/tmp", machine, "--", "bash", "-c", 'echo "$A"; pwd']
    assert _dormice(environment, *words).stdout == b"b c\n/tmp\n"
    late = _dormice(environment, "exec", "--timeout", "300ms", machine, "--", "sleep", "600")
    assert (late.returncode, b"timeout" in late.stderr) == (124, True)


def test_ctrl_c_cancels(environment: dict[str, str], api: Api, machine: str) -> None:
    child = subprocess.Popen(
        [*COMMAND, "exec", machine, "--", "bash", "-c", "echo ready; sleep 600"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"ready\n"
        newest = api.get(f"/v1/machines/{machine}/executions", params={"limit": 20}).json()["items"]
        (record,) = [
            item for item in newest if item["command"][-1] == "echo ready; sleep 600" and item["status"] == "running"
        ]
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 130
    assert api.get(path_of(record)).json()["status"] == "cancelled"


def test_a_killed_exec_leaves_its_command_running(environment: dict[str, str], api: Api, machine: str) -> None:
    mark = uuid4().hex
    child = subprocess.Popen(
        [*COMMAND, "exec", machine, "--", "bash", "-c", f"echo ready; sleep 0.5; echo {mark}"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"ready\n"
        child.kill()
        child.wait()
    newest = api.get(f"/v1/machines/{machine}/executions", params={"limit": 50}).json()["items"]
    (record,) = [item for item in newest if mark in item["command"][-1]]
    assert api.output(api.finished(record)) == f"ready\n{mark}\n".encode()


def test_the_commands_of_the_seed_work(environment: dict[str, str], machine: str) -> None:
    where = ("--machine-id", machine)
    made = _dormice(environment, "machines", "executions", "create", *where, "--command", '["echo", "hi"]', "--json")
    assert made.returncode == 0, made.stderr
    record = json.loads(made.stdout)
    one = (*where, "--execution-id", record["execution_id"])

    def ended() -> bool:
        found = _dormice(environment, "machines", "executions", "retrieve", *one, "--json")
        return bool(json.loads(found.stdout)["status"] == "succeeded")

    wait_until(ended, 10, "succeeded")
    output = _dormice(environment, "machines", "executions", "output", *one, "--json")
    assert json.loads(output.stdout)["stdout"] == "hi\n"
    for words in (
        ("machines", "list"),
        ("machines", "retrieve", *where),
        ("machines", "executions", "list", *where),
        ("machines", "executions", "events", *one),
        ("machines", "executions", "delete", *one),
    ):
        done = _dormice(environment, *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout
    refused = _dormice(environment, "machines", "executions", "create", *where, "--command", "whoami")
    assert refused.returncode != 0
    assert refused.stderr


def test_machines_are_forked_and_snapshots_kept_by_the_client(live: Live, machine: str) -> None:
    with Dormice(base_url=live.base_url, api_key=live.api_key) as client:
        client.machines.run(machine, ["/bin/bash", "-c", "echo here > ~/of-the-client"])
        fork = client.machines.fork(machine, autosleep="never", wait_ms=20_000)
        assert (fork.phase, fork.origin, fork.copied, fork.egress) == ("running", machine, True, "public")
        assert client.machines.run(fork.machine_id, ["/bin/bash", "-c", "cat ~/of-the-client"]).stdout == b"here\n"
        kept = client.snapshots.create(machine, name="by the client")
        assert (kept.status, kept.name, kept.machine_id) == ("ready", "by the client", machine)
        assert kept in list(client.snapshots.list(machine_id=machine))
        assert client.snapshots.retrieve(kept.snapshot_id) == kept
        made = client.machines.create(snapshot=kept.snapshot_id, autosleep="never", wait_ms=20_000)
        assert (made.phase, made.origin) == ("running", kept.snapshot_id)
        assert client.snapshots.delete(kept.snapshot_id, wait_ms=20_000).status == "deleted"
        with pytest.raises(NotFoundError):
            client.snapshots.retrieve(kept.snapshot_id)
        for each in (fork, made):
            client.machines.delete(each.machine_id, wait_ms=20_000)


def test_machines_are_forked_and_snapshots_kept_on_the_command_line(environment: dict[str, str], machine: str) -> None:
    def said(*words: str) -> dict[str, object]:
        done = _dormice(environment, *words, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    fork = said("machines", "fork", "--machine-id", machine, "--egress", "public", "--wait")
    assert (fork["phase"], fork["origin"]) == ("running", machine)
    kept = said("snapshots", "create", "--machine-id", machine, "--name", "typed")
    which = ("--snapshot-id", str(kept["snapshot_id"]))
    assert said("snapshots", "get", *which) == kept
    listed = _dormice(environment, "snapshots", "list", "--machine-id", machine).stdout.decode()
    assert "typed" in listed
    made = said("machines", "create", "--snapshot", str(kept["snapshot_id"]), "--wait")
    assert made["origin"] == kept["snapshot_id"]
    assert said("snapshots", "delete", *which)["status"] in ("deleting", "deleted")
    refused = _dormice(environment, "machines", "create", "--egress", "10.0.0.0/8")
    assert refused.returncode != 0
    assert b"is not public" in refused.stderr
    for each in (fork, made):
        said("machines", "delete", "--machine-id", str(each["machine_id"]), "--wait")
