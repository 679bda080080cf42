"""A running Dormice with SSH, and somebody who may log in to a machine of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import StartLive
from tests.live import Api, Live
from tests.ssh.login import Login, log_in

ON = {"DORMICE_SSH_LISTEN": "127.0.0.1:0"}


@pytest.fixture(scope="session", name="ssh_live")
def _ssh_live(start_live: StartLive) -> Iterator[Live]:
    """The Dormice of this session that listens for SSH."""
    with start_live(**ON) as live:
        yield live


@pytest.fixture(scope="session", name="api")
def _api(ssh_live: Live) -> Iterator[Api]:
    """A client of `ssh_live`."""
    with ssh_live.client() as api:
        yield api


@pytest.fixture(scope="session", name="machine")
def _machine(api: Api) -> str:
    """A running machine that tests share."""
    return api.create_machine(autosleep="never")


@pytest.fixture(scope="session", name="login")
def _login(api: Api, machine: str, directory: Callable[[], Path]) -> Login:
    """A session of `machine` that tests share."""
    return log_in(api, machine, directory())
