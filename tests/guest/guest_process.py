"""The real guest as a process of this host, and a node's end of its socket that tests drive by hand."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, TypeVar
from uuid import UUID, uuid4

from dormice.domain.execution import Stream
from dormice.protocol.guest import (
    Ack,
    Exited,
    Forget,
    GuestDecoder,
    GuestFrame,
    Hello,
    NodeFrame,
    Output,
    Refused,
    Start,
    Started,
    StdinState,
    Welcome,
    encode,
)
from tests.wait import wait_until

Mode = Literal["init", "cgroup", "bare"]
"""Process 1 of a PID namespace, an ordinary process with a cgroup, one without."""
GUEST = Path(os.environ.get("DORMICE_TEST_GUEST", Path(__file__).parents[2] / "guest/build/dormice-guest"))
CGROUP2 = next(
    (Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"),
    None,
)
MARK = "TEST_EXECUTION"
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
PATIENCE = 5.0
F = TypeVar("F", bound=GuestFrame)


@dataclass
class Outcome:
    """What came of one execution."""

    output: dict[Stream, bytes] = field(default_factory=lambda: {Stream.STDOUT: b"", Stream.STDERR: b""})
    started: Started | None = None
    exited: Exited | None = None
    refused: Refused | None = None

    @property
    def stdout(self) -> bytes:
        return self.output[Stream.STDOUT]

    @property
    def stderr(self) -> bytes:
        return self.output[Stream.STDERR]

    @property
    def end(self) -> Exited:
        assert self.exited is not None
        return self.exited

    def take(self, frame: GuestFrame) -> None:
        """Add a frame; output that was seen before must be the same bytes, and there must be no gap."""
        if isinstance(frame, Output):
            assert self.exited is None, "output after EXITED"
            have = self.output[frame.stream]
            assert frame.offset <= len(have), "a gap in the output"
            overlap = have[frame.offset : frame.offset + len(frame.data)]
            assert frame.data[: len(overlap)] == overlap, "output changed when it was sent again"
            self.output[frame.stream] = have + frame.data[len(overlap) :]
        elif isinstance(frame, Started):
            self.started = frame
        elif isinstance(frame, Exited):
            self.exited = frame
        elif isinstance(frame, Refused):
            self.refused = frame


class Link:
    """A connection to a guest."""

    def __init__(self, path: Path, boot_id: UUID, epoch: int, *, receive_buffer: int = 0) -> None:
        self.boot_id, self.epoch = boot_id, epoch
        self.socket = socket.socket(socket.AF_UNIX)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(path))
        self._decoder = GuestDecoder()
        self._frames: list[GuestFrame] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *frames: NodeFrame) -> None:
        self.socket.sendall(b"".join(map(encode, frames)))

    def hello(self) -> Welcome:
        self.send(Hello(self.epoch))
        return self.expect(Welcome)

    def receive(self, timeout: float = PATIENCE) -> GuestFrame:
        """The next frame. Raises EOFError when the guest hung up, TimeoutError when it is silent."""
        self.socket.settimeout(timeout)
        while not self._frames:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            self._frames = self._decoder.feed(data)
        return self._frames.pop(0)

    def expect(self, kind: type[F]) -> F:
        frame = self.receive()
        assert isinstance(frame, kind), frame
        return frame

    def until(self, kind: type[F], accept: Callable[[F], bool] = lambda _: True) -> F:
        """Skip frames up to one of a kind."""
        while True:
            frame = self.receive()
            if isinstance(frame, kind) and accept(frame):
                return frame

    def rest(self) -> list[GuestFrame]:
        """Read to the end of the connection. Raises TimeoutError if the guest keeps it open."""
        frames: list[GuestFrame] = []
        with contextlib.suppress(EOFError):
            while True:
                frames.append(self.receive())
        return frames

    def hung_up(self) -> bool:
        """Whether the guest ends the connection. Raises TimeoutError if it does not."""
        self.rest()
        return True

    def until_silent(self, timeout: float = 0.3) -> list[GuestFrame]:
        """What comes until nothing does for so long."""
        frames: list[GuestFrame] = []
        with contextlib.suppress(TimeoutError):
            while True:
                frames.append(self.receive(timeout))
        return frames

    def start(
        self,
        *argv: str,
        execution: bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        kept_limit: int = 1 << 40,
        **options: int,
    ) -> bytes:
        """Send START; the execution's id. Without `env` its processes bear a mark by which `members` finds them."""
        name = execution or uuid4().bytes
        self.send(
            Start(
                execution=name,
                boot_id=self.boot_id.bytes,
                argv=argv,
                env=env or {**ENVIRONMENT, MARK: name.hex()},
                cwd=cwd,
                kept_limit=kept_limit,
                timeout_ms=options.get("timeout_ms", 0),
                drain_grace_ms=options.get("drain_grace_ms", 200),
                stdin_open=bool(options.get("stdin_open", 0)),
            )
        )
        return name

    def follow(self, execution: bytes, outcome: Outcome | None = None) -> Outcome:
        """Acknowledge an execution's output until it has ended or was refused."""
        outcome = outcome or Outcome()
        while outcome.exited is None and outcome.refused is None:
            frame = self.receive()
            if getattr(frame, "execution", None) != execution:
                continue
            outcome.take(frame)
            if isinstance(frame, Output):
                self.send(Ack(execution, frame.stream, frame.offset + len(frame.data)))
        return outcome

    def run(self, *argv: str, **options: object) -> Outcome:
        """Start, follow and forget."""
        execution = self.start(*argv, **options)  # type: ignore[arg-type]
        outcome = self.follow(execution)
        if outcome.exited is not None:
            self.send(Forget(execution))
        return outcome

    def shell(self, script: str, **options: object) -> Outcome:
        return self.run("/bin/sh", "-c", script, **options)

    def started(self, *argv: str, **options: object) -> bytes:
        """Start, and wait until it has."""
        execution = self.start(*argv, **options)  # type: ignore[arg-type]
        self.until(Started, lambda frame: frame.execution == execution)
        return execution

    def stdin_state(self, execution: bytes, written: int) -> StdinState:
        """Wait until so much of stdin was written."""
        return self.until(StdinState, lambda frame: frame.execution == execution and frame.written >= written)


