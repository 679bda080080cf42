from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import StartLive
from tests.live import Api, Live
from tests.webhooks.receiver import Receiver, receiving

QUICK = {"DORMICE_WEBHOOK_ALLOW": "127.0.0.0/8", "DORMICE_LIMIT_WEBHOOK_FIRST_RETRY_MS": "50"}


@pytest.fixture(scope="module", name="telling")
def _telling(start_live: StartLive) -> Iterator[Live]:
    """A Dormice that may call this host, and tries again soon."""
    with start_live(**QUICK) as live:
        yield live


@pytest.fixture(scope="module", name="telling_api")
def _telling_api(telling: Live) -> Iterator[Api]:
    with telling.client() as api:
        yield api


@pytest.fixture(name="receiver")
def _receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver
