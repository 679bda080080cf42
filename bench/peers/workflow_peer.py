"""What a system must offer to be measured by the workflow benchmarks. Ours and the peers' have this one interface."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


class Unavailable(Exception):
    """This system cannot be installed, started or driven on this host; the message says why. The benchmark goes on without it."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Workflows that were submitted in a closed loop, and the seconds until the last of them had ended.

    `cpu`: seconds of processor time that server, worker and client took meanwhile. It says more than the rate where others use the host.
    """

    runs: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Workflows per second."""
        return self.runs / self.seconds

    @property
    def cpu_per_run(self) -> float:
        return self.cpu / self.runs


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds from the moment at which each workflow was due: until its first step ran, and until its client knew its result."""

    first_step: Sequence[float]
    end: Sequence[float]


@dataclass(frozen=True, slots=True)
class Shaped:
    """What `shapes.measure` has found, in seconds, and the processor time that server, worker and client took meanwhile."""

    seconds: Sequence[float]
    cpu: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Proportional set sizes in bytes. A library without a server of its own has all of it in its worker."""

    server: int
    worker: int


class RunningPeer(Protocol):
    """A system that is up, with one Python worker that takes at least 64 workflows at a time."""

    def throughput(self, *, in_flight: int, seconds: float) -> Throughput:
        """Keep `in_flight` workflows going for `seconds`, then wait for the last. Raises Unavailable."""
        ...

    def latencies(self, *, rate: float, seconds: float) -> Latencies:
        """Submit `rate` workflows per second at even distances, ended or not, then wait for the last. Raises Unavailable."""
        ...

    def shape(self, name: str, amount: int, *, seconds: float) -> Shaped:
        """Run workflows of a shape, of which there are so many, within `seconds`. Raises Unavailable."""
        ...

    def memory(self) -> Memory: ...

    def disk(self) -> int:
        """Return the bytes on disk, without logs that are reused: what grows with the number of workflows."""
        ...


class WorkflowPeer(Protocol):
    """A system that runs workflows."""

    @property
    def name(self) -> str: ...

    @property
    def server(self) -> bool:
        """Whether client and worker are two processes with a server between; else the client runs the workflow itself."""
        ...

    @property
    def fsync(self) -> str:
        """What is on disk when a step or a run counts as done."""
        ...

    @property
    def setup(self) -> str:
        """Versions, and what was chosen for it that its user might choose otherwise."""
        ...

    def install(self) -> None:
        """Have it in the cache directory. Raises Unavailable."""
        ...

    def running(self) -> AbstractContextManager[RunningPeer]:
        """Start it on an empty data directory; leave nothing of it. Raises Unavailable."""
        ...
