"""What agents remember of sessions, and what was said in conversations."""

from __future__ import annotations

import pytest

from tests.live import Live
from tests.workflow_surface.surface import Project

MESSAGES = [{"role": "user", "content": "hällo"}, "plain", None, {"n": 1.5}]


@pytest.mark.parametrize("session", ["s1", "a%2Fb", "%3F%23%25", "h%C3%A4"])
def test_memory_is_read_as_it_was_written(project: Project, session: str) -> None:
    path = f"/internal/session/{session}/memory"
    assert project.ok("GET", path) == {"summary": None, "messages": []}
    assert project.ok("PUT", path, json={"summary": "so far", "messages": MESSAGES}) is None
    assert project.ok("GET", path) == {"summary": "so far", "messages": MESSAGES}
    project.ok("PUT", path, json={"summary": None, "messages": []})
    assert project.ok("GET", path) == {"summary": None, "messages": []}


def test_memory_is_the_projects_own(project: Project, local_live: Live) -> None:
    project.ok("PUT", "/internal/session/s/memory", json={"summary": "mine", "messages": [1]})
    with Project(local_live) as other:
        assert other.ok("GET", "/internal/session/s/memory") == {"summary": None, "messages": []}
        other.ok("PUT", "/internal/session/s/memory", json={"summary": "theirs", "messages": []})
    assert project.ok("GET", "/internal/session/s/memory")["summary"] == "mine"


@pytest.mark.parametrize(
    ("body", "status"),
    [({"summary": None, "messages": {}}, 422), ({"summary": 1, "messages": []}, 422), ({"messages": []}, 422)],
)
def test_a_memory_that_is_none_is_refused(project: Project, body: object, status: int) -> None:
    assert project.put("/internal/session/s/memory", json=body).status_code == status
    assert (
        project.put(f"/internal/session/{'s' * 513}/memory", json={"summary": None, "messages": []}).status_code == 400
    )


def test_a_conversation_keeps_the_latest_messages_oldest_first(project: Project) -> None:
    for number in range(5):
        body = {"agent_id": "a", "role": "user", "content": {"n": number}, "conversation_history_limit": 3}
        project.ok("POST", "/internal/conversation/c/add", json=body)
    project.ok("POST", "/internal/conversation/c/add", json={"agent_id": "b", "role": "user", "content": "other"})
    project.ok("POST", "/internal/conversation/c2/add", json={"agent_id": "a", "role": "user", "content": "other"})
    found = project.ok("GET", "/api/v1/conversation/c/get", params={"agent_id": "a"})["messages"]
    assert [one["content"]["n"] for one in found] == [2, 3, 4]
    last = project.ok("GET", "/api/v1/conversation/c/get", params={"agent_id": "a", "limit": 1})["messages"]
    assert last == found[-1:]
    assert {one["conversation_id"] for one in found} == {"c"}


def test_a_conversation_is_the_projects_own(project: Project, local_live: Live) -> None:
    project.ok("POST", "/internal/conversation/c/add", json={"agent_id": "a", "role": "user", "content": "mine"})
    with Project(local_live) as other:
        assert other.ok("GET", "/api/v1/conversation/c/get", params={"agent_id": "a"}) == {"messages": []}
    assert project.get("/api/v1/conversation/c/get").status_code == 400
