"""The workers of the load of runs: processes that are killed, and come back with the same address."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults.run_marks import Kind, Mark, Marks
from tests.faults.run_worker import KEY
from tests.faults.stack import Victim

STOP_SECONDS = 20.0


class Workers:
    """Each has a port of its own. To be used on one host with the server."""

    def __init__(self, victim: Victim, marks: Marks, count: int) -> None:
        self._victim = victim
        self._marks = marks
        self._ports = [_free_port() for _ in range(count)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.deaths = 0

    def start(self) -> None:
        """Start all."""
        for port in self._ports:
            self._start(port)

    def kill(self, number: int) -> None:
        """Kill one, and start it again."""
        port = self._ports[number % len(self._ports)]
        self._end(port, signal.SIGKILL)
        self._start(port)

    async def stop(self, number: int) -> None:
        """Have one end well, and start it again. One that cannot, as the server is away, is killed."""
        port = self._ports[number % len(self._ports)]
        process = self._processes[port]
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, STOP_SECONDS)
        self._end(port, signal.SIGKILL)
        self._start(port)

    def end(self) -> None:
        """Kill all."""
        for port in list(self._processes):
            self._end(port, signal.SIGKILL)

    def _start(self, port: int) -> None:
        live = self._victim.live
        with (self._victim.live.directory / "workers.log").open("ab") as log:
            self._processes[port] = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.run_worker", str(live.port), str(port), str(self._marks.path)],
                env={**os.environ, KEY: live.api_key},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _end(self, port: int, how: signal.Signals) -> None:
        process = self._processes.pop(port)
        if process.poll() not in (None, 0, -signal.SIGTERM):
            raise AssertionError(f"a worker has ended with {process.returncode}; see workers.log")
        process.send_signal(how)
        process.wait()
        self.deaths += 1
        self._marks.put(Mark(Kind.DIED, str(process.pid)))


@contextmanager
def workers(victim: Victim, marks: Path, count: int = 2) -> Iterator[Workers]:
    """Have workers, and see them gone."""
    made = Workers(victim, Marks(marks), count)
    made.start()
    try:
        yield made
    finally:
        made.end()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
