"""How many requests a key may make."""

from __future__ import annotations

from typing import Any, cast

import httpx
import pytest

from dormice.api.app import create_app
from dormice.api.http.rates import Rates
from dormice.domain.errors import RateLimited
from dormice.domain.limits import Limits
from tests.api.fakes import KEY, World


class Watch:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_is_emptied_at_once_and_filled_by_time() -> None:
    watch = Watch()
    rates = Rates(Limits(requests_per_second=10, requests_burst=3), watch)
    for _ in range(3):
        rates.take("key")
    with pytest.raises(RateLimited, match="10 requests a second") as refused:
        rates.take("key")
    assert refused.value.retry_after_ms == 100
    rates.take("another")
    watch.now += 0.0625
    with pytest.raises(RateLimited) as refused:
        rates.take("key")
    assert refused.value.retry_after_ms == 38
    watch.now += 0.0625
    rates.take("key")
    watch.now += 3600
    for _ in range(3):
        rates.take("key")
    with pytest.raises(RateLimited):
        rates.take("key")


def test_no_limit_is_none() -> None:
    rates = Rates(Limits(requests_per_second=0, requests_burst=1), Watch())
    for _ in range(1000):
        rates.take("key")


async def test_too_many_requests_are_refused_in_the_contracts_shape_and_others_are_served() -> None:
    world = World(limits=Limits(requests_per_second=1, requests_burst=2))
    transport = httpx.ASGITransport(app=cast("Any", create_app(world.services())))
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://dormice", headers=headers) as client:
        answers = [await client.get("/v1/limits") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        refused = answers[-1]
        assert 0 < int(refused.headers["retry-after-ms"]) <= 1000
        assert "x-should-retry" not in refused.headers
        body = refused.json()
        assert (body["error_code"], body["retryable"]) == ("RATE_LIMITED", True)
        assert body["retry_after_ms"] == int(refused.headers["retry-after-ms"])
        assert body["details"] == {"rate_limit_scope": "key"}
        assert (await client.get("/health", headers={"Authorization": ""})).status_code == 200
