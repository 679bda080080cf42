"""Server, node or both are killed while commands run: nothing is lost, nothing is run twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import StartLive
from tests.live import TERMINAL, Api, Live, new_key, path_of
from tests.wait import wait_until

SCRIPT = """
import hashlib, sys, time
open(sys.argv[1], "a").write("started\\n")
digest = hashlib.sha256()
for n in range(3000):
    line = b"%d of the lines that must all arrive\\n" % n
    digest.update(line)
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
    if n % 100 == 0:
        time.sleep(0.1)
sys.stderr.write(digest.hexdigest())
"""


@pytest.fixture(
    scope="module", name="crashing", params=["process", pytest.param("container", marks=pytest.mark.machines)]
)
def _crashing(request: pytest.FixtureRequest, start_live: StartLive) -> Iterator[Live]:
    """A Dormice to which bad things are done."""
    with start_live(request.param) as live:
        yield live


def _after_a_crash(api: Api, record: dict[str, Any]) -> dict[str, Any]:
    """Return the record once it has ended; while the server is away there is no answer."""

    def ended() -> dict[str, Any] | None:
        try:
            answer = api.get(path_of(record), params={"wait_ms": 1_000})
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == 200 and answer.json()["status"] in TERMINAL else None

    return wait_until(ended, 60, f"the end of {record}")


def _kill_server(live: Live) -> None:
    live.kill("server")


def _kill_node(live: Live) -> None:
    live.kill("node")


def _kill_everything(live: Live) -> None:
    live.kill_all()
    live.start()


def _restart(live: Live) -> None:
    live.stop()
    live.start()


@pytest.mark.parametrize("crash", [_kill_server, _kill_node, _kill_everything, _restart])
def test_output_is_exact_and_the_command_ran_once(crashing: Live, crash: Callable[[Live], None]) -> None:
    live = crashing
    with live.client() as api:
        machine = api.create_machine(autosleep="never")
        file = f"/tmp/dormice-crash-{uuid4().hex}"
        key = new_key()
        body = {"command": ["python3", "-c", SCRIPT, file]}
        path = f"/v1/machines/{machine}/executions"
        record = api.post(path, json=body, headers=key).json()
        api.wait_for_output(record, b"\n500 of the lines")
        crash(live)
        live.wait_ready()
        again = api.post(path, json=body, headers=key)
        assert again.json()["execution_id"] == record["execution_id"], "a key is remembered across restarts"
        assert api.post(path, json={"command": ["false"]}, headers=key).status_code == 409
        ended = _after_a_crash(api, record)
        assert ended["status"] == "succeeded", ended
        output = api.output(ended)
        assert hashlib.sha256(output).hexdigest() == api.output(ended, "stderr").decode()
        assert ended["stdout_bytes"] == len(output)
        assert api.output(api.execute(machine, "cat", file)) == b"started\n"
        api.execute(machine, "rm", file)
        items = api.get(f"{path_of(ended)}/events", params={"limit": 1000}).json()["items"]
        assert [item["status"] for item in items if "status" in item] == ["queued", "running", "succeeded"]
        assert "".join(item["chunk"] for item in items if item["type"] == "stdout").encode() == output


def test_a_command_that_ends_while_the_server_is_dead_is_not_lost(crashing: Live) -> None:
    live = crashing
    with live.client() as api:
        machine = api.create_machine(autosleep="never")
        record = api.shell(machine, "echo begun; sleep 1; echo over; exit 5", wait_ms=0)
        api.wait_for_output(record, b"begun\n")
        live.kill_all()
        live.start()
        ended = _after_a_crash(api, record)
        assert (ended["status"], ended["exit_code"]) == ("failed", 5)
        assert api.output(ended) == b"begun\nover\n"


def test_what_was_queued_runs_after_a_restart(start_live: StartLive) -> None:
    with start_live(DORMICE_LIMIT_RUNNING_PER_MACHINE="1") as live, live.client() as api:
        machine = api.create_machine(autosleep="never")
        blocker = api.execute(machine, "cat", stdin_open=True, wait_ms=0)
        secret = uuid4().hex
        waiting = [
            api.execute(
                machine, "/bin/bash", "-c", "cat; echo -$A-$0", str(n), env={"A": secret}, stdin="in", wait_ms=0
            )
            for n in range(3)
        ]
        live.kill("server")
        live.wait_ready()
        api.put(f"{path_of(blocker)}/stdin", params={"offset": 0, "eof": "true"}, content=b"go").raise_for_status()
        assert api.output(_after_a_crash(api, blocker)) == b"go"
        for n, record in enumerate(waiting):
            assert api.output(_after_a_crash(api, record)) == f"in-{secret}-{n}\n".encode()


def test_a_machine_asleep_stays_asleep_over_a_restart_and_wakes(crashing: Live) -> None:
    live = crashing
    with live.client() as api:
        machine = api.create_machine()
        api.execute(machine, "/bin/bash", "-c", "echo kept > kept")
        api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 20_000}, headers=new_key())
        live.stop()
        live.start()
        assert api.get(f"/v1/machines/{machine}").json()["phase"] == "sleeping"
        assert api.output(api.execute(machine, "cat", "kept")) == b"kept\n"


def test_a_machine_that_dies_fails_its_commands_and_wakes_again(crashing: Live) -> None:
    live = crashing
    with live.client() as api:
        machine = api.create_machine(autosleep="never")
        record = api.shell(machine, "echo begun; sleep 600", wait_ms=0)
        api.wait_for_output(record, b"begun\n")
        live.kill_all()
        live.kill_machines()
        live.start()
        ended = _after_a_crash(api, record)
        assert (ended["status"], ended["error_code"]) == ("failed", "machine_lost")
        assert api.output(ended) == b"begun\n"
        assert api.execute(machine, "true")["status"] == "succeeded"
