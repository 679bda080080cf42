"""Which path and method lead where, and what is said of those that lead nowhere."""

from __future__ import annotations

import httpx
import pytest

from tests.api.fakes import World


@pytest.mark.parametrize("path", ["/v1/machines/", "//v1/machines", "/v1//machines//"])
async def test_slashes_too_many_change_nothing(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(f"http://dormice{path}")).json() == (await client.get("/v1/machines")).json()


async def test_a_quoted_slash_belongs_to_its_parameter(client: httpx.AsyncClient) -> None:
    assert (await client.options("/v1/keys/a%2Fb")).json() == {"allow": ["DELETE"]}
    refused = await client.get("/v1/keys/a%2Fb")
    assert (refused.status_code, refused.headers["allow"]) == (405, "OPTIONS, DELETE")


@pytest.mark.parametrize("method", ["PUT", "HEAD", "CONNECT", "PROPFIND"])
async def test_a_method_that_a_path_does_not_take_is_refused_with_those_that_it_takes(
    client: httpx.AsyncClient, world: World, method: str
) -> None:
    refused = await client.request(method, "/v1/machines")
    assert (refused.status_code, refused.headers["allow"]) == (405, "OPTIONS, GET, POST")
    assert world.requests.seen[-1][1] == "/v1/machines"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/machines/a/nope", "/V1/machines"])
async def test_what_is_not_there_is_said_to_be_so_whatever_the_method(client: httpx.AsyncClient, path: str) -> None:
    for method in ("GET", "OPTIONS", "POST"):
        missing = await client.request(method, path)
        assert missing.status_code == 404
        assert "openapi.json" in missing.json()["detail"]
