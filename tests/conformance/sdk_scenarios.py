# mypy: ignore-errors
"""What a user of the foreign SDK does, run by that SDK's own interpreter against the server in DEDALUS_BASE_URL.

    .sdks/VERSION/bin/python sdk_scenarios.py sync|async

Prints one JSON object: for each scenario null, or how it failed. Responses are validated strictly. Only the SDK and
what it depends on can be imported here.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import os
import sys
import traceback
import uuid
from collections.abc import Awaitable, Callable, Mapping
from operator import attrgetter
from typing import Any

import dedalus_sdk
import httpx
from run_helper import run
from sdk_methods import LATER, METHODS, SIZES, Known, methods_of

from tests.wait import wait_until_async

VERSION = dedalus_sdk.__version__
OLD = VERSION in {"0.1.0", "0.2.0"}
"""Those that must name the revision they change."""
WATCHES = VERSION in {"0.1.0", "0.2.0", "0.3.0", "0.4.0"}
"""Those that have a status of every machine, too, and must name its sizes."""
TERMINAL = {"succeeded", "failed", "cancelled", "expired"}
ORGANIZATION = "11111111-2222-4333-8444-555555555555"


async def value(result: Any) -> Any:
    """Return what a call returned, awaited if it was the asynchronous client's."""
    return await result if inspect.isawaitable(result) else result


async def items(page: Any) -> list[Any]:
    """Walk all pages."""
    if hasattr(page, "__aiter__"):
        return [item async for item in page]
    return list(await value(page))


