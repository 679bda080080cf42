"""The tools. What goes wrong is told to the model in words, with what it may do."""

from __future__ import annotations

import base64
import binascii
import functools
import posixpath
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, ParamSpec, TypeVar

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field

from dormice.client import APIConnectionError, AsyncDormice, DormiceError, Execution, NotFoundError
from dormice.mcp.records import (
    CommandList,
    CommandResult,
    DirectoryResult,
    EntryResult,
    FileResult,
    MachineList,
    MachineResult,
    OutputResult,
    WrittenResult,
    command_result,
    machine_result,
)

P = ParamSpec("P")
R = TypeVar("R")
Encoding = Literal["text", "base64"]

LONGEST_WAIT_SECONDS = 600
LONGEST_POLL_MS = 1_000
"""How often a waiting client hears how far the command is."""
MACHINE_WAIT_MS = 55_000
TAIL_BYTES = 16_384
PIECE_BYTES = 262_144
LARGEST_OFFSET = 1 << 53
"""Beyond it, numbers of JSON are not exact."""
LISTED = 100
MOST_ENTRIES = 1_000

MachineId = Annotated[str, Field(description="As create_machine returned it.")]
ExecutionId = Annotated[str, Field(description="As run_command returned it.")]
Wait = Annotated[
    float,
    Field(ge=0, le=LONGEST_WAIT_SECONDS, description="Seconds to wait for its end; it runs on if they are over."),
]
Stream = Literal["stdout", "stderr"]


