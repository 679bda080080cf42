"""The physical limit of running a command: spawn it and wait, on the host, from Python."""

from __future__ import annotations

import os
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Self

TRUE = "/usr/bin/true"
_CONTEXT = get_context("spawn")


def spawn() -> None:
    """Run `true` by posix_spawn, the fastest way that Python has, and wait for it."""
    os.waitpid(os.posix_spawn(TRUE, ["true"], os.environ), 0)


def timed_spawn() -> float:
    """Return the seconds of one spawn."""
    began = perf_counter()
    spawn()
    return perf_counter() - began


class SpawnLoops:
    """Two processes that spawn as fast as they can when told so: both cores' worth."""

    def __init__(self, count: int = 2) -> None:
        self._loops = []
        for _ in range(count):
            ours, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._loops.append((process, ours))
        for _, pipe in self._loops:
            pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process, pipe in self._loops:
            pipe.send(None)
            process.join()

    def rate(self, seconds: float) -> float:
        """Return how many commands all loops together run in a second."""
        for _, pipe in self._loops:
            pipe.send(seconds)
        return sum(float(pipe.recv()) for _, pipe in self._loops)


def _serve(pipe: Connection[object, object]) -> None:
    spawn()
    pipe.send("ready")
    while isinstance(seconds := pipe.recv(), float | int):
        count, began = 0, perf_counter()
        while perf_counter() - began < seconds:
            spawn()
            count += 1
        pipe.send(count / (perf_counter() - began))
