"""`dormice up --local-mode`: workflows without a key, for programs of this host and for nobody else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.live import Live, tended
from tests.shares import share

UP = ("dormice.cli", "up", "--local-mode")


@pytest.fixture(scope="module", name="flagged_live")
def _flagged_live(directory: Callable[[], Path]) -> Iterator[Live]:
    """A Dormice that was started with the flag, and without the variable."""
    place = directory()
    place.chmod(0o755)
    with share() as ours, tended(Live(place, "process", ours.instance("t"), ours, {}, UP)) as live:
        yield live


@pytest.fixture(name="keyless")
def _keyless(flagged_live: Live) -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(base_url=flagged_live.base_url, timeout=30, trust_env=False) as client:
        yield client


def test_no_key_is_needed_and_a_project_is_made_when_it_is_named(keyless: httpx.Client) -> None:
    project = str(uuid4())

    def projects() -> list[str]:
        return [one["id"] for one in keyless.get("/api/v1/projects").raise_for_status().json()["projects"]]

    assert project not in projects()
    keyless.headers["X-Project-ID"] = project
    keyless.post("/api/v1/workers/deployments", json={"deployment_id": "d"}).raise_for_status()
    made = keyless.post("/api/v1/workflows/w/run", json={"payload": 1}).raise_for_status().json()
    assert project in projects()
    assert keyless.get(f"/api/v1/executions/{made['execution_id']}").raise_for_status().json()["status"] == "queued"
    other = keyless.get(f"/api/v1/executions/{made['execution_id']}", headers={"X-Project-ID": str(uuid4())})
    assert other.status_code == 404


def test_it_answers_programs_of_this_host_only(keyless: httpx.Client) -> None:
    for header in (
        {"Host": "dormice.example"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "http://["},
        {"Host": "["},
    ):
        refused = keyless.get("/api/v1/executions", headers=header)
        assert (refused.status_code, refused.json()["error_type"]) == (403, "FORBIDDEN")


def test_machines_want_a_key_all_the_same(flagged_live: Live, keyless: httpx.Client) -> None:
    assert keyless.get("/v1/machines").status_code == 401
    with flagged_live.client() as api:
        assert api.get("/v1/machines").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1"])
def test_it_does_not_start_where_others_could_reach_it(directory: Callable[[], Path], host: str) -> None:
    with share() as ours:
        live = Live(directory(), "process", ours.instance("t"), ours, {})
        listen = f"{host}:{live.port}"
        words = [sys.executable, "-m", *UP, "--listen", listen]
        try:
            done = subprocess.run(
                words, env=live.environment(), capture_output=True, text=True, timeout=30, check=False
            )
        finally:
            live.abandon()
        assert done.returncode == 2, done.stderr
        assert f"local_mode needs no keys, so listen must be an address of this host only, not {listen}" in done.stderr
        assert not live.data.exists(), "it finds that out before it makes anything"
        assert live.leftovers() == []
