"""Terminals of the unmodified foreign SDKs: they connect without a key, and again after the server was killed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartLive
from tests.live import Live

HERE = Path(__file__).parent
SDKS = HERE.parents[1] / ".sdks"


@pytest.fixture(scope="module", name="open_house")
def _open_house(start_live: StartLive) -> Iterator[tuple[Live, str]]:
    """A Dormice to whose terminals their id is the key, and a machine of it."""
    with start_live(DORMICE_TERMINALS_BY_ID="1") as live, live.client() as api:
        yield live, api.create_machine(autosleep="never")


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.4.0"])
def test_the_sdk_uses_a_terminal_over_a_crash_of_the_server(
    open_house: tuple[Live, str], version: str, mode: str
) -> None:
    live, machine = open_house
    user = subprocess.Popen(
        [SDKS / version / "bin" / "python", HERE / "sdk_terminals.py", mode, machine],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(HERE.parents[1]),
            "DEDALUS_BASE_URL": live.base_url,
            "DEDALUS_API_KEY": live.api_key,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert user.stdin is not None
    assert user.stdout is not None
    with user:
        said = user.stdout.readline()
        if version != "0.1.0":
            assert said == b"lost me\n", user.communicate(timeout=60)[1].decode()
            live.kill("server")
            live.wait_ready()
        rest, errors = user.communicate(b"\n", timeout=60)
    assert (said + rest).endswith(b"served\n"), errors.decode()
