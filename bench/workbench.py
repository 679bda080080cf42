"""What the benchmarks share: peers and stacks, each started when first asked for and ended at the end."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Self

from bench.peers.docker import Docker, docker
from bench.peers.oci import OciPeer, oci_peer
from bench.peers.spawn import SpawnLoops
from bench.stack import IMAGE_DIR, Stack, stack


class Workbench:
    """One run of the suite."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self._held = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def amount(self, full: int, quick: int) -> int:
        """How much of something this run can afford."""
        return quick if self.quick else full

    @property
    def rootfs(self) -> Path:
        return (IMAGE_DIR / "default" / "rootfs").resolve()

    @cached_property
    def stack(self) -> Stack:
        """A server and a node with default settings."""
        return self._held.enter_context(stack("main"))

    @cached_property
    def cold_stack(self) -> Stack:
        """The same without prepared disks, namespaces and networks."""
        return self._held.enter_context(stack("cold", DORMICE_POOL_SIZE="0"))

    @cached_property
    def docker(self) -> Docker:
        return self._held.enter_context(docker(self.rootfs))

    @cached_property
    def oci(self) -> OciPeer:
        return self._held.enter_context(oci_peer(self.rootfs))

    @cached_property
    def spawn_loops(self) -> SpawnLoops:
        return self._held.enter_context(SpawnLoops(os.cpu_count() or 1))
