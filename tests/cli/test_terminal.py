"""`dormice terminal` on a real pseudo terminal, with a real server and a real shell behind it."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dormice.cli import screen as screens
from dormice.cli.attachment import Keys
from tests.conformance.terminals import PLAIN, create, path, shown, window
from tests.conftest import StartLive
from tests.live import Api, Live, new_key
from tests.wait import wait_until

SECONDS = 20.0
LEAVE = b"\x1dd"
OUR_OWN = {"TERM": "dumb", "COLUMNS": "100"}
QUIET = ("--env", "PS1=")


class Screen:
    """The user's side of `dormice terminal`: keys and a screen."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process = process
        self.fd = fd
        self.seen = b""

    def type(self, data: bytes) -> None:
        os.write(self.fd, data)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, text: bytes) -> None:
        while text not in self.seen:
            assert select.select([self.fd], [], [], SECONDS)[0], (self.process.poll(), self.seen)
            self.seen += os.read(self.fd, 65_536)

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.fd)

    def end(self) -> int:
        """Read what comes until the program has ended, and return its exit code."""
        while self.process.poll() is None:
            if select.select([self.fd], [], [], 0.1)[0]:
                self.seen += os.read(self.fd, 65_536)
        while select.select([self.fd], [], [], 0)[0]:
            self.seen += os.read(self.fd, 65_536)
        return self.process.returncode


