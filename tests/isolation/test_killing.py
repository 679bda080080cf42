"""Whatever root inside does to process 1, a timeout ends what it was set for, and the machine goes on."""

from __future__ import annotations

import asyncio
import shlex
from textwrap import dedent

import pytest
from tests.node.machine_lab import Shell, needs_machines

pytestmark = needs_machines

_PATIENCE_SECONDS = 30.0
_HEAD = """
import ctypes, os, platform, resource, signal, struct
def attempt(what, *arguments):
    try: what(*arguments)
    except OSError: pass
def prlimit(pid, new, old=None):
    number = {"x86_64": 302, "aarch64": 261}[platform.machine()]
    return ctypes.CDLL(None).syscall(number, ctypes.c_long(pid), resource.RLIMIT_NOFILE, new, old)
"""
_TRICKS = {
    "limits": """
        for limit in range(16):
            if limit != resource.RLIMIT_CPU: attempt(resource.prlimit, 1, limit, (1, 1))
        prlimit(1, struct.pack("QQ", 1, 1))
        prlimit(1 << 32 | 1, struct.pack("QQ", 1, 1))""",
    "time to run in": "attempt(resource.prlimit, 1, resource.RLIMIT_CPU, (0, 0))",
    "priorities": """
        attempt(os.sched_setaffinity, 0, {min(os.sched_getaffinity(0))})
        attempt(os.sched_setaffinity, 1, {min(os.sched_getaffinity(0))})
        attempt(os.sched_setscheduler, 1, os.SCHED_IDLE, os.sched_param(0))
        attempt(os.setpriority, os.PRIO_PROCESS, 1, 19)
        for _ in range(300):
            if not os.fork():
                while True: pass""",
    "signals": """
        for number in range(1, 65):
            for _ in range(100): attempt(os.kill, 1, number)
        os.kill(-1, signal.SIGSTOP)""",
    "process ids": """
        while True: attempt(os.fork)""",
    "memory": """
        hold = []
        for _ in range(100):
            if not os.fork(): break
        while True: hold.append(bytearray(b"x" * (1 << 20)))""",
    "watches of its user": """
        import select
        pipes, hold = [os.pipe()[0] for _ in range(200)], []
        while True:
            hold.append(select.epoll())
            for pipe in pipes: hold[-1].register(pipe)""",
}


@pytest.mark.parametrize("trick", _TRICKS)
async def test_no_trick_on_process_1_outlives_a_timeout(inside: Shell, trick: str) -> None:
    talker = "setsid sh -c 'while :; do date >/root/alive; sleep 0.1; done' >/dev/null 2>&1 &"
    async with asyncio.timeout(_PATIENCE_SECONDS):
        ended = await inside.run(f"{talker} {_python(_TRICKS[trick])}; sleep 600", timeout_ms=2_000)
        assert ended.code == 9
        assert (await inside.run("rm -f /root/alive; sleep 0.3; ls /root/alive; pgrep -c sleep")).stdout == "0\n"


async def test_limits_of_others_are_set_and_those_of_process_1_are_shown(inside: Shell) -> None:
    script = """
        child = os.fork()
        if not child: signal.pause()
        for pid in (0, os.getpid(), child):
            assert prlimit(pid, struct.pack("QQ", 100, 200)) == 0
        assert resource.prlimit(child, resource.RLIMIT_NOFILE) == (100, 200)
        assert resource.prlimit(1, resource.RLIMIT_NOFILE)[0] > 200
        os.kill(child, signal.SIGKILL)"""
    result = await inside.run(f"ulimit -n 300 && {_python(script)} && prlimit --nofile=150 true && prlimit --pid 1")
    assert result.code == 0, result.said


def _python(script: str) -> str:
    return f"python3 -c {shlex.quote(_HEAD + dedent(script))}"
