"""`dormice exec`: a command on a machine as if it ran here.

Output comes live and goes to the stream it was written to, byte for byte; stdin is forwarded. The exit code is that of
the command. Ctrl-C cancels the execution, a second one leaves at once. The execution is the server's: if this program
is killed, it runs on.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
from base64 import b64decode
from contextlib import closing
from threading import Lock, Timer
from typing import Any

from dormice.cli.commands import Parser
from dormice.cli.connect import connect, server_options
from dormice.cli.stdin import Forwarder, Stdin, open_stdin
from dormice.client import routes
from dormice.client._sync.connection import Connection
from dormice.client._sync.streams import events_of_execution
from dormice.client.statuses import FINISHED

OWN_FAILURE = 125
TIMED_OUT = 124
_CODES = {"timeout": TIMED_OUT, "permission_denied": 126, "command_not_found": 127}
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_PLAIN_ENDS = {None, "nonzero_exit", "signalled"}
"""Error codes to which the exit code has nothing to add."""
_DESCRIPTORS = {"stdout": 1, "stderr": 2}
STDIN_RETRIES = 8
"""More than elsewhere: what was typed cannot be typed again."""
_LONG_QUEUE = 0.3
"""Seconds."""
_WORTH_A_LOOK = 65_536
"""Bytes of output from which on it may have been cut at the server's kept limit."""


def declare(parser: Parser) -> None:
    parser.usage = "dormice exec [options] MACHINE -- COMMAND [ARGUMENT ...]"
    parser.epilog = (
        "Exit code: the command's; 128 + n if signal n ended it; 124 after --timeout; 125 if Dormice failed; "
        "126 if the command may not be executed; 127 if there is no such command; 130 after Ctrl-C."
    )
    parser.failure_code = parser.usage_code = OWN_FAILURE
    parser.takes_argv = True
    parser.add_argument("machine_id", metavar="MACHINE")
    parser.add_argument("--cwd", metavar="DIR", help="working directory (default /root)")
    parser.add_argument(
        "--env",
        action="append",
        type=variable,
        metavar="NAME[=VALUE]",
        help="set a variable, or pass on one from here",
    )
    parser.add_argument("--timeout", type=_milliseconds, metavar="TIME", help="kill it after 500ms, 30s, 5m or 1h")
    parser.add_argument(
        "--artifacts",
        action="append",
        metavar="PATTERN",
        help="keep these files when it has ended, and say so on stderr: out/*.json, logs/** (dormice machines artifacts)",
    )
    parser.add_argument("--no-stdin", action="store_true", help="give it an empty stdin")
    server_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if not arguments.argv:
        print(
            "dormice exec: put the command behind --: dormice exec MACHINE -- COMMAND [ARGUMENT ...]", file=sys.stderr
        )
        return OWN_FAILURE
    connection = connect(arguments)
    stdin = Stdin(inline=None, open=False) if arguments.no_stdin else open_stdin()
    body = {
        "command": arguments.argv,
        "cwd": arguments.cwd,
        "env": dict(arguments.env) if arguments.env else None,
        "timeout_ms": arguments.timeout,
        "artifacts": arguments.artifacts,
        "stdin": stdin.inline,
        "stdin_open": stdin.open or None,
    }
    session = _Session(connection, routes.executions(arguments.machine_id), body)
    try:
        execution = session.create()
        if stdin.open:
            Forwarder(connect(arguments, retries=STDIN_RETRIES), execution, stdin).start()
        return session.run()
    except KeyboardInterrupt:
        return session.cancelled()


