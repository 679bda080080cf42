"""A node killed at any step of a machine's life leaves nothing that its successor cannot find or remove."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.node.machine_lab import crash, lab, machine, needs_machines, new_machine_id, shell

pytestmark = needs_machines

_BEFORE_IT_RUNS = [
    "Disks.create",
    "Slots.take",
    "write",
    "Disks.attach",
    "furnish",
    "MachineRoot.mount",
    "write_bundle",
    "Standby.run",
    "sent",
    "ContainerRuntime._record_process",
]
_WHILE_IT_RUNS = ["MachineRoot.unmount", "Cgroups.kill"]
_WHILE_IT_ENDS = ["Cgroups.remove", "Disks.wait_released", "ContainerRuntime._remove"]


@pytest.mark.parametrize("step", _BEFORE_IT_RUNS + _WHILE_IT_RUNS + _WHILE_IT_ENDS)
async def test_a_node_killed_at_any_step_is_mended_by_the_next(tmp_path: Path, step: str) -> None:
    machine_id = new_machine_id()
    async with lab(tmp_path) as made:
        async with made.opened() as runtime, machine(runtime, machine_id=machine_id) as (_, inside):
            await inside.run("echo kept > /root/file && sync")
        await crash(made, machine_id, step)
        async with made.opened() as _:
            pass
        runtime = made.runtime()
        found = await runtime.open()
        assert len(found) == (step in _WHILE_IT_RUNS)
        for running in found:
            async with shell(running) as inside:
                assert (await inside.run("cat /root/file")).stdout == "kept\n"
            await runtime.end(machine_id)
        async with machine(runtime, machine_id=machine_id) as (_, inside):
            assert (await inside.run("cat /root/file")).stdout == "kept\n"
        await runtime.close()
