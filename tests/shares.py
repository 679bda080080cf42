"""Shares of this host: what only one test at a time may use, whichever worker of pytest or clone of the project it is run by.

Locks of files tell who has what, so that nothing stays taken when a process is killed.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dormice.flock import try_lock

SHARES = 36
_LOCKS = Path(tempfile.gettempdir()) / f"dormice-test-shares-{os.geteuid()}"
_FIRST_UID, _UIDS = 1_500_000_000, 1 << 26
_FIRST_PORT = 21_000
"""Below those that the kernel gives to whoever asks for any: a server that starts again finds its own free."""
_FIRST_NETWORK = 160


@dataclass(frozen=True, slots=True)
class Share:
    """Uids, addresses and a port that nobody else uses."""

    number: int
    """0 to SHARES - 1."""

    @property
    def first_uid(self) -> int:
        """The first of 2^26."""
        return _FIRST_UID + self.number * _UIDS

    @property
    def network(self) -> str:
        """A range of addresses, in CIDR notation."""
        return f"10.{_FIRST_NETWORK + self.number}.0.0/16"

    @property
    def port(self) -> int:
        """A port to listen on."""
        return _FIRST_PORT + self.number

    def instance(self, letter: str) -> str:
        """Return a name for an instance that no other one has, not even what an earlier process of tests has left."""
        return f"{letter}{self.number:02}{os.getpid() % 46656:x}"


@contextmanager
def share() -> Iterator[Share]:
    """Have a share for as long as the block lasts. After a failure it is kept while this process lives: its user may have left something."""
    for number in range(SHARES):
        fd, ours = _opened(str(number)), Share(number)
        if try_lock(fd) and _is_free(ours.port) and not _is_walled(number):
            yield ours
            os.close(fd)
            return
        os.close(fd)
    raise AssertionError(f"all {SHARES} shares of this host are taken: see who has files in {_LOCKS} open")


@contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Wait until nobody else is in such a block."""
    fd = _opened(what)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _is_free(port: int) -> bool:
    """Whether nobody listens there: a Dormice outlives the tests that were interrupted, and their locks."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _is_walled(number: int) -> bool:
    """Whether tests that were killed have left rules for its addresses: machines there would not be reached."""
    if os.geteuid() != 0 or shutil.which("nft") is None:
        return False
    tables = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
    return re.search(rf"^table inet [a-z]{number:02}[0-9a-f]+$", tables, re.MULTILINE) is not None


def _opened(name: str) -> int:
    _LOCKS.mkdir(exist_ok=True)
    return os.open(_LOCKS / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
