"""Crowds of requests: however many one organization sends, or people without a key, the others are served and so are those who look after the server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import uuid4

import httpx
import pytest

from tests.conformance.terminals import PLAIN, create, window
from tests.conformance.test_terminals import refused
from tests.conftest import StartLive
from tests.live import Api, Live, path_of
from tests.wait import wait_until

AT_ONCE = 12
WITHOUT_KEY = 2
ITS_HALF = AT_ONCE // 2


@pytest.fixture(scope="module", name="small")
def _small(start_live: StartLive) -> Iterator[Live]:
    limits = {"REQUESTS_AT_ONCE": AT_ONCE, "REQUESTS_AT_ONCE_WITHOUT_KEY": WITHOUT_KEY}
    with start_live("process", **{f"DORMICE_LIMIT_{name}": str(value) for name, value in limits.items()}) as live:
        yield live


@pytest.fixture(name="operator")
def _operator(small: Live) -> Iterator[Api]:
    with small.client() as client:
        yield client


@contextmanager
def _tenant(small: Live, operator: Api) -> Iterator[Api]:
    """A client of an organization of its own."""
    made = operator.post("/v1/keys", json={"organization": uuid4().hex, "name": "tenant"}).raise_for_status().json()
    key = {"Authorization": f"Bearer {made['key']}"}
    try:
        with small.client(headers=key) as client:
            yield client
    finally:
        small.delete_machines(**key)


def _open_streams(crowd: ExitStack, client: Api, most: int) -> tuple[int, httpx.Response]:
    """Follow a command that does not end, until that is refused: how often it was not, and the refusal."""
    execution = client.execute(client.create_machine(), "cat", stdin_open=True, wait_ms=0)
    url = f"{path_of(execution)}/events"
    for count in range(most):
        answer = crowd.enter_context(client.stream("GET", url, headers={"Accept": "text/event-stream"}))
        if answer.status_code != 200:
            answer.read()
            return count, answer
    raise AssertionError(f"{most} streams and no refusal")


def _assert_well(operator: Api) -> None:
    for route in ("/health", "/healthz", "/readyz"):
        assert operator.get(route, headers={"Authorization": ""}).status_code == 200
    assert operator.get("/metrics").status_code == 200


def test_an_organization_leaves_as_much_to_the_others_as_it_has(small: Live, operator: Api) -> None:
    with _tenant(small, operator) as greedy, _tenant(small, operator) as neighbour:
        with ExitStack() as crowd:
            count, refusal = _open_streams(crowd, greedy, AT_ONCE + 1)
            assert count == ITS_HALF
            assert (refusal.status_code, refusal.json()["error_code"]) == (429, "RATE_LIMITED")
            assert refusal.json()["details"] == {"rate_limit_scope": "organization"}
            assert refusal.headers["retry-after"] == "1"
            count, refusal = _open_streams(crowd, neighbour, AT_ONCE + 1)
            assert (count, refusal.status_code) == (ITS_HALF // 2, 429)
            _assert_well(operator)
            with _tenant(small, operator) as third:
                assert third.get("/v1/machines").status_code == 200
        wait_until(lambda: greedy.get("/v1/machines").status_code == 200, 10, "the places are free again")


def test_the_share_of_an_operator_who_fills_it_holds_no_figures_back(operator: Api) -> None:
    with ExitStack() as crowd:
        assert _open_streams(crowd, operator, AT_ONCE + 1)[0] == ITS_HALF
        _assert_well(operator)


def test_whoever_opens_a_terminal_by_its_token_has_a_place_of_its_organization(small: Live, operator: Api) -> None:
    with _tenant(small, operator) as tenant:
        url = str(create(tenant, tenant.create_machine(), env=PLAIN)["stream_url"])
        with ExitStack() as crowd:
            for _ in range(ITS_HALF):
                crowd.enter_context(window(url))
            assert refused(url)[0] == 429
            assert tenant.get("/v1/machines").status_code == 429
            assert operator.get("/v1/machines").status_code == 200


def _send_half(crowd: ExitStack, small: Live) -> bytes:
    """Begin to answer what a run asks, without a key, and send no body: what the server says to that."""
    connection = crowd.enter_context(socket.create_connection(("127.0.0.1", small.port), timeout=10))
    head = f"POST /approve/{uuid4()}/x HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    connection.sendall(f"{head}Content-Length: 100\r\nExpect: 100-continue\r\n\r\n".encode())
    return connection.recv(4096)


def test_people_without_a_key_have_a_small_share_and_keep_nobody_else_waiting(small: Live, operator: Api) -> None:
    with ExitStack() as crowd:
        for _ in range(WITHOUT_KEY):
            assert _send_half(crowd, small).startswith(b"HTTP/1.1 100 ")
        for _ in range(AT_ONCE):
            refusal = _send_half(crowd, small)
            assert refusal.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in refusal
        _assert_well(operator)
        assert operator.get("/v1/machines").status_code == 200
    page = f"/approve/{uuid4()}/x"
    wait_until(lambda: operator.get(page).status_code == 404, 10, "their places are free again")