class World:
    """The client under test, and what was sent through it."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.requests: list[httpx.Request] = []
        self.client = self.make()

    def make(self, **options: Any) -> Any:
        """Return a client that validates strictly and whose requests are counted."""
        if self.mode == "sync":
            transport = dedalus_sdk.DefaultHttpxClient(event_hooks={"request": [self.requests.append]})
            return dedalus_sdk.Dedalus(http_client=transport, _strict_response_validation=True, **options)

        async def note(request: httpx.Request) -> None:
            self.requests.append(request)

        transport = dedalus_sdk.DefaultAsyncHttpxClient(event_hooks={"request": [note]})
        return dedalus_sdk.AsyncDedalus(http_client=transport, _strict_response_validation=True, **options)

    @property
    def executions(self) -> Any:
        return self.client.machines.executions

    async def machine(self) -> Any:
        """Make a machine and wait until it runs."""
        made = await value(self.client.machines.create(**SIZES))
        return await self.phase(made.machine_id, "running")

    async def phase(self, machine_id: str, wanted: str) -> Any:
        """Poll a machine until it is in a phase."""

        async def there() -> Any:
            machine = await value(self.client.machines.retrieve(machine_id=machine_id))
            return machine if machine.status.phase == wanted else None

        return await wait_until_async(there, 30, f"{machine_id} {wanted}")

    async def steer(self, action: str, machine_id: str, **arguments: Any) -> Any:
        """Call a method that changes a machine; an old one must name the revision that it saw."""
        if OLD:

            async def at_rest() -> Any:
                machine = await value(self.client.machines.retrieve(machine_id=machine_id))
                return machine if machine.status.phase == machine.desired_state else None

            # On its way a machine changes by itself, and a revision that was seen is soon an old one.
            seen = await wait_until_async(at_rest, 30, f"{machine_id} at rest")
            arguments["if_match"] = seen.status.revision
        return await value(getattr(self.client.machines, action)(machine_id=machine_id, **arguments))

    async def ended(self, execution: Any) -> Any:
        """Poll an execution until it has ended."""
        where = {"machine_id": execution.machine_id, "execution_id": execution.execution_id}

        async def over() -> Any:
            found = await value(self.executions.retrieve(**where))
            return found if found.status in TERMINAL else None

        return await wait_until_async(over, 30, f"the end of {execution.execution_id}")

    async def execute(self, machine_id: str, *command: str, **arguments: Any) -> Any:
        """Run a command to its end."""
        made = await value(self.executions.create(machine_id=machine_id, command=list(command), **arguments))
        return await self.ended(made)

    async def refused(self, call: Callable[[], Any]) -> Any:
        """Return the error that a call raises, and how many requests the SDK made of it."""
        before = len(self.requests)
        try:
            await value(call())
        except dedalus_sdk.APIStatusError as error:
            return error, len(self.requests) - before
        raise AssertionError("nothing was raised")


Scenario = Callable[[World], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


def phase_of(machine: Any) -> str:
    """Where a machine is: a field of its own since 0.5, within the status before."""
    return machine.status.phase if WATCHES else machine.phase


@scenario
async def a_machine_lives_sleeps_wakes_and_dies(world: World) -> None:
    machines = world.client.machines
    options = {} if OLD else {"autosleep": "1h30m"}
    made = await value(machines.create(**SIZES, **options))
    assert (made.vcpu, made.memory_mib, made.storage_gib) == (0.5, 256, 1), made
    if not OLD:
        assert made.autosleep_seconds == 5400, made
    running = await world.phase(made.machine_id, "running")
    assert running.desired_state == "running", running
    listed = [item for item in await items(machines.list()) if item.machine_id == made.machine_id]
    assert len(listed) == 1, listed
    assert phase_of(listed[0]) == "running", listed
    updated = await world.steer("update", made.machine_id, memory_mib=320)
    assert updated.memory_mib == 320, updated
    slept = await world.steer("sleep", made.machine_id)
    assert slept.desired_state == "sleeping", slept
    await world.phase(made.machine_id, "sleeping")
    woken = await world.steer("wake", made.machine_id)
    assert woken.desired_state == "running", woken
    assert (await world.phase(made.machine_id, "running")).memory_mib == 320
    if VERSION == "0.6.0":
        rebooted = await value(machines.reboot(machine_id=made.machine_id))
        assert (rebooted.desired_state, rebooted.phase) == ("running", "stopping"), rebooted
        await world.phase(made.machine_id, "running")
    gone = await world.steer("delete", made.machine_id)
    assert gone.desired_state == "destroyed", gone
    await world.phase(made.machine_id, "destroyed")


@scenario
async def a_machine_needs_no_sizes_where_the_sdk_asks_for_none(world: World) -> None:
    if WATCHES:
        return
    made = await value(world.client.machines.create())
    assert min(made.vcpu, made.memory_mib, made.storage_gib) > 0, made
    await world.steer("delete", made.machine_id)


@scenario
async def watch_ends_at_the_desired_state(world: World) -> None:
    if not WATCHES:
        return
    made = await value(world.client.machines.create(**SIZES))
    stream = await value(world.client.machines.watch(machine_id=made.machine_id))
    seen = [event async for event in stream] if world.mode == "async" else list(stream)
    assert seen[-1].status.phase == "running", seen
    assert all(event.machine_id == made.machine_id for event in seen), seen
    again = await value(world.client.machines.watch(machine_id=made.machine_id, last_event_id=seen[-1].status.revision))
    assert len([event async for event in again] if world.mode == "async" else list(again)) == 1
    await world.steer("delete", made.machine_id)


@scenario
async def a_stale_revision_is_told_at_once(world: World) -> None:
    if not OLD:
        return
    machine = await world.machine()
    error, requests = await world.refused(
        lambda: world.client.machines.sleep(machine_id=machine.machine_id, if_match="999999")
    )
    assert isinstance(error, dedalus_sdk.ConflictError), error
    assert error.body["error_code"] == "REVISION_MISMATCH", error.body
    assert requests == 1, requests
    await world.steer("delete", machine.machine_id)


@scenario
async def a_walk_over_machines_ends(world: World) -> None:
    made = {(await value(world.client.machines.create(**SIZES))).machine_id for _ in range(3)}
    before = len(world.requests)
    listed = [item.machine_id for item in await items(world.client.machines.list(limit=2))]
    assert made <= set(listed), listed
    assert len(listed) == len(set(listed)), listed
    assert len(world.requests) - before >= 2
    for machine_id in made:
        await world.steer("delete", machine_id)


async def shared(world: World) -> str:
    """Return the machine on which commands are run."""
    found: str | None = getattr(world, "shared_machine", None)
    if found is None:
        found = world.shared_machine = (await world.machine()).machine_id
    return found


@scenario
async def an_execution_leaves_a_record_events_and_output(world: World) -> None:
    machine_id = await shared(world)
    script = 'read line; echo "$line $GREETING"; pwd; echo bad >&2; exit 3'
    ended = await world.execute(
        machine_id,
        "/bin/bash",
        "-c",
        script,
        cwd="/tmp",
        env={"GREETING": "hello"},
        stdin="from stdin\n",
        timeout_ms=20_000,
    )
    expected = b"from stdin hello\n/tmp\n"
    assert (ended.status, ended.exit_code, ended.signal) == ("failed", 3, None), ended
    assert (ended.error_code, ended.env_keys, ended.cwd) == ("nonzero_exit", ["GREETING"], "/tmp"), ended
    assert ended.error_message, ended
    assert (ended.stdout_bytes, ended.stderr_bytes) == (len(expected), 4), ended
    assert (ended.stdout_truncated, ended.stderr_truncated) == (False, False), ended
    assert ended.created_at <= ended.started_at <= ended.completed_at, ended
    output = await value(world.executions.output(machine_id=machine_id, execution_id=ended.execution_id))
    assert (output.stdout.encode(), output.stderr) == (expected, "bad\n"), output
    events = await items(world.executions.events(machine_id=machine_id, execution_id=ended.execution_id))
    numbers = [event.sequence for event in events]
    assert numbers == sorted(set(numbers)), events
    assert "".join(event.chunk for event in events if event.type == "stdout").encode() == expected, events
    assert "".join(event.chunk for event in events if event.type == "stderr") == "bad\n", events
    assert events[-1].type == "lifecycle", events
    assert (events[-1].status, events[-1].exit_code) == ("failed", 3), events
    again = await value(world.executions.delete(machine_id=machine_id, execution_id=ended.execution_id))
    assert again == ended, again


@scenario
async def a_walk_over_executions_goes_from_new_to_old_and_ends(world: World) -> None:
    machine = await world.machine()
    made = [(await world.execute(machine.machine_id, "true")).execution_id for _ in range(5)]
    listed = [item.execution_id for item in await items(world.executions.list(machine_id=machine.machine_id, limit=2))]
    assert listed == made[::-1], listed
    await world.steer("delete", machine.machine_id)


@scenario
async def a_walk_over_events_ends(world: World) -> None:
    machine_id = await shared(world)
    ended = await world.execute(machine_id, "/bin/bash", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.05; done")
    where = {"machine_id": machine_id, "execution_id": ended.execution_id}
    events = await items(world.executions.events(**where, limit=2))
    assert events == await items(world.executions.events(**where)), events
    assert "".join(event.chunk or "" for event in events) == "1\n2\n3\n4\n5\n", events
    assert len(events) >= 5, events


@scenario
async def a_key_sent_again_returns_the_same_execution(world: World) -> None:
    machine_id = await shared(world)
    order = {"machine_id": machine_id, "command": ["/bin/bash", "-c", "echo $RANDOM$RANDOM"]}
    key = uuid.uuid4().hex
    first = await value(world.executions.create(**order, idempotency_key=key))
    second = await value(world.executions.create(**order, idempotency_key=key))
    assert first.execution_id == second.execution_id
    await world.ended(first)
    error, requests = await world.refused(
        lambda: world.executions.create(machine_id=machine_id, command=["false"], idempotency_key=key)
    )
    assert isinstance(error, dedalus_sdk.ConflictError), error
    assert error.body["error_code"] == "IDEMPOTENCY_KEY_REUSED", error.body
    assert requests == 1, f"{requests} requests: the SDK was not kept from retrying"


@scenario
async def a_key_sent_again_returns_the_same_machine(world: World) -> None:
    key = uuid.uuid4().hex
    first = await value(world.client.machines.create(**SIZES, idempotency_key=key))
    second = await value(world.client.machines.create(**SIZES, idempotency_key=key))
    assert first.machine_id == second.machine_id
    await world.steer("delete", first.machine_id)


@scenario
async def delete_cancels_a_running_execution(world: World) -> None:
    machine_id = await shared(world)
    made = await value(world.executions.create(machine_id=machine_id, command=["sleep", "600"]))
    asked = await value(world.executions.delete(machine_id=machine_id, execution_id=made.execution_id))
    assert asked.execution_id == made.execution_id
    ended = await world.ended(asked)
    assert (ended.status, ended.error_code) == ("cancelled", "cancelled"), ended
    assert ended.error_message, ended


@scenario
async def a_timeout_kills(world: World) -> None:
    ended = await world.execute(await shared(world), "/bin/bash", "-c", "echo so far; sleep 600", timeout_ms=300)
    assert (ended.status, ended.error_code, ended.signal, ended.exit_code) == ("failed", "timeout", 9, None), ended
    output = await value(world.executions.output(machine_id=ended.machine_id, execution_id=ended.execution_id))
    assert output.stdout == "so far\n", output


@scenario
async def an_execution_wakes_its_machine(world: World) -> None:
    machine = await world.machine()
    await world.execute(machine.machine_id, "/bin/bash", "-c", "echo kept > kept-by-the-disk")
    await world.steer("sleep", machine.machine_id)
    await world.phase(machine.machine_id, "sleeping")
    made = await value(world.executions.create(machine_id=machine.machine_id, command=["cat", "kept-by-the-disk"]))
    assert made.status == "wake_in_progress", made
    assert made.retry_after_ms > 0, made
    ended = await world.ended(made)
    assert ended.status == "succeeded", ended
    assert ended.retry_after_ms is None, ended
    output = await value(world.executions.output(machine_id=ended.machine_id, execution_id=ended.execution_id))
    assert output.stdout == "kept\n", output
    await world.steer("delete", machine.machine_id)


@scenario
async def the_documented_helper_runs_a_command(world: World) -> None:
    if world.mode == "async":
        return
    machine_id = await shared(world)
    assert run(world.client, machine_id, ["/bin/bash", "-c", "uname -s"]) == "Linux\n"
    assert run(world.client, machine_id, ["cat"], stdin="piped", timeout_ms=20_000) == "piped"
    told = ""
    try:
        run(world.client, machine_id, ["/bin/bash", "-c", "exit 7"])
    except RuntimeError as error:
        told = str(error)
    assert told == "failed: nonzero_exit: process exited with code 7"


@scenario
async def the_documented_helper_wakes_a_machine(world: World) -> None:
    if world.mode == "async":
        return
    machine = await world.machine()
    await world.steer("sleep", machine.machine_id)
    await world.phase(machine.machine_id, "sleeping")
    assert run(world.client, machine.machine_id, ["echo", "awake"]) == "awake\n"
    await world.steer("delete", machine.machine_id)


PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILoaeBkTQj9KqxfAjpO7vgVP9yfeNWQAlIgApfQZlBGn\n"
"""Somebody's, whose private half is nowhere."""


