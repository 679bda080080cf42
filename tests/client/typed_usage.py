"""Never run: the type checker proves here what types users of the client see."""

from __future__ import annotations

from typing import assert_type

from dormice import (
    AsyncDormice,
    CompletedExecution,
    Dormice,
    Execution,
    ExecutionEvent,
    Key,
    Limits,
    Machine,
    NewKey,
    SSHSession,
)


def use(client: Dormice) -> None:
    machine = client.machines.create(vcpu=1, wait_ms=1000)
    assert_type(machine, Machine)
    for each in client.machines.list():
        assert_type(each, Machine)
    made = client.machines.executions.create(machine_id=machine.machine_id, command=["true"])
    assert_type(made, Execution)
    assert_type(client.machines.executions.list(machine_id=machine.machine_id).items, list[Execution])
    with client.machines.executions.stream(made.execution_id, machine_id=machine.machine_id) as events:
        for event in events:
            assert_type(event, ExecutionEvent)
    assert_type(client.machines.run(machine.machine_id, ["true"], on_stdout=print), CompletedExecution)
    assert_type(client.machines.ssh.create(machine.machine_id, public_key="ssh-ed25519 AAAA"), SSHSession)
    assert_type(client.machines.ssh.list(machine.machine_id).items, list[SSHSession])
    assert_type(client.keys.create(), NewKey)
    assert_type(client.keys.list().items, list[Key])
    assert_type(client.limits(), Limits)


async def use_async(client: AsyncDormice) -> None:
    machine = await client.machines.create(vcpu=1)
    assert_type(machine, Machine)
    async for each in client.machines.list():
        assert_type(each, Machine)
    assert_type((await client.machines.list()).items, list[Machine])
    async with client.machines.watch(machine.machine_id) as changes:
        async for change in changes:
            assert_type(change, Machine)
    assert_type(await client.machines.run(machine.machine_id, ["true"]), CompletedExecution)
