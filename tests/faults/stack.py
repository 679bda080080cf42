"""A Dormice whose parts can be killed, one by one or all at once, at any moment or at a crash point."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dormice.crash_points import VARIABLE, CrashPoint
from dormice.node import records
from tests.live import Live, tended
from tests.shares import share
from tests.wait import others_run

KEPT_LIMIT = 64 << 10
"""Bytes of each stream that the store keeps: few, so that many commands write more."""
RUNNING_PER_MACHINE = 40
"""Few, so that many executions wait in a queue and are claimed there."""
ROLES = ("server", "node")


@dataclass(frozen=True, slots=True)
class Victim:
    """A Dormice to which bad things are done."""

    live: Live

    @property
    def _armed(self) -> Path:
        return self.live.directory / "armed"

    @property
    def marks(self) -> Path:
        """Where commands on machines without isolation leave their marks, one file for each machine."""
        return self.live.directory / "marks"

    def arm(self, *points: CrashPoint) -> None:
        """Have the processes die that reach these points next."""
        for point in points:
            (self._armed / point).touch(0o666)

    def struck(self, point: CrashPoint) -> bool:
        """Whether an armed point has been reached."""
        return not (self._armed / point).exists()

    def disarm(self) -> None:
        """Have nobody die any more."""
        for file in self._armed.iterdir():
            file.unlink(missing_ok=True)

    def kill(self, *roles: str) -> None:
        """Kill these processes as one, those of them that are there: `up` starts them again."""
        for pid in [pid for role in roles if (pid := self.live.find_part(role)) is not None]:
            _kill(pid)

    async def freeze(self, role: str, seconds: float) -> None:
        """Have a process hang for a while."""
        pid = self.live.find_part(role)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
            await others_run(seconds)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def kill_supervisor(self) -> None:
        """Kill `dormice up` alone; its children find out by themselves."""
        process, self.live.process = self.live.process, None
        if process is not None:
            process.kill()
            process.wait()

    def guest(self, machine_id: str) -> int | None:
        """Return the pid of a machine's process 1, as the host sees it."""
        run = self.live.directory / "run"
        process, container = run / "process" / f"{machine_id}.json", run / machine_id / "private" / "record.json"
        record = records.read(process if self.live.driver == "process" else container)
        if record is None or record.process is None or records.identify(record.process.pid) != record.process:
            return None
        return record.process.pid

    def kill_machine(self, machine_id: str) -> bool:
        """Kill a machine's process 1; False if there is none."""
        pid = self.guest(machine_id)
        return pid is not None and _kill(pid)


def _kill(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


@contextmanager
def victim(directory: Path, driver: str, **extra: str) -> Iterator[Victim]:
    """Start a Dormice in an empty directory that everybody may enter; at the end nothing of it may be left."""
    for name, mode in (("armed", 0o777), ("marks", 0o700)):
        (directory / name).mkdir()
        (directory / name).chmod(mode)
    settings = {
        VARIABLE: str(directory / "armed"),
        "DORMICE_LIMIT_KEPT_OUTPUT_BYTES": str(KEPT_LIMIT),
        "DORMICE_LIMIT_RUNNING_PER_MACHINE": str(RUNNING_PER_MACHINE),
        "DORMICE_LOG_LEVEL": "warning",
        "DORMICE_LOCAL_MODE": "true",  # so that workers on this host may be called
        **extra,
    }
    program = ("tests.faults.impatient_up",)
    with share() as ours, tended(Live(directory, driver, ours.instance("f"), ours, settings, program)) as live:
        made = Victim(live)
        try:
            yield made
        finally:
            made.disarm()
