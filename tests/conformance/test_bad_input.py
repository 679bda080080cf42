"""Bad input is answered well: the status says whose fault it is, the message names field, limit and remedy."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.live import Api, Live, new_key, path_of
from tests.wait import wait_until

UNKNOWN_MACHINE = "dm-01234567-89ab-7cde-8f01-23456789abcd"
UNKNOWN_EXECUTION = "exec-01234567-89ab-7cde-8f01-23456789abcd"
Body = Mapping[str, Any]


def _problem(answer: httpx.Response, status: int, location: str = "") -> str:
    """Check the form of a problem and return what it says."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-should-retry"] == "false"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    if location:
        assert location in [error["location"] for error in problem["errors"]], problem
    return str(problem["detail"])


def _post(api: Api, machine: str, body: Body) -> httpx.Response:
    return api.post(f"/v1/machines/{machine}/executions", json=body, headers=new_key())


@pytest.mark.parametrize(
    "machine_id",
    [UNKNOWN_MACHINE, UNKNOWN_MACHINE[3:], "dm-x", "x", UNKNOWN_MACHINE.upper(), "dm-%00", "%2e%2e", "ü"],
)
def test_an_unknown_machine_is_not_found(api: Api, machine_id: str) -> None:
    path = f"/v1/machines/{machine_id}"
    answers = [
        api.get(path),
        api.patch(path, json={}, headers=new_key()),
        api.delete(path),
        api.post(f"{path}/sleep", headers=new_key()),
        api.post(f"{path}/wake", headers=new_key()),
        api.get(f"{path}/status/stream"),
        api.get(f"{path}/executions"),
        _post(api, machine_id, {"command": ["true"]}),
        api.get(f"{path}/executions/{UNKNOWN_EXECUTION}"),
    ]
    details = {_problem(answer, 404) for answer in answers}
    assert details <= {
        "no such machine",
        "no such execution on this machine",
        "no such route: GET /openapi.json lists all",
    }


@pytest.mark.parametrize("execution_id", [UNKNOWN_EXECUTION, "exec-1", "x" * 300, "%00", "..%2f.."])
def test_an_unknown_execution_is_not_found(api: Api, machine: str, execution_id: str) -> None:
    path = f"/v1/machines/{machine}/executions/{execution_id}"
    for tail in ("", "/events", "/output", "/output/stdout", "/output/stderr"):
        _problem(api.get(path + tail), 404)
    _problem(api.delete(path), 404)
    _problem(api.put(f"{path}/stdin", params={"offset": 0}, content=b"x"), 404)


def test_an_execution_of_another_machine_is_not_found(api: Api, machine: str) -> None:
    record = api.execute(machine, "true")
    other = api.create_machine()
    _problem(api.get(f"/v1/machines/{other}/executions/{record['execution_id']}"), 404)


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"nonsense", b'{"command": ["true"],}', b"\xff\xfe", b'{"command": [NaN]}', b"[" * 100_000, b"\0"],
)
def test_malformed_json_is_a_bad_request(api: Api, machine: str, body: bytes) -> None:
    headers = {**new_key(), "Content-Type": "application/json"}
    answer = api.post(f"/v1/machines/{machine}/executions", content=body, headers=headers)
    _problem(answer, 400, "body")


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ([], "body"),
        ("true", "body"),
        (1, "body"),
        ({}, "body.command"),
        ({"command": None}, "body.command"),
        ({"command": "true"}, "body.command"),
        ({"command": {"0": "true"}}, "body.command"),
        ({"command": [1]}, "body.command[0]"),
        ({"command": ["true", None]}, "body.command[1]"),
        ({"command": ["true"], "cwd": 1}, "body.cwd"),
        ({"command": ["true"], "env": ["A=1"]}, "body.env"),
        ({"command": ["true"], "env": {"A": 1}}, "body.env[...]"),
        ({"command": ["true"], "stdin": ["x"]}, "body.stdin"),
        ({"command": ["true"], "timeout_ms": "1000"}, "body.timeout_ms"),
        ({"command": ["true"], "timeout_ms": 1.5}, "body.timeout_ms"),
        ({"command": ["true"], "stdin_open": "yes"}, "body.stdin_open"),
    ],
)
def test_a_wrong_type_is_named(api: Api, machine: str, body: Body, location: str) -> None:
    _problem(_post(api, machine, body), 422, location)


