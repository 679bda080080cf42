"""Sizes that no machine can have are refused before anything is made of them."""

from __future__ import annotations

import math
from pathlib import Path
from uuid import uuid4

import pytest
from tests.node.machine_lab import lab, needs_machines, new_machine_id

from dormice.node.runtime import MachineSpec, RuntimeFailure

pytestmark = needs_machines

IMPOSSIBLE = [(math.nan, 256, 1), (math.inf, 256, 1), (-1, 256, 1), (1, 0, 1), (1, -1, 1), (1, 256, 0), (1, 256, -1)]


async def test_impossible_sizes_leave_nothing_behind(tmp_path: Path) -> None:
    async with lab(tmp_path) as made, made.opened() as runtime:
        for sizes in IMPOSSIBLE:
            with pytest.raises(RuntimeFailure, match="no machine has such sizes"):
                await runtime.start(new_machine_id(), uuid4(), MachineSpec(*sizes))
            with pytest.raises(RuntimeFailure, match="no machine has such sizes"):
                await runtime.resize(new_machine_id(), MachineSpec(*sizes))
        assert not list((tmp_path / "node/disks/machines").iterdir())