def told(tool: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Have what was foreseen told to the model."""

    @functools.wraps(tool)
    async def telling(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            return await tool(*arguments, **named)
        except (DormiceError, ValueError) as problem:
            raise ToolError(f"{problem}{_advice(problem)}") from problem

    return telling


def _advice(problem: Exception) -> str:
    """What may help, where the message does not say it."""
    match problem:
        case NotFoundError() if "no such machine" in str(problem):
            return "; list_machines shows those that there are, create_machine makes one"
        case APIConnectionError():
            return "; is the server running there? DORMICE_BASE_URL of `dormice mcp` sets its address"
    return ""


class Tools:
    """Tools over one client of Dormice."""

    def __init__(self, client: AsyncDormice) -> None:
        self._machines = client.machines
        self._executions = client.machines.executions
        self._files = client.machines.files

    def add_to(self, server: MCPServer[None]) -> None:
        """Offer all of them."""
        reads, writes = (
            ToolAnnotations(read_only_hint=True),
            ToolAnnotations(read_only_hint=False, destructive_hint=False),
        )
        ends = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True)
        anything = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=True)
        for tool, hints in (
            (self.create_machine, writes),
            (self.list_machines, reads),
            (self.get_machine, reads),
            (self.delete_machine, ends),
            (self.run_command, anything),
            (self.wait_for_command, reads),
            (self.cancel_command, ends),
            (self.list_commands, reads),
            (self.read_output, reads),
            (self.read_file, reads),
            (self.write_file, anything),
            (self.list_files, reads),
        ):
            server.tool(annotations=hints)(tool)

    @told
    async def create_machine(
        self,
        vcpu: Annotated[float | None, Field(description="Processors, in quarters.")] = None,
        memory_mib: Annotated[int | None, Field(description="Memory in MiB.")] = None,
        storage_gib: Annotated[int | None, Field(description="Disk in GiB.")] = None,
        autosleep: Annotated[
            str | None, Field(description="Time without work after which it sleeps: `5m`, or `never`.")
        ] = None,
        image: Annotated[str | None, Field(description="Name of an imported image.")] = None,
    ) -> MachineResult:
        """Make an isolated Linux machine and wait until it runs. What is left out gets the server's default.

        It keeps its disk while it sleeps, and commands wake it. Delete it when it is not needed any more.
        """
        machine = await self._machines.create(
            vcpu=vcpu,
            memory_mib=memory_mib,
            storage_gib=storage_gib,
            autosleep=autosleep,
            image=image,
            wait_ms=MACHINE_WAIT_MS,
        )
        return machine_result(machine)

    @told
    async def list_machines(
        self, limit: Annotated[int, Field(ge=1, le=1_000, description="How many at most.")] = LISTED
    ) -> MachineList:
        """List the machines, newest first."""
        page = await self._machines.list(limit=limit)
        return MachineList([machine_result(one) for one in page.items], page.has_next_page())

    @told
    async def get_machine(self, machine_id: MachineId) -> MachineResult:
        """Show a machine."""
        return machine_result(await self._machines.retrieve(machine_id))

    @told
    async def delete_machine(self, machine_id: MachineId) -> MachineResult:
        """Destroy a machine with its disk. This cannot be undone."""
        return machine_result(await self._machines.delete(machine_id, wait_ms=MACHINE_WAIT_MS))

    @told
    async def run_command(
        self,
        context: Context[None],
        machine_id: MachineId,
        command: Annotated[
            list[str],
            Field(
                min_length=1,
                description='Program and arguments, as a list. For a shell, give ["sh", "-c", "ls -l"].',
            ),
        ],
        cwd: Annotated[str | None, Field(description="Working directory, /root by default.")] = None,
        env: Annotated[dict[str, str] | None, Field(description="Variables added to the machine's.")] = None,
        stdin: Annotated[str | None, Field(description="Standard input; empty by default.")] = None,
        timeout_seconds: Annotated[
            float | None, Field(gt=0, description="Killed, with all its children, after so long.")
        ] = None,
        wait_seconds: Wait = 120,
    ) -> CommandResult:
        """Run a command on a machine and return its exit code and the end of its output.

        One that has not ended when the wait is over runs on: `wait_for_command` goes on waiting, `cancel_command` ends it.
        """
        execution = await self._executions.create(
            machine_id,
            command=command,
            cwd=cwd,
            env=env,
            stdin=stdin,
            timeout_ms=None if timeout_seconds is None else max(1, round(timeout_seconds * 1000)),
            wait_ms=_poll(wait_seconds),
        )
        return await self._followed(context, execution, wait_seconds)

    @told
    async def wait_for_command(
        self, context: Context[None], machine_id: MachineId, execution_id: ExecutionId, wait_seconds: Wait = 120
    ) -> CommandResult:
        """Wait for the end of a command and return its exit code and the end of its output; 0 seconds shows how it is now."""
        execution = await self._executions.retrieve(execution_id, machine_id=machine_id, wait_ms=_poll(wait_seconds))
        return await self._followed(context, execution, wait_seconds)

    @told
    async def cancel_command(self, machine_id: MachineId, execution_id: ExecutionId) -> CommandResult:
        """End a command with all its children. Nothing happens if it has ended."""
        await self._executions.delete(execution_id, machine_id=machine_id)
        execution = await self._executions.retrieve(execution_id, machine_id=machine_id, wait_ms=MACHINE_WAIT_MS)
        return await self._result(execution)

    @told
    async def list_commands(
        self,
        machine_id: MachineId,
        limit: Annotated[int, Field(ge=1, le=1_000, description="How many at most.")] = 20,
    ) -> CommandList:
        """List the commands of a machine, newest first, without their output."""
        page = await self._executions.list(machine_id, limit=limit)
        return CommandList([command_result(one) for one in page.items], page.has_next_page())

    @told
    async def read_output(
        self,
        machine_id: MachineId,
        execution_id: ExecutionId,
        stream: Stream = "stdout",
        start: Annotated[int, Field(ge=0, description="The first byte; go on from `end` of the piece before.")] = 0,
        max_bytes: Annotated[int, Field(ge=1, le=PIECE_BYTES, description="How many bytes at most.")] = 65_536,
        encoding: Encoding = "text",
    ) -> OutputResult:
        """Read what a command has written, piece by piece, also while it runs."""
        execution = await self._executions.retrieve(execution_id, machine_id=machine_id)
        end = start + max_bytes
        data = await self._executions.read_output(
            execution_id, machine_id=machine_id, stream=stream, start=start, end=end
        )
        last = execution.finished and len(data) < max_bytes
        return OutputResult(_encoded(data, encoding), encoding, start, start + len(data), last)

    @told
    async def read_file(
        self,
        machine_id: MachineId,
        path: Annotated[str, Field(min_length=1, description="A relative one is taken from /root on.")],
        offset: Annotated[int, Field(ge=0, le=LARGEST_OFFSET, description="The first byte.")] = 0,
        max_bytes: Annotated[int, Field(ge=1, le=PIECE_BYTES, description="How many bytes at most.")] = 65_536,
        encoding: Annotated[Encoding, Field(description="base64 gives the exact bytes.")] = "text",
    ) -> FileResult:
        """Read a file of a machine, or a piece of it. Files in /proc, which tell no size, read as empty: run `cat` for them."""
        part = await self._files.read_part(machine_id, path, start=offset, end=offset + max_bytes)
        return FileResult(path, _encoded(part.content, encoding), encoding, offset, len(part.content), part.size)

    @told
    async def write_file(
        self,
        machine_id: MachineId,
        path: Annotated[str, Field(min_length=1, description="A relative one is taken from /root on.")],
        content: str,
        encoding: Annotated[
            Encoding, Field(description="How `content` is written; base64 for what is no text.")
        ] = "text",
        append: Annotated[bool, Field(description="Add to what is there, instead of replacing it.")] = False,  # noqa: FBT002 - tools have named arguments only
    ) -> WrittenResult:
        """Write a file of a machine; directories above it are made. It is replaced as a whole, once all of it is on disk."""
        data = _decoded(content, encoding)
        if append:
            await self._append(machine_id, path, data)
        else:
            await self._files.write(machine_id, path, data, parents=True)
        return WrittenResult(path, len(data))

    @told
    async def list_files(
        self,
        machine_id: MachineId,
        path: Annotated[str, Field(min_length=1, description="A relative one is taken from /root on.")] = ".",
    ) -> DirectoryResult:
        """List what is in a directory of a machine."""
        page = await self._files.list(machine_id, path, limit=MOST_ENTRIES)
        entries = [EntryResult(entry.name, entry.type, entry.size) for entry in page.items]
        return DirectoryResult(path, entries, page.has_next_page())

    async def _append(self, machine_id: str, path: str, data: bytes) -> None:
        """By a command: an execution is done once, however often it is asked for, and nobody else's additions are lost."""
        if parent := posixpath.dirname(path):
            await self._files.mkdir(machine_id, parent, parents=True)
        done = await self._machines.run(machine_id, ["tee", "-a", "--", path], stdin=data, timeout_ms=MACHINE_WAIT_MS)
        if done.exit_code != 0:
            raise ToolError(done.stderr.decode(errors="replace").strip() or done.error_message or done.status)

    async def _followed(self, context: Context[None], execution: Execution, wait_seconds: float) -> CommandResult:
        """Wait for the end, telling the client the last line whenever there is more output."""
        until, seen = time.monotonic() + wait_seconds, 0
        while not execution.finished and (left := until - time.monotonic()) > 0:
            written = (execution.stdout_bytes or 0) + (execution.stderr_bytes or 0)
            if written > seen:
                seen = written
                await context.report_progress(written, message=await self._last_line(execution))
            execution = await self._executions.retrieve(
                execution.execution_id, machine_id=execution.machine_id, wait_ms=_poll(left)
            )
        return await self._result(execution)

    async def _last_line(self, execution: Execution) -> str:
        stream: Stream = "stdout" if execution.stdout_bytes else "stderr"
        lines = (await self._tail(execution, stream)).rstrip().splitlines()
        return lines[-1][-200:] if lines else ""

    async def _result(self, execution: Execution) -> CommandResult:
        return command_result(execution, await self._tail(execution, "stdout"), await self._tail(execution, "stderr"))

    async def _tail(self, execution: Execution, stream: Stream) -> str:
        written = (execution.stdout_bytes if stream == "stdout" else execution.stderr_bytes) or 0
        if not written:
            return ""
        start = max(0, written - TAIL_BYTES)
        read = functools.partial(
            self._executions.read_output, execution.execution_id, machine_id=execution.machine_id, stream=stream
        )
        data = await read(start=start) or await read(start=0, end=TAIL_BYTES)  # only the head of much output is kept
        return data[-TAIL_BYTES:].decode(errors="replace")


def _poll(seconds: float) -> int:
    return min(LONGEST_POLL_MS, round(seconds * 1000))


def _encoded(data: bytes, encoding: Encoding) -> str:
    return data.decode(errors="replace") if encoding == "text" else base64.b64encode(data).decode()


def _decoded(content: str, encoding: Encoding) -> bytes:
    """Raises ValueError."""
    if encoding == "text":
        return content.encode()
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error:
        raise ValueError("content is not base64: encode it, or give encoding text") from None
