"""Nobody reads the log: the server answers all the same, and says afterwards what it could not say."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dormice.telemetry import log_stream
from dormice.telemetry.log_stream import LogStream
from tests.live import Live
from tests.shares import share
from tests.wait import wait_until

PIPE_BYTES = 4096
F_SETPIPE_SZ = 1031
REQUESTS = 300
"""Each is a record of some 300 bytes, several times what the pipe holds."""


@contextmanager
def _logging_to(stderr: int | None, place: Path) -> Iterator[Live]:
    """A Dormice whose standard error is what the test says; None: it has none."""
    place.chmod(0o755)
    command = [sys.executable, "-m", "dormice.cli", "up"]
    if stderr is None:
        command = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    with share() as ours:
        live = Live(place, "process", ours.instance("l"), ours, {})
        live.process = subprocess.Popen(
            command, env=live.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr
        )
        try:
            live.wait_ready()
            yield live
        finally:
            live.stop()


def _talk(live: Live) -> None:
    with live.client() as api:
        for _ in range(REQUESTS):
            assert api.get("/v1/machines").status_code == 200


def test_a_log_that_nobody_reads_holds_nothing_up_and_goes_on_when_it_is_read(directory: Callable[[], Path]) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, PIPE_BYTES)
    with os.fdopen(reader, "rb", buffering=0) as log, _logging_to(writer, directory()) as live:
        os.close(writer)
        _talk(live)
        live.kill("server")
        live.wait_ready()
        os.set_blocking(reader, False)
        found = b""

        def told() -> bool:
            nonlocal found
            with live.client() as api:
                api.get("/v1/machines")
            found += log.read(1 << 20) or b""
            return found.count(b"GET /v1/machines 200") > PIPE_BYTES // 200  # more than the pipe has kept

        wait_until(told, 20, "the log goes on")
        assert all(line.startswith(b"{") for line in found.splitlines()), "every record is whole"


@pytest.mark.parametrize("left", ["closed at the other end", "none"])
def test_without_anybody_to_tell_it_works(directory: Callable[[], Path], left: str) -> None:
    reader, writer = os.pipe()
    with _logging_to(None if left == "none" else writer, directory()) as live:
        os.close(reader)
        os.close(writer)
        _talk(live)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_does_not_fit_is_kept_in_order_and_what_is_beyond_is_counted(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "KEPT_BYTES", 10_000)
    if kind == "pipe":
        reader, writer = os.pipe()
        fcntl.fcntl(writer, F_SETPIPE_SZ, PIPE_BYTES)
    else:
        reader, writer = (end.detach() for end in socket.socketpair())
    stream = LogStream(writer)
    records = [f"{number:0999d}\n" for number in range(1_000)]
    for record in records:
        stream.write(record)
        stream.flush()
    assert os.get_blocking(writer), "others who share it may want to wait"
    os.set_blocking(reader, False)
    found = b""

    def told() -> bool:
        nonlocal found
        stream.flush()
        found += os.read(reader, 1 << 20)
        return found.endswith(b'not read"}\n')

    wait_until(told, 10, "everything that was kept")
    *kept, last = found.decode().splitlines(keepends=True)
    assert kept == records[: len(kept)]
    assert f'"{len(records) - len(kept)} log records were lost' in last
    stream.write("again\n")
    stream.flush()
    assert os.read(reader, 100) == b"again\n"
    stream.close()
    for end in (reader, writer):
        os.close(end)
