"""What the container runtime needs from its neighbours: images to run and networks to run them in.

`images.py` implements `ImageSource`, `network.py` implements `NetworkProvider`, `app/node.py` puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dormice.domain.egress import Egress

QUIET_SECONDS = 0.1
"""How long after a machine took from a pool the pool is filled again: what that costs would be added to the machine's start."""


@dataclass(frozen=True, slots=True)
class Image:
    """An unpacked root file system, shared read-only by every machine that runs it."""

    rootfs: Path
    """Absolute. Owners on disk are the plain ones (0..65535); the path never changes once machines use it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Base environment of every command (PATH, HOME, ...)."""
    version: str = ""
    """Names these very files for ever, whatever is built under the image's name later; `resolve` takes it too."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network namespace, ready for a machine: addresses, routes and host rules are in place."""

    netns_path: Path
    """Where the namespace is bound, e.g. /run/netns/...; owned by the provider."""
    address: str
    """The machine's IPv4 address, without prefix length."""
    gateway: str
    """The host's end; also the machine's only nameserver."""


class ImageSource(Protocol):
    """Finds images by name."""

    def resolve(self, name: str) -> Image:
        """The image called `name`, or one of its versions. Blocking; raises RuntimeFailure `IMAGE_NOT_FOUND` when there is none."""
        ...

    def held(self, user: Path) -> AbstractContextManager[None]:
        """No version is deleted in this block, and afterwards none that a `.base` file in the directory `user` names. Blocking;
        raises OSError.
        """
        ...


class NetworkProvider(Protocol):
    """Hands out one network per machine. All methods are idempotent and survive a restart of the node."""

    async def acquire(self, machine_id: str) -> Network:
        """The machine's network, the same one again if it has one. Raises RuntimeFailure `NETWORK_FAILED`."""
        ...

    async def confine(self, machine_id: str, egress: Egress) -> None:
        """Let a machine that has a network reach what the policy says and nothing else, from now on. Raises RuntimeFailure `NETWORK_FAILED`."""
        ...

    async def release(self, machine_id: str) -> None:
        """Give the machine's network back. A machine that has none is no error."""
        ...
