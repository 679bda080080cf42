"""OpenSSH's own programs against a running Dormice: what people expect of ssh."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.live import Api, Live
from tests.ssh.login import SECONDS, Login, finished
from tests.telemetry.scraping import scrape, value
from tests.wait import wait_until

BIG = 20_000_000


def test_a_command_has_its_streams_apart_and_its_exit_status(login: Login) -> None:
    done = login.run("echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_a_command_reads_to_the_end_of_its_stdin(login: Login) -> None:
    assert login.run("wc -c; echo done", stdin=b"x" * 1_000).stdout.split() == [b"1000", b"done"]


def test_a_command_that_a_signal_ends_is_told_so(login: Login) -> None:
    done = login.run("kill -KILL $$", options=["-v"])
    assert done.returncode == 255
    assert b"exit-signal" in done.stderr


def test_a_command_that_is_not_there_is_127(login: Login) -> None:
    assert login.run("no-such-program").returncode == 127


def test_bytes_come_through_whole_both_ways(login: Login) -> None:
    sent = os.urandom(BIG)
    done = login.run("cat", stdin=sent)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(sent).digest()


def test_who_does_not_read_holds_the_command_up(login: Login) -> None:
    with subprocess.Popen(
        login.command("head -c 100000000 /dev/zero; echo all written >&2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as slow:
        assert slow.stdout
        assert slow.stderr
        assert slow.stdout.read(1) == b"\0"
        # Another command of the same machine goes on meanwhile, and what holds the first one up is not ours to keep.
        assert login.run("echo", "quick").stdout == b"quick\n"
        os.set_blocking(slow.stderr.fileno(), False)
        assert slow.stderr.read() is None
        size = 1
        while piece := slow.stdout.read(1 << 20):
            size += len(piece)
        assert size == 100_000_000
        assert slow.wait(SECONDS) == 0


def _memory_mib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def test_the_server_keeps_little_of_what_is_faster_than_the_machine_or_the_client(ssh_live: Live, login: Login) -> None:
    server = ssh_live.part("server")
    login.run("true")
    before = _memory_mib(server)
    with subprocess.Popen(["head", "-c", "300000000", "/dev/zero"], stdout=subprocess.PIPE) as source:
        taken = subprocess.run(
            login.command("wc -c"), stdin=source.stdout, capture_output=True, timeout=SECONDS, check=False
        )
    assert taken.stdout == b"300000000\n"
    with subprocess.Popen(login.command("head -c 300000000 /dev/zero"), stdout=subprocess.PIPE) as slow:
        assert slow.stdout
        assert slow.stdout.read(1)
        slow.send_signal(signal.SIGSTOP)  # its window is open, and it reads nothing
        login.run("head -c 30000000 /dev/zero | wc -c")
        slow.kill()
    assert _memory_mib(server) - before < 30


def test_the_language_of_the_client_reaches_the_command_and_nothing_else_does(login: Login) -> None:
    wanted = {**os.environ, "LC_ALL": "C.UTF-8", "COLORTERM": "truecolor", "SECRET": "s"}
    options = ["-o", "SendEnv=LC_ALL COLORTERM SECRET"]
    shown = login.run("env", options=options, env=wanted).stdout.splitlines()
    assert b"LC_ALL=C.UTF-8" in shown
    assert b"COLORTERM=truecolor" in shown
    assert not [line for line in shown if line.startswith((b"SECRET=", b"TERM="))]
    assert [line for line in shown if line.startswith(b"SSH_CONNECTION=127.0.0.1 ")]


@contextmanager
def _on_a_terminal(login: Login, *words: str, size: tuple[int, int] = (100, 40)) -> Iterator[tuple[int, int]]:
    """Run ssh on a terminal of its own; the pid and our side of it."""
    pid, terminal = pty.fork()
    if pid == 0:
        command = login.command(*words, options=["-tt"])
        os.environ["TERM"] = "xterm-256color"
        os.execvp(command[0], command)
    resize(terminal, *size)
    try:
        yield pid, terminal
    finally:
        os.close(terminal)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def resize(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _until(terminal: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        try:
            piece = os.read(terminal, 65_536)
        except OSError:
            piece = b""
        assert piece, seen
        seen += piece
    return seen


def test_a_terminal_is_one_and_follows_the_size_of_its_window(login: Login) -> None:
    script = "tty; echo $TERM; trap 'stty size; exit 5' WINCH; stty size; while :; do sleep 0.05; done"
    with _on_a_terminal(login, script) as (pid, terminal):
        seen = _until(terminal, b"40 100")
        assert b"/dev/pts/" in seen
        assert b"xterm-256color" in seen
        resize(terminal, 132, 50)
        _until(terminal, b"50 132")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5


def test_a_shell_on_a_terminal_takes_what_is_typed_and_its_keys(login: Login) -> None:
    with _on_a_terminal(login) as (pid, terminal):
        os.write(terminal, b"PS1=; stty -echo; echo rea''dy\n")
        _until(terminal, b"ready")
        # The program says so itself: between the words of a shell and its child, a Ctrl-C may reach neither.
        os.write(terminal, b"sh -c 'echo asl\"\"eep; exec sleep 600'\n")
        _until(terminal, b"asleep")
        os.write(terminal, b"\x03")
        os.write(terminal, b"echo go''ing on\n")
        _until(terminal, b"going on")
        os.write(terminal, b"exit 9\n")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def test_without_a_command_there_is_a_login_shell(login: Login) -> None:
    done = login.run(stdin=b"shopt login_shell; exit 4\n")
    assert (done.returncode, done.stdout.split()) == (4, [b"login_shell", b"on"])


def test_what_runs_is_killed_when_its_client_is_gone(login: Login, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    with subprocess.Popen(login.command(f"setsid sleep 600 & echo $! > {mark}; wait")) as client:
        pid = wait_until(lambda: mark.exists() and mark.read_text().strip(), 20, "the command runs")
        client.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 20, "its child is gone")


def test_what_is_left_running_on_purpose_runs_on(login: Login, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    done = login.run(f"nohup sleep 600 >/dev/null 2>&1 & echo $! > {mark}")
    assert done.returncode == 0
    pid = int(mark.read_text())
    assert login.run(f"kill -0 {pid} && kill {pid}").returncode == 0


def test_rsync_and_the_old_scp_carry_files(login: Login, tmp_path: Path) -> None:
    sent = os.urandom(3_000_000)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").write_bytes(sent)
    rsync = ["rsync", "-a", "-e", login.remote_shell]
    done = finished([*rsync, f"{tmp_path}/here/", f"{login.host}:{tmp_path}/there/"])
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "there" / "file").read_bytes() == sent
    scp = ["scp", "-O", *login.options]
    done = finished([*scp, f"{tmp_path}/here/file", f"{login.host}:{tmp_path}/copy"])
    assert (done.returncode, done.stderr) == (0, b"")
    done = finished([*scp, f"{login.host}:{tmp_path}/copy", f"{tmp_path}/back"])
    assert (done.returncode, (tmp_path / "back").read_bytes() == sent) == (0, True)


def test_sftp_and_scp_carry_files_and_trees(login: Login, tmp_path: Path) -> None:
    sent = os.urandom(5_000_000)
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "deep" / "er").mkdir(parents=True)
    (here / "file").write_bytes(sent)
    (here / "deep" / "er" / "run").write_text("#!/bin/sh\n")
    (here / "deep" / "er" / "run").chmod(0o750)
    os.utime(here / "file", (1_000_000_000, 1_100_000_000))
    done = finished(["scp", "-rp", *login.options, str(here), f"{login.host}:{there}"])
    assert (done.returncode, done.stderr) == (0, b"")
    assert (there / "file").read_bytes() == sent
    assert (there / "file").stat().st_mtime == 1_100_000_000
    assert (there / "deep" / "er" / "run").stat().st_mode & 0o777 == 0o750
    done = finished(["scp", *login.options, f"{login.host}:{there}/file", str(tmp_path / "back")])
    assert (done.returncode, (tmp_path / "back").read_bytes() == sent) == (0, True)
    batch = f"""
        cd {there}
        mkdir new
        rename file new/moved
        ln -s new/moved soft
        ln new/moved hard
        chmod 600 hard
        ls -la
        get hard {tmp_path}/by-sftp
        df .
        rm soft
        -rm nothing
        -rmdir new
        -mkdir new
        pwd
    """
    done = finished(["sftp", "-b", "-", *login.options, login.host], stdin=batch.encode())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "by-sftp").read_bytes() == sent
    assert (there / "hard").stat().st_mode & 0o777 == 0o600
    assert not (there / "soft").is_symlink()
    shown = done.stdout.decode()
    assert "lrwxrwxrwx" in shown
    assert f"Remote working directory: {there}" in shown
    assert b"No such file or directory" in done.stderr
    assert done.stderr.count(b"Failure") == 2


class _Upper(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.upper())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(name="service")
def _service() -> Iterator[int]:
    """The port of an HTTP server where machines of the process driver find it: on this host."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Upper) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@contextmanager