@contextmanager
def screen(live: Live, *words: str) -> Iterator[Screen]:
    """Run `dormice terminal WORDS` on a pseudo terminal of 80 columns and 24 rows."""
    ours, theirs = os.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DORMICE_")}
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-m", "dormice.cli", "terminal", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**inherited, **OUR_OWN, "DORMICE_BASE_URL": live.base_url, "DORMICE_API_KEY": live.api_key},
    )
    try:
        yield Screen(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def id_of(one: Screen) -> str:
    one.wait_for(b"Ctrl-] then d leaves it")
    return one.seen.partition(b"dormice: ")[2].partition(b":")[0].decode()


def test_a_shell_is_used_and_its_exit_code_is_ours(live: Live, machine: str) -> None:
    with screen(live, machine, *QUIET) as one:
        before = one.modes()
        id_of(one)
        one.type(b"echo $((6 * 7)) $TERM; stty size\r")
        one.wait_for(b"42 dumb\r\n24 80\r\n")
        assert one.modes() != before, "raw"
        one.resize(132, 50)
        one.type(b"until [ \"$(stty size)\" = '50 132' ]; do read -t 0.05; done; echo gr''own\r")
        one.wait_for(b"grown\r\n")
        one.type(b"exit 7\r")
        assert one.end() == 7
        assert one.modes() == before, "put back"


def test_a_command_runs_and_what_it_showed_at_its_end_is_there(live: Live, machine: str) -> None:
    for _ in range(3):
        with screen(live, machine, "--", "sh", "-c", "echo a $0; exit 4", "b c") as one:
            assert one.end() == 4
            assert one.seen.count(b"a b c\r\n") == 1
    with screen(live, machine, "--", "sh", "-c", "kill -15 $$") as one:
        assert one.end() == 128 + 15


def test_the_keys_leave_and_another_comes_back(live: Live, api: Api, machine: str) -> None:
    with screen(live, machine, *QUIET) as one:
        before = one.modes()
        terminal = id_of(one)
        one.type(b"echo on''ce\r")
        one.wait_for(b"once\r\n")
        one.type(LEAVE)
        assert one.end() == 0
        assert one.modes() == before
        assert b"\x1b[?1049l" not in one.seen, "no other screen was shown"
        assert one.seen.endswith(f"left; come back with dormice terminal {machine} --attach {terminal}\r\n".encode())
    with screen(live, machine, "--attach", terminal) as other:
        other.wait_for(b"once\r\n")
        other.type(b"echo we''nt; cat -v\r")
        other.wait_for(b"went\r\n")
        other.type(b"\x1d\x1d\x1dx\r")
        other.wait_for(b"Ctrl-] then d leaves; Ctrl-] twice types one")
        other.wait_for(b"^]^]x\r\n^]^]x\r\n")
        other.type(b"\x03")
        other.wait_for(b"^C")
        other.type(b"exit\r")
        assert other.end() == 130
    assert api.get(path(machine, terminal)).json()["status"] == "closed"
    with screen(live, machine, "--attach", terminal) as late:
        assert late.end() == 130
        assert b"once" in late.seen
        assert late.seen.endswith(f"\ndormice: {terminal} had ended before: exit code 130\r\n".encode())


def test_what_a_program_that_is_left_has_made_of_the_screen_is_undone(live: Live, api: Api, machine: str) -> None:
    with screen(live, machine, "--", "sh", "-c", r"printf '\033[?1049h\033[?1h\033[?1004hfull'; cat") as one:
        terminal = id_of(one)
        one.wait_for(b"full")
        one.type(LEAVE)
        assert one.end() == 0
        behind = one.seen.rpartition(b"full")[2]
        assert all(mode in behind for mode in (b"\x1b[?1049l", b"\x1b[?1l", b"\x1b[?1004l"))
    api.delete(path(machine, terminal))


def test_a_switch_of_screens_is_found_over_pieces() -> None:
    seen = screens.Screen()
    seen.shown(b"a\x1b[?10")
    seen.shown(b"49hb")
    assert seen.restoring().startswith(b"\x1b[?1049l")
    seen.shown(b"\x1b[?1049")
    seen.shown(b"l")
    assert b"1049" not in seen.restoring()


def test_a_machine_that_is_put_to_sleep_is_said_to_be_why_it_ended(live: Live, api: Api) -> None:
    machine = api.create_machine()
    with screen(live, machine, *QUIET) as one:
        terminal = id_of(one)
        one.type(b"echo re''ady\r")
        one.wait_for(b"ready\r\n")
        api.post(f"/v1/machines/{machine}/sleep", headers=new_key()).raise_for_status()
        assert one.end() > 128
        assert f"{terminal} ended: its machine was put to sleep\r\n".encode() in one.seen
    api.delete(f"/v1/machines/{machine}", headers=new_key())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_it_puts_the_modes_back_and_the_shell_goes_on(
    live: Live, api: Api, machine: str, number: signal.Signals
) -> None:
    with screen(live, machine, *QUIET) as one:
        before = one.modes()
        terminal = id_of(one)
        one.type(b"echo re''ady\r")
        one.wait_for(b"ready\r\n")
        one.process.send_signal(number)
        assert one.end() == 128 + number
        assert one.modes() == before
    assert api.get(path(machine, terminal)).json()["status"] == "ready"
    api.delete(path(machine, terminal))


def test_the_connection_is_made_again_without_loss_or_repeat(start_live: StartLive) -> None:
    with start_live() as live, live.client() as api:
        machine = api.create_machine(autosleep="never")
        with screen(live, machine, *QUIET) as one:
            terminal = id_of(one)
            one.type(
                b"stty -echo; n=0; until read -t 0; do n=$((n + 1)); echo line-$n-; sleep 0.01; done; read x; echo t''yped $x\r"
            )
            one.wait_for(b"line-20-")
            live.kill("server")
            one.wait_for(b"the connection is lost")
            live.wait_ready()
            seen = int(one.seen.rpartition(b"line-")[2].partition(b"-")[0])
            one.wait_for(b"line-%d-" % (seen + 50))
            one.type(b"enough\r")
            one.wait_for(b"typed enough\r\n")
            last = int(one.seen.rpartition(b"line-")[2].partition(b"-")[0])
            text = one.seen.replace(
                b"\r\ndormice: the connection is lost, and is made again; Ctrl-] then d leaves\r\n", b""
            )
            expected = b"".join(b"line-%d-\r\n" % n for n in range(1, last + 1))
            assert expected in text
            one.type(b"exit\r")
            assert one.end() == 0
        assert expected in shown(api, {"machine_id": machine, "terminal_id": terminal})


def test_a_shell_that_ends_while_nobody_is_connected_is_shown_to_its_end(start_live: StartLive) -> None:
    with start_live() as live, live.client() as api:
        machine = api.create_machine(autosleep="never")
        with screen(live, machine, "--", "sh", "-c", "echo begun; read x; sleep 1; echo the end; exit 5") as one:
            one.wait_for(b"begun\r\n")
            one.type(b"\r")
            wait_until(
                lambda: b"begun\r\n\r\n" in shown(api, {"machine_id": machine, "terminal_id": id_of(one)}), 10, "read"
            )
            live.kill_all()
            live.start()
            assert one.end() == 5
            assert one.seen.count(b"the end\r\n") == 1


def test_without_a_terminal_it_says_what_to_use(live: Live, machine: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dormice.cli", "terminal", machine], input=b"", capture_output=True, check=False
    )
    assert done.returncode == 125
    assert b"dormice exec" in done.stderr
    assert live.base_url


def test_the_records_are_listed_and_shown(live: Live, api: Api, machine: str) -> None:
    def ask(*words: str) -> bytes:
        environment = {**os.environ, **OUR_OWN, "DORMICE_BASE_URL": live.base_url, "DORMICE_API_KEY": live.api_key}
        words = (sys.executable, "-m", "dormice.cli", "terminals", *words)
        return subprocess.run(words, env=environment, capture_output=True, check=True).stdout

    record = create(api, machine, env=PLAIN)
    terminal = record["terminal_id"]
    with window(record["stream_url"]) as one:
        one.type("echo sh''own\n")
        one.wait_for(b"shown\r\n")
    assert f"{terminal}  ready" in ask("list", machine).decode()
    assert b"stream_url" in ask("get", machine, terminal)
    assert ask("output", machine, terminal) == shown(api, record)
    ask("delete", machine, terminal)
    wait_until(lambda: b'"status": "closed"' in ask("get", "--json", machine, terminal), 10, "closed")


def test_the_keys_are_found_over_pieces() -> None:
    keys = Keys()
    assert keys.take(b"ab\x1d") == (b"ab", False)
    assert keys.take(b"\x1dc\x1d") == (b"\x1dc", False)
    assert keys.take(b"e\x1ddf") == (b"\x1de", True)