def test_an_unknown_field_is_named_and_the_known_ones_are_told(api: Api, machine: str) -> None:
    detail = _problem(_post(api, machine, {"command": ["true"], "shell": True}), 422, "body.shell")
    assert "timeout_ms" in detail
    made = api.post("/v1/machines", json={"cpus": 2}, headers=new_key())
    assert "vcpu" in _problem(made, 422, "body.cpus")


@pytest.mark.parametrize(
    ("command", "location", "limit"),
    [
        ([], "body.command", "program"),
        ([""], "body.command[0]", "empty"),
        (["x"] * 4_097, "body.command", "4096"),
        (["true", "x" * 131_072], "body.command[1]", "131071"),
        (["true", "a\0b"], "body.command[1]", "NUL"),
        (["tr\0ue"], "body.command[0]", "NUL"),
    ],
)
def test_argv_has_limits(api: Api, machine: str, command: list[str], location: str, limit: str) -> None:
    assert limit in _problem(_post(api, machine, {"command": command}), 422, location)


def test_argv_that_is_too_long_in_all_is_too_large_a_body(api: Api, machine: str) -> None:
    _problem(_post(api, machine, {"command": ["true", *["x" * 131_000] * 9]}), 413, "body")


def test_argv_at_its_limit_runs(api: Api, machine: str) -> None:
    argument = "x" * 131_071
    record = api.execute(machine, "/bin/bash", "-c", 'echo ${#1}-$(printf %s "$1" | md5sum | cut -c1-4)', "-", argument)
    assert record["status"] == "succeeded", record
    assert api.output(record).startswith(b"131071-")
    many = api.execute(machine, "/bin/bash", "-c", "echo $#", *["x"] * 4_093)
    assert api.output(many) == b"4092\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [("cwd", "/a\0b"), ("env", {"A": "x\0"}), ("env", {"A\0": "x"}), ("env", {"A=B": "x"}), ("env", {"": "x"})],
)
def test_what_the_kernel_would_cut_is_refused(api: Api, machine: str, field: str, value: object) -> None:
    _problem(_post(api, machine, {"command": ["true"], field: value}), 422, f"body.{field}")


def test_stdin_may_hold_nul_and_any_character(api: Api, machine: str) -> None:
    text = "a\0b\r\n\u2028ü\U0001f42d"
    record = api.execute(machine, "cat", stdin=text)
    assert api.output(record) == text.encode()


@pytest.mark.parametrize(
    "env", [{f"V{n}": "" for n in range(1_025)}, {"A": "x" * 131_072}, {"N" * 257: ""}, {"A": "s3cr3t\0"}]
)
def test_a_huge_environment_is_refused_without_repeating_it(api: Api, machine: str, env: dict[str, str]) -> None:
    answer = _post(api, machine, {"command": ["true"], "env": env})
    _problem(answer, 422, "body.env")
    assert "s3cr3t" not in answer.text
    assert len(answer.content) < 2_000


@pytest.mark.parametrize("name", ["timeout_ms", "start_timeout_ms"])
@pytest.mark.parametrize("value", [-1, -(2**63), 2**63 - 1, 2**63, 10**400])
def test_a_time_out_of_range_is_refused(api: Api, machine: str, name: str, value: int) -> None:
    body = f'{{"command": ["true"], "{name}": {value}}}'
    headers = {**new_key(), "Content-Type": "application/json"}
    answer = api.post(f"/v1/machines/{machine}/executions", content=body, headers=headers)
    _problem(answer, 422, f"body.{name}")


def test_a_timeout_of_zero_is_none(api: Api, machine: str) -> None:
    assert api.execute(machine, "sleep", "0.2", timeout_ms=0)["status"] == "succeeded"


def test_stdin_and_stdin_open_exclude_each_other(api: Api, machine: str) -> None:
    _problem(_post(api, machine, {"command": ["cat"], "stdin": "x", "stdin_open": True}), 422, "body.stdin_open")


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": ""}, {"Idempotency-Key": "k" * 256}])
def test_creating_needs_an_idempotency_key(api: Api, machine: str, headers: dict[str, str]) -> None:
    for path, body in (("/v1/machines", {}), (f"/v1/machines/{machine}/executions", {"command": ["true"]})):
        _problem(api.post(path, json=body, headers=headers), 422, "header.Idempotency-Key")