def _forwarding(login: Login, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ssh that forwards and does nothing else, once it does."""
    words = ["-N", "-o", "ExitOnForwardFailure=yes", *options]
    with subprocess.Popen(login.command(options=words), stderr=subprocess.PIPE) as client:
        try:
            yield client
        finally:
            client.terminate()


@pytest.fixture(name="port")
def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "machine"])
def test_a_port_of_the_machine_is_reached_by_forwarding(login: Login, service: int, port: int, name: str) -> None:
    target = login.session["machine_id"] if name == "machine" else name
    with _forwarding(login, "-L", f"127.0.0.1:{port}:{target}:{service}"):
        wait_until(lambda: _listens(port), 20, "ssh listens")
        for size in (10, 3_000_000):
            done = finished(["curl", "-sf", "--data-binary", "@-", f"http://127.0.0.1:{port}/"], stdin=b"x" * size)
            assert done.stdout == b"X" * size


def test_ports_are_reached_through_a_socks_proxy(login: Login, service: int, port: int) -> None:
    with _forwarding(login, "-D", f"127.0.0.1:{port}"):
        wait_until(lambda: _listens(port), 20, "ssh listens")
        proxied = ["curl", "-sf", "--data-binary", "hi", "--proxy", f"socks5h://127.0.0.1:{port}"]
        assert finished([*proxied, f"http://localhost:{service}/"]).stdout == b"HI"
        assert finished([*proxied, "http://169.254.169.254/"]).returncode != 0


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "example.com", "127.0.0.2", "0.0.0.0", "dm-019e39e7-3d1b-7a85-a772-475990a3bda1"]
)
def test_nothing_but_the_machine_is_reached_by_forwarding(login: Login, service: int, host: str) -> None:
    done = login.run(options=["-W", f"{host}:{service}"])
    assert done.returncode == 255
    assert b"administratively prohibited" in done.stderr


def test_a_port_where_nobody_listens_is_told_apart(login: Login, port: int) -> None:
    done = login.run(options=["-W", f"localhost:{port}"])
    assert b"Connection refused" in done.stderr
    assert b"connect failed" in done.stderr


def test_ports_of_the_server_are_not_given_away(login: Login, port: int) -> None:
    done = login.run("true", options=["-o", "ExitOnForwardFailure=yes", "-R", f"{port}:localhost:22"])
    assert done.returncode == 255
    assert b"remote port forwarding failed" in done.stderr


def test_neither_agent_nor_display_are_forwarded(login: Login) -> None:
    shown = login.run("env", options=["-A", "-X"], env={**os.environ, "DISPLAY": ":9"})
    assert b"SSH_AUTH_SOCK" not in shown.stdout
    assert b"DISPLAY=" not in shown.stdout


def test_one_connection_carries_many_commands(login: Login, api: Api, directory: Callable[[], Path]) -> None:
    control = ["-o", f"ControlPath={directory()}/c"]
    with _forwarding(login, "-M", *control):
        wait_until(lambda: login.run(options=[*control, "-O", "check"]).returncode == 0, 20, "the master is there")
        clients = [
            subprocess.Popen(login.command(f"echo {number}", options=control), stdout=subprocess.PIPE)
            for number in range(20)
        ]
        assert [client.communicate(timeout=SECONDS)[0] for client in clients] == [b"%d\n" % n for n in range(20)]


def test_what_reads_nothing_is_killed_when_its_client_leaves_a_connection_that_goes_on(
    api: Api, login: Login, directory: Callable[[], Path]
) -> None:
    received: list[float] = []

    def held_up() -> bool:
        """Whether the server takes in no more of what the client sends."""
        received.append(value(scrape(api), "dormice_ssh_bytes_total", direction="received"))
        return received[-1] == received[-2] >= received[0] + 262_144

    place = directory()
    received.append(value(scrape(api), "dormice_ssh_bytes_total", direction="received"))
    control, mark = ["-o", f"ControlPath={place}/c"], place / "pid"
    (place / "much").write_bytes(bytes(800_000))  # more than is read ahead, and no more than the client may send
    with _forwarding(login, "-M", *control), (place / "much").open("rb") as much:
        wait_until(lambda: login.run(options=[*control, "-O", "check"]).returncode == 0, 20, "the master is there")
        command = login.command(f"setsid sleep 600 & echo $! > {mark}; wait", options=control)
        with subprocess.Popen(command, stdin=much) as client:
            pid = wait_until(lambda: mark.exists() and mark.read_text().strip(), 20, "the command runs")
            wait_until(held_up, 20, "nothing more of it is read")
            client.kill()
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 20, "its child is gone")
        assert login.run("echo on", options=control).stdout == b"on\n"