class GuestProcess:
    """A guest, and what of it can be seen from outside."""

    def __init__(self, directory: Path, mode: Mode, open_files: int = 0, through: Sequence[str] = ()) -> None:
        """`through`: the command that executes it, if another than its maker does."""
        self.mode, self.boot_id, self.epoch = mode, uuid4(), 0
        self._open_files, self._through = open_files, through
        self.home = directory / "home"
        self.home.mkdir()
        self.socket_path = directory / "guest.sock"
        self.cgroup = CGROUP2 / f"dormice-guest-test-{self.boot_id.hex[:12]}" if CGROUP2 and mode != "bare" else None
        self.spawned = self._spawn(directory)
        self.pid = self._inner() if mode == "init" else self.spawned

    def _spawn(self, directory: Path) -> int:
        argv = [str(GUEST), str(self.boot_id), *([] if self.mode == "init" else [str(self.home)])]
        if self.mode == "init":
            argv = ["/usr/bin/unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *argv]
        if self._open_files:
            argv = ["/usr/bin/prlimit", f"--nofile={self._open_files}", *argv]
        argv = [*self._through, *argv]
        with contextlib.ExitStack() as stack, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.socket_path))
            listener.listen(32)
            errors = os.open(directory / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            stack.callback(os.close, errors)
            wanted = {2: errors, 3: listener.fileno()}
            if self.cgroup is not None:
                self.cgroup.mkdir()
                wanted[4] = os.open(self.cgroup, os.O_RDONLY | os.O_DIRECTORY)
                stack.callback(os.close, wanted[4])
            actions = []
            for number, fd in wanted.items():
                copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)
                stack.callback(os.close, copy)
                actions.append((os.POSIX_SPAWN_DUP2, copy, number))
            return os.posix_spawn(argv[0], argv, {"PATH": "/usr/bin:/bin"}, file_actions=actions, setsid=True)

    def _inner(self) -> int:
        children = Path(f"/proc/{self.spawned}/task/{self.spawned}/children")
        with self.connect():  # once it answers, unshare has exec'ed it
            return int(wait_until(lambda: children.read_text().split(), PATIENCE, "unshare has a child")[0])

    def connect(self, *, hello: bool = True, **options: int) -> Link:
        """A connection with the next epoch."""
        self.epoch += 1
        link = Link(self.socket_path, self.boot_id, self.epoch, **options)
        if hello:
            link.hello()
        return link

    def members(self, execution: bytes) -> list[int]:
        """The processes in an execution's cgroup."""
        assert self.cgroup is not None
        mark = f"{MARK}={execution.hex()}".encode()
        for cgroup in self.cgroups():
            with contextlib.suppress(OSError):
                pids = [int(pid) for pid in (cgroup / "cgroup.procs").read_text().split()]
                if any(mark in Path(f"/proc/{pid}/environ").read_bytes() for pid in pids):
                    return pids
        return []

    def cgroups(self) -> list[Path]:
        """All that it has made and not removed."""
        assert self.cgroup is not None
        return list(self.cgroup.glob("x-*"))

    def used_cgroups(self) -> list[str]:
        """The names of the cgroups in which processes of executions are: no empty one, nor that in which the spare waits."""
        assert self.cgroup is not None
        return sorted(path.name for path in self.cgroups() if self._is_used(path))

    def _is_used(self, cgroup: Path) -> bool:
        try:
            pids = (cgroup / "cgroup.procs").read_text().split()
            return any(Path(f"/proc/{pid}/exe").readlink() != GUEST for pid in pids)
        except OSError:
            return False

    def rollup(self, name: str) -> int:
        """A line of smaps_rollup, in KiB; 0 for a sanitized guest, whose memory says nothing."""
        if "sanitized" in GUEST.name:
            return 0
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise AssertionError(name)

    def fds(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def settled_fds(self) -> int:
        """How many it has while nothing runs: process 1 has made its spare by then, and holds five for it."""
        its_own = 10 + (self.cgroup is None) + 5 * (self.mode == "init")
        wait_until(lambda: its_own >= self.fds() > its_own - 3, PATIENCE, "descriptors settle")
        return self.fds()

    def ended(self) -> int:
        """Wait for its end; its exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.spawned, 0)[1])

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            if self.cgroup is not None:
                (self.cgroup / "cgroup.kill").write_text("1")
            os.kill(self.spawned, signal.SIGTERM if self.mode == "bare" else signal.SIGKILL)
            os.waitpid(self.spawned, 0)
        if self.cgroup is not None and self.cgroup.exists():
            wait_until(self._remove_cgroups, PATIENCE, "the cgroups are empty")

    def _remove_cgroups(self) -> bool:
        assert self.cgroup is not None
        with contextlib.suppress(OSError):
            for child in self.cgroup.iterdir():
                if child.is_dir():
                    child.rmdir()
            self.cgroup.rmdir()
            return True
        return False


def alive(pids: Sequence[int]) -> list[int]:
    """Those processes that live (zombies do not)."""

    def living() -> Iterator[int]:
        for pid in pids:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                    yield pid

    return list(living())