@scenario
async def ssh_sessions_are_made_shown_and_ended(world: World) -> None:
    machine_id, ssh = await shared(world), world.client.machines.ssh
    session = await value(ssh.create(machine_id=machine_id, public_key=PUBLIC_KEY))
    where = {"machine_id": machine_id, "session_id": session.session_id}

    async def ready() -> Any:
        found = await value(ssh.retrieve(**where))
        return found if found.status == "ready" else None

    session = await wait_until_async(ready, 30, "the session is ready")
    found = session.connection
    assert found.user_certificate.startswith("ssh-ed25519-cert-v01@openssh.com "), found
    assert found.host_trust.kind == "cert_authority", found
    assert (found.ssh_username, found.endpoint) == (session.session_id, "127.0.0.1"), found
    assert session.session_id in {one.session_id for one in await items(ssh.list(machine_id=machine_id))}
    assert (await value(ssh.delete(**where))).status == "closed"
    assert (await value(ssh.retrieve(**where))).connection is None


@scenario
async def a_preview_is_made_listed_and_closed(world: World) -> None:
    if not hasattr(world.client.machines, "previews"):
        return
    machine_id = await shared(world)
    previews = world.client.machines.previews
    made = await value(previews.create(machine_id=machine_id, port=8000, visibility="org", protocol="http"))
    assert made.status in {"ready", "wake_in_progress"}
    assert made.url.endswith(f"{made.preview_id}/")
    found = await value(previews.retrieve(machine_id=machine_id, preview_id=made.preview_id))
    assert (found.port, found.visibility, found.protocol) == (8000, "org", "http")
    assert made.preview_id in [preview.preview_id for preview in await items(previews.list(machine_id=machine_id))]
    closed = await value(previews.delete(machine_id=machine_id, preview_id=made.preview_id))
    assert closed.status == "closed"


