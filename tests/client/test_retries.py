"""What is sent again, when, and with which key."""

from __future__ import annotations

import pytest

from dormice import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    ConflictError,
    Dormice,
    InternalServerError,
    NotFoundError,
    Timeout,
)
from dormice.client import retries
from tests.client.fake_server import KEY, Answer, FakeServer
from tests.wait import wait_until

SOON = {"retry-after-ms": "1"}


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_a_failure_that_may_pass_is_tried_three_times_with_one_key(
    client: Dormice, server: FakeServer, status: int
) -> None:
    server.planned.extend([Answer(status, SOON), Answer(status, SOON)])
    assert client.machines.create().phase == "running"
    keys = {request.headers["idempotency-key"] for request in server.requests}
    assert len(server.requests) == 3
    assert len(keys) == 1
    client.machines.create()
    assert server.requests[-1].headers["idempotency-key"] not in keys


def test_a_key_of_the_callers_is_sent_as_it_is(client: Dormice, server: FakeServer) -> None:
    client.machines.create(idempotency_key="mine")
    assert server.requests[-1].headers["idempotency-key"] == "mine"


def test_a_key_that_would_break_the_request_is_refused(client: Dormice, server: FakeServer) -> None:
    with pytest.raises(ValueError, match="idempotency-key"):
        client.machines.create(idempotency_key="a\r\nx-evil: 1")
    assert not server.requests


def test_a_read_and_a_stdin_write_carry_no_key(client: Dormice, server: FakeServer) -> None:
    client.machines.list()
    assert "idempotency-key" not in server.requests[-1].headers


def test_it_gives_up_after_the_last_try(client: Dormice, server: FakeServer) -> None:
    server.planned.extend([Answer(503, SOON, {"error_code": "DEPENDENCY_UNAVAILABLE", "message": "no node"})] * 3)
    with pytest.raises(InternalServerError, match="no node") as error:
        client.limits()
    assert len(server.requests) == 3
    assert error.value.retryable


@pytest.mark.parametrize("status", [400, 401, 403, 404, 412, 422])
def test_what_cannot_pass_is_tried_once(client: Dormice, server: FakeServer, status: int) -> None:
    server.planned.append(Answer(status))
    with pytest.raises(APIStatusError):
        client.limits()
    assert len(server.requests) == 1


def test_the_server_has_the_last_word_on_retries(client: Dormice, server: FakeServer) -> None:
    server.planned.append(Answer(409, {"x-should-retry": "false"}))
    with pytest.raises(ConflictError):
        client.machines.create()
    server.planned.append(Answer(404, {"x-should-retry": "true", **SOON}))
    assert client.limits().limits
    assert len(server.requests) == 3


def test_a_connection_that_breaks_is_tried_again(client: Dormice, server: FakeServer) -> None:
    client.limits()
    server.planned.append(Answer(cut=True))
    assert client.machines.create().phase == "running"
    first, second = server.sent("POST")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


def test_no_server_is_a_connection_error(server: FakeServer) -> None:
    with (
        Dormice(base_url="http://127.0.0.1:9", api_key=KEY, max_retries=0) as client,
        pytest.raises(APIConnectionError, match=r"127\.0\.0\.1:9"),
    ):
        client.limits()


@pytest.mark.parametrize("seconds", [0.02, Timeout(connect=5, read=0.02)])
def test_a_server_that_does_not_answer_in_time_is_a_timeout(
    client: Dormice, server: FakeServer, seconds: float | Timeout
) -> None:
    server.planned.extend([Answer(hang=True)] * 3)
    with pytest.raises(APITimeoutError):
        client.machines.create(timeout=seconds)
    wait_until(lambda: len(server.requests) == 3, 10, "all three were sent")


def test_a_long_poll_is_given_the_time_that_it_takes(client: Dormice, server: FakeServer) -> None:
    made = client.machines.executions.create(server.machine(), command=["forever"])
    polled = client.machines.executions.retrieve(
        made.execution_id, machine_id=made.machine_id, wait_ms=200, timeout=0.02
    )
    assert polled.status == "running"


def test_an_answer_that_is_no_json_is_said_to_be_none(client: Dormice, server: FakeServer) -> None:
    server.planned.append(Answer(200, body="hello"))
    with pytest.raises(APIResponseError, match="Limits"):
        client.limits()
    server.planned.append(Answer(307))
    with pytest.raises(APIResponseError, match="307"):
        client.limits()


def test_an_error_page_of_a_proxy_is_an_error_like_any_other(client: Dormice, server: FakeServer) -> None:
    server.planned.append(Answer(404, body="<html>"))
    with pytest.raises(NotFoundError) as error:
        client.limits()
    assert error.value.error_code is None


def test_delays_double_up_to_eight_seconds_less_a_quarter() -> None:
    assert [retries.delay(n, {}, jitter=0) for n in range(6)] == [0.5, 1, 2, 4, 8, 8]
    assert retries.delay(0, {}, jitter=0.999) > 0.375


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "9"}, 9),
        ({"retry-after-ms": "60001"}, 0.5),
        ({"retry-after": "-1"}, 0.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.5),
    ],
)
def test_a_hint_of_the_server_is_kept_within_a_minute(headers: dict[str, str], seconds: float) -> None:
    assert retries.delay(0, headers, jitter=0) == seconds
