"""What a client runs: a shell, a command or a subsystem, with a terminal or without one."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Mapping
from itertools import islice
from signal import Signals
from typing import Protocol

import asyncssh

from dormice.domain.errors import DormiceError
from dormice.domain.execution import Stream
from dormice.engine.channel import Channel, ChannelEnd, ChannelOrder
from dormice.engine.ssh_traffic import SshTraffic
from dormice.ssh.relay import ClientEnd

FAILED = 255
"""The exit status for what is our failure and not the command's: that of OpenSSH's client for its own."""
_LONGEST_COMMAND = 131_071
"""Bytes: the kernel's bound for one argument, less the final NUL."""
_PASSED_ON = re.compile(r"LANG|LC_[A-Z]{1,32}|COLORTERM|NO_COLOR|TZ|GIT_PROTOCOL", re.ASCII)
_MOST_PASSED_ON = 32
"""Of a client's variables."""
_VALUE_BYTES = 1_024
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

    @property
    def traffic(self) -> SshTraffic:
        """Where is counted what passes."""
        ...

    async def open(self, order: ChannelOrder) -> Channel:
        """Start a process. Raises DormiceError."""
        ...

    def close(self, channel: Channel) -> None:
        """End one that was opened."""
        ...

    def left(self, session: ShellSession | None = None) -> None:
        """Hear that something which the client had open is gone."""
        ...


class ShellSession(ClientEnd, asyncssh.SSHServerSession[bytes]):
    """One of them. Its process lives as long as the client holds it open."""

    def __init__(self, machine: Opener, peer: str) -> None:
        """`peer`: what the process finds in SSH_CONNECTION."""
        super().__init__(machine.traffic)
        self._machine = machine
        self._peer = peer
        self._process: Channel | None = None
        self._resized = asyncio.Event()
        self._writing = asyncio.Lock()

    # What asyncssh tells

    def pty_requested(
        self,
        term_type: str,  # noqa: ARG002
        term_size: tuple[int, int, int, int],  # noqa: ARG002
        term_modes: Mapping[int, int],  # noqa: ARG002
    ) -> bool:
        """Anybody may have a terminal; the channel remembers which."""
        return True

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
        """Run it."""
        group = self.channel.get_connection()
        group.create_task(self._serve(), self.channel.logger)  # ends with the connection at the latest

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:  # noqa: ARG002
        """Only the last size counts, however many come."""
        self._resized.set()

    def signal_received(self, signal: str) -> None:
        """End the process: with a terminal, a client types its signals."""
        if signal in _KILLING and self._process is not None:
            self._process.close()

    def tell(self, text: str) -> None:
        """Say why the connection ends: OpenSSH may not come to read what is said of the connection itself."""
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write(_words(text), asyncssh.EXTENDED_DATA_STDERR)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._machine.left(self)

    # From its beginning to its end

    @property
    def _shell(self) -> asyncssh.SSHServerChannel[bytes]:
        channel = self.channel
        if not isinstance(channel, asyncssh.SSHServerChannel):
            raise TypeError("not a channel of a server")
        return channel

    @property
    def _terminal(self) -> str | None:
        return self._shell.get_terminal_type()

    async def _serve(self) -> None:
        command = self._shell.get_command() or ""
        if len(command.encode()) > _LONGEST_COMMAND or "\0" in command:
            await self._fail(f"a command has at most {_LONGEST_COMMAND} bytes, and no NUL among them")
            return
        try:
            process = self._process = await self._machine.open(self._order())
        except DormiceError as error:
            await self._fail(error.message)
            return
        try:
            end = await self._relay(process)
        finally:
            self._machine.close(process)
        if not self.gone.is_set():
            await self._end(end)

    async def _fail(self, text: str) -> None:
        if await self.write(_words(text), asyncssh.EXTENDED_DATA_STDERR):
            self._shell.exit(FAILED)

    def _order(self) -> ChannelOrder:
        terminal, command = self._terminal, self._shell.get_command()
        if self._shell.get_subsystem() is not None:
            return ChannelOrder(argv=("sftp",), tool=True)
        argv = ("/bin/sh", "-c", _INTERACTIVE) if command is None else ("/bin/sh", "-c", _COMMAND, "sh", command)
        env = _environment(self._shell.get_environment()) | {"SSH_CONNECTION": self._peer}
        if terminal is None:
            return ChannelOrder(argv=argv, env=env)
        columns, rows = self._size_of_window()
        return ChannelOrder(
            argv=("tty", str(columns), str(rows), *argv),
            tool=True,
            env=env | {"TERM": terminal if _fit(terminal) and terminal else "dumb"},
        )

    def _size_of_window(self) -> tuple[int, int]:
        columns, rows = self._shell.get_terminal_size()[:2]
        if not columns or not rows:
            return _DEFAULT_SIZE
        return min(columns, _MOST_SIDE), min(rows, _MOST_SIDE)

    async def _relay(self, process: Channel) -> ChannelEnd:
        """Carry what is typed and shown, and return how the process ended."""
        stderr = asyncssh.EXTENDED_DATA_STDERR if not self._messages else None
        async with asyncio.TaskGroup() as group:
            besides = [group.create_task(self._type(process)), group.create_task(self.leave(process))]
            if self._messages:
                besides.append(group.create_task(self._resize(process)))
            showing = group.create_task(self.carry_out(process, Stream.STDOUT))
            await self.carry_out(process, Stream.STDERR, stderr)
            await showing
            end = await process.wait()
            for task in besides:
                task.cancel()
        return end

    @property
    def _messages(self) -> bool:
        """Whether the process is the tool `tty`, which is sent messages."""
        return self._terminal is not None and self._shell.get_subsystem() is None

    async def _type(self, process: Channel) -> None:
        while data := await self.read():
            async with self._writing:
                await process.write(_message(_INPUT, data) if self._messages else data)
        if not self._messages:
            process.write_eof()

    async def _resize(self, process: Channel) -> None:
        while True:
            await self._resized.wait()
            self._resized.clear()
            async with self._writing:
                await process.write(_message(_SIZE, struct.pack("<HH", *self._size_of_window())))

    async def _end(self, end: ChannelEnd) -> None:
        if end.signal is not None:
            self._shell.exit_with_signal(_signal_name(end.signal))
        elif end.exit_code is not None:
            self._shell.exit(end.exit_code)
        else:
            await self._fail(end.error_message)


def _words(text: str) -> bytes:
    return f"dormice: {text}\r\n".encode()


def _message(kind: int, body: bytes) -> bytes:
    """A message to the tool `tty`."""
    return struct.pack("<BI", kind, len(body)) + body


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name.removeprefix("SIG")
    except ValueError:
        return f"{number}@dormice"


def _environment(wanted: Mapping[str, str]) -> dict[str, str]:
    """What of a client's variables reaches the process: its language and how it shows things; of many, the first."""
    passed_on = ((name, value) for name, value in wanted.items() if _PASSED_ON.fullmatch(name) and _fit(value))
    return dict(islice(passed_on, _MOST_PASSED_ON))


def _fit(value: str) -> bool:
    return value.isprintable() and len(value.encode()) <= _VALUE_BYTES
