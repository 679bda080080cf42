"""`dormice exec` as a process, against a real HTTP server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dormice.cli.exec import exit_code
from tests.cli.conftest import COMMAND, Dormice
from tests.client.fake_server import Answer, FakeServer

IN_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def test_each_stream_goes_to_its_own_byte_for_byte(dormice: Dormice, server: FakeServer) -> None:
    done = dormice("exec", server.machine(), "--", "both")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\nmore\n", b"err\xff\n")


def test_all_options_reach_the_server(dormice: Dormice, server: FakeServer) -> None:
    machine_id = server.machine()
    options = ["--cwd", "/tmp", "--env", "A=1=2", "--env", "B", "--timeout", "1.5s", "--artifacts", "out/*"]
    assert dormice("exec", *options, machine_id, "--", "echo", "--", "-x", B="from here").stdout == b"--\n-x\n"
    assert server.sent("POST")[0].body == {
        "command": ["echo", "--", "-x"],
        "cwd": "/tmp",
        "env": {"A": "1=2", "B": "from here"},
        "timeout_ms": 1500,
        "artifacts": ["out/*"],
    }


def test_what_was_kept_is_told_when_it_has_ended(dormice: Dormice, server: FakeServer) -> None:
    asked = ["--artifacts", "out/a.json", "--artifacts", "none/*"]
    done = dormice("exec", *asked, server.machine(), "--", "fail", "3")
    assert (done.returncode, done.stderr) == (3, b"dormice: kept out/a.json (4 bytes) as art-out/a.json\n")


def test_that_nothing_matched_is_told(dormice: Dormice, server: FakeServer) -> None:
    asked = ["--artifacts", "none", "--artifacts", "none/*"]
    done = dormice("exec", *asked, server.machine(), "--", "echo", "x")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"x\n", b"dormice: no file matches none or none/*\n")


def test_options_may_stand_behind_the_machine(dormice: Dormice, server: FakeServer) -> None:
    assert dormice("exec", server.machine(), "--cwd", "/tmp", "--", "true").returncode == 0
    assert server.sent("POST")[0].body["cwd"] == "/tmp"


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["true"], 0, b""),
        (["fail", "3"], 3, b""),
        (["die", "9"], 137, b""),
        (["slow"], 124, b"dormice: timeout: killed after 5000 ms\n"),
        (["error", "command_not_found"], 127, b"dormice: command_not_found: it did not start\n"),
        (["error", "permission_denied"], 126, b"dormice: permission_denied: it did not start\n"),
        (["error", "cwd_not_found"], 125, b"dormice: cwd_not_found: it did not start\n"),
        (["error", "machine_lost"], 125, b"dormice: machine_lost: it did not start\n"),
    ],
)
def test_the_exit_code_is_passed_on(
    dormice: Dormice, server: FakeServer, argv: list[str], code: int, message: bytes
) -> None:
    done = dormice("exec", server.machine(), "--", *argv)
    assert (done.returncode, done.stderr) == (code, message)


def test_a_cancelled_command_never_looks_like_a_success() -> None:
    assert exit_code({"status": "cancelled", "exit_code": 0, "error_code": "cancelled"}) == 125
    assert exit_code({"status": "cancelled", "signal": 15, "error_code": "cancelled"}) == 143


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dm-nowhere", "--", "true"], b"dormice: HTTP 404: there is no such thing\n"),
        (["dm-nowhere", "ls", "--", "-l"], b"unrecognized arguments: ls"),
        (["dm-nowhere", "uname", "-a"], b"put the command behind --"),
        (["dm-nowhere"], b"put the command behind --"),
        (["--timeout", "soon", "dm-nowhere", "--", "true"], b"500ms, 30s, 5m or 1h"),
        (["--timeout", "-1s", "dm-nowhere", "--", "true"], b"--timeout"),
        (["--env", "NOT_SET_HERE", "dm-nowhere", "--", "true"], b"NOT_SET_HERE is not set here"),
    ],
)
def test_what_is_wrong_before_the_command_starts_is_125(dormice: Dormice, words: list[str], message: bytes) -> None:
    done = dormice("exec", *words)
    assert done.returncode == 125
    assert message in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_an_empty_stdin_is_not_opened(dormice: Dormice, server: FakeServer) -> None:
    dormice("exec", server.machine(), "--", "cat")
    dormice("exec", "--no-stdin", server.machine(), "--", "cat", stdin=b"not this")
    assert [request.body for request in server.sent("POST")] == [{"command": ["cat"]}] * 2


def test_a_long_binary_stdin_is_forwarded_whole(dormice: Dormice, server: FakeServer) -> None:
    data = bytes(range(256)) * 4000
    done = dormice("exec", server.machine(), "--", "cat", stdin=data)
    assert (done.returncode, done.stdout) == (0, data)
    assert server.sent("POST")[0].body == {"command": ["cat"], "stdin_open": True}


def test_a_short_stdin_in_a_file_goes_along_with_the_command(
    server: FakeServer, environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "input"
    path.write_text("hé\n")
    with path.open("rb") as file:
        words = [*COMMAND, "exec", server.machine(), "--", "cat"]
        done = subprocess.run(words, env=environment, stdin=file, capture_output=True, check=True, timeout=60)
    assert done.stdout == "hé\n".encode()
    assert server.sent("POST")[0].body == {"command": ["cat"], "stdin": "hé\n"}
    assert not server.sent("PUT")


def test_a_stdin_that_stays_open_does_not_hold_the_end_up(server: FakeServer, environment: dict[str, str]) -> None:
    words = [*COMMAND, "exec", server.machine(), "--", "fail", "4"]
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.wait(60) == 4
    assert server.sent("POST")[0].body["stdin_open"]


def test_lines_are_answered_while_stdin_is_open(server: FakeServer, environment: dict[str, str]) -> None:
    words = [*COMMAND, "exec", server.machine(), "--", "cat"]
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        for line in (b"first\n", b"second\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline() == line
        process.stdin.close()
        assert process.wait(60) == 0


def test_a_terminal_is_forwarded_by_lines(server: FakeServer, environment: dict[str, str]) -> None:
    words = [sys.executable, "-c", IN_A_TERMINAL, *COMMAND, "exec", server.machine(), "--", "cat"]
    done = subprocess.run(words, env=environment, input=b"hello\n\x04", capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stdout.count(b"hello\r\n") == 2  # the terminal's echo, and the command's answer
    assert server.sent("PUT")[-1].query == {"offset": "6", "eof": "true"}


def test_a_line_on_the_terminal_tells_that_the_machine_wakes(server: FakeServer, environment: dict[str, str]) -> None:
    machine_id = server.machine(asleep=True)
    words = [sys.executable, "-c", IN_A_TERMINAL, *COMMAND, "exec", "--no-stdin", machine_id, "--", "echo", "up"]
    done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True)
    assert f"{machine_id} is waking …\r\x1b[K".encode() in done.stdout
    assert done.stdout.endswith(b"up\r\n")


def start_forever(server: FakeServer, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    words = [*COMMAND, "exec", "--no-stdin", server.machine(), "--", "forever"]
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    return process


def test_ctrl_c_cancels_and_sees_the_command_out(server: FakeServer, environment: dict[str, str]) -> None:
    with start_forever(server, environment) as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"")
    assert [execution.record["status"] for execution in server.executions.values()] == ["cancelled"]


def test_a_second_ctrl_c_leaves_at_once(server: FakeServer, environment: dict[str, str]) -> None:
    with start_forever(server, environment) as process:
        answer = Answer(hang=True)
        server.planned.append(answer)
        process.send_signal(signal.SIGINT)
        server.wait_for("DELETE")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT


def test_ctrl_c_before_the_answer_cancels_what_was_asked_for(server: FakeServer, environment: dict[str, str]) -> None:
    server.planned.append(Answer(hang=True))
    words = [*COMMAND, "exec", "--no-stdin", server.machine(), "--", "forever"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        server.wait_for("POST")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    first, second = server.sent("POST")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert [execution.record["status"] for execution in server.executions.values()] == ["cancelled"]


def test_when_nobody_reads_the_output_the_command_is_cancelled(server: FakeServer, environment: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [*COMMAND, "exec", "--no-stdin", server.machine(), "--", "forever"]
    done = subprocess.run(words, env=environment, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
    assert [execution.record["status"] for execution in server.executions.values()] == ["cancelled"]


def test_output_that_was_cut_is_said_to_be_cut(dormice: Dormice, server: FakeServer) -> None:
    done = dormice("exec", server.machine(), "--", "long", "70000")
    assert len(done.stdout) == 70_000
    assert done.stderr == b"dormice: stdout was cut: the server kept 70000 of 140000 bytes\n"


def test_a_broken_stream_loses_and_repeats_nothing(dormice: Dormice, server: FakeServer) -> None:
    server.cut_streams_after.extend([2, 1])
    assert dormice("exec", server.machine(), "--", "echo", "a", "b", "c").stdout == b"a\nb\nc\n"