def test_any_key_that_a_header_can_carry_will_do(api: Api, machine: str) -> None:
    for key in ("k", "k" * 255, "stainless-python-retry-1", 'a b;c="d"\'', "\xe4\xf6"):
        answer = api.post(
            f"/v1/machines/{machine}/executions",
            json={"command": ["true"]},
            headers=[(b"Idempotency-Key", key.encode("latin-1"))],
        )
        assert answer.status_code == 200, answer.text


def test_a_working_directory_that_is_none_fails_the_execution(api: Api, machine: str) -> None:
    for cwd in ("/etc/passwd", "/nowhere/at/all", "/root/\U0001f42d"):
        record = api.execute(machine, "true", cwd=cwd)
        assert (record["status"], record["error_code"]) == ("failed", "cwd_not_found"), record
        assert cwd in record["error_message"]
        assert not record.keys() & {"exit_code", "signal", "started_at"}


@pytest.mark.parametrize("cursor", ["x", "0", "b-1", "b" * 400, "b1e3", "\x00", "b٣"])
def test_a_cursor_that_is_none_of_ours_is_refused(api: Api, machine: str, cursor: str) -> None:
    for path in ("/v1/machines", f"/v1/machines/{machine}/executions"):
        _problem(api.get(path, params={"cursor": cursor}), 422, "query.cursor")
    record = api.execute(machine, "true")
    if cursor != "0":
        _problem(api.get(f"{path_of(record)}/events", params={"cursor": cursor}), 422, "query.cursor")


@pytest.mark.parametrize("limit", ["-1", "x", "1.5", "99999999999999999999999", "-9223372036854775809", "\u0663"])
def test_a_limit_out_of_range_is_refused(api: Api, machine: str, limit: str) -> None:
    record = api.execute(machine, "true")
    for path in ("/v1/machines", f"/v1/machines/{machine}/executions", f"{path_of(record)}/events"):
        _problem(api.get(path, params={"limit": limit}), 422, "query.limit")


@pytest.mark.parametrize("wait_ms", ["-1", "55001", "soon"])
def test_a_wait_out_of_range_is_refused(api: Api, machine: str, wait_ms: str) -> None:
    record = api.execute(machine, "true")
    for path in (f"/v1/machines/{machine}", path_of(record), f"{path_of(record)}/events"):
        _problem(api.get(path, params={"wait_ms": wait_ms}), 422, "query.wait_ms")


@pytest.mark.parametrize(
    ("spec", "location"),
    [
        ({"vcpu": 4_096}, "body.vcpu"),
        ({"vcpu": 0}, "body.vcpu"),
        ({"vcpu": -1}, "body.vcpu"),
        ({"vcpu": 0.3}, "body.vcpu"),
        ({"vcpu": 1e308}, "body.vcpu"),
        ({"memory_mib": 1 << 40}, "body.memory_mib"),
        ({"memory_mib": 0}, "body.memory_mib"),
        ({"memory_mib": 2**63}, "body.memory_mib"),
        ({"storage_gib": 1 << 30}, "body.storage_gib"),
        ({"storage_gib": -1}, "body.storage_gib"),
        ({"autosleep": "soon"}, "body.autosleep"),
        ({"autosleep": "1s1h"}, "body.autosleep"),
        ({"autosleep": "-5"}, "body.autosleep"),
        ({"autosleep": "9" * 30}, "body.autosleep"),
        ({"autosleep": 300}, "body.autosleep"),
        ({"image": "../../etc"}, "body.image"),
        ({"image": ""}, "body.image"),
    ],
)
def test_a_machine_beyond_the_host_is_refused(api: Api, spec: Body, location: str) -> None:
    _problem(api.post("/v1/machines", json=spec, headers=new_key()), 422, location)


@pytest.mark.parametrize(("text", "seconds"), [("1w3d", 864_000), ("7d3h4s", 615_604), ("1800", 1_800), ("never", 0)])
def test_autosleep_is_read_in_all_its_forms(api: Api, text: str, seconds: int) -> None:
    made = api.post("/v1/machines", json={"autosleep": text, "memory_mib": 256, "storage_gib": 1}, headers=new_key())
    assert made.json()["autosleep_seconds"] == seconds


def test_storage_does_not_shrink(api: Api) -> None:
    machine_id = api.create_machine(storage_gib=2)
    answer = api.patch(f"/v1/machines/{machine_id}", json={"storage_gib": 1}, headers=new_key())
    assert "shrink" in _problem(answer, 422, "body.storage_gib")


