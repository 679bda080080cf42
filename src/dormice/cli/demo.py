"""`dormice demo`: a server, a machine and two commands, from nothing to nothing, with the times they took."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dormice.cli.commands import Parser
from dormice.cli.demo_server import DemoFailure, Interrupted, demo_server, end_in_good_order
from dormice.client import Dormice
from dormice.client.errors import DormiceError
from dormice.client.records import CompletedExecution, Machine
from dormice.client.socket_transport import SocketTransport

IMAGE_DIR = "/var/lib/dormice/images"
LONGEST_WAIT_MS = 55_000
_MEMORY_MIB, _STORAGE_GIB = 512, 1
"""Small, so that the demo also runs on the smallest of hosts."""
SCRIPT = """\
echo "PID 1 here is $(cat /proc/1/comm), and I am $(id -un) on $(hostname)"
for n in 1 2 3; do
    echo "line $n, to stdout"
    echo "line $n, to stderr" >&2
    sleep 0.3
done
"""
_SHOWN = ("execution_id", "status", "exit_code", "started_at", "completed_at", "stdout_bytes", "stderr_bytes")


def declare(parser: Parser) -> None:
    parser.add_argument(
        "--image-dir", metavar="DIR", default=IMAGE_DIR, help=f"where the default image is or will be ({IMAGE_DIR})"
    )
    parser.add_argument(
        "--driver",
        choices=["container", "process"],
        default="container",
        help="process: without root, and without any isolation",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 0 if all went well, 130 after Ctrl-C, 143 after SIGTERM."""
    console = Console(highlight=False)
    end_in_good_order()
    demo = _Demo(console)
    try:
        _check(arguments.driver)
        if arguments.driver == "container":
            _need_image(console, Path(arguments.image_dir))
        demo.run(Path(arguments.image_dir), arguments.driver)
    except (DemoFailure, DormiceError) as failure:
        console.print(Text(f"The demo failed: {failure}", style="bold red"), soft_wrap=True)
        return 1
    except Interrupted as interrupted:
        console.print(Text("The demo was interrupted: all is stopped and removed", style="bold"))
        return 128 + interrupted.number
    return 0


def _check(driver: str) -> None:
    if not sys.platform.startswith("linux"):
        raise DemoFailure("machines need Linux")
    if driver == "container" and os.geteuid() != 0:
        raise DemoFailure("machines need root: use sudo, or --driver process, which isolates nothing")


def _need_image(console: Console, image_dir: Path) -> None:
    from dormice.node.debian import build_default  # noqa: PLC0415 - needed at most once on a host
    from dormice.node.images import ImageFailure, list_images  # noqa: PLC0415

    if any(image.name == "default" for image in list_images(image_dir)):
        return
    console.print("Building the default image, once on this host …")
    try:
        build_default(image_dir, lambda line: console.print(Text(f"    {line}", style="dim")))
    except ImageFailure as failure:
        raise DemoFailure(f"the default image could not be built: {failure}") from None


class _Demo:
    """The steps, each with its time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._times: list[tuple[str, float]] = []

    def run(self, image_dir: Path, driver: str) -> None:
        began = time.monotonic()
        self._say("Starting a server and a node in a temporary directory")
        with demo_server(image_dir=image_dir, driver=driver) as server:
            self._times.append(("server and node ready", time.monotonic() - began))
            with Dormice(base_url=server.base_url, api_key=server.api_key, transport=SocketTransport()) as client:
                self._commands(client)
            stopping = time.monotonic()
        self._times.append(("all stopped and removed", time.monotonic() - stopping))
        self._times.append(("in all", time.monotonic() - began))
        self._show_times()

    def _commands(self, client: Dormice) -> None:
        self._say(f"client.machines.create(memory_mib={_MEMORY_MIB}, storage_gib={_STORAGE_GIB})")
        with self._timed("create to running"):
            machine = client.machines.create(memory_mib=_MEMORY_MIB, storage_gib=_STORAGE_GIB, wait_ms=LONGEST_WAIT_MS)
        self._expect_running(machine)
        self._print("machine", machine.machine_id)
        self._execute(client, machine, ["uname", "-a"], "uname -a")
        record = self._execute(client, machine, ["bash", "-c", SCRIPT], "the script")
        self._say("The record, which stays")
        for name, value in msgspec.to_builtins(record).items():
            if name in _SHOWN:
                self._print(name, value if isinstance(value, str) else json.dumps(value))
        self._say("client.machines.delete()")
        with self._timed("delete to destroyed"):
            gone = client.machines.delete(machine.machine_id, wait_ms=LONGEST_WAIT_MS)
        if gone.phase != "destroyed":
            raise DemoFailure(f"the machine is {gone.phase}, not destroyed")

    def _expect_running(self, machine: Machine) -> None:
        if machine.phase != "running":
            why = machine.status.last_error or machine.status.reason
            raise DemoFailure(f"the machine is {machine.phase}, not running: {why}")

    def _execute(self, client: Dormice, machine: Machine, argv: list[str], what: str) -> CompletedExecution:
        self._say(
            f"client.machines.run(machine_id, {json.dumps([*argv[:2], '…'] if len(argv) > 2 else argv, ensure_ascii=False)})"
        )
        with self._timed(f"{what}: create to finished"):
            record = client.machines.run(
                machine.machine_id,
                argv,
                on_stdout=self._printer("stdout", "green"),
                on_stderr=self._printer("stderr", "yellow"),
            )
        if record.status != "succeeded":
            raise DemoFailure(f"{what}: {record.status}: {record.error_code}: {record.error_message}")
        return record

    def _printer(self, stream: str, style: str) -> Callable[[bytes], None]:
        def show(data: bytes) -> None:
            for line in data.decode(errors="replace").splitlines():
                self._print(stream, line, style)

        return show

    def _print(self, name: str, text: str, style: str = "") -> None:
        self._console.print(Text.assemble((f"    {name:14}", "dim"), (text, style)), soft_wrap=True)

    def _say(self, text: str) -> None:
        self._console.print(Text(text, style="bold"))

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._times.append((what, time.monotonic() - began))

    def _show_times(self) -> None:
        table = Table("step", "took", box=None, pad_edge=False, header_style="dim")
        table.columns[1].justify = "right"
        for what, seconds in self._times:
            table.add_row(what, f"{seconds * 1000:,.1f} ms" if seconds < 1 else f"{seconds:,.2f} s")
        self._say("Times")
        self._console.print(table)
