"""SSH into real machines, whose default image holds what file transfers need."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import StartLive
from tests.live import Api, new_key
from tests.ssh.conftest import ON
from tests.ssh.login import Login, finished, log_in

pytestmark = pytest.mark.machines
SIZE = 5_000_000


@pytest.fixture(scope="module", name="real_api")
def _real_api(start_live: StartLive) -> Iterator[Api]:
    if os.geteuid() != 0:
        pytest.skip("real machines need root")
    with start_live("container", **ON) as live, live.client() as api:
        yield api


@pytest.fixture(scope="module", name="inside")
def _inside(real_api: Api, directory: Callable[[], Path]) -> Login:
    return log_in(real_api, real_api.create_machine(autosleep="never"), directory())


def test_a_command_runs_as_root_of_the_machine_at_its_home(inside: Login) -> None:
    done = inside.run("id -un; pwd; echo $0")
    user, home, shell = done.stdout.decode().splitlines()
    assert (user, home, shell) == ("root", "/root", "bash")


def test_a_terminal_is_the_machines_own(inside: Login) -> None:
    done = inside.run("tty; ls /dev/pts; exit 3", options=["-tt"])
    assert done.returncode == 3
    assert done.stdout.split()[0] == b"/dev/pts/0"


def test_files_go_there_and_back_by_sftp_and_scp(inside: Login, tmp_path: Path) -> None:
    sent = os.urandom(SIZE)
    (tmp_path / "file").write_bytes(sent)
    batch = f"mkdir /root/d\nput {tmp_path}/file /root/d/sftp\nget /root/d/sftp {tmp_path}/by-sftp\nls -l /root/d\n"
    (tmp_path / "batch").write_text(batch)
    ways = [
        ["sftp", "-b", str(tmp_path / "batch"), *inside.options, inside.host],
        ["scp", *inside.options, f"{tmp_path}/file", f"{inside.host}:/root/d/scp"],
        ["scp", "-r", *inside.options, f"{inside.host}:/root/d", f"{tmp_path}/by-scp"],
    ]
    for way in ways:
        done = finished(way)
        assert done.returncode == 0, (way[0], done.stderr)
    assert (tmp_path / "by-sftp").read_bytes() == sent
    assert {path.name: path.read_bytes() for path in (tmp_path / "by-scp").iterdir()} == {"sftp": sent, "scp": sent}


def test_files_go_there_and_back_by_rsync(inside: Login, tmp_path: Path) -> None:
    # An image may have been built before it had rsync.
    there = "command -v rsync || (apt-get -q update && apt-get -q install -y --no-install-recommends rsync)"
    assert inside.run(there).returncode == 0
    sent = os.urandom(SIZE)
    (tmp_path / "file").write_bytes(sent)
    rsync = ["rsync", "-a", "-e", inside.remote_shell]
    for _ in range(2):  # the second time nothing has to be carried
        assert finished([*rsync, f"{tmp_path}/file", f"{inside.host}:/root/r/"]).returncode == 0
    assert finished([*rsync, f"{inside.host}:/root/r/", f"{tmp_path}/back"]).returncode == 0
    assert (tmp_path / "back" / "file").read_bytes() == sent


def test_the_end_of_the_disk_is_told_and_leaves_the_connection(inside: Login, tmp_path: Path) -> None:
    done = inside.run("head -c 5G /dev/zero > /root/full; rm /root/full")
    assert b"No space left on device" in done.stderr
    assert inside.run("echo", "fine").stdout == b"fine\n"


def test_a_port_inside_is_reached_and_other_machines_are_not(inside: Login, real_api: Api, tmp_path: Path) -> None:
    serve = "cd /etc && exec python3 -m http.server --bind 127.0.0.1 8123"
    machine = inside.session["machine_id"]
    served = real_api.execute(machine, "sh", "-c", serve, wait_ms=0)
    ask = b"GET /hostname HTTP/1.0\r\n\r\n"
    wanted = inside.run("until curl -s localhost:8123/hostname; do :; done").stdout
    assert wanted
    through = inside.run(options=["-W", "localhost:8123"], stdin=ask)
    assert through.stdout.endswith(wanted)
    neighbour = real_api.create_machine(autosleep="never")
    address = real_api.output(real_api.execute(neighbour, "hostname", "-I")).decode().strip()
    for host in (address, neighbour):
        refused = inside.run(options=["-W", f"{host}:8123"], stdin=ask)
        assert b"administratively prohibited" in refused.stderr
    real_api.delete(f"/v1/machines/{machine}/executions/{served['execution_id']}")


def test_a_machine_that_sleeps_is_woken_by_whoever_logs_in(inside: Login, real_api: Api) -> None:
    path = f"/v1/machines/{inside.session['machine_id']}"
    assert inside.run("echo kept > /root/kept").returncode == 0
    real_api.post(f"{path}/sleep", params={"wait_ms": 20_000}, headers=new_key())
    assert real_api.get(path).json()["phase"] == "sleeping"
    assert inside.run("cat", "/root/kept").stdout == b"kept\n"
    assert real_api.get(path).json()["phase"] == "running"