@scenario
async def ids_are_taken_without_their_prefix(world: World) -> None:
    machine_id = await shared(world)
    bare = machine_id.removeprefix("dm-")
    assert (await value(world.client.machines.retrieve(machine_id=bare))).machine_id == machine_id
    ended = await world.execute(bare, "true")
    assert (ended.status, ended.machine_id) == ("succeeded", machine_id), ended


@scenario
async def errors_are_of_the_documented_classes(world: World) -> None:
    machine_id = await shared(world)
    unknown = "dm-01234567-89ab-7cde-8f01-23456789abcd"
    error, requests = await world.refused(lambda: world.client.machines.retrieve(machine_id=unknown))
    assert isinstance(error, dedalus_sdk.NotFoundError), error
    assert requests == 1
    error, _ = await world.refused(lambda: world.executions.retrieve(machine_id=machine_id, execution_id="exec-1"))
    assert isinstance(error, dedalus_sdk.NotFoundError), error
    error, _ = await world.refused(lambda: world.executions.create(machine_id=machine_id, command=[]))
    assert isinstance(error, dedalus_sdk.UnprocessableEntityError), error
    error, _ = await world.refused(lambda: world.executions.create(machine_id=machine_id, command=None))
    assert isinstance(error, dedalus_sdk.UnprocessableEntityError), error
    stranger = world.make(api_key="x" * 43)
    error, requests = await world.refused(stranger.machines.list)
    assert isinstance(error, dedalus_sdk.AuthenticationError), error
    assert requests == 1
    misled = world.make(dedalus_org_id=ORGANIZATION)
    error, requests = await world.refused(misled.machines.list)
    assert isinstance(error, dedalus_sdk.PermissionDeniedError), error
    assert requests == 1
    assert error.body["error_code"] == "AUTH_ORG_MISMATCH", error.body


