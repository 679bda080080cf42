"""What workers register is there to be read, of the project that it belongs to only."""

from __future__ import annotations

import pytest

from tests.live import Live
from tests.workflow_surface.surface import Project

AGENT = {
    "id": "writer",
    "deployment_id": "d1",
    "provider": "openai",
    "model": "gpt",
    "system_prompt": "Be brief.",
    "tools": [{"type": "function", "name": "look"}],
    "temperature": 0.5,
    "max_output_tokens": 100,
    "metadata": {"stop_conditions": ["max_steps"]},
}
TOOL = {"id": "look", "deployment_id": "d1", "description": "Looks.", "parameters": {"type": "object"}}


def test_an_agent_is_read_as_it_was_registered(project: Project) -> None:
    assert project.ok("POST", "/api/v1/agents/register", json=AGENT) == {"success": True}
    [listed] = project.ok("GET", "/api/v1/agents")
    one = project.ok("GET", "/api/v1/agents/writer", params={"deployment_id": "d1"})
    assert listed == one
    assert {name: one[name] for name in AGENT} == AGENT
    assert one["config"] is None
    assert one["created_at"] <= one["updated_at"]


def test_registering_again_changes_it_and_keeps_when_it_came(project: Project) -> None:
    project.ok("POST", "/api/v1/agents/register", json=AGENT)
    before = project.ok("GET", "/api/v1/agents/writer")
    project.ok("POST", "/api/v1/agents/register", json={**AGENT, "model": "other"})
    after = project.ok("GET", "/api/v1/agents/writer")
    assert (after["model"], after["created_at"]) == ("other", before["created_at"])
    assert len(project.ok("GET", "/api/v1/agents")) == 1


def test_a_tool_without_a_deployment_goes_to_the_latest(project: Project) -> None:
    project.deploy("d2")
    project.ok("POST", "/api/v1/tools/register", json={**TOOL, "deployment_id": None})
    assert project.ok("GET", "/api/v1/tools/look")["deployment_id"] == "d2"
    assert project.ok("GET", "/api/v1/tools")[0]["tool_type"] == "default"
    assert project.get("/api/v1/tools/look", params={"deployment_id": "d1"}).status_code == 404


def test_workflows_and_deployments_are_listed(project: Project) -> None:
    project.define("w")
    project.define("writer", "agent")
    [one] = project.ok("GET", "/api/v1/workflows")
    assert (one["workflow_id"], one["workflow_type"], one["scheduled"]) == ("w", "workflow", False)
    assert project.ok("GET", "/api/v1/workflows/w") == one
    deployment = project.ok("GET", "/api/v1/deployments/d1")
    assert (deployment["project_id"], deployment["status"]) == (project.project, "active")
    assert project.ok("GET", "/api/v1/deployments") == [deployment]


def test_another_project_sees_nothing_of_it(project: Project, local_live: Live) -> None:
    project.ok("POST", "/api/v1/agents/register", json=AGENT)
    project.ok("POST", "/api/v1/tools/register", json=TOOL)
    project.define("w")
    with Project(local_live) as other:
        for path in ("/api/v1/agents", "/api/v1/tools", "/api/v1/workflows", "/api/v1/deployments"):
            assert other.ok("GET", path) == []
        for path in ("agents/writer", "tools/look", "workflows/w", "deployments/d1"):
            assert other.get(f"/api/v1/{path}").status_code == 404


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"deployment_id": "nowhere"}, 400, "deployment"),
        ({"id": ""}, 400, "id"),
        ({"id": None}, 422, "id"),
        ({"temperature": "hot"}, 422, "temperature"),
    ],
)
def test_a_bad_agent_is_refused(project: Project, change: dict[str, object], status: int, word: str) -> None:
    refused = project.post("/api/v1/agents/register", json={**AGENT, **change})
    assert refused.status_code == status
    assert word in refused.json()["error"]
    assert project.ok("GET", "/api/v1/agents") == []
