"""`dormice up`, `server` and `node` that cannot work as they are set: one line, exit code 2, at once, and no second try."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from dormice.config import MISCONFIGURED, SettingsError, from_environment, limits, machine_defaults
from tests.wait import wait_until

SECONDS = 30
LOGGED = b"{"
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def _environment(directory: Path, changes: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DORMICE_")}
    ours = {
        "DORMICE_DATA_DIR": str(directory / "data"),
        "DORMICE_RUN_DIR": str(directory / "run"),
        "DORMICE_LISTEN": "127.0.0.1:0",
        "DORMICE_SSH_LISTEN": "off",
        "DORMICE_DRIVER": "process",
    }
    return {**inherited, **ours, **changes}


def _started(directory: Path, *words: str, **changes: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "dormice.cli", *words],
        env=_environment(directory, changes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _refused(directory: Path, *words: str, **changes: str) -> str:
    """Return the one line that is not of the log, of a process that must end with 2."""
    with _started(directory, *words, **changes) as process:
        try:
            _, errors = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    said = [line for line in errors.splitlines() if not line.startswith(LOGGED)]
    assert (process.returncode, len(said)) == (2, 1), errors.decode()
    assert b"starts again" not in errors
    return said[0].decode()


@pytest.fixture(name="place")
def _place() -> Iterator[Path]:
    """A directory that the server's user can reach, with a path short enough for a socket's."""
    with TemporaryDirectory(prefix="dormice-processes-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(name="taken")
def _taken() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("role", ["up", "server", "node"])
@pytest.mark.parametrize("network", ["10.0.0.0/30", "somewhere"])
def test_a_network_that_is_none_or_too_small_is_refused(place: Path, role: str, network: str) -> None:
    line = _refused(place, role, "--network", network)
    assert line.startswith("dormice: network")
    assert not (place / "data").exists()


def test_why_a_server_cannot_start_is_said_in_one_write(place: Path) -> None:
    reading, writing = os.pipe2(os.O_DIRECT)  # each write stays a packet of its own
    process = subprocess.Popen(
        [sys.executable, "-m", "dormice.cli", "server", "--network", "somewhere"],
        env=_environment(place, {"PYTHONUNBUFFERED": "1"}),
        stderr=writing,
    )
    os.close(writing)
    try:
        assert process.wait(SECONDS) == MISCONFIGURED
        packet = os.read(reading, 1 << 12)
    finally:
        process.kill()
        process.wait()
        os.close(reading)
    assert packet.startswith(b"dormice: network")
    assert packet.endswith(b"\n")


@pytest.mark.parametrize("role", ["up", "server"])
def test_a_key_that_is_too_short_is_refused_and_not_kept(place: Path, role: str) -> None:
    line = _refused(place, role, DORMICE_API_KEY="abc")
    assert line == "dormice: DORMICE_API_KEY: an API key has 32 to 512 characters, not 3"
    assert not (place / "data" / "api-key").exists()


@pytest.mark.parametrize("role", ["up", "server"])
def test_a_kept_key_that_is_too_short_is_refused(place: Path, role: str) -> None:
    file = place / "data" / "api-key"
    file.parent.mkdir()
    file.write_text("abc\n")
    assert _refused(place, role) == f"dormice: {file}: an API key has 32 to 512 characters, not 3"


@pytest.mark.parametrize("role", ["up", "server"])
@pytest.mark.parametrize(
    ("variable", "value"),
    [("DORMICE_LIMIT_WAIT_MS", "-1"), ("DORMICE_LIMIT_WAITING", "1"), ("DORMICE_DEFAULT_VCPU", "many")],
)
def test_a_limit_that_is_wrong_is_refused_by_its_name(place: Path, role: str, variable: str, value: str) -> None:
    assert _refused(place, role, **{variable: value}).startswith(f"dormice: {variable} is ")


@pytest.mark.parametrize("role", ["up", "server"])
def test_a_port_that_is_taken_ends_it(place: Path, taken: str, role: str) -> None:
    line = _refused(place, role, "--listen", taken)
    assert line.startswith(f"dormice: cannot listen on {taken}: ")


@ROOT_ONLY
@pytest.mark.parametrize("role", ["up", "server"])
def test_a_user_who_does_not_exist_is_refused(place: Path, role: str) -> None:
    line = _refused(place, role, "--user", "nobody-of-that-name")
    assert line == "dormice: user is 'nobody-of-that-name', and this host has no such user"


@pytest.mark.parametrize("role", ["up", "server"])
def test_a_store_that_is_no_database_ends_it(place: Path, role: str) -> None:
    file = place / "data" / "server" / "dormice.sqlite3"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no database at all" * 1000)
    assert _refused(place, role).startswith("dormice: ")


def test_a_server_that_worked_before_is_started_again_even_when_its_port_is_taken(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = _started(place, "up", "--listen", f"127.0.0.1:{port}")
    try:
        wait_until(lambda: _answers(port), SECONDS, "an open port")
        server = wait_until(lambda: _part(process.pid, b"server"), SECONDS, "the server")
        # Held by SIGSTOP, the supervisor starts no other before the port is taken.
        process.send_signal(signal.SIGSTOP)
        os.kill(server, signal.SIGKILL)
        with wait_until(lambda: _take(port), SECONDS, "the port"):
            process.send_signal(signal.SIGCONT)
            assert process.stderr is not None
            deadline = time.monotonic() + SECONDS
            for line in process.stderr:
                assert time.monotonic() < deadline
                if b"server ended with code 2, starts again" in line:
                    break
        wait_until(lambda: _answers(port), SECONDS, "an open port again")
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.communicate(timeout=SECONDS)
    assert process.returncode == 0


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _take(port: int) -> socket.socket | None:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return None


def _part(supervisor: int, role: bytes) -> int | None:
    for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
        if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-2:-1] == [role]:
            return int(pid)
    return None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOG_LEVEL", "loud"),
        ("FIRST_UID", "131071"),
        ("FIRST_UID", str((1 << 32) - (1 << 26) + 1)),
        ("INSTANCE", "1st"),
        ("POOL_SIZE", "-1"),
        ("STORAGE_RESERVE_GIB", "-1"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name.lower()} is "):
        from_environment({f"DORMICE_{name}": value})


@pytest.mark.parametrize("value", ["131072", str((1 << 32) - (1 << 26))])
def test_the_ends_of_the_range_of_first_uid_are_taken(value: str) -> None:
    assert from_environment({"DORMICE_FIRST_UID": value}).first_uid == int(value)


def test_limits_and_defaults_are_taken_from_their_variables() -> None:
    assert limits({"DORMICE_LIMIT_WAIT_MS": "7", "OTHER": "x"}).wait_ms == 7
    assert machine_defaults({"DORMICE_DEFAULT_VCPU": "0.5", "DORMICE_LIMIT_WAIT_MS": "7"}).vcpu == 0.5
    with pytest.raises(SettingsError, match="DORMICE_DEFAULT_VCPU"):
        machine_defaults({"DORMICE_DEFAULT_VCPU": "nan"})


def test_up_waits_when_the_host_can_start_no_process(place: Path) -> None:
    program = "import sys; sys.executable = '/nowhere/python'; from dormice.cli.main import run; sys.exit(run(['up']))"
    with subprocess.Popen(
        [sys.executable, "-c", program], env=_environment(place, {}), stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stderr is not None
            tries = (line for line in process.stderr if b"node cannot be started, tried again in" in line)
            assert next(tries, b"") != next(tries, b"")
        finally:
            process.terminate()
        assert process.wait(SECONDS) == 0


def test_nothing_is_imported_from_the_directory_that_it_is_started_in(place: Path, tmp_path: Path) -> None:
    """Whoever may write there would be root otherwise; and a file that is called as a module of Python is enough to end all."""
    shadow = place / "cmd.py"
    shadow.write_text(f"open({str(tmp_path / 'seen')!r}, 'w')\nraise SystemExit('the wrong one')\n")
    shadow.chmod(0o644)
    program = [sys.executable, "-P", "-m", "dormice.cli", "up"]
    with subprocess.Popen(program, cwd=place, env=_environment(place, {}), stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            news = (line for line in process.stderr if b"engine has" in line or b"starts again" in line)
            assert b"engine has" in next(news, b""), "the server has started"
        finally:
            process.terminate()
        assert process.wait(SECONDS) == 0
    assert not (tmp_path / "seen").exists()


_BECOME_NOBODY = """
import sys
from pathlib import Path
from dormice import privileges
closed, data, view = map(Path, sys.argv[1:])
sys.path.insert(0, str(closed / "code"))
uid, gid = privileges.account("nobody", default="nobody")
privileges.private_view(data, view)
privileges.drop(uid, gid)
import late_module
print(late_module.WORD, (closed / "secret").exists())
"""


@ROOT_ONLY
def test_code_that_only_root_can_reach_is_loaded_after_root_is_given_up_and_nothing_else_of_its_place(
    place: Path,
) -> None:
    closed, data = place / "closed", place / "data"
    for directory in (closed, closed / "code", data):
        directory.mkdir()
    (closed / "code" / "late_module.py").write_text("WORD = 'loaded'\n")
    (closed / "secret").write_text("")
    closed.chmod(0o700)
    command = [sys.executable, "-c", _BECOME_NOBODY, str(closed), str(data), str(place / "view")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.stdout == "loaded False\n", done.stderr
    assert (closed / "secret").exists()
