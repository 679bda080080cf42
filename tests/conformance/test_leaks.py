"""Nothing leaks: after many machines and executions have come and gone, there is as much of everything as before.

CI runs a short form. The long one: `DORMICE_LEAK_MACHINES=1000 DORMICE_LEAK_EXECUTIONS=10000 pytest tests/conformance/test_leaks.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from tests.conftest import StartLive
from tests.inventory import Inventory, MiB, take
from tests.live import TERMINAL, Api, Live, new_key, path_of
from tests.wait import wait_until

pytestmark = [pytest.mark.machines, pytest.mark.skipif(os.geteuid() != 0, reason="machines need root")]

MACHINES = int(os.environ.get("DORMICE_LEAK_MACHINES", "30"))
EXECUTIONS = int(os.environ.get("DORMICE_LEAK_EXECUTIONS", "1000"))
SECONDS = 60 + 2 * MACHINES + EXECUTIONS // 10
AT_ONCE = 4
CRASHES = ("server", "node", "node", "server")
SETTLED_SECONDS = 20
MORE_MEMORY = 48 * MiB
"""What a role may have grown by: caches and the allocator's reserves, far less than what so many requests passed through it."""
BODIES: list[dict[str, Any]] = [
    {"command": ["true"]},
    {"command": ["false"]},
    {"command": ["no-such-command"]},
    {"command": ["head", "-c", "100000", "/dev/zero"]},
    {"command": ["cat"], "stdin": "in"},
    {"command": ["env"], "env": {"A": "1"}},
    {"command": ["sleep", "600"], "timeout_ms": 50},
    {"command": ["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & kill -9 $$"]},
]


def insist(ask: Callable[[], httpx.Response]) -> dict[str, Any]:
    """Ask until there is an answer: a part may just have been killed. Requests carry a key, so nothing is done twice."""

    def answer() -> dict[str, Any] | None:
        try:
            response = ask()
        except httpx.TransportError:
            return None
        if response.status_code in {429, 503}:
            return None
        found: dict[str, Any] = response.raise_for_status().json()
        return found

    return wait_until(answer, 60, "an answer")


