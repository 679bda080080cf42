"""Nobody gets in: every route of this surface, without a key, with a stranger's, and in local mode from elsewhere."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest

from dormice.api.http.operation import Operation
from dormice.api.services import WorkflowServices
from dormice.api.workflows.routes import workflow_operations
from dormice.domain.limits import Limits
from tests.live import Live
from tests.workflow_surface.surface import Project
from tests.workflow_surface.test_projects import key_of_organization, made

_NOTHING = cast("Any", None)  # declarations only
OPERATIONS = workflow_operations(
    WorkflowServices(**dict.fromkeys((field.name for field in dataclasses.fields(WorkflowServices)), _NOTHING)),
    Limits(),
    _NOTHING,
)
GUARDED = [operation for operation in OPERATIONS if operation.guarded]
OPEN = {"getApproval", "answerApproval", "approvalPage", "sendApprovalPage"}


def test_what_is_open_is_what_the_contract_leaves_open() -> None:
    assert {operation.id for operation in OPERATIONS} - {operation.id for operation in GUARDED} == OPEN


@dataclasses.dataclass
class House:
    """A project of one organization, with a run; a key of another organization."""

    live: Live
    ids: dict[str, str]
    stranger: str
    client: httpx.Client

    def ask(self, operation: Operation, headers: dict[str, str], **body: Any) -> httpx.Response:
        path = (operation.shown or operation.path.replace("*}", "}")).format_map(self.ids)
        return self.client.request(operation.method, self.live.base_url + path, headers=headers, **body)


@pytest.fixture(scope="module", name="house")
def _house(live: Live) -> Iterator[House]:
    with live.client() as owner:
        project = made(owner.post("/api/v1/projects", json={"name": "house"}))["id"]
        key = made(owner.post("/api/v1/api-keys", json={"name": "k", "project_id": project}))["id"]
    with Project(live, project, {"Authorization": f"Bearer {live.api_key}"}) as client:
        client.deploy()
        client.define("w")
        client.ok("POST", "/api/v1/agents/register", json={"id": "w", "provider": "p", "model": "m"})
        client.ok("POST", "/api/v1/tools/register", json={"id": "w"})
        run = client.start()
        span = {"trace_id": run.replace("-", ""), "span_id": "1", "name": "n", "span_type": "t"}
        client.ok("POST", "/internal/spans/batch", json={"spans": [{**span, "started_at": "2026-01-01T00:00:00Z"}]})
    ids = dict.fromkeys(("agent_id", "tool_id", "workflow_id", "session_id", "conversation_id", "step_key"), "w")
    ids |= dict.fromkeys(("execution_id", "root_execution_id", "trace_id"), run)
    ids |= {"project_id": project, "deployment_id": "d1", "key_id": key}
    ids |= {name: str(uuid4()) for one in OPERATIONS for name in re.findall(r"\{(\w+)", one.path) if name not in ids}
    with httpx.Client(timeout=30, trust_env=False) as client:
        yield House(live, ids, key_of_organization(live), client)


@pytest.mark.parametrize("operation", GUARDED, ids=lambda operation: operation.id)
def test_without_a_key_nobody_gets_in(house: House, operation: Operation) -> None:
    named = {"X-Project-ID": house.ids["project_id"]}
    for headers in (named, {**named, "Authorization": "Bearer " + "x" * 40}, {**named, "Authorization": "Basic x"}):
        refused = house.ask(operation, headers)
        assert (refused.status_code, refused.json()["error_type"]) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("operation", GUARDED, ids=lambda operation: operation.id)
def test_a_stranger_gets_nothing_of_the_project(house: House, operation: Operation) -> None:
    key = {"Authorization": f"Bearer {house.stranger}"}
    refused = house.ask(
        operation, {**key, "X-Project-ID": house.ids["project_id"]}, json={"project_id": "x", "name": "x"}
    )
    if operation.tag != "projects":  # whose routes name the project otherwise
        assert (refused.status_code, refused.json()["error_type"]) == (404, "NOT_FOUND"), refused.text
    own = house.ask(operation, key, json={"project_id": house.ids["project_id"], "name": uuid4().hex})
    assert own.status_code < 500
    for name in ("execution_id", "key_id", "project_id"):
        assert own.status_code >= 400 or house.ids[name] not in own.text, own.text
    if (
        operation.method == "GET"
        and "{" in operation.path
        and operation.tag not in {"sessions", "projects", "schedules"}
    ):
        assert own.status_code in {400, 404}, own.text


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_in_local_mode_only_programs_of_this_host_get_in(local_live: Live, house: House, operation: Operation) -> None:
    elsewhere = dataclasses.replace(house, live=local_live)
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        assert elsewhere.ask(operation, headers).status_code == 403


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b"\xff", b'{"project_id": 7, "name": [], "payload": 1}'])
def test_no_body_makes_the_server_stumble(local_live: Live, house: House, operation: Operation, body: bytes) -> None:
    if operation.id == "streamEvents":
        return
    headers = {"X-Project-ID": house.ids["project_id"], "Content-Type": "application/json"}
    answer = dataclasses.replace(house, live=local_live).ask(operation, headers, content=body)
    assert answer.status_code < 500, answer.text


def test_health_is_open_and_says_what_the_contract_wants(live: Live) -> None:
    answer = httpx.get(f"{live.base_url}/health", trust_env=False)
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
