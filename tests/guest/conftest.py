"""Every test of the guest runs in each way that it can be run here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.guest_process import CGROUP2, GUEST, GuestProcess, Link, Mode

CGROUPS = CGROUP2 is not None and os.getuid() == 0 and os.access(CGROUP2, os.W_OK)


@pytest.fixture(name="mode", params=["init", "cgroup", "bare"])
def _mode(request: pytest.FixtureRequest) -> Mode:
    mode: Mode = request.param
    if mode != "bare" and not CGROUPS:
        pytest.skip("needs root and a writable cgroup2")
    return mode


@pytest.fixture(name="open_files")
def _open_files() -> int:
    """The guest's RLIMIT_NOFILE, 0 for that of the tests; parametrize to change it."""
    return 0


@pytest.fixture(name="guest")
def _guest(mode: Mode, open_files: int) -> Iterator[GuestProcess]:
    if not GUEST.exists():
        pytest.fail("no guest: run `make -C guest`")
    with tempfile.TemporaryDirectory(prefix="dormice-guest-") as directory:
        guest = GuestProcess(Path(directory), mode, open_files)
        try:
            yield guest
        finally:
            guest.close()
        complaints = (Path(directory) / "stderr").read_text().splitlines()
        assert not [line for line in complaints if not line.startswith("unshare:")]


@pytest.fixture(name="link")
def _link(guest: GuestProcess) -> Iterator[Link]:
    with guest.connect() as link:
        yield link


@pytest.fixture(name="contained")
def _contained(mode: Mode) -> None:
    """For tests of what only a cgroup can promise."""
    if mode == "bare":
        pytest.skip("without a cgroup, processes that hide are not found")
