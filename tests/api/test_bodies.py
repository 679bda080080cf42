"""Bad bodies and parameters are answered with the field, the limit and the way out; secrets are never repeated."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from dormice.api.machines.autosleep import autosleep_seconds
from dormice.domain.execution import StdinMode
from dormice.domain.limits import Limits
from tests.api.fakes import MACHINE_ID, World
from tests.api.test_errors import assert_problem

EXECUTIONS = f"/v1/machines/{MACHINE_ID}/executions"
LIMITS = Limits()


async def post(client: httpx.AsyncClient, body: Any, path: str = EXECUTIONS, **params: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    return await client.post(path, content=content, headers=headers, params=params)


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({}, "body.command"),
        ({"command": None}, "body.command"),
        ({"command": []}, "body.command"),
        ({"command": [""]}, "body.command[0]"),
        ({"command": "whoami"}, "body.command"),
        ({"command": [1]}, "body.command[0]"),
        ({"command": ["a"] * 5000}, "body.command"),
        ({"command": ["a", "x" * 131_072]}, "body.command[1]"),
        ({"command": ["a", "\u20ac" * 50_000]}, "body.command[1]"),
        ({"command": ["a\0b"]}, "body.command[0]"),
        (b'{"command":["\\ud800"]}', "body.command[0]"),
        (b'{"command":["a"],"env":{"\\udfff":"x"}}', "body.env.\ufffd"),
        ({"command": ["a"], "nope": 1}, "body.nope"),
        ({"command": ["a"], "cwd": 1}, "body.cwd"),
        ({"command": ["a"], "cwd": "/\0"}, "body.cwd"),
        ({"command": ["a"], "cwd": "/" + "x" * 5000}, "body.cwd"),
        ({"command": ["a"], "env": []}, "body.env"),
        ({"command": ["a"], "env": {"A": 1}}, "body.env[...]"),
        ({"command": ["a"], "env": {"": "x"}}, "body.env"),
        ({"command": ["a"], "env": {"A=B": "x"}}, "body.env"),
        ({"command": ["a"], "env": {"A": "x\0"}}, "body.env"),
        ({"command": ["a"], "env": {"N" * 300: "x"}}, "body.env"),
        ({"command": ["a"], "env": {f"N{i}": "x" for i in range(2000)}}, "body.env"),
        ({"command": ["a"], "env": {"A": "x" * 140_000}}, "body.env"),
        ({"command": ["a"], "stdin": 1}, "body.stdin"),
        ({"command": ["a"], "stdin": "x", "stdin_open": True}, "body.stdin_open"),
        ({"command": ["a"], "stdin_open": "yes"}, "body.stdin_open"),
        ({"command": ["a"], "timeout_ms": -1}, "body.timeout_ms"),
        ({"command": ["a"], "timeout_ms": 1.5}, "body.timeout_ms"),
        ({"command": ["a"], "timeout_ms": True}, "body.timeout_ms"),
        ({"command": ["a"], "timeout_ms": "5"}, "body.timeout_ms"),
        ({"command": ["a"], "timeout_ms": 10**30}, "body.timeout_ms"),
        (b'{"command":["a"],"timeout_ms":' + b"9" * 5000 + b"}", "body.timeout_ms"),
        ({"command": ["a"], "start_timeout_ms": LIMITS.start_timeout_ms + 1}, "body.start_timeout_ms"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_bad_execution_names_its_field(client: httpx.AsyncClient, body: Any, location: str) -> None:
    problem = assert_problem(await post(client, body), 422)
    assert [error["location"] for error in problem["errors"]] == [location]
    assert all(error["message"] for error in problem["errors"])


@pytest.mark.parametrize(
    "body",
    [b"", b"  ", b"{", b'{"a":1}x', b"\xef\xbb\xbf{}", b'{"command":["\xff"]}', b"[" * 200_000, b"NaN", b"{'a':1}"],
    ids=lambda value: repr(value[:20]),
)
async def test_what_is_no_json_is_a_bad_request(client: httpx.AsyncClient, body: bytes) -> None:
    assert_problem(await post(client, body), 400)


async def test_all_faults_are_told_at_once(client: httpx.AsyncClient) -> None:
    problem = assert_problem(await post(client, {"command": [], "cwd": "/\0", "timeout_ms": -5}), 422)
    assert [error["location"] for error in problem["errors"]] == ["body.command", "body.cwd", "body.timeout_ms"]
    assert problem["errors"][2]["value"] == -5


async def test_secrets_are_never_repeated(client: httpx.AsyncClient) -> None:
    secret = "hunter2hunter2"
    for env in ({"A": secret + "\0"}, {"A": secret * 10_000}, {"A": [secret]}):
        response = await post(client, {"command": ["a"], "env": env, "stdin": secret})
        assert response.status_code == 422
        assert secret not in response.text
    for body in (
        {"command": ["a"], "stdin": [secret]},
        {"command": ["a"], "stdin": secret, "stdin_open": True},
        {"command": ["a", secret + "\0"]},
    ):
        assert secret not in (await post(client, body)).text
    half = json.dumps({"command": ["a"], "env": {"A": secret}, "stdin": secret + "\ud800"}).encode()
    assert secret not in (await post(client, half)).text
    assert secret not in (await post(client, half[:-4])).text


async def test_the_smallest_body_takes_every_default(client: httpx.AsyncClient, world: World) -> None:
    assert (await post(client, {"command": ["true"]})).status_code == 200
    [(order, idempotency, wait_ms)] = world.executions.orders
    assert order.command == ("true",)
    assert order.cwd == "/root"
    assert order.env == {}
    assert order.stdin_mode is StdinMode.EMPTY
    assert order.timeout_ms is order.start_timeout_ms is None
    assert wait_ms == 0
    assert idempotency is not None
    assert idempotency.key == "k"
    assert idempotency.scope == f"POST {EXECUTIONS}"


async def test_nulls_and_zeros_are_as_absent(client: httpx.AsyncClient, world: World) -> None:
    body = {"command": ["a"], "cwd": None, "env": None, "stdin": None, "timeout_ms": 0, "start_timeout_ms": 0}
    assert (await post(client, body)).status_code == 200
    order = world.executions.orders[0][0]
    assert (order.cwd, order.env, order.stdin_mode, order.timeout_ms) == ("/root", {}, StdinMode.EMPTY, None)


async def test_a_full_body_arrives_as_it_is(client: httpx.AsyncClient, world: World) -> None:
    body = {
        "command": ["cat", "\u20ac", ""],
        "cwd": "work",
        "env": {"A": "\u20ac"},
        "stdin": "\u20ac\0",
        "timeout_ms": 5,
        "start_timeout_ms": 7,
    }
    assert (await post(client, body, wait_ms="9")).status_code == 200
    order, _, wait_ms = world.executions.orders[0]
    assert order.command == ("cat", "\u20ac", "")
    assert order.cwd == "/root/work"
    assert order.env == {"A": "\u20ac"}
    assert (order.stdin_mode, order.stdin) == (StdinMode.GIVEN, "\u20ac\0".encode())
    assert (order.timeout_ms, order.start_timeout_ms, wait_ms) == (5, 7, 9)
    assert "\u20ac" not in repr(order.env.__class__) + repr(order).replace("'\u20ac'", "")


async def test_an_open_stdin_is_ordered(client: httpx.AsyncClient, world: World) -> None:
    assert (await post(client, {"command": ["cat"], "stdin_open": True})).status_code == 200
    assert world.executions.orders[0][0].stdin_mode is StdinMode.OPEN


async def test_the_canonical_request_leaves_order_space_and_waiting_out(
    client: httpx.AsyncClient, world: World
) -> None:
    bare = EXECUTIONS.replace("dm-", "")
    await post(client, b'{"command":["a"],"env":{"A":"1","B":"2"},"timeout_ms":5}')
    await post(client, b'{ "timeout_ms" : 5, "env":{"B":"2","A":"1"}, "cwd": null, "command":["a"]}', wait_ms="7")
    await post(client, b'{"command":["a"],"env":{"A":"1","B":"2"},"timeout_ms":5}', path=bare)
    await post(client, b'{"command":["b"],"env":{"A":"1","B":"2"},"timeout_ms":5}')
    first, second, third, other = [idempotency for _, idempotency, _ in world.executions.orders]
    assert first == second == third
    assert first is not None
    assert other is not None
    assert first.scope == other.scope
    assert first.request != other.request


@pytest.mark.parametrize("path", [EXECUTIONS, "/v1/machines"])
async def test_creating_needs_an_idempotency_key(client: httpx.AsyncClient, path: str) -> None:
    for headers in ({}, {"Idempotency-Key": ""}, {"Idempotency-Key": "x" * 256}):
        problem = assert_problem(await client.post(path, json={"command": ["a"]}, headers=headers), 422)
        assert problem["errors"][0]["location"] == "header.Idempotency-Key"


@pytest.mark.parametrize(
    ("query", "location"),
    [
        ({"limit": "-1"}, "query.limit"),
        ({"limit": "x"}, "query.limit"),
        ({"limit": "1.5"}, "query.limit"),
        ({"limit": "9" * 30}, "query.limit"),
        ({"limit": "\u0665"}, "query.limit"),
        ({"cursor": "nope"}, "query.cursor"),
        ({"cursor": "b"}, "query.cursor"),
        ({"cursor": "b" + "9" * 30}, "query.cursor"),
        ({"cursor": "5"}, "query.cursor"),
    ],
)
@pytest.mark.parametrize("path", [EXECUTIONS, "/v1/machines"])
async def test_a_bad_page_is_refused(
    client: httpx.AsyncClient, path: str, query: dict[str, str], location: str
) -> None:
    problem = assert_problem(await client.get(path, params=query), 422)
    assert problem["errors"][0]["location"] == location


@pytest.mark.parametrize("wait", ["-1", "55001", "x", "1e3"])
async def test_a_wait_out_of_range_is_refused(client: httpx.AsyncClient, wait: str) -> None:
    for method, path in (("GET", f"/v1/machines/{MACHINE_ID}"), ("POST", f"/v1/machines/{MACHINE_ID}/wake")):
        problem = assert_problem(await client.request(method, path, params={"wait_ms": wait}), 422)
        assert problem["errors"][0]["location"] == "query.wait_ms"


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({"vcpu": "1"}, "body.vcpu"),
        ({"vcpu": True}, "body.vcpu"),
        (b'{"vcpu":1e999}', "body.vcpu"),
        ({"memory_mib": 1.5}, "body.memory_mib"),
        ({"memory_mib": -1}, "body.memory_mib"),
        ({"memory_mib": 2**63}, "body.memory_mib"),
        ({"storage_gib": 0}, "body.storage_gib"),
        ({"autosleep": 300}, "body.autosleep"),
        ({"autosleep": "5 minutes"}, "body.autosleep"),
        ({"autosleep": ""}, "body.autosleep"),
        ({"autosleep": "9999999999"}, "body.autosleep"),
        ({"image": "a\0"}, "body.image"),
        ({"command": ["a"]}, "body.command"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_bad_machine_names_its_field(client: httpx.AsyncClient, body: Any, location: str) -> None:
    problem = assert_problem(await post(client, body, path="/v1/machines"), 422)
    assert [error["location"] for error in problem["errors"]] == [location]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("never", 0), ("0", 0), ("1800", 1800), ("30s", 30), ("30m", 1800), ("2h", 7200), ("7d3h4s", 615_604),
        ("1w3d", 864_000), ("", None), ("s", None), ("3h7d", None), ("1.5h", None), ("-5", None), ("5S", None),
        ("never ", None), ("\u0665s", None), ("1s1s", None),
    ],
)  # fmt: skip
def test_autosleep_is_read_by_its_grammar(text: str, seconds: int | None) -> None:
    assert autosleep_seconds(text) == seconds


@pytest.mark.parametrize("query", [{}, {"offset": ""}, {"offset": "-1"}, {"offset": "0", "eof": "maybe"}])
async def test_bad_stdin_parameters_are_refused(client: httpx.AsyncClient, query: dict[str, str]) -> None:
    assert_problem(await client.put(f"{EXECUTIONS}/exec-1/stdin", params=query, content=b"x"), 422)


async def test_a_segment_of_stdin_is_bounded_on_its_own(client: httpx.AsyncClient) -> None:
    content = b"x" * (LIMITS.stdin_segment_bytes + 1)
    assert_problem(await client.put(f"{EXECUTIONS}/exec-1/stdin", params={"offset": "0"}, content=content), 413)
