"""How a command is started: argv, environment, cwd, PATH, descriptors, privileges."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import stat
from pathlib import Path
from uuid import uuid4

import pytest

from dormice.protocol.guest import Ack, Exited, Forget, Hello, How, Output, Reason, Refused, Start, Started
from tests.guest.guest_process import GuestProcess, Link, Mode
from tests.wait import wait_until


def test_a_command_reports_its_start_output_and_end(link: Link) -> None:
    outcome = link.shell("echo out; echo err >&2; exit 3")
    assert (outcome.stdout, outcome.stderr) == (b"out\n", b"err\n")
    assert outcome.started is not None
    assert (outcome.end.how, outcome.end.code, outcome.end.errno) == (How.EXITED, 3, 0)
    assert outcome.end.started_at == outcome.started.at <= outcome.end.ended_at
    assert (outcome.end.stdout_total, outcome.end.stdout_kept) == (4, 4)
    assert outcome.end.flags == 0


def test_a_signal_is_reported_as_such(link: Link) -> None:
    end = link.shell("kill -USR1 $$").end
    assert (end.how, end.code) == (How.SIGNALLED, 10)


def test_arguments_and_environment_arrive_byte_for_byte(link: Link) -> None:
    script = "import os, sys; sys.stdout.buffer.write(repr((sys.argv[1:], dict(os.environb))).encode())"
    arguments = ("", "a b", "ünï", "\udcff\udc80", "x" * 100_000)
    env = {**dict.fromkeys(["EMPTY"], ""), "K": "v=w", "B": "\udcfe"}
    outcome = link.run("/usr/bin/python3", "-I", "-c", script, *arguments, env=env)
    argv, environ = eval(outcome.stdout)
    assert argv == list(arguments)
    environ.pop(b"DORMICE_EXECUTION", None)
    environ.pop(b"LC_CTYPE", None)
    assert environ == {b"EMPTY": b"", b"K": b"v=w", b"B": b"\xfe"}


def test_the_cwd_is_entered_before_the_program_is_looked_for(link: Link, guest: GuestProcess) -> None:
    program = guest.home / "here"
    program.write_text("#!/bin/sh\npwd\n")
    program.chmod(0o755)
    for path in ("/nowhere::/bin", ".", ""):
        outcome = link.run("here", cwd=str(guest.home), env={"PATH": path})
        assert outcome.stdout == f"{guest.home}\n".encode(), path


def test_root_as_cwd_means_the_home_where_there_is_no_container(link: Link, guest: GuestProcess, mode: Mode) -> None:
    (guest.home / "sub").mkdir()
    home = Path("/root") if mode == "init" else guest.home
    assert link.run("/bin/pwd", cwd="/root").stdout == f"{home}\n".encode()
    if mode != "init":
        assert link.run("/bin/pwd", cwd="/root/sub").stdout == f"{home}/sub\n".encode()
        assert link.run("/bin/pwd", cwd="/root/none").end.how is How.CWD


@pytest.mark.parametrize(
    ("argv", "cwd", "how", "number"),
    [
        (("no-such-program",), "/", How.NOT_FOUND, errno.ENOENT),
        (("",), "/", How.NOT_FOUND, errno.ENOENT),
        (("/no/such/program",), "/", How.NOT_FOUND, errno.ENOENT),
        (("/etc/passwd/x",), "/", How.NOT_FOUND, errno.ENOTDIR),
        (("/etc/passwd",), "/", How.PERMISSION, errno.EACCES),
        (("/tmp",), "/", How.PERMISSION, errno.EACCES),
        (("true",), "/no/such/directory", How.CWD, errno.ENOENT),
        (("true",), "/etc/passwd", How.CWD, errno.ENOTDIR),
        (("true",), "", How.CWD, errno.ENOENT),
        (("/bin/echo", "x" * 200_000), "/", How.SPAWN_FAILED, errno.E2BIG),
    ],
)
def test_what_cannot_be_started_says_why(link: Link, argv: tuple[str, ...], cwd: str, how: How, number: int) -> None:
    outcome = link.run(*argv, cwd=cwd)
    assert outcome.started is None
    assert (outcome.end.how, outcome.end.errno, outcome.end.code, outcome.end.started_at) == (how, number, 0, 0)
    assert (outcome.stdout, outcome.stderr) == (b"", b"")


def test_a_file_without_a_known_format_is_not_handed_to_a_shell(link: Link, guest: GuestProcess) -> None:
    script = guest.home / "script"
    script.write_text("echo no")
    script.chmod(0o755)
    for argv in (str(script),), ("script",):
        end = link.run(*argv, env={"PATH": str(guest.home)}).end
        assert (end.how, end.errno) == (How.SPAWN_FAILED, errno.ENOEXEC)


def test_a_file_that_may_not_be_run_is_passed_over_in_the_path_but_remembered(link: Link, guest: GuestProcess) -> None:
    (guest.home / "echo").write_text("")
    assert link.run("echo", "hi", env={"PATH": f"{guest.home}:/bin"}).stdout == b"hi\n"
    assert link.run("echo", env={"PATH": f"{guest.home}:/nowhere"}).end.how is How.PERMISSION


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_the_path_is_searched_with_the_powers_that_execve_has(tmp_path: Path) -> None:
    """Not with those of the real user alone: this one may pass any directory by a capability."""
    power = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    through = ("/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *power)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    shutil.copy("/usr/bin/true", closed / "program")
    guest = GuestProcess(tmp_path, "bare", through=through)
    try:
        with guest.connect() as link:
            assert link.run(str(closed / "program")).end.how is How.EXITED
            assert link.run("program", env={"PATH": f"/nowhere:{closed}"}).end.how is How.EXITED
    finally:
        guest.close()


def test_a_command_gets_three_descriptors_a_session_and_nothing_blocked(link: Link) -> None:
    script = (
        "import os,signal; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1], os.getsid(0) == os.getpid(),"
        "signal.pthread_sigmask(signal.SIG_BLOCK, []), os.read(0, 9), oct(os.umask(0)))"
    )
    assert link.run("/usr/bin/python3", "-I", "-c", script).stdout == b"[0, 1, 2] True set() b'' 0o22\n"
    ignored = link.run("/bin/grep", "-E", "Sig(Ign|Blk)", "/proc/self/status").stdout
    assert ignored == b"SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"


def test_limits_are_those_of_process_1_without_core_dumps(link: Link) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert link.shell("ulimit -Sn; ulimit -Hn; ulimit -c").stdout == f"{soft}\n{hard}\n0\n".encode()


def test_commands_are_killed_for_memory_before_the_guest(link: Link, guest: GuestProcess) -> None:
    score = Path(f"/proc/{guest.pid}/oom_score_adj")
    own = int(Path("/proc/self/oom_score_adj").read_text())  # inherited
    for _ in range(3):
        assert int(link.run("/bin/cat", "/proc/self/oom_score_adj").stdout) == min(own + 500, 1000)
    wait_until(lambda: int(score.read_text()) == own, 5, "its own score is back, once the next process is made")


def test_nobody_inside_may_look_into_the_guest(guest: GuestProcess) -> None:
    assert Path(f"/proc/{guest.pid}/stat").stat().st_uid == 0
    assert not stat.S_IMODE(Path(f"/proc/{guest.pid}/mem").stat().st_mode) & 0o077


@pytest.mark.skipif(os.getuid() != 0, reason="only root has capabilities to lose")
def test_commands_lack_the_capabilities_that_the_guest_needs(link: Link) -> None:
    lines = link.run("/bin/grep", "-E", "^Cap|NoNewPrivs|Seccomp:", "/proc/self/status").stdout.decode().splitlines()
    values = dict(line.split(":\t") for line in lines)
    lost = {
        19,
        21,
        16,
        17,
        22,
        24,
        25,
        38,
        39,
        40,
    }  # ptrace, admin, module, rawio, boot, resource, time, perfmon, bpf, ...
    for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
        assert not any(int(values[name], 16) >> bit & 1 for bit in lost), name
    assert int(values["CapEff"], 16) & 1  # chown: others are kept
    assert (values["NoNewPrivs"], values["Seccomp"]) == ("0", "2")


CLONE3 = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(435, None, 0), errno.errorcode[ctypes.get_errno()])
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs CAP_SYS_ADMIN")
def test_clone3_does_not_exist_for_commands(link: Link) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(435, None, 0) == -1
    assert ctypes.get_errno() == errno.EINVAL  # it does for us
    assert link.run("/usr/bin/python3", "-I", "-c", CLONE3).stdout == b"-1 ENOSYS\n"


@pytest.mark.usefixtures("contained")
def test_each_execution_has_a_cgroup_of_its_own_that_goes_with_it(link: Link, guest: GuestProcess) -> None:
    assert guest.cgroup is not None
    execution = link.started("/bin/sh", "-c", "sleep 100 & sleep 100")
    assert len(guest.members(execution)) >= 1
    assert str(guest.pid) in (guest.cgroup / "init/cgroup.procs").read_text().split()
    its = guest.used_cgroups()
    assert len(its) == 1
    link.shell("true")
    wait_until(lambda: guest.used_cgroups() == its, 5, "that of the ended one is removed")


def test_start_is_done_once(link: Link) -> None:
    execution = link.start("/bin/sh", "-c", "echo once; read line", stdin_open=1)
    output = link.until(Output)
    link.start("/bin/sh", "-c", "echo twice", execution=execution)
    link.send(Ack(execution, output.stream, 5))
    again = link.start("/bin/true")
    ended = link.until(Exited)
    assert ended.execution == again
    with pytest.raises(TimeoutError):
        link.receive(timeout=0.05)


def test_a_start_for_another_boot_is_refused(link: Link) -> None:
    execution = uuid4().bytes
    link.send(Start(execution=execution, boot_id=uuid4().bytes, argv=("/bin/true",), env={}, cwd="/", kept_limit=0))
    assert link.expect(Refused) == Refused(execution, Reason.BOOT)


@pytest.mark.parametrize("open_files", [64])
def test_without_descriptors_a_start_is_refused_and_connections_still_work(guest: GuestProcess, link: Link) -> None:
    refused: Refused | None = None
    executions = []
    while refused is None:
        execution = link.start("/bin/sleep", "100")
        frame = link.receive()
        executions.append(execution)
        refused = frame if isinstance(frame, Refused) else None
        if refused is None:
            assert isinstance(frame, Started)
    assert refused.reason is Reason.RESOURCES
    assert len(executions) > 3
    with guest.connect() as newer:
        assert newer.epoch > link.epoch


def test_at_most_4000_executions_are_known(guest: GuestProcess, link: Link, mode: Mode) -> None:
    if mode != "cgroup":
        pytest.skip("the same code in every mode")
    executions = []
    for _ in range(40):
        batch = [link.start("/none") for _ in range(100)]
        executions += batch
        for _ in batch:
            link.until(Exited)
    assert link.run("/bin/true").refused is not None
    link.socket.close()
    with guest.connect(hello=False) as newer:
        newer.send(Hello(newer.epoch))
        assert newer.receive().executions == tuple(executions)  # type: ignore[union-attr]
        assert {newer.expect(Exited).execution for _ in executions} == set(executions)
        newer.send(*map(Forget, executions))
        assert newer.run("/bin/true").end.code == 0
    assert guest.rollup("Pss_Anon") < 400