@scenario
async def either_credential_is_enough(world: World) -> None:
    key = os.environ.pop("DEDALUS_API_KEY")
    only_x = world.make(x_api_key=key)
    os.environ["DEDALUS_API_KEY"] = key
    assert (await value(only_x.machines.list())).items is not None
    both = world.make(x_api_key=key)
    assert (await value(both.machines.list())).items is not None


@scenario
async def every_method_is_served(world: World) -> None:
    found = set(methods_of(world.client))
    unknown = {name for name in found - set(METHODS) if name.rpartition(".")[0] not in LATER}
    assert not unknown, unknown
    assert {"machines.create", "machines.executions.output"} <= found, found
    machine_id = (await world.machine()).machine_id
    ended = await world.execute(machine_id, "echo", "hello")
    machine = {"machine_id": machine_id}
    execution = {**machine, "execution_id": ended.execution_id}
    known = Known(os.environ["DORMICE_ORGANIZATION"], machine, execution)
    for name, arguments in METHODS.items():
        if name in found:
            known.made[name] = await called(world, name, arguments(known))
    await world.steer("delete", known.made["machines.create"].machine_id)


async def called(world: World, name: str, arguments: Mapping[str, Any]) -> Any:
    """Call a method by its name, and read all that it streams."""
    resource, _, method = name.rpartition(".")
    if resource == "machines" and method in {"update", "delete", "sleep", "wake"}:
        return await world.steer(method, **arguments)
    if method == "connect":
        return (
            await typed(world, arguments) if VERSION != "0.1.0" else []
        )  # which asks for no terminal: its path has braces in it
    made = await value(getattr(attrgetter(resource)(world.client), method)(**arguments))
    if method == "watch":
        return [event async for event in made] if world.mode == "async" else list(made)
    return made


async def typed(world: World, which: Mapping[str, str]) -> list[Any]:
    """Type into a terminal, and return what comes until its shell has ended. The SDK sends no key of its own here."""
    terminals = world.client.machines.terminals

    async def ready() -> bool:
        return (await value(terminals.retrieve(**which))).status == "ready"

    await wait_until_async(ready, 30, f"{which} is ready")
    line = {"type": "input", "data": base64.b64encode(b"echo $((6*7))x; exit\n").decode()}
    headers = {"Authorization": f"Bearer {os.environ['DEDALUS_API_KEY']}"}
    connecting = terminals.connect(**which, extra_headers=headers)
    if world.mode == "sync":
        with connecting as terminal:
            terminal.send(line)
            events = list(terminal)
    else:
        async with connecting as terminal:
            await terminal.send(line)
            events = [event async for event in terminal]
    written = b"".join(base64.b64decode(event.data) for event in events if event.type == "output")
    assert b"42x" in written, events
    assert events[-1].type == "closed", events
    return events


