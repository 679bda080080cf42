"""Every route's errors have one of the two shapes."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from dormice.api.http.errors import CODED_STATUS, describe
from dormice.api.http.operation import Operation
from dormice.domain.errors import (
    Conflict,
    DormiceError,
    Forbidden,
    Invalid,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from dormice.domain.execution import ErrorCode
from tests.api.fakes import IDS, KEY, MACHINE_ID, OTHER_KEY, World, finished

OPERATIONS = World().operations()
PRIVATE = [operation for operation in OPERATIONS if not operation.public]
ERRORS_PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
BODIES = {
    "createMachineExecution": {"command": ["true"]},
    "patchMachine": {"vcpu": 1},
    "createMachine": {},
    "createMachineTerminal": {"width": 80, "height": 24},
    "createKey": {},
    "putMachineAutoresizing": {"enabled": True},
    "putOrganizationAutoresizing": {"enabled": True},
    "createWebhook": {"url": "https://example.com"},
    "patchWebhook": {},
}


def names(operation: Operation) -> str:
    return operation.id


def path_of(operation: Operation) -> str:
    return operation.path.format_map(IDS)


async def call(client: httpx.AsyncClient, operation: Operation, **changes: Any) -> httpx.Response:
    arguments: dict[str, Any] = {"headers": {"Idempotency-Key": "k"}, "params": {"offset": "0"}, **changes}
    if operation.id in BODIES and "content" not in changes:
        arguments.setdefault("json", BODIES[operation.id])
    return await client.request(operation.method, path_of(operation), **arguments)


def assert_coded(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert body["error_code"] == code
    assert body["message"]
    assert isinstance(body["retryable"], bool)
    assert set(body) <= {"error_code", "message", "retryable", "retry_after_ms", "details"}
    return body


def assert_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert set(body) <= {"type", "title", "status", "detail", "errors"}
    return body


@pytest.mark.parametrize("operation", PRIVATE, ids=names)
async def test_without_a_key_every_route_answers_auth_required(client: httpx.AsyncClient, operation: Operation) -> None:
    del client.headers["Authorization"]
    response = await call(client, operation)
    assert_coded(response, 401, "AUTH_REQUIRED")
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("operation", PRIVATE, ids=names)
async def test_with_an_unknown_key_every_route_answers_auth_invalid(
    client: httpx.AsyncClient, operation: Operation
) -> None:
    client.headers["Authorization"] = f"Bearer {OTHER_KEY}"
    assert_coded(await call(client, operation), 401, "AUTH_INVALID")


@pytest.mark.parametrize("operation", PRIVATE, ids=names)
async def test_with_another_organization_every_route_answers_a_mismatch(
    client: httpx.AsyncClient, operation: Operation
) -> None:
    headers = {"X-Dedalus-Org-Id": "5f0c1f8e-0000-4000-8000-00000000000f", "Idempotency-Key": "k"}
    assert_coded(await call(client, operation, headers=headers), 403, "AUTH_ORG_MISMATCH")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Forbidden("no"), 403, "AUTH_SCOPE_FORBIDDEN"),
        (Conflict("no", details={"current_observed_state": "error"}), 409, "INVALID_STATE"),
        (RateLimited("no", retry_after_ms=1500), 429, "RATE_LIMITED"),
        (Unavailable("no"), 503, "DEPENDENCY_UNAVAILABLE"),
        (NotFound("no such machine"), 404, None),
        (Invalid("vcpu must be at most 2", location="body.vcpu"), 422, None),
        (ZeroDivisionError("secret"), 500, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
@pytest.mark.parametrize(
    "operation",
    [
        o
        for o in PRIVATE
        if o.tag in {"machines", "executions"} and not {"organization", "stream"} & {*o.path.split("/")}
    ],
    ids=names,
)
async def test_what_the_engine_raises_gets_its_shape_on_every_route(
    client: httpx.AsyncClient,
    world: World,
    operation: Operation,
    error: Exception,
    status: int,
    code: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    world.executions.error = world.machines.error = error
    response = await call(client, operation)
    if code is not None:
        assert_coded(response, status, code)
    else:
        assert_problem(response, status)
    assert "secret" not in response.text
    retryable = status in {429, 503}
    assert ("retry-after-ms" in response.headers) == retryable
    assert ("x-should-retry" in response.headers) == (not retryable and status != 500)
    logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(logged) == (1 if status == 500 else 0)
    if logged:
        assert logged[0].__dict__["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("operation", [o for o in PRIVATE if o.body is not None], ids=names)
async def test_every_route_with_a_body_refuses_what_is_not_json(
    client: httpx.AsyncClient, operation: Operation
) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    assert_problem(await call(client, operation, content=b"{", headers=headers), 400)
    assert_problem(await call(client, operation, content=b'{"command":["\xff"]}', headers=headers), 400)
    assert_problem(await call(client, operation, content=b"[]", headers=headers), 422)
    problem = assert_problem(await call(client, operation, content=b'{"nope":1}', headers=headers), 422)
    assert problem["errors"][0]["location"] == "body.nope"
    headers["Content-Type"] = "text/plain"
    assert_problem(await call(client, operation, content=b"{}", headers=headers), 415)
    headers["Content-Type"] = "application/json"
    assert_problem(await call(client, operation, content=b" " * (1 << 20) + b"{}", headers=headers), 413)


@pytest.mark.parametrize("path", sorted({operation.path for operation in OPERATIONS}))
async def test_other_methods_are_answered_with_the_allowed_ones(client: httpx.AsyncClient, path: str) -> None:
    known = {operation.method for operation in OPERATIONS if operation.path == path}
    url = path.format_map(IDS)
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - known:
        response = await client.request(method, url)
        assert_problem(response, 405)
        assert known <= set(response.headers["allow"].split(", "))
    options = await client.options(url)
    assert options.status_code == 200
    assert set(options.json()["allow"]) == known


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/nope", f"/v1/machines/{MACHINE_ID}/previews", "/schema"],
)
async def test_unknown_routes_are_problems(client: httpx.AsyncClient, path: str) -> None:
    assert_problem(await client.get(path), 404)


async def test_an_unknown_machine_and_a_malformed_id_get_the_same_answer(client: httpx.AsyncClient) -> None:
    ids = ["dm-019e39e7-3d1b-7a85-a772-000000000000", "nope", "dm-", "%00", "..%2f..", "x" * 5000, "\u20ac"]
    bodies = {(await client.get(f"/v1/machines/{machine_id}")).content for machine_id in ids[:4] + ids[5:]}
    assert len(bodies) == 1


async def test_a_bug_does_not_tell_what_it_was(client: httpx.AsyncClient, world: World) -> None:
    world.machines.error = RuntimeError("with a secret in it")
    problem = assert_problem(await client.get("/v1/machines"), 500)
    assert "secret" not in str(problem)


async def test_a_revision_mismatch_is_not_to_be_retried_though_retryable(
    client: httpx.AsyncClient, world: World
) -> None:
    details = {"expected_revision": "7", "provided_revision": "6"}
    world.machines.error = Conflict("revision mismatch", code="REVISION_MISMATCH", retryable=True, details=details)
    response = await client.post(f"/v1/machines/{MACHINE_ID}/sleep", headers={"If-Match": '"6"'})
    body = assert_coded(response, 409, "REVISION_MISMATCH")
    assert body["retryable"] is True
    assert body["details"] == details
    assert response.headers["x-should-retry"] == "false"
    assert "retry-after-ms" not in response.headers


async def test_a_retryable_error_says_when_in_header_and_body(client: httpx.AsyncClient, world: World) -> None:
    world.machines.error = RateLimited("too much", retry_after_ms=1500)
    response = await client.get("/v1/machines")
    assert response.headers["retry-after-ms"] == "1500"
    assert response.headers["retry-after"] == "2"
    assert response.json()["retry_after_ms"] == 1500


async def test_a_request_id_is_taken_over_when_it_is_harmless(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health", headers={"x-request-id": "abc-1"})).headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 200, '"'):
        answered = (await client.get("/nope", headers={"x-request-id": bad})).headers["x-request-id"]
        assert answered != bad
        assert re.fullmatch("[0-9a-f]{24}", answered)


async def test_the_access_log_has_no_key_and_no_query(
    client: httpx.AsyncClient, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dormice.access")
    world.executions.add(*finished())
    await client.get(f"/v1/machines/{MACHINE_ID}/executions/exec-1", params={"wait_ms": "1", "token": "hidden"})
    [record] = [record for record in caplog.records if record.name == "dormice.access"]
    assert record.__dict__["status"] == 200
    assert record.__dict__["key_id"] == "key-1"
    assert "hidden" not in str(record.__dict__)
    assert KEY not in str(record.__dict__)


def _table(heading: str) -> str:
    return ERRORS_PAGE.read_text().split(f"## {heading}")[1].split("\n## ")[0]


def test_the_page_of_errors_lists_every_execution_error_code() -> None:
    listed = re.findall(r"^\| `(\w+)` \| (?:failed|cancelled|expired) \|", _table("Why an execution"), re.MULTILINE)
    assert set(listed) == {code.value for code in ErrorCode}


def test_the_page_of_errors_lists_every_coded_error() -> None:
    listed = set(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", _table("Coded errors"), re.MULTILINE))
    own_codes = {(str(CODED_STATUS[kind]), kind.code) for kind in CODED_STATUS}
    assert own_codes <= listed
    source = Path("src/dormice")
    used = {
        code
        for file in (Path(__file__).parents[2] / source).rglob("*.py")
        for code in re.findall(r'code="([A-Z_]{6,})"', file.read_text())
    }
    assert used <= {code for _, code in listed}


def test_the_page_of_errors_lists_every_status() -> None:
    listed = {int(status) for status in re.findall(r"^\| (\d{3}) \|", ERRORS_PAGE.read_text(), re.MULTILINE)}
    assert listed == {400, 401, 403, 404, 405, 408, 409, 413, 415, 416, 422, 429, 431, 500, 503}


def test_every_error_of_the_domain_has_a_status() -> None:
    for kind in (Unauthenticated, Forbidden, Conflict, RateLimited, Unavailable, NotFound, Invalid):
        error: DormiceError = kind("no")
        assert describe(error).status == CODED_STATUS.get(kind, {NotFound: 404, Invalid: 422}.get(kind, 0))
