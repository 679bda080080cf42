"""Names that people give may be those of our routes, or have characters that mean something in paths."""

from __future__ import annotations

import pytest

from tests.workflow_surface.surface import Project, Worker


@pytest.mark.parametrize("name", ["runs", "batch_run"])
def test_a_workflow_may_be_named_as_a_route_is(project: Project, name: str) -> None:
    project.define(name)
    assert project.run(project.start(name))["workflow_id"] == name


def test_an_agent_may_be_named_as_a_route_is(project: Project) -> None:
    agent = {"id": "register", "deployment_id": "d1", "provider": "openai", "model": "gpt"}
    project.ok("POST", "/api/v1/agents/register", json=agent)
    assert project.ok("GET", "/api/v1/agents/register")["id"] == "register"


@pytest.mark.parametrize("key", ["*", "GET", "a//b", "*/POST/x", "/", "{step_key*}"])
def test_a_step_may_have_any_name_as_the_foreign_sdk_writes_it(project: Project, worker: Worker, key: str) -> None:
    del worker
    project.define("w")
    run = project.start()
    project.in_status(run, "running")
    project.step(run, key, {"ok": key})
    assert project.ok("GET", f"/internal/executions/{run}/steps/{key}")["outputs"] == {"ok": key}
