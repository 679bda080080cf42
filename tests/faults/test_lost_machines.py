"""Machines whose host, node or process 1 goes away under them: outcomes are records, and what was asked for is done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import randrange
from typing import Any

import httpx
import pytest

from tests.conftest import StartLive
from tests.live import TERMINAL, Api, Live, path_of
from tests.wait import wait_until

HOG = """
import os, signal, sys
print("ready", flush=True)
sys.stdin.readline()
for _ in range(8):
    if os.fork() == 0:
        break
held = b"x" * (24 << 20)
signal.pause()
"""
"""More memory than a machine of 128 MiB has, and no process of it with so much that the OOM killer takes it before one marked for that."""


@pytest.fixture(scope="module", name="live", params=["process", pytest.param("container", marks=pytest.mark.machines)])
def _live(request: pytest.FixtureRequest, start_live: StartLive) -> Iterator[Live]:
    with start_live(request.param, DORMICE_LIMIT_CANCEL_GRACE_MS="300") as live:
        yield live


def _long() -> str:
    """An argument of sleep that tells one from all others of this host."""
    return f"{randrange(10_000, 100_000)}.{os.getpid()}"


def _running(*command: str) -> list[int]:
    """The pids of all processes with that command, wherever they run."""
    wanted, found = [word.encode() for word in command], []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[: len(wanted)] == wanted:
            found.append(int(entry.name))
    return found


def _asleep(seconds: str) -> list[int]:
    return _running("sleep", seconds)


def _tree(seconds: str) -> str:
    """A command of four processes and a stopped one that have done what they can to escape."""
    return (
        f"setsid sleep {seconds} & (setsid sh -c 'sleep {seconds} & trap \"\" TERM; sleep {seconds}; :' &) ; "
        f"sleep {seconds} & kill -STOP $!; echo grown; trap '' TERM; sleep {seconds}; :"
    )


def _grown(api: Api, machine: str, seconds: str, **body: Any) -> dict[str, Any]:
    record = api.shell(machine, _tree(seconds), wait_ms=0, **body)
    api.wait_for_output(record, b"grown\n")
    wait_until(lambda: len(_asleep(seconds)) >= 4, 10, "the whole tree")
    return record


def _end_of(api: Api, record: dict[str, Any]) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        try:
            answer = api.get(path_of(record))
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == 200 and answer.json()["status"] in TERMINAL else None

    return wait_until(ended, 30, f"the end of {record}")


def _process_1(live: Live, machine: str) -> int:
    """The pid of a machine's guest on the host, from the node's record of it."""
    run = live.directory / "run"
    file = (
        run / machine / "private" / "record.json" if live.driver == "container" else run / "process" / f"{machine}.json"
    )
    return int(json.loads(file.read_text())["process"]["pid"])


@pytest.mark.parametrize("driver", ["process", pytest.param("container", marks=pytest.mark.machines)])
def test_a_machine_whose_process_1_stands_still_is_lost_and_wakes_again(start_live: StartLive, driver: str) -> None:
    limits = {"DORMICE_LIMIT_CANCEL_GRACE_MS": "300", "DORMICE_LIMIT_MACHINE_LOST_MS": "2000"}
    with start_live(driver, **limits) as live, live.client() as api:
        machine, seconds = api.create_machine(autosleep="never"), _long()
        timed = api.shell(machine, f"sleep {seconds}", timeout_ms=1_000, wait_ms=0)
        cancelled = api.shell(machine, f"sleep {seconds}", wait_ms=0)
        wait_until(lambda: len(_asleep(seconds)) == 2, 10, "both run")
        os.kill(_process_1(live, machine), signal.SIGSTOP)
        assert api.delete(path_of(cancelled)).status_code == 200
        assert _end_of(api, timed)["error_code"] == "machine_lost"
        assert _end_of(api, cancelled)["status"] == "cancelled"
        assert not _asleep(seconds)
        assert api.shell(machine, "echo again")["status"] == "succeeded"


def test_what_was_promised_is_kept_while_server_and_node_are_dead_or_right_afterwards(live: Live) -> None:
    timed, cancelled, left = _long(), _long(), _long()
    with live.client() as api:
        machine = api.create_machine(autosleep="never")
        assert api.shell(machine, f"setsid sleep {left} & true")["status"] == "succeeded"
        (daemon,) = wait_until(lambda: _asleep(left), 5, "the daemon")
        to_cancel = _grown(api, machine, cancelled)
        to_time_out = _grown(api, machine, timed, timeout_ms=3_000)
        os.kill(live.part("node"), signal.SIGSTOP)  # so that the guest does not hear of what follows
        assert api.delete(path_of(to_cancel)).status_code == 200
        live.kill_all()
        assert len(_asleep(cancelled)) >= 4
        wait_until(lambda: not _asleep(timed), 10, "the guest has killed all of it by itself")
        live.start()

        ended = _end_of(api, to_time_out)
        assert (ended["status"], ended["error_code"]) == ("failed", "timeout")
        assert api.output(ended) == b"grown\n"
        assert _end_of(api, to_cancel)["status"] == "cancelled"
        assert _asleep(cancelled) == []
        assert api.shell(machine, "true")["status"] == "succeeded"
        assert _asleep(left) == [daemon], "what was left running on purpose goes on"
        api.delete(f"/v1/machines/{machine}", params={"wait_ms": 30_000})
        assert _asleep(left) == []


def test_the_death_of_process_1_ends_its_executions_and_no_others(live: Live) -> None:
    seconds = _long()
    with live.client() as api:
        machine = api.create_machine(autosleep="never")
        victim = _process_1(live, machine)
        other = api.create_machine(autosleep="never")
        api.shell(machine, "echo kept > ~/kept; sync")
        spared = api.execute(other, "cat", stdin_open=True, wait_ms=0)
        record = _grown(api, machine, seconds)
        os.kill(victim, signal.SIGKILL)
        ended = _end_of(api, record)
        assert (ended["status"], ended["error_code"]) == ("failed", "machine_lost")
        assert api.output(ended) == b"grown\n"
        assert _asleep(seconds) == []
        assert api.output(api.shell(machine, "cat ~/kept")) == b"kept\n"
        assert api.get(path_of(spared)).json()["status"] in {"queued", "running"}
        api.put(f"{path_of(spared)}/stdin", params={"offset": 0, "eof": "true"}, content=b"on").raise_for_status()
        assert api.output(api.finished(spared)) == b"on"


@pytest.mark.machines
def test_a_machine_that_lives_on_a_directory_of_which_this_is_a_copy_is_lost_and_what_it_writes_is_not(
    start_live: StartLive,
) -> None:
    """As when a backup is restored while machines run: they stand on the disks of before."""
    with start_live("container") as live, live.client() as api:
        machine = api.create_machine(autosleep="never")
        api.shell(machine, "echo before > ~/before; sync")
        record = api.execute(machine, "sleep", _long(), wait_ms=0)
        wait_until(lambda: api.get(path_of(record)).json()["status"] == "running", 10, "it runs")
        live.stop()
        before = live.data.rename(live.data.with_name("before"))
        subprocess.run(["cp", "-a", "--sparse=always", before, live.data], check=True)
        live.start()

        ended = _end_of(api, record)
        assert (ended["status"], ended["error_code"]) == ("failed", "machine_lost")
        assert f"machine {machine} does not run on its disk" in live.log.read_text()
        api.shell(machine, "echo acknowledged > ~/after; sync")
        api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 30_000}).raise_for_status()
        assert api.output(api.shell(machine, "cat ~/before ~/after")) == b"before\nacknowledged\n"


def test_a_store_of_before_is_restored_under_machines_that_have_been_started_again_since(
    start_live: StartLive,
) -> None:
    with start_live("process") as live, live.client() as api:
        machine = api.create_machine(autosleep="never")
        record = api.execute(machine, "sleep", _long(), wait_ms=0)
        wait_until(lambda: api.get(path_of(record)).json()["status"] == "running", 10, "it runs")
        live.stop()
        backup = live.data.with_name("backup")
        shutil.copytree(live.data / "server", backup)
        live.start()
        api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 30_000}).raise_for_status()
        assert api.shell(machine, "echo since > ~/since")["status"] == "succeeded", "in another boot"
        live.stop()
        shutil.rmtree(live.data / "server")
        shutil.copytree(backup, live.data / "server")
        live.start()

        ended = _end_of(api, record)
        assert (ended["status"], ended["error_code"]) == ("failed", "machine_lost")
        assert api.output(api.shell(machine, "cat ~/since")) == b"since\n"


def _oom_kills_of_host() -> int:
    counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(counts["oom_kill"])


@pytest.mark.machines
def test_a_machine_whose_process_1_the_oom_killer_takes_is_lost_and_wakes_again(container_live: Live) -> None:
    """The OOM killer takes commands first. Here the host has marked process 1, so that the machine's own limit costs that."""
    tag = _long()
    with container_live.client() as api:
        machine = api.create_machine(autosleep="never", memory_mib=128)
        victim = _process_1(container_live, machine)
        api.shell(machine, "echo kept > ~/kept; sync")
        sleeper = api.execute(machine, "sleep", tag, wait_ms=0)
        hog = api.execute(machine, "python3", "-c", HOG, tag, stdin_open=True, wait_ms=0)
        api.wait_for_output(hog, b"ready\n")
        Path(f"/proc/{victim}/oom_score_adj").write_text("1000")
        before = _oom_kills_of_host()
        api.put(f"{path_of(hog)}/stdin", params={"offset": 0}, content=b"go\n").raise_for_status()
        for record in (sleeper, hog):
            ended = _end_of(api, record)
            assert (ended["status"], ended["error_code"]) == ("failed", "machine_lost")
        assert _oom_kills_of_host() > before
        assert api.output(hog) == b"ready\n"
        assert _asleep(tag) == _running("python3", "-c", HOG, tag) == []
        assert api.output(api.shell(machine, "cat ~/kept")) == b"kept\n"
        assert _process_1(container_live, machine) != victim


def test_a_host_that_was_started_again_has_lost_what_ran_and_nothing_else(live: Live) -> None:
    seconds = _long()
    with live.client() as api:
        machine = api.create_machine(autosleep="never")
        api.shell(machine, "echo kept > ~/kept; sync")
        record = _grown(api, machine, seconds)
        live.kill_all()
        live.kill_machines()
        _empty(live.directory / "run")
        live.start()
        ended = _end_of(api, record)
        assert (ended["status"], ended["error_code"]) == ("failed", "machine_lost")
        assert api.output(api.shell(machine, "cat ~/kept")) == b"kept\n"


def _empty(run: Path) -> None:
    """What is on a tmpfs is gone after a reboot."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if (mountpoint := line.split()[4]).startswith(f"{run}/"):
            subprocess.run(["umount", mountpoint], check=True)
    shutil.rmtree(run)
