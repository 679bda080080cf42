"""What a client runs: a shell, a command or a subsystem, with a terminal or without one."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Mapping
from signal import Signals
from typing import Protocol

import asyncssh
from asyncssh.stream import SSHServerStreamSession

from dormice.domain.errors import DormiceError
from dormice.domain.execution import Stream
from dormice.engine.channel import Channel, ChannelEnd, ChannelOrder
from dormice.ssh.relay import PIECE_BYTES, carry_out, send

FAILED = 255
"""The exit status for what is our failure and not the command's: that of OpenSSH's client for its own."""
_LONGEST_COMMAND = 131_071
"""Bytes: the kernel's bound for one argument, less the final NUL."""
_PASSED_ON = re.compile(r"LANG|LC_[A-Z]+|COLORTERM|NO_COLOR|TZ|GIT_PROTOCOL", re.ASCII)
_VALUE_CHARS = 1_024
_MOST_SIDE = 65_535
_DEFAULT_SIZE = (80, 24)
_INPUT, _SIZE = 0, 1
_SFTP_SUBSYSTEM = "sftp"
_KILLING = {"HUP", "INT", "QUIT", "KILL", "TERM"}

# bash where there is one, else sh; a login shell reads the profile.
_INTERACTIVE = "command -v bash >/dev/null 2>&1 && exec bash -l; exec sh -l"
_COMMAND = 'command -v bash >/dev/null 2>&1 && exec bash -c "$1"; exec sh -c "$1"'


class Opener(Protocol):
    """Opens channels into the one machine that a client may reach."""

    async def open(self, order: ChannelOrder) -> Channel:
        """Start a process. Raises DormiceError."""
        ...

    def close(self, channel: Channel) -> None:
        """End one that was opened."""
        ...


