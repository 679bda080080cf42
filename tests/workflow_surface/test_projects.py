"""Projects, and keys that are good for one project and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.live import Live
from tests.wait import wait_until
from tests.workflow_surface.surface import Project


def of_key(live: Live, key: str, project: str | None = None) -> httpx.Client:
    """A client with a key."""
    headers = {"Authorization": f"Bearer {key}"} | ({"X-Project-ID": project} if project else {})
    return httpx.Client(base_url=live.base_url, headers=headers, timeout=30, trust_env=False)


def key_of_organization(live: Live) -> str:
    """Make an organization, and return a key of it."""
    with live.client() as admin:
        made = admin.post("/v1/keys", json={"organization": f"o{uuid4().hex[:12]}"}).raise_for_status().json()
    return str(made["key"])


@pytest.fixture(name="owner")
def _owner(live: Live) -> Iterator[httpx.Client]:
    """A client with a key of an organization of its own."""
    with of_key(live, key_of_organization(live)) as owner:
        yield owner


def made(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def new_project(owner: httpx.Client, name: str = "p") -> str:
    return str(made(owner.post("/api/v1/projects", json={"name": name}))["id"])


def new_key(owner: httpx.Client, project: str, name: str = "k") -> dict[str, Any]:
    return dict(made(owner.post("/api/v1/api-keys", json={"name": name, "project_id": project})))


def test_a_project_is_made_and_read(owner: httpx.Client) -> None:
    project = made(owner.post("/api/v1/projects", json={"name": "Ä b", "description": "for tests"}))
    assert (project["name"], project["description"]) == ("Ä b", "for tests")
    assert made(owner.get("/api/v1/projects")) == {"projects": [project]}
    assert made(owner.get(f"/api/v1/projects/{project['id']}")) == project
    [member] = made(owner.get(f"/api/v1/projects/{project['id']}/members"))
    assert (member["role"], member["user"]) == ("Admin", None)


def test_another_organization_sees_no_project(owner: httpx.Client, live: Live) -> None:
    project = new_project(owner)
    key = new_key(owner, project)
    with of_key(live, key_of_organization(live)) as stranger, live.client() as admin:
        for client in (stranger, admin):
            assert project not in [one["id"] for one in made(client.get("/api/v1/projects"))["projects"]]
            for path in (f"projects/{project}", f"projects/{project}/members", f"api-keys/project/{project}"):
                assert client.get(f"/api/v1/{path}").status_code == 404
            refused = client.post("/api/v1/api-keys", json={"name": "k2", "project_id": project})
            assert (refused.status_code, refused.json()["error_type"]) == (404, "NOT_FOUND")
            assert client.delete(f"/api/v1/api-keys/{key['id']}").status_code == 404
    assert len(made(owner.get(f"/api/v1/api-keys/project/{project}"))) == 1


def test_a_key_is_shown_once(owner: httpx.Client) -> None:
    project = new_project(owner)
    key = new_key(owner, project)
    assert key["key"].startswith("sk_")
    assert len(key["key"]) == 35
    assert key["last_four_digits"] == key["key"][-4:]
    [listed] = made(owner.get(f"/api/v1/api-keys/project/{project}"))
    assert listed == {name: value for name, value in key.items() if name != "key"}
    roles = [one["role"] for one in made(owner.get(f"/api/v1/projects/{project}/members"))]
    assert sorted(roles) == ["Admin", "Write"]


def test_a_key_is_shown_with_its_last_use(owner: httpx.Client, live: Live) -> None:
    project = new_project(owner)
    key = new_key(owner, project)
    assert key["last_used_at"] is None

    def last_used() -> str | None:
        [listed] = made(owner.get(f"/api/v1/api-keys/project/{project}"))
        return None if listed["last_used_at"] is None else str(listed["last_used_at"])

    assert last_used() is None
    with of_key(live, key["key"]) as client:
        assert client.get("/api/v1/executions").status_code == 200
    assert wait_until(last_used, 10, "its use is recorded") > key["created_at"]


def test_a_key_is_good_for_its_project_only(owner: httpx.Client, live: Live) -> None:
    project, other = new_project(owner), new_project(owner, "other")
    key = new_key(owner, project)["key"]
    with of_key(live, key) as client:
        made_here = client.post("/api/v1/workers/deployments", json={"deployment_id": "d"})
        assert made_here.status_code == 200
        assert [one["id"] for one in made(client.get("/api/v1/projects"))["projects"]] == [project]
        assert made(client.get("/api/v1/deployments"))[0]["project_id"] == project
        run = made(client.post("/api/v1/workflows/w/run", json={"payload": 1}))["execution_id"]
        for named in ({"X-Project-ID": other}, {"Project-ID": other}):
            refused = client.get("/api/v1/executions", headers=named)
            assert (refused.status_code, refused.json()["error_type"]) == (403, "PROJECT_ACCESS_FORBIDDEN")
        assert client.get("/api/v1/executions", params={"project_id": other}).status_code == 403
        assert client.get(f"/api/v1/projects/{other}").status_code == 403
        assert client.get(f"/api/v1/api-keys/project/{other}").status_code == 403
        register = {"project_id": other, "deployment_id": "d", "push_endpoint_url": "http://127.0.0.1:1"}
        assert client.post("/api/v1/workers/register", json=register).status_code == 403
        for method, path, body in (
            ("POST", "/api/v1/projects", {"name": "x"}),
            ("POST", "/api/v1/api-keys", {"name": "x", "project_id": project}),
        ):
            assert client.request(method, path, json=body).status_code == 403
        for path in ("/v1/machines", "/v1/keys"):
            assert client.get(path).status_code == 403
    with of_key(live, owner.headers["Authorization"].removeprefix("Bearer "), other) as there:
        assert there.get(f"/api/v1/executions/{run}").status_code == 404
    assert owner.get(f"/api/v1/executions/{run}", headers={"X-Project-ID": project}).status_code == 200


def test_a_deleted_key_is_good_for_nothing_and_its_name_is_free(owner: httpx.Client, live: Live) -> None:
    project = new_project(owner)
    key = new_key(owner, project)
    with of_key(live, key["key"]) as client:
        assert client.get("/api/v1/executions").status_code == 200
        assert client.delete(f"/api/v1/api-keys/{key['id']}").status_code == 403
        assert "message" in made(owner.delete(f"/api/v1/api-keys/{key['id']}"))
        assert client.get("/api/v1/executions").status_code == 401
    assert made(owner.get(f"/api/v1/api-keys/project/{project}")) == []
    assert owner.delete(f"/api/v1/api-keys/{key['id']}").status_code == 404
    assert new_key(owner, project)["id"] != key["id"]


def test_a_key_of_the_organization_is_no_projects_key(owner: httpx.Client, live: Live) -> None:
    with live.client() as admin:
        ids = [one["key_id"] for one in made(admin.get("/v1/keys"))["items"]]
    for key_id in ids[:3]:
        assert owner.delete(f"/api/v1/api-keys/{key_id}").status_code == 404


def test_names_are_unique_and_ten_is_enough(owner: httpx.Client) -> None:
    project = new_project(owner)
    for number in range(9):
        new_key(owner, project, f"k{number}")
    twice = owner.post("/api/v1/api-keys", json={"name": "k1", "project_id": project})
    assert (twice.status_code, twice.json()["error_type"]) == (400, "DUPLICATE_KEY")
    new_key(owner, project, "k9")
    full = owner.post("/api/v1/api-keys", json={"name": "k10", "project_id": project})
    assert (full.status_code, full.json()["error_type"]) == (400, "LIMIT_EXCEEDED")
    new_key(owner, new_project(owner, "other"), "k1")


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb"])
def test_a_name_that_is_none_is_refused(owner: httpx.Client, name: str) -> None:
    refused = owner.post("/api/v1/projects", json={"name": name})
    assert (refused.status_code, refused.json()["error_type"]) == (400, "INVALID_INPUT")
    refused = owner.post("/api/v1/api-keys", json={"name": name, "project_id": str(uuid4())})
    assert refused.status_code == 400
    assert owner.post("/api/v1/projects", json={"name": "p", "description": "x" * 5000}).status_code == 400
    assert owner.get("/api/v1/projects/none").status_code == 400


def test_keys_survive_a_start(start_live: Any) -> None:
    with start_live("process") as live:
        with live.client() as admin:
            project = new_project(admin)
            key = new_key(admin, project)["key"]
        live.stop()
        live.start()
        with of_key(live, key) as client:
            assert client.get("/api/v1/executions").status_code == 200
            assert client.get("/v1/machines").status_code == 403
            assert client.get("/api/v1/executions", headers={"X-Project-ID": str(uuid4())}).status_code == 404


def test_in_local_mode_keys_are_made_too(project: Project) -> None:
    key = project.ok("POST", "/api/v1/api-keys", json={"name": "k", "project_id": project.project})
    assert project.ok("GET", f"/api/v1/api-keys/project/{project.project}")[0]["id"] == key["id"]
