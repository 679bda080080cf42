"""The server's disk fills up while commands run: 503, nothing acknowledged is lost, and service resumes by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.quota import Quota
from tests.faults.small_disk import SmallDisk, needs_root, small_disk
from tests.live import Api, Live, new_key, path_of, running
from tests.wait import wait_until

pytestmark = needs_root

MIB = 12
LINES = 3_000
WRITER = f"for ((i = 0; i < {LINES}; i++)); do printf '%0100d\\n' $i; ((i % 100)) || read -t 0.02 <> <(:); done"
"""Writes 300 KB over a second or so, line by line."""


@pytest.fixture(scope="module", name="disk", params=["ext4", "tmpfs", "quota"])
def _disk(request: pytest.FixtureRequest, directory: Callable[[], Path]) -> Iterator[SmallDisk | Quota]:
    """The disk of the store; machines have theirs elsewhere."""
    place = directory()
    if request.param == "quota":
        place.chmod(0o755)
        yield Quota(place / "data" / "server", place)
        return
    with small_disk(request.param, place / "data" / "server", MIB) as disk:
        yield disk


@pytest.fixture(scope="module", name="cramped")
def _cramped(disk: SmallDisk | Quota, directory: Callable[[], Path]) -> Iterator[Live]:
    place = directory()
    place.chmod(0o755)
    extra = disk.environment if isinstance(disk, Quota) else {}
    with running(place, "process", DORMICE_DATA_DIR=str(disk.mountpoint.parent), **extra) as live:
        yield live
        disk.free()


def _create(api: Api, machine: str, size: int = 2_000) -> Any:
    return api.post(f"/v1/machines/{machine}/executions", json={"command": ["true", "x" * size]}, headers=new_key())


def _exhaust(api: Api, disk: SmallDisk | Quota, machine: str) -> tuple[list[str], Any]:
    """Fill the disk and create executions until one is refused: the log of the store has room of its own to use up."""
    disk.fill()
    made = []
    while (answer := _create(api, machine)).status_code == 200:
        made.append(answer.json()["execution_id"])
        disk.fill()
    return made, answer


def _trouble(api: Api) -> str | None:
    """What /readyz says of the store, if it is not ready."""
    answer = api.get("/readyz")
    part = answer.json()["parts"]["store"]
    assert part["ready"] or answer.status_code == 503
    return None if part["ready"] else str(part["detail"])


def test_a_full_disk_is_503_and_what_runs_waits_and_everything_resumes(disk: SmallDisk | Quota, cramped: Live) -> None:
    with cramped.client() as api:
        machine = api.create_machine(autosleep="never")
        writer = api.shell(machine, WRITER, wait_ms=0)
        api.wait_for_output(writer, b"0000100\n")
        made, refused = _exhaust(api, disk, machine)

        assert refused.status_code == 503, refused.text
        error = refused.json()
        assert (error["error_code"], error["retryable"]) == ("DEPENDENCY_UNAVAILABLE", True)
        assert "full" in error["message"]
        assert int(refused.headers["retry-after-ms"]) == error["retry_after_ms"] > 0
        assert int(refused.headers["retry-after"]) >= 1
        assert api.post("/v1/machines", json={}, headers=new_key()).status_code == 503
        assert "full" in wait_until(lambda: _trouble(api), 5, "the store says that it is full")
        assert api.get("/healthz").status_code == 200
        assert api.get(path_of(writer)).json()["status"] == "running"
        listed = api.get(f"/v1/machines/{machine}/executions", params={"limit": 1000}).json()["items"]
        assert {item["execution_id"] for item in listed} == {writer["execution_id"], *made}

        disk.free()
        wait_until(lambda: api.get("/readyz").status_code == 200, 10, "ready again")
        assert _create(api, machine).status_code == 200
        ended = api.finished(writer)
        assert ended["status"] == "succeeded", ended
        assert api.output(ended) == b"".join(b"%0100d\n" % n for n in range(LINES))
        for execution in made:
            assert api.finished({"machine_id": machine, "execution_id": execution})["status"] == "succeeded"


def test_a_server_killed_on_a_full_disk_has_all_it_answered_once_there_is_room(
    disk: SmallDisk | Quota, cramped: Live
) -> None:
    with cramped.client() as api:
        machine = api.create_machine(autosleep="never")
        writer = api.shell(machine, WRITER, wait_ms=0)
        api.wait_for_output(writer, b"0000100\n")
        made, _ = _exhaust(api, disk, machine)
        cramped.kill("server")
        disk.free()
        cramped.wait_ready()
        for execution in made:
            assert api.finished({"machine_id": machine, "execution_id": execution})["status"] == "succeeded"
        assert api.output(api.finished(writer)) == b"".join(b"%0100d\n" % n for n in range(LINES))