class _Session:
    """One execution, followed from its first event to its last."""

    def __init__(self, connection: Connection, path: str, body: dict[str, Any]) -> None:
        self._connection = connection
        self._path = path
        self._body = body
        self._key = os.urandom(16).hex()
        self._machine_id = self._execution_id = ""
        self._written = {"stdout": 0, "stderr": 0}
        self._after = 0
        self._progress = _Progress()

    def create(self) -> dict[str, Any]:
        """Start the execution, or find it again if it was started before."""
        reply = self._connection.call("POST", self._path, body=self._body, idempotency_key=self._key)
        execution: dict[str, Any] = reply.json()
        self._machine_id, self._execution_id = execution["machine_id"], execution["execution_id"]
        return execution

    def run(self) -> int:
        """See it to its end and return the exit code."""
        try:
            return self._end(self._follow())
        except BrokenPipeError:
            self._cancel()
            raise

    def cancelled(self) -> int:
        """Cancel it and see it out. Another Ctrl-C in here ends this program."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if not self._execution_id:  # the request may have reached the server, its answer did not reach us
            self.create()
        self._cancel()
        self._follow()
        return 128 + signal.SIGINT

    def _cancel(self) -> None:
        self._connection.call("DELETE", routes.execution(self._machine_id, self._execution_id))

    def _follow(self) -> dict[str, Any]:
        """Pass on what comes and return the last event."""
        last: dict[str, Any] = {}
        with closing(
            events_of_execution(self._connection, self._machine_id, self._execution_id, after=self._after)
        ) as events:
            for event in events:
                last = json.loads(event.data)
                self._after = last["sequence"]
                if event.name in _DESCRIPTORS:
                    self._progress.clear()
                    self._pass_on(event.name, b64decode(last["chunk_base64"]))
                elif last["status"] not in FINISHED:
                    self._progress.show(self._machine_id, last["status"])
        self._progress.clear()
        return last

    def _pass_on(self, stream: str, data: bytes) -> None:
        write(_DESCRIPTORS[stream], data)
        self._written[stream] += len(data)

    def _end(self, last: dict[str, Any]) -> int:
        """Say what there is to say beyond the exit code, and return it."""
        if sum(self._written.values()) >= _WORTH_A_LOOK:
            self._tell_cut()
        if last.get("error_code") not in _PLAIN_ENDS:
            print(f"dormice: {last['error_code']}: {last.get('error_message') or last['status']}", file=sys.stderr)
        if patterns := self._body["artifacts"]:
            from dormice.cli.kept import tell_kept  # noqa: PLC0415 - loaded when needed

            tell_kept(self._connection, self._machine_id, self._execution_id, patterns)
        return exit_code(last)

    def _tell_cut(self) -> None:
        path = routes.execution(self._machine_id, self._execution_id)
        record = self._connection.call("GET", path).json()
        for stream, kept in self._written.items():
            if record.get(f"{stream}_truncated"):
                total = record[f"{stream}_bytes"]
                print(f"dormice: {stream} was cut: the server kept {kept} of {total} bytes", file=sys.stderr)


class _Progress:
    """One line on the terminal while the command has not started."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._timer: Timer | None = None
        self._shown = False

    def show(self, machine_id: str, status: str) -> None:
        self.clear()
        if not sys.stderr.isatty():
            return
        if status == "wake_in_progress":
            with self._lock:
                self._print(f"{machine_id} is waking …")
        elif status == "queued":  # nearly always over before anybody could read it
            self._timer = Timer(_LONG_QUEUE, self._queued_long, [machine_id])
            self._timer.daemon = True
            self._timer.start()

    def clear(self) -> None:
        with self._lock:
            if self._timer:
                self._timer.cancel()
                self._timer = None
            if self._shown:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
                self._shown = False

    def _queued_long(self, machine_id: str) -> None:
        with self._lock:
            if self._timer:  # else it went off while it was taken back
                self._print(f"{machine_id} is busy, the command waits its turn …")

    def _print(self, text: str) -> None:
        print(text, end="", file=sys.stderr, flush=True)
        self._shown = True


def exit_code(last: dict[str, Any]) -> int:
    """What this program exits with after an execution whose last event is this one."""
    if last.get("error_code") in _CODES:
        return _CODES[last["error_code"]]
    if last.get("signal") is not None:
        return 128 + int(last["signal"])
    code = int(last.get("exit_code") or 0)
    return code if code or last["status"] == "succeeded" else OWN_FAILURE


def write(descriptor: int, data: bytes) -> None:
    """All of it, past Python's buffers; a terminal or pipe that was made non-blocking is waited for."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def variable(text: str) -> tuple[str, str]:
    """Return name and value of NAME=VALUE, or of a variable that is set here."""
    name, equals, value = text.partition("=")
    if not name:
        raise argparse.ArgumentTypeError("must be NAME=VALUE or NAME")
    if equals:
        return name, value
    if name not in os.environ:
        raise argparse.ArgumentTypeError(f"{name} is not set here; NAME=VALUE sets it")
    return name, os.environ[name]


def _milliseconds(text: str) -> int:
    number = text.rstrip("mshMSH")
    unit = _UNITS.get(text[len(number) :].lower() or "s")
    try:
        value = int(float(number) * (unit or 0))
    except (ValueError, OverflowError):
        value = 0
    if value <= 0:
        raise argparse.ArgumentTypeError("must be a time such as 500ms, 30s, 5m or 1h")
    return value