class ShellSession(SSHServerStreamSession[bytes]):
    """One of them. Its process lives as long as the client holds it open."""

    def __init__(self, machine: Opener, peer: str) -> None:
        """`peer`: what the process finds in SSH_CONNECTION."""
        super().__init__(None)
        self._machine = machine
        self._peer = peer
        self._process: Channel | None = None
        self._resized = asyncio.Event()
        self._gone = asyncio.Event()
        self._writing = asyncio.Lock()

    # What asyncssh tells

    def shell_requested(self) -> bool:
        """Anybody may have a shell."""
        return True

    def exec_requested(self, command: str) -> bool:  # noqa: ARG002
        """Anybody may run a command."""
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        """Whether there is such a subsystem."""
        return subsystem == _SFTP_SUBSYSTEM

    def session_started(self) -> None:
        """Run it. (asyncssh would serve the files of this host as the subsystem `sftp`.)"""
        channel, group = self._chan, self._conn
        if channel is None or group is None:
            return
        stdin = asyncssh.SSHReader[bytes](self, channel)
        stdout = asyncssh.SSHWriter[bytes](self, channel)
        stderr = asyncssh.SSHWriter[bytes](self, channel, asyncssh.EXTENDED_DATA_STDERR)
        group.create_task(self._serve(stdin, stdout, stderr), channel.logger)  # ends with the connection at the latest

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:  # noqa: ARG002
        """Only the last size counts, however many come."""
        self._resized.set()

    def signal_received(self, signal: str) -> None:
        """End the process: with a terminal, a client types its signals."""
        if signal in _KILLING and self._process is not None:
            self._process.close()

    def break_received(self, msec: int) -> bool:  # noqa: ARG002
        """Nothing listens to breaks."""
        return False

    def soft_eof_received(self) -> None:
        """Never sent to us: lines are edited by the machine."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the process along."""
        super().connection_lost(exc)
        self._gone.set()

    # From its beginning to its end

    async def _serve(
        self, stdin: asyncssh.SSHReader[bytes], stdout: asyncssh.SSHWriter[bytes], stderr: asyncssh.SSHWriter[bytes]
    ) -> None:
        channel = stdin.channel
        if not isinstance(channel, asyncssh.SSHServerChannel):
            raise TypeError("not a channel of a server")
        command = channel.get_command()
        if command is not None and len(command.encode(errors="surrogateescape")) > _LONGEST_COMMAND:
            await self._refuse(stderr, f"a command has at most {_LONGEST_COMMAND} bytes")
            channel.exit(FAILED)
            return
        try:
            process = self._process = await self._machine.open(self._order(channel))
        except DormiceError as error:
            await self._refuse(stderr, error.message)
            channel.exit(FAILED)
            return
        try:
            end = await self._relay(process, stdin, stdout, stderr)
        finally:
            self._machine.close(process)
        if end is not None:
            await self._end(channel, stderr, end)

    async def _refuse(self, stderr: asyncssh.SSHWriter[bytes], text: str) -> None:
        await send(stderr, f"dormice: {text}\r\n".encode())

    def _order(self, channel: asyncssh.SSHServerChannel[bytes]) -> ChannelOrder:
        terminal, command = channel.get_terminal_type(), channel.get_command()
        if channel.get_subsystem() is not None:
            return ChannelOrder(argv=("sftp",), tool=True)
        argv = ("/bin/sh", "-c", _INTERACTIVE) if command is None else ("/bin/sh", "-c", _COMMAND, "sh", command)
        env = _environment(channel.get_environment()) | {"SSH_CONNECTION": self._peer}
        if terminal is None:
            return ChannelOrder(argv=argv, env=env)
        columns, rows = self._size(channel)
        return ChannelOrder(
            argv=("tty", str(columns), str(rows), *argv),
            tool=True,
            env=env | {"TERM": terminal if _fit(terminal) and terminal else "dumb"},
        )

    def _size(self, channel: asyncssh.SSHServerChannel[bytes]) -> tuple[int, int]:
        columns, rows = channel.get_terminal_size()[:2]
        if not columns or not rows:
            return _DEFAULT_SIZE
        return min(columns, _MOST_SIDE), min(rows, _MOST_SIDE)

    async def _relay(
        self,
        process: Channel,
        stdin: asyncssh.SSHReader[bytes],
        stdout: asyncssh.SSHWriter[bytes],
        stderr: asyncssh.SSHWriter[bytes],
    ) -> ChannelEnd | None:
        """Return how the process ended; None: the client has gone before."""
        channel = stdin.channel
        terminal = isinstance(channel, asyncssh.SSHServerChannel) and channel.get_terminal_type() is not None
        async with asyncio.TaskGroup() as group:
            typing = group.create_task(self._type(process, stdin, terminal=terminal))
            sizing = group.create_task(self._resize(process, channel)) if terminal else None
            leaving = group.create_task(self._leave(process))
            showing = group.create_task(carry_out(process, Stream.STDOUT, stdout))
            await carry_out(process, Stream.STDERR, stdout if terminal else stderr)
            await showing
            end = await process.wait()
            for task in (typing, sizing, leaving):
                if task is not None:
                    task.cancel()
        return None if self._gone.is_set() else end

    async def _type(self, process: Channel, stdin: asyncssh.SSHReader[bytes], *, terminal: bool) -> None:
        try:
            while data := await stdin.read(PIECE_BYTES):
                async with self._writing:
                    await process.write(_message(_INPUT, data) if terminal else data)
        except (OSError, asyncssh.Error):
            return  # the client is gone, which `_leave` is told
        if not terminal:
            process.write_eof()

    async def _resize(self, process: Channel, channel: object) -> None:
        if not isinstance(channel, asyncssh.SSHServerChannel):
            return
        while True:
            await self._resized.wait()
            self._resized.clear()
            async with self._writing:
                await process.write(_message(_SIZE, struct.pack("<HH", *self._size(channel))))

    async def _leave(self, process: Channel) -> None:
        await self._gone.wait()
        process.close()

    async def _end(
        self, channel: asyncssh.SSHServerChannel[bytes], stderr: asyncssh.SSHWriter[bytes], end: ChannelEnd
    ) -> None:
        if end.signal is not None:
            channel.exit_with_signal(_signal_name(end.signal))
        elif end.exit_code is not None:
            channel.exit(end.exit_code)
        else:
            await self._refuse(stderr, end.error_message)
            channel.exit(FAILED)


def _message(kind: int, body: bytes) -> bytes:
    """A message to the tool `tty`."""
    return struct.pack("<BI", kind, len(body)) + body


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name.removeprefix("SIG")
    except ValueError:
        return f"{number}@dormice"


def _environment(wanted: Mapping[str, str]) -> dict[str, str]:
    """What of a client's variables reaches the process: its language and how it shows things."""
    return {name: value for name, value in wanted.items() if _PASSED_ON.fullmatch(name) and _fit(value)}


def _fit(value: str) -> bool:
    return len(value) <= _VALUE_CHARS and value.isprintable()
