"""`dormice ssh` against a running Dormice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import StartLive
from tests.live import Api, Live, new_key
from tests.ssh.conftest import ON

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


@pytest.fixture(name="ssh")
def _ssh(ssh_live: Live, tmp_path: Path) -> Ssh:
    environment = {**ssh_live.environment(), "DORMICE_BASE_URL": ssh_live.base_url, "TMPDIR": str(tmp_path)}

    def run(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "dormice.cli", "ssh", *words]
        return subprocess.run(command, input=stdin, env=environment, capture_output=True, timeout=60, check=False)

    return run


def test_a_command_runs_and_nothing_of_the_login_is_left(ssh: Ssh, api: Api, machine: str, tmp_path: Path) -> None:
    done = ssh(machine, "--", "cat; echo err >&2; exit 7", stdin=b"in")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"in", b"err\n")
    assert list(tmp_path.iterdir()) == []
    assert api.get(f"/v1/machines/{machine}/ssh").json()["items"][0]["status"] == "closed"


def test_without_a_command_there_is_a_shell(ssh: Ssh, machine: str) -> None:
    done = ssh(machine, stdin=b"echo from the shell; exit 3\n")
    assert (done.returncode, done.stdout) == (3, b"from the shell\n")


def test_a_sleeping_machine_is_woken(ssh: Ssh, api: Api, machine: str) -> None:
    api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 20_000}, headers=new_key())
    assert ssh(machine, "--", "echo", "awake").stdout == b"awake\n"


def test_the_files_of_a_login_can_be_kept_for_other_programs(ssh: Ssh, api: Api, machine: str, tmp_path: Path) -> None:
    place = tmp_path / "kept"
    for _ in range(2):
        done = ssh("--config", str(place), machine)
        assert done.stdout.decode() == f"ssh -F {place}/config {machine}\n"
    assert (place / "key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "file").write_text("carried")
    copied = subprocess.run(
        ["rsync", "-e", f"ssh -F {place}/config", tmp_path / "file", f"{machine}:{tmp_path}/there"],
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
