"""File descriptors run out: connected clients go on being answered, others are told to come again, nothing spins or leaks."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dormice.api.http.connection import OTHER_FILES
from tests.live import Live
from tests.shares import Share, share
from tests.wait import wait_until

SERVER_FILES = 150
STORM = 400


@pytest.fixture(name="place")
def _place(directory: Callable[[], Path]) -> Path:
    place = directory()
    place.chmod(0o755)
    return place


@contextmanager
def _apart(
    place: Path, ours: Share, *, server_files: int, node_files: int
) -> Iterator[tuple[Live, Callable[[], None]]]:
    """A server and a node with limits of their own; yields how to kill the node and start another."""
    live = Live(place, "process", ours.instance("d"), ours, {})

    def start(role: str, files: int) -> subprocess.Popen[bytes]:
        command = ["/bin/sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", sys.executable, "-m", "dormice.cli", role]
        with live.log.open("ab") as log:
            return subprocess.Popen(command, env=live.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    live.process = start("server", server_files)
    node = start("node", node_files)

    def another_node() -> None:
        nonlocal node
        node.kill()
        node.wait()
        node = start("node", node_files)

    try:
        live.wait_ready()
        yield live, another_node
        live.delete_machines()
    finally:
        node.terminate()
        node.wait()
        live.stop()
    wait_until(lambda: not live.leftovers(), 10, f"nothing left, but there is {live.leftovers()}")


@contextmanager
def _storm(live: Live) -> Iterator[list[socket.socket]]:
    """More connections than the server can have, which send nothing."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(("127.0.0.1", live.port))) for _ in range(STORM)]


def _told(connection: socket.socket) -> bytes:
    """What the server says on a connection without being asked, if it closes it."""
    connection.settimeout(0.01)
    said = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while piece := connection.recv(4096):
            said += piece
    return said


def test_a_storm_of_connections_is_told_to_come_again_and_passes(place: Path) -> None:
    with share() as ours, _apart(place, ours, server_files=SERVER_FILES, node_files=1024) as (live, another_node):
        with live.client() as api:
            machine = api.create_machine(autosleep="never")
            with _storm(live) as connections:
                assert api.shell(machine, "echo served")["status"] == "succeeded"
                refused = [said for said in map(_told, connections) if said]
                assert refused
                for said in refused:
                    head, _, body = said.partition(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 503 ")
                    assert b"retry-after-ms: " in head
                    assert json.loads(body)["retryable"] is True
                another_node()
                wait_until(lambda: api.get("/readyz").status_code == 200, 20, "another node was let in")
                assert api.shell(machine, "echo served")["status"] == "succeeded"
            assert live.log.stat().st_size < 100_000, "nothing is said again and again"
        with live.client() as api:
            assert api.get("/readyz").status_code == 200


def test_the_server_takes_all_descriptors_that_it_may_have(place: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > 300
    resource.setrlimit(resource.RLIMIT_NOFILE, (OTHER_FILES + 10, hard))
    with share() as ours:
        try:
            live = Live(place, "process", ours.instance("d"), ours, {})
            live.start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        try:
            with _storm(live) as connections, live.client() as api:
                assert api.get("/readyz").status_code == 200
                assert not any(map(_told, connections[-20:]))
        finally:
            live.stop()