def test_a_destroyed_machine_does_not_sleep(api: Api) -> None:
    machine_id = api.create_machine()
    api.delete(f"/v1/machines/{machine_id}", params={"wait_ms": 20_000})
    answer = api.post(f"/v1/machines/{machine_id}/sleep", headers=new_key())
    assert answer.status_code == 409
    assert answer.headers["x-should-retry"] == "false"
    error = answer.json()
    assert (error["error_code"], error["retryable"]) == ("INVALID_STATE", False)
    assert error["details"]["current_observed_state"] == "destroyed"


def test_to_cancel_twice_is_to_cancel(api: Api, machine: str) -> None:
    record = api.execute(machine, "sleep", "600", wait_ms=0)
    for _ in range(2):
        assert api.delete(path_of(record)).status_code == 200
    ended = api.finished(record)
    assert ended["status"] == "cancelled"
    assert api.delete(path_of(record)).json() == ended


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(live: Live, machine: str) -> None:
    host, port = urlsplit(live.base_url).hostname, urlsplit(live.base_url).port
    head = (
        f"POST /v1/machines/{machine}/executions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {live.api_key}\r\n"
        f"Idempotency-Key: k\r\nContent-Type: application/json\r\nContent-Length: {10 << 30}\r\n\r\n"
    )
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 413"), answer
    assert b"application/problem+json" in answer


def test_a_body_without_length_is_counted_while_it_is_read(api: Api, machine: str) -> None:
    pieces = (b" " * 65_536 for _ in range(40))
    headers = {**new_key(), "Content-Type": "application/json"}
    answer = api.post(f"/v1/machines/{machine}/executions", content=pieces, headers=headers)
    assert "1048576" in _problem(answer, 413, "body")


def test_another_content_type_is_told_apart(api: Api, machine: str) -> None:
    path = f"/v1/machines/{machine}/executions"
    content = json.dumps({"command": ["true"]}).encode()
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", "*/*"):
        answer = api.post(path, content=content, headers={**new_key(), "Content-Type": content_type})
        _problem(answer, 415, "header.Content-Type")
    for content_type in ("application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json"):
        answer = api.post(path, content=content, headers={**new_key(), "Content-Type": content_type})
        assert answer.status_code == 200, answer.text
    assert api.post(path, content=content, headers=new_key()).status_code == 200, "curl users forget it"


def test_half_a_surrogate_pair_is_no_text(api: Api, machine: str) -> None:
    body = b'{"command": ["true"], "env": {"A": "\\ud800"}}'
    headers = {**new_key(), "Content-Type": "application/json"}
    answer = api.post(f"/v1/machines/{machine}/executions", content=body, headers=headers)
    _problem(answer, 422, "body.env.A")


def test_a_half_open_client_costs_nobody_anything(live: Live, api: Api, machine: str) -> None:
    host, port = urlsplit(live.base_url).hostname, urlsplit(live.base_url).port
    record = api.execute(machine, "/bin/bash", "-c", "head -c 30000000 /dev/zero | tr '\\0' x")
    request = f"GET {path_of(record)}/output HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {live.api_key}\r\n\r\n"
    deaf = [socket.create_connection((host, port)) for _ in range(5)]
    try:
        for connection in deaf:
            connection.sendall(request.encode())  # and never reads the 16 MiB of the answer
        began = time.monotonic()
        assert api.execute(machine, "echo", "quick")["status"] == "succeeded"
        assert time.monotonic() - began < 3
    finally:
        for connection in deaf:
            connection.close()
    wait_until(lambda: api.get("/readyz").json()["ready"], 10, "ready")


def test_a_client_that_leaves_does_not_stop_what_it_began(live: Live, api: Api, machine: str) -> None:
    host, port = urlsplit(live.base_url).hostname, urlsplit(live.base_url).port
    key = new_key()
    path = f"/v1/machines/{machine}/executions"
    body = json.dumps({"command": ["/bin/bash", "-c", "sleep 0.3; echo done"]})
    head = (
        f"POST {path}?wait_ms=20000 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {live.api_key}\r\n"
        f"Idempotency-Key: {key['Idempotency-Key']}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )
    with socket.create_connection((host, port)) as connection:
        connection.sendall(head.encode())
    answer = api.post(path, content=body, headers={**key, "Content-Type": "application/json"})
    assert api.finished(answer.json())["status"] == "succeeded"
