"""The processes of a peer: started with a log and a home of their own, ended together."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers.workflow_peer import Unavailable

REPOSITORY = Path(__file__).resolve().parents[2]
READY_SECONDS = 120.0
STOP_SECONDS = 20.0
LOG_LINES = 4
BLOCK = 4096


@contextmanager
def data_directory(name: str) -> Iterator[Path]:
    """A directory for a while, on the disk that temporary files are on."""
    with tempfile.TemporaryDirectory(prefix=f"dormice-bench-{name}-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


@dataclass(frozen=True, slots=True)
class Child:
    """A process that was started, and where its output goes."""

    process: subprocess.Popen[str]
    log: Path

    def wait_ready(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready()` says so; an OSError of it says no. Raises Unavailable with the end of the log."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if ready():
                    return
            time.sleep(0.05)
        raise Unavailable(f"{self.log.stem} is not ready: {self.log_end()}")

    def log_end(self) -> str:
        """Return the last lines of its output, as one."""
        lines = self.log.read_text(errors="replace").splitlines()
        return " / ".join(line.strip() for line in lines[-LOG_LINES:] if line.strip()) or "it has said nothing"


@contextmanager
def process(
    name: str,
    command: Sequence[str],
    directory: Path,
    *,
    user: str | None = None,
    stop: signal.Signals = signal.SIGTERM,
    piped: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Child]:
    """Run a program in a session of its own that ends with us. It finds its home in `directory`, and there is its log.

    `piped`: standard input and output are ours, else the log's.
    """
    variables = {key: os.environ[key] for key in ("PATH", "LANG", "TZ") if key in os.environ}
    variables |= {"HOME": str(directory), "PYTHONPATH": str(REPOSITORY), "DO_NOT_TRACK": "1"}
    variables |= environment or {}
    log_path = directory / f"{name}.log"
    with log_path.open("wb") as log:
        # Should we be killed, the kernel ends it: what a benchmark has started must not outlive it.
        started = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else log,
            stderr=log,
            cwd=directory,
            env=variables,
            user=user,
            group=user,
            extra_groups=None if user is None else (),
            start_new_session=True,
            text=True,
        )
    try:
        yield Child(started, log_path)
    finally:
        _end(started, stop)


def listens(port: int) -> bool:
    """Whether this port of loopback accepts connections. Raises OSError if not."""
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    return True


def memory_of(pids: Iterable[int]) -> int:
    """Return the proportional set size in bytes of these processes and their descendants."""
    total = 0
    for pid in _trees(pids):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def cpu_of(pids: Iterable[int]) -> float:
    """Return the seconds of processor time that these processes and their descendants have taken, ended ones included."""
    ticks = 0
    for pid in _trees(pids):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def ran(pid: int) -> float:
    """Return the seconds of processor time that the threads of a process have taken, to the nanosecond; ended threads do not count."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def _trees(pids: Iterable[int]) -> Iterator[int]:
    for pid in pids:
        yield pid
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                yield from _trees(int(child) for child in file.read_text().split())


def disk_of(directory: Path) -> int:
    """Return the sizes of the files under a directory, in whole blocks. What is allocated and not written does not count."""
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it has been removed meanwhile
            total += -(-path.lstat().st_size // BLOCK) * BLOCK
    return total


def _end(started: subprocess.Popen[str], stop: signal.Signals) -> None:
    for stream in (started.stdin, started.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):  # what it was told last and has not read
                stream.close()
    if started.poll() is None:
        started.send_signal(stop)
    try:
        started.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)  # what it has started and left behind
