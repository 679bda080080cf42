"""What tests of the node share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from dormice.node.cgroups import Cgroups, Unified, discover


@pytest.fixture(name="real_cgroups")
def _real_cgroups() -> Iterator[Cgroups]:
    """Cgroups of the host at hand, in which the test must leave nothing."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    mount = Unified()
    name = f"dmlab-{uuid4().hex[:8]}"
    hierarchies = discover(mount.path, Path("/proc/self/mountinfo").read_text())
    cgroups = Cgroups(hierarchies, name)
    cgroups.open()
    yield cgroups
    for root in (hierarchies.unified, *hierarchies.v1_roots):
        (root / name).rmdir()
    mount.close()
