"""`dormice ssh` against a running Dormice."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import StartLive
from tests.live import Api, Live, new_key
from tests.ssh.conftest import ON
from tests.ssh.login import finished
from tests.wait import wait_until

_DORMICE_SSH = [sys.executable, "-m", "dormice.cli", "ssh"]
Ssh = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module", name="ssh_live")
def _ssh_live(start_live: StartLive) -> Iterator[Live]:
    with start_live(**ON) as live:
        yield live


@pytest.fixture(scope="module", name="api")
def _api(ssh_live: Live) -> Iterator[Api]:
    with ssh_live.client() as api:
        yield api


@pytest.fixture(scope="module", name="machine")
def _machine(api: Api) -> str:
    return api.create_machine(autosleep="never")


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Path:
    """Where temporary files are made: a name that ssh_config and shells take apart."""
    place = tmp_path / "of \"100%h\" 'kept'"
    place.mkdir()
    return place


@pytest.fixture(name="environment")
def _environment(ssh_live: Live, place: Path) -> dict[str, str]:
    return {**ssh_live.environment(), "DORMICE_BASE_URL": ssh_live.base_url, "TMPDIR": str(place)}


@pytest.fixture(name="ssh")
def _ssh(environment: dict[str, str]) -> Ssh:
    def run(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [*_DORMICE_SSH, *words]
        return subprocess.run(command, input=stdin, env=environment, capture_output=True, timeout=60, check=False)

    return run


def test_a_command_runs_and_nothing_of_the_login_is_left(ssh: Ssh, api: Api, machine: str, place: Path) -> None:
    done = ssh(machine, "--", "cat; echo err >&2; exit 7", stdin=b"in")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"in", b"err\n")
    assert list(place.iterdir()) == []
    assert api.get(f"/v1/machines/{machine}/ssh").json()["items"][0]["status"] == "closed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_nothing_of_the_login_is_left_when_it_is_told_to_end(
    environment: dict[str, str], api: Api, machine: str, place: Path, number: signal.Signals
) -> None:
    with subprocess.Popen([*_DORMICE_SSH, "-N", machine], env=environment) as program:
        child = wait_until(lambda: _child(program.pid, b"ssh\0-F"), 20, "ssh runs")
        try:
            program.send_signal(number)
            assert program.wait(20) == 128 + number
            assert not Path(f"/proc/{child}").exists()
        finally:
            program.kill()
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    assert list(place.iterdir()) == []
    assert api.get(f"/v1/machines/{machine}/ssh").json()["items"][0]["status"] == "closed"


def test_an_ssh_that_does_not_hear_is_killed(
    environment: dict[str, str], machine: str, place: Path, tmp_path: Path
) -> None:
    deaf = tmp_path / "bin/ssh"
    deaf.parent.mkdir()
    deaf.write_text("#!/bin/sh\ntrap '' TERM\nexec sleep 60\n")
    deaf.chmod(0o755)
    path = f"{deaf.parent}:{environment['PATH']}"
    with subprocess.Popen([*_DORMICE_SSH, machine], env={**environment, "PATH": path}) as program:
        child = wait_until(lambda: _child(program.pid, b"sleep\0"), 20, "it runs")
        try:
            program.terminate()
            assert program.wait(20) == 128 + signal.SIGTERM
            assert not Path(f"/proc/{child}").exists()
        finally:
            program.kill()
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    assert list(place.iterdir()) == []


def _child(pid: int, command: bytes) -> int | None:
    """The child of a process that runs a command."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if Path(f"/proc/{child}/cmdline").read_bytes().startswith(command):
            return int(child)
    return None


def test_without_a_command_there_is_a_shell(ssh: Ssh, machine: str) -> None:
    done = ssh(machine, stdin=b"echo from the shell; exit 3\n")
    assert (done.returncode, done.stdout) == (3, b"from the shell\n")


def test_a_sleeping_machine_is_woken(ssh: Ssh, api: Api, machine: str) -> None:
    api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 20_000}, headers=new_key())
    assert ssh(machine, "--", "echo", "awake").stdout == b"awake\n"


def test_the_files_of_a_login_can_be_kept_for_other_programs(ssh: Ssh, api: Api, machine: str, tmp_path: Path) -> None:
    kept = tmp_path / "it's kept %h"
    for _ in range(2):
        done = ssh("--config", str(kept), machine)
        shown = done.stdout.decode()
        assert shlex.split(shown) == ["ssh", "-F", f"{kept}/config", machine]
    assert finished(["sh", "-c", f"{shown.strip()} echo in"]).stdout == b"in\n"
    assert (kept / "key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "file").write_text("carried")
    copied = subprocess.run(
        ["rsync", "-e", f'ssh -F "{kept}/config"', tmp_path / "file", f"{machine}:{tmp_path}/there"],
        timeout=60,
        check=False,
    )
    assert (copied.returncode, (tmp_path / "there").read_text()) == (0, "carried")


def test_what_goes_wrong_is_one_line_and_255(ssh: Ssh, machine: str) -> None:
    done = ssh("dm-019e39e7-3d1b-7a85-a772-475990a3bda1", "--", "true")
    assert (done.returncode, done.stderr.count(b"\n")) == (255, 1)
    assert b"no such machine" in done.stderr
    for words in (["--no-such-option", machine], [machine, "ls"]):
        done = ssh(*words)
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (255, b"", 1)
        assert b"a command goes behind --" in done.stderr


def test_root_may_be_named_and_nobody_else(ssh: Ssh, machine: str) -> None:
    done = ssh("-v", f"root@{machine}", "--", "whoami")
    assert (done.returncode, done.stdout) == (0, b"root\n")
    assert b"debug1: " in done.stderr
    assert ssh(f"root@{machine}", "--", "true").stderr == b""
    done = ssh(f"me@{machine}", "--", "true")
    assert (done.returncode, done.stderr.count(b"\n")) == (255, 1)
    assert b"only root" in done.stderr


def test_a_forward_that_fails_says_why(environment: dict[str, str], machine: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ours = taken.getsockname()[1]
    words = [*_DORMICE_SSH, "-N", "-L", f"{ours}:localhost:1", machine]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE) as program:
        try:
            wait_until(lambda: _reached(ours), 20, "it listens")
            assert program.stderr is not None
            assert b"open failed" in program.stderr.readline()
        finally:
            program.terminate()
            program.wait(20)


def _reached(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