@scenario
async def usage_has_a_row_for_what_was_used(world: World) -> None:
    if VERSION not in {"0.3.0", "0.4.0"}:
        return
    machine_id = await shared(world)
    if VERSION == "0.3.0":
        usage, organization = world.client.orgs.usage, {"org_id": os.environ["DORMICE_ORGANIZATION"]}
        compute, storage = usage.get_machine_usage, usage.get_machine_storage_usage
    else:
        usage, organization = world.client.usage, {}
        compute, storage = usage.machine_compute, usage.machine_storage

    async def used() -> Any:
        found = await value(compute(**organization, machine_id=machine_id))
        return found if found.rows and found.rows[0].awake_seconds else None

    told = await wait_until_async(used, 30, "the usage is counted")
    assert {row.machine_id for row in told.rows} == {machine_id}, told
    assert (told.granularity, told.rows[0].requested_memory_mib) == ("hour", 256), told
    assert told.period_start <= told.rows[0].bucket_start < told.rows[0].last_window_end <= told.period_end, told
    [disk] = (await value(storage(**organization, machine_id=machine_id))).rows
    assert disk.logical_storage_bytes == 1 << 30, disk
    totals = await value(usage.retrieve(**organization))
    assert totals.provisioned_storage_gib >= 1, totals
    error, _ = await world.refused(lambda: compute(**organization, period_start="2026-02-30"))
    assert isinstance(error, dedalus_sdk.UnprocessableEntityError), error


@scenario
async def a_token_reads_one_log(world: World) -> None:
    if VERSION != "0.6.0":
        return
    ended = await world.execute(await shared(world), "echo", "for the token")
    where = {"machine_id": ended.machine_id, "execution_id": ended.execution_id}
    status = await value(world.executions.logs.retrieve(**where))
    assert (status.publication.state, status.publication.complete) == ("closed", True), status
    token = await value(world.executions.logs.create_token(**where))
    async with httpx.AsyncClient(headers={"Authorization": f"{token.token_type} {token.access_token}"}) as reader:
        page = (await reader.get(f"{token.base_url}/{token.stream_id}")).raise_for_status().json()
        assert "for the token\n" in [item.get("chunk") for item in page["items"]], page
        other = await world.execute(ended.machine_id, "true")
        assert (await reader.get(f"{token.base_url}/{other.execution_id}")).status_code == 403
        assert (await reader.get(f"{os.environ['DEDALUS_BASE_URL']}/v1/machines")).status_code == 401


@scenario
async def a_reboot_keeps_files_and_no_process(world: World) -> None:
    if VERSION != "0.6.0":
        return
    for arguments in ({}, {"force": True}):
        machine_id = (await world.machine()).machine_id
        await world.execute(machine_id, "/bin/bash", "-c", "echo kept > kept; sync")
        runs = await value(world.executions.create(machine_id=machine_id, command=["sleep", "600"]))
        rebooted = await value(world.client.machines.reboot(machine_id=machine_id, **arguments))
        assert rebooted.machine_id == machine_id, rebooted
        ended = await world.ended(runs)
        assert (ended.status, ended.error_code) == ("failed", "execution_runner_interrupted"), ended
        await world.phase(machine_id, "running")
        again = await world.execute(machine_id, "cat", "kept")
        output = await value(world.executions.output(machine_id=machine_id, execution_id=again.execution_id))
        assert output.stdout == "kept\n", output
        await world.steer("delete", machine_id)


@scenario
async def autoresizing_is_a_setting(world: World) -> None:
    if VERSION != "0.6.0":
        return
    machine = await world.machine()
    of_machine, of_all = world.client.machines.autoresizing, world.client.organization.autoresizing
    assert not (await value(of_machine.retrieve(machine_id=machine.machine_id))).enabled
    assert (await value(of_machine.update(machine_id=machine.machine_id, enabled=True))).enabled
    assert (await value(of_machine.retrieve(machine_id=machine.machine_id))).enabled
    for enabled in (False, True):
        assert (await value(of_all.update(enabled=enabled))).enabled is enabled
        assert (await value(of_all.retrieve())).enabled is enabled
    status = (await value(world.client.machines.retrieve(machine_id=machine.machine_id))).status
    sizes = status.memory_configured_mib, status.memory_assigned_mib, status.memory_target_mib
    assert (sizes, status.memory_resize_state) == ((256, 256, 256), "stable"), status
    await world.steer("delete", machine.machine_id)


async def main(mode: str) -> Mapping[str, str | None]:
    world = World(mode)
    report: dict[str, str | None] = {}
    for name, function in SCENARIOS.items():
        try:
            await function(world)
            report[name] = None
        except Exception:  # noqa: BLE001 - told in the report, whatever it is
            report[name] = traceback.format_exc()
    return report


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print(json.dumps(list(SCENARIOS)))
    else:
        print(json.dumps(asyncio.run(main(sys.argv[1]))))
