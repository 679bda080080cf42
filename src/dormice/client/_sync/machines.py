# Generated from _async/machines.py by scripts/generate_sync_client.py; change that and run it again.
"""`client.machines`: make machines, put them to sleep, run commands on them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing

from dormice.client import routes
from dormice.client._sync.artifacts import Artifacts
from dormice.client._sync.autoresizing import Autoresizing
from dormice.client._sync.connection import Connection
from dormice.client._sync.executions import Executions
from dormice.client._sync.files import Files
from dormice.client._sync.pagination import Page, paginate
from dormice.client._sync.previews import Previews
from dormice.client._sync.runs import run
from dormice.client._sync.ssh import SSH
from dormice.client._sync.streams import EventStream, events_of_one_connection
from dormice.client._sync.terminals import Terminals
from dormice.client.errors import APIResponseError
from dormice.client.records import CompletedExecution, Execution, Machine, decode
from dormice.client.transport import Timeout

Egress = str | Mapping[str, Sequence[str]]


class Machines:
    """Machines. Every method that changes one returns it as it is then; `phase` tells how far it is.

    `wait_ms` (0 to 55,000) makes the server answer when the machine has reached the state that it is to have, or
    has failed, or after so many milliseconds.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.executions = Executions(connection)
        self.autoresizing = Autoresizing(connection)
        self.previews = Previews(connection)
        self.ssh = SSH(connection)
        self.terminals = Terminals(connection)
        self.files = Files(connection)
        self.artifacts = Artifacts(connection)

    def create(
        self,
        *,
        vcpu: float | None = None,
        memory_mib: int | None = None,
        storage_gib: int | None = None,
        autosleep: str | None = None,
        image: str | None = None,
        egress: Egress | None = None,
        snapshot: str | None = None,
        wait_ms: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Machine:
        """Make a machine. What is left out gets the server's default (`client.limits()` lists them).

        Args:
            vcpu: Processors, in quarters.
            memory_mib: Memory in MiB.
            storage_gib: Disk in GiB.
            autosleep: Time without work after which it goes to sleep: `30s`, `5m`, `1h30m`, seconds, or `never`.
            image: Name of an imported image.
            egress: What it may reach: `"public"`, `"none"`, or `{"allow": ["example.com", "*.pypi.org", "1.2.3.0/24"]}`.
            snapshot: Id of a snapshot that its disk begins as a copy of, in place of an image.
            wait_ms: See the class.
            idempotency_key: The same key with the same arguments gives the same machine. Made up if left out.
            timeout: Seconds to wait for the server.

        """
        body = {
            "vcpu": vcpu,
            "memory_mib": memory_mib,
            "storage_gib": storage_gib,
            "autosleep": autosleep,
            "image": image,
            "egress": egress,
            "snapshot": snapshot,
        }
        return self._send(
            "POST", routes.MACHINES, body=body, wait_ms=wait_ms, idempotency_key=idempotency_key, timeout=timeout
        )

    def retrieve(
        self, machine_id: str, *, wait_ms: int | None = None, timeout: float | Timeout | None = None
    ) -> Machine:
        """The machine as it is now, or see the class for `wait_ms`."""
        return self._send("GET", routes.machine(machine_id), wait_ms=wait_ms, timeout=timeout)

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> Page[Machine]:
        """All machines of the organization, `limit` to a page."""
        return paginate(self._connection, Machine, routes.MACHINES, limit=limit, cursor=cursor)

    def update(
        self,
        machine_id: str,
        *,
        vcpu: float | None = None,
        memory_mib: int | None = None,
        storage_gib: int | None = None,
        autosleep: str | None = None,
        egress: Egress | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Machine:
        """Change what is given, keep the rest. A disk can grow, not shrink. A new `egress` holds at once."""
        body = _made_of(vcpu, memory_mib, storage_gib, autosleep, egress)
        return self._send(
            "PATCH", routes.machine(machine_id), body=body, idempotency_key=idempotency_key, timeout=timeout
        )

    def fork(
        self,
        machine_id: str,
        *,
        vcpu: float | None = None,
        memory_mib: int | None = None,
        storage_gib: int | None = None,
        autosleep: str | None = None,
        egress: Egress | None = None,
        wait_ms: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Machine:
        """Make a machine whose disk is a copy of this one's present disk; what is left out is as here. No process is copied."""
        body = _made_of(vcpu, memory_mib, storage_gib, autosleep, egress)
        path = f"{routes.machine(machine_id)}/fork"
        return self._send("POST", path, body=body, wait_ms=wait_ms, idempotency_key=idempotency_key, timeout=timeout)

    def delete(
        self,
        machine_id: str,
        *,
        wait_ms: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Machine:
        """Destroy the machine and its disk."""
        return self._send(
            "DELETE", routes.machine(machine_id), wait_ms=wait_ms, idempotency_key=idempotency_key, timeout=timeout
        )

    def sleep(
        self,
        machine_id: str,
        *,
        wait_ms: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Machine:
        """End its processes and keep its disk."""
        path = f"{routes.machine(machine_id)}/sleep"
        return self._send("POST", path, wait_ms=wait_ms, idempotency_key=idempotency_key, timeout=timeout)

    def wake(
        self,
        machine_id: str,
        *,
        wait_ms: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Machine:
        """Start it again with the disk it had."""
        path = f"{routes.machine(machine_id)}/wake"
        return self._send("POST", path, wait_ms=wait_ms, idempotency_key=idempotency_key, timeout=timeout)

    def reboot(
        self,
        machine_id: str,
        *,
        force: bool = False,
        wait_ms: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None = None,
    ) -> Machine:
        """End its processes and start it again with the disk it had; `force` gives them no time."""
        reply = self._connection.call(
            "POST",
            f"{routes.machine(machine_id)}/reboot",
            query={"wait_ms": wait_ms, "force": "true" if force else None},
            idempotency_key=idempotency_key,
            timeout=timeout,
        )
        return decode(reply.content, Machine)

    def watch(self, machine_id: str, *, last_event_id: str | None = None) -> EventStream[Machine]:
        """The machine now and after each change, until it has reached the state that it is to have.

        `last_event_id` is the `status.revision` seen last. A broken connection raises APIConnectionError.
        """

        def changes() -> Generator[Machine, None, None]:
            path = f"{routes.machine(machine_id)}/status/stream"
            events = events_of_one_connection(self._connection, path, query={}, last_event_id=last_event_id)
            with closing(events):
                for event in events:
                    if event.name == "status":
                        yield decode(event.data.encode(), Machine)
                    elif event.name == "error":
                        raise APIResponseError(f"the server ended the stream: {event.data}")

        return EventStream(changes())

    def run(
        self,
        machine_id: str,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | str | None = None,
        timeout_ms: int | None = None,
        on_stdout: Callable[[bytes], object] | None = None,
        on_stderr: Callable[[bytes], object] | None = None,
        on_created: Callable[[Execution], object] | None = None,
        idempotency_key: str | None = None,
    ) -> CompletedExecution:
        """Run a command to its end and return its record with the bytes of both streams.

        A command that fails raises nothing: look at `status`, `exit_code` and `error_code`. The execution belongs to
        the server: if this call is interrupted it runs on, and the same call with the same `idempotency_key` comes
        back to it.

        Args:
            machine_id: The machine to run it on. A sleeping one is woken.
            argv: The program, looked up in the machine's PATH, and its arguments. No shell is involved.
            cwd: Working directory, `/root` by default.
            env: Variables added to the machine's.
            stdin: Everything the command can read; written before its output is followed.
            timeout_ms: Milliseconds of running after which the whole tree of processes is killed.
            on_stdout: Called with each piece of stdout as it comes.
            on_stderr: Called with each piece of stderr as it comes.
            on_created: Called once with the record of the execution that was just made.
            idempotency_key: See above. Made up if left out.

        """
        return run(
            self.executions,
            machine_id,
            argv,
            cwd=cwd,
            env=env,
            stdin=stdin,
            timeout_ms=timeout_ms,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
            on_created=on_created,
            idempotency_key=idempotency_key,
        )

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        wait_ms: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | Timeout | None,
    ) -> Machine:
        reply = self._connection.call(
            method, path, query={"wait_ms": wait_ms}, body=body, idempotency_key=idempotency_key, timeout=timeout
        )
        return decode(reply.content, Machine)


def _made_of(
    vcpu: float | None,
    memory_mib: int | None,
    storage_gib: int | None,
    autosleep: str | None,
    egress: Egress | None,
) -> Mapping[str, object]:
    return {
        "vcpu": vcpu,
        "memory_mib": memory_mib,
        "storage_gib": storage_gib,
        "autosleep": autosleep,
        "egress": egress,
    }
