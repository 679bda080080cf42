"""Who is not let in, what ends a connection, and what a crash leaves."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice, product
from pathlib import Path
from string import ascii_uppercase
from uuid import uuid4

import asyncssh
import pytest

from tests.conftest import StartLive
from tests.live import Api, Live, new_key
from tests.ssh.conftest import ON
from tests.ssh.login import SECONDS, Login, log_in, new_public_key
from tests.wait import wait_until


@contextmanager
def _inside(login: Login) -> Iterator[subprocess.Popen[bytes]]:
    """Be logged in, with a command that waits for stdin."""
    command = login.command("echo in; exec cat")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        try:
            assert client.stdout
            assert client.stdout.readline() == b"in\n", client.stderr and client.stderr.read()
            yield client
        finally:
            client.kill()


def test_a_key_without_its_certificate_is_not_enough(login: Login, tmp_path: Path) -> None:
    options = ["-o", "CertificateFile=none"]
    bare = tmp_path / "key"
    bare.write_bytes((login.directory / "key").read_bytes())
    bare.chmod(0o600)
    done = Login(tmp_path, login.session).run("true", options=options)
    assert done.returncode == 255
    (tmp_path / "known_hosts").write_bytes((login.directory / "known_hosts").read_bytes())
    done = Login(tmp_path, login.session).run("true", options=options)
    assert b"Permission denied (publickey)" in done.stderr


def test_a_certificate_opens_its_own_session_only(api: Api, machine: str, login: Login, tmp_path: Path) -> None:
    other = log_in(api, machine, tmp_path)
    for name in (other.session["session_id"], "root", f"ssh-{uuid4()}"):
        connection = {**login.session["connection"], "ssh_username": name}
        done = Login(login.directory, {**login.session, "connection": connection}).run("true")
        assert b"Permission denied (publickey)" in done.stderr


def test_a_certificate_that_somebody_else_has_signed_is_not_taken(login: Login, tmp_path: Path) -> None:
    new_public_key(tmp_path)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "ca"], check=True, timeout=SECONDS)
    name = login.session["session_id"]
    words = ["ssh-keygen", "-q", "-s", tmp_path / "ca", "-I", name, "-n", name, tmp_path / "key.pub"]
    subprocess.run(words, check=True, timeout=SECONDS)
    (tmp_path / "known_hosts").write_bytes((login.directory / "known_hosts").read_bytes())
    done = Login(tmp_path, login.session).run("true")
    assert b"Permission denied (publickey)" in done.stderr


def test_a_host_key_that_is_not_the_servers_is_noticed(login: Login, tmp_path: Path) -> None:
    known = (login.directory / "known_hosts").read_text().split()
    line = " ".join([*known[:2], *new_public_key(tmp_path).split()[:2]])
    (tmp_path / "known_hosts").write_text(line)
    (tmp_path / "key-cert.pub").write_bytes((login.directory / "key-cert.pub").read_bytes())
    done = Login(tmp_path, login.session).run("true")
    assert b"Host key verification failed" in done.stderr


def test_passwords_are_not_asked_for(login: Login) -> None:
    options = ["-o", "PreferredAuthentications=password,keyboard-interactive", "-o", "BatchMode=no"]
    assert b"Permission denied (publickey)" in login.run("true", options=options).stderr


def test_deleting_a_session_ends_its_connections_and_no_others(
    api: Api, machine: str, login: Login, tmp_path: Path
) -> None:
    doomed = log_in(api, machine, tmp_path)
    with _inside(doomed) as client, _inside(login) as other:
        assert api.delete(doomed.path).json()["status"] == "closed"
        assert client.wait(SECONDS) == 255
        assert client.stderr
        assert b"deleted" in client.stderr.read()
        assert b"Permission denied" in doomed.run("true").stderr
        assert other.stdin
        assert other.stdout
        other.stdin.write(b"here\n")
        other.stdin.flush()
        assert other.stdout.readline() == b"here\n"


def test_who_is_logged_in_holds_the_machine_awake_and_wakes_it(api: Api, tmp_path: Path) -> None:
    machine = api.create_machine(autosleep="1s")
    other = api.create_machine(autosleep="3s")
    login = log_in(api, machine, tmp_path)
    forwarding = ["-N", "-M", "-o", f"ControlPath={tmp_path}/c"]
    with subprocess.Popen(login.command(options=forwarding)) as client:
        wait_until((tmp_path / "c").exists, 20, "it is logged in")
        revision = api.get(f"/v1/machines/{machine}").json()["status"]["revision"]
        wait_until(lambda: api.get(f"/v1/machines/{other}").json()["phase"] == "sleeping", 20, "the other sleeps")
        assert api.get(f"/v1/machines/{machine}").json()["status"]["revision"] == revision
        client.terminate()
    path = f"/v1/machines/{machine}"
    wait_until(lambda: api.get(path).json()["phase"] == "sleeping", 20, "it sleeps once nobody is there")
    assert login.run("echo", "woken").stdout == b"woken\n"


def test_the_sleep_of_a_machine_ends_what_runs_there(api: Api, tmp_path: Path) -> None:
    machine = api.create_machine(autosleep="never")
    login = log_in(api, machine, tmp_path)
    with _inside(login) as client:
        api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 20_000}, headers=new_key())
        assert client.wait(SECONDS) == 255


def test_a_server_that_dies_takes_what_runs_along(start_live: StartLive, tmp_path: Path) -> None:
    with start_live(**ON) as live, live.client() as api:
        login = log_in(api, api.create_machine(autosleep="never"), tmp_path)
        mark = tmp_path / "pid"
        command = login.command(f"trap '' HUP TERM; setsid sleep 600 & echo $! > {mark}; wait")
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as client:
            pid = wait_until(lambda: mark.exists() and mark.read_text().strip(), 20, "the command runs")
            live.kill("server")
            assert client.wait(SECONDS) == 255
        live.wait_ready()
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 30, "what ran is gone")


def test_a_server_that_stops_says_so_and_does_not_wait(start_live: StartLive, tmp_path: Path) -> None:
    with start_live(**ON) as live, live.client() as api:
        login = log_in(api, api.create_machine(autosleep="never"), tmp_path)
        with _inside(login) as client:
            live.stop()
            assert client.wait(SECONDS) == 255
            assert client.stderr
            assert b"the server stops" in client.stderr.read()


@pytest.fixture(scope="module", name="narrow_live")
def _narrow_live(start_live: StartLive) -> Iterator[Live]:
    """One that lets few in."""
    limits = {
        "SSH_LOGINS": "3",
        "SSH_LOGIN_MS": "1500",
        "SSH_CONNECTIONS_PER_MACHINE": "2",
        "CHANNELS_PER_MACHINE": "3",
    }
    with start_live(**ON, **{f"DORMICE_LIMIT_{name}": value for name, value in limits.items()}) as live:
        yield live


@pytest.fixture(scope="module", name="narrow_login")
def _narrow_login(narrow_live: Live, directory: Callable[[], Path]) -> Login:
    with narrow_live.client() as api:
        return log_in(api, api.create_machine(autosleep="never"), directory())


def _silent(login: Login) -> socket.socket:
    """Connect, and say nothing."""
    stranger = socket.create_connection(("127.0.0.1", login.port))
    stranger.settimeout(SECONDS)
    return stranger


def test_strangers_are_few_and_are_not_waited_for_long(narrow_login: Login) -> None:
    with ExitStack() as stack:
        strangers = [stack.enter_context(_silent(narrow_login)) for _ in range(3)]
        assert all(stranger.recv(64).startswith(b"SSH-2.0-Dormice") for stranger in strangers)
        assert stack.enter_context(_silent(narrow_login)).recv(64) == b""
        for stranger in strangers:  # each is hung up on when its time is over
            while stranger.recv(4096):
                pass
    assert narrow_login.run("echo", "in").stdout == b"in\n"


def test_who_is_logged_in_is_bounded_too(narrow_login: Login) -> None:
    with _inside(narrow_login), _inside(narrow_login):
        refused = narrow_login.run("true")
        assert refused.returncode == 255
        assert b"ssh_connections_per_machine" in refused.stderr
    wait_until(lambda: narrow_login.run("true").returncode == 0, 20, "there is room again")


def test_what_is_open_in_a_machine_is_bounded(narrow_login: Login) -> None:
    control = ["-o", f"ControlPath={narrow_login.directory}/c"]
    with ExitStack() as stack:
        for number in range(3):
            words = [*control, "-M"] if number == 0 else control
            client = stack.enter_context(
                subprocess.Popen(
                    narrow_login.command("echo in; exec cat", options=words),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            stack.callback(client.terminate)
            assert client.stdout
            assert client.stdout.readline() == b"in\n"
        refused = narrow_login.run("true", options=control)
        assert refused.returncode == 255
        client.terminate()
        assert client.wait(SECONDS)
        wait_until(lambda: narrow_login.run("true", options=control).returncode == 0, 20, "there is room again")
        for number in range(8):  # what is gone does not count
            assert narrow_login.run(f"echo {number}", options=control).stdout == b"%d\n" % number
            assert b"refused" in narrow_login.run(options=[*control, "-W", "localhost:1"]).stderr


async def test_what_cannot_be_sent_to_a_machine_is_refused_and_disturbs_nobody(login: Login) -> None:
    directory, name = login.directory, login.session["connection"]["ssh_username"]
    with _inside(login) as other:
        async with asyncssh.connect(
            login.host,
            login.port,
            username=name,
            client_keys=[(str(directory / "key"), str(directory / "key-cert.pub"))],
            known_hosts=None,
            config=None,
        ) as client:
            refused = await asyncio.wait_for(client.run("echo a\0b"), SECONDS)
            assert refused.exit_status == 255
            assert "no NUL" in str(refused.stderr)
            many = {
                "LC_" + "".join(letters): "x" * 1_000 for letters in islice(product(ascii_uppercase, repeat=3), 3_000)
            }
            shown = await asyncio.wait_for(client.run("env | grep -c ^LC_...=x", env=many), SECONDS)
            assert shown.stdout == "32\n"
        assert other.stdin
        assert other.stdout
        other.stdin.write(b"here\n")
        other.stdin.flush()
        assert other.stdout.readline() == b"here\n"


def test_garbage_does_no_harm(narrow_live: Live, narrow_login: Login) -> None:
    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 100_000,
        b"SSH-2.0-x\r\n" + b"\xff" * 50_000,
        b"SSH-1.5-old\r\n",
    ):
        with _silent(narrow_login) as stranger:
            try:
                stranger.sendall(garbage)
                stranger.shutdown(socket.SHUT_WR)
                while stranger.recv(4096):
                    pass
            except OSError:
                pass  # hung up on before all was sent
    wait_until(lambda: narrow_login.run("echo", "in").stdout == b"in\n", 20, "others come in")
    assert '"level":"error"' not in narrow_live.log.read_text()


def test_nothing_secret_is_logged(ssh_live: Live, login: Login) -> None:
    login.run("echo the-command-is-private")
    login.run("true", options=["-o", "CertificateFile=none"])
    log = ssh_live.log.read_text()
    assert "has logged in" in log
    for secret in ("the-command-is-private", "ssh-ed25519", "PRIVATE"):
        assert secret not in log
    assert '"level":"error"' not in log
