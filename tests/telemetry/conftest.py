"""A client, and a machine, of the Dormice that each module starts as it needs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live import Api, Live


@pytest.fixture(name="api")
def _api(live: Live) -> Iterator[Api]:
    with live.client() as api:
        yield api


@pytest.fixture(name="machine")
def _machine(api: Api) -> str:
    return api.create_machine(autosleep="never")