def post(api: Api, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    key = new_key()
    return insist(lambda: api.post(path, json=body, params={"wait_ms": 20_000}, headers=key))


def one_life(live: Live, executions: int, *, sleep: bool) -> None:
    """A machine comes, works, sleeps perhaps, and goes."""
    with live.client() as api:
        machine = post(api, "/v1/machines", {"memory_mib": 256, "storage_gib": 1, "autosleep": "never"})["machine_id"]
        for number in range(executions):
            record = post(api, f"/v1/machines/{machine}/executions", BODIES[number % len(BODIES)])
            wait_until(lambda record=record: _ended(api, record), 90, f"the end of {record}")  # type: ignore[misc]
            if sleep and number == executions // 2:
                post(api, f"/v1/machines/{machine}/sleep")
        gone = lambda: api.delete(f"/v1/machines/{machine}", params={"wait_ms": 20_000})  # noqa: E731
        wait_until(lambda: insist(gone)["phase"] == "destroyed", 60, "the machine is gone")


def _ended(api: Api, record: dict[str, Any]) -> bool:
    return insist(lambda: api.get(path_of(record), params={"wait_ms": 5_000}))["status"] in TERMINAL


def lives(live: Live, machines: int, executions: int, while_it_lasts: Callable[[list[Future[None]]], None]) -> None:
    """Many lives, several at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        each = [executions // machines + (number < executions % machines) for number in range(machines)]
        futures = [pool.submit(one_life, live, count, sleep=number % 4 == 0) for number, count in enumerate(each)]
        while_it_lasts(futures)
        for future in futures:
            future.result()


def settled(live: Live, before: Inventory | None = None) -> Inventory:
    """The inventory once nothing is under way: it stays as it is, or (`before`) has no more of anything than there was."""
    last = take(live)

    def quiet() -> bool:
        nonlocal last
        earlier, last = last, take(live)
        return not last.more_than(before) if before is not None else last.things == earlier.things

    try:
        wait_until(quiet, SETTLED_SECONDS, "nothing is under way")
    except AssertionError:
        assert before is not None, "the inventory changes all the time"
        pytest.fail(f"more than before: {last.more_than(before)}")
    return last


def warmed_up(live: Live) -> Inventory:
    """The inventory once pools are full, and threads started."""
    lives(live, 2 * AT_ONCE, 16 * AT_ONCE, lambda _: None)
    return settled(live)


def check_memory(before: Inventory, after: Inventory) -> None:
    for role, size in after.memory.items():
        grown = size - before.memory[role]
        assert grown < MORE_MEMORY, f"the {role} grew by {grown / MiB:.0f} MiB"


@pytest.mark.timeout(SECONDS)
def test_many_machines_and_executions_leave_nothing(start_live: StartLive) -> None:
    with start_live("container") as live:
        before = warmed_up(live)
        lives(live, MACHINES, EXECUTIONS, lambda _: None)
        check_memory(before, settled(live, before))


@pytest.mark.timeout(SECONDS + 120)
def test_nor_do_they_when_server_and_node_are_killed_meanwhile(start_live: StartLive) -> None:
    seed = int(os.environ.get("DORMICE_LEAK_SEED", Random().randrange(1 << 32)))
    print(f"DORMICE_LEAK_SEED={seed}")
    machines = max(8, MACHINES // 3)

    with start_live("container") as live:
        before = warmed_up(live)

        def crash(futures: list[Future[None]]) -> None:
            random = Random(seed)
            for due in sorted(random.sample(range(machines), len(CRASHES))):
                wait_until(lambda due=due: sum(f.done() for f in futures) >= due, 120, f"{due} are done")  # type: ignore[misc]
                live.kill(random.choice(CRASHES))

        lives(live, machines, EXECUTIONS // 5, crash)
        live.stop()
        live.start()
        warmed_up(live)
        settled(live, before)


def gc(live: Live, *options: str, left_alone: str = "") -> list[dict[str, Any]]:
    """What `dormice gc` says that it found; it names `left_alone` on stderr."""
    command = [sys.executable, "-m", "dormice.cli", "gc", "--json", *options]
    done = subprocess.run(command, env=live.environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, bool(done.stderr)) == (0, bool(left_alone)), done.stderr
    assert left_alone in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def doctor(live: Live) -> dict[str, str]:
    command = [sys.executable, "-m", "dormice.cli", "doctor", "--json"]
    done = subprocess.run(command, env=live.environment(), capture_output=True, text=True, check=False)
    checks: list[dict[str, str]] = [json.loads(line) for line in done.stdout.splitlines()]
    return next(check for check in checks if check["name"] == "leftovers")


def test_gc_removes_what_a_crash_of_everything_left_and_no_disk(start_live: StartLive) -> None:
    with start_live("container") as live, live.client() as api:
        machines = [api.create_machine(), api.create_machine(autosleep="never")]
        for machine in machines:
            api.shell(machine, "echo kept > kept")
        assert gc(live) == [], "while it runs there is nothing that belongs to nobody"
        live.kill_all()
        gc(live)
        live.start()
        assert api.output(api.execute(machines[1], "cat", "kept")) == b"kept\n", "its machine lived on"
        live.kill_all()
        live.kill_machines()
        found = gc(live, "--dry-run")
        assert {
            "cgroup",
            "run directory",
            "container record",
            "network record",
            "packet rules",
            "address",
            "route",
        } <= {one["kind"] for one in found}
        assert doctor(live)["status"] == "warn"
        removed = gc(live)
        assert [one["what"] for one in removed] == [one["what"] for one in found]
        assert all(one["removed"] for one in removed)
        assert gc(live) == []
        assert doctor(live)["status"] == "ok"
        assert live.leftovers() == []
        live.start()
        for machine in machines:
            assert api.output(api.execute(machine, "cat", "kept")) == b"kept\n"


def test_gc_names_the_disk_of_a_machine_that_the_store_does_not_know_and_removes_it_when_told_to(
    start_live: StartLive,
) -> None:
    with start_live("container") as live, live.client() as api:
        machine = api.create_machine()
        disks = live.data / "node" / "disks" / "machines"
        stranger = machine[:-12] + "0" * 12
        for suffix in ("ext4", "base"):
            (disks / f"{stranger}.{suffix}").write_bytes(b"x" * 4096)
        assert gc(live, left_alone=f"disk of {stranger}") == []
        assert {path.stem for path in disks.iterdir()} == {machine, stranger}
        found = gc(live, "--unknown-disks")
        assert [(one["kind"], Path(one["what"]).stem) for one in found] == [("disk", stranger)]
        assert {path.stem for path in disks.iterdir()} == {machine}
