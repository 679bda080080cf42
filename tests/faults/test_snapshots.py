"""Server or node die while a disk is copied: no snapshot that is half made counts, no file is left, and the machine goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from dormice.crash_points import CrashPoint
from tests.faults.stack import Victim
from tests.faults.walk import OF_SNAPSHOTS
from tests.live import Api, new_key
from tests.wait import wait_until

pytestmark = [
    pytest.mark.machines,
    pytest.mark.timeout(300),
    pytest.mark.parametrize("victim", ["container"], indirect=True),
]
_PATIENCE = 60.0
WAIT = {"wait_ms": 5_000}


class Stubborn:
    """Asks the same again, under the same key, until there is an answer: as clients do whose server died."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        options = {"headers": new_key(), **options}

        def answer() -> httpx.Response | None:
            try:
                response = self._api.request(method, path, **options)
            except httpx.TransportError:
                return None
            return None if response.status_code >= 500 else response

        response = wait_until(answer, _PATIENCE, f"an answer to {method} {path}")
        return dict(response.raise_for_status().json()) if response.status_code != 404 else {}

    def until(self, path: str, field: str, *wanted: str) -> dict[str, Any]:
        def looked() -> dict[str, Any] | None:
            record = self.ask("GET", path, params=WAIT)
            return record if record.get(field) in wanted else None

        return wait_until(looked, _PATIENCE, f"{path} is {wanted}")

    def run(self, machine: str, script: str) -> str:
        body = {"command": ["/bin/sh", "-c", script]}
        record = self.ask("POST", f"/v1/machines/{machine}/executions", json=body)
        path = f"/v1/machines/{machine}/executions/{record['execution_id']}"
        self.until(path, "status", "succeeded")
        return str(self.ask("GET", f"{path}/output").get("stdout", ""))


@pytest.mark.parametrize("point", OF_SNAPSHOTS)
def test_a_death_leaves_no_half_made_copy_and_no_machine_that_stands_still(victim: Victim, point: CrashPoint) -> None:
    disks = victim.live.data / "node" / "disks"
    with victim.live.client() as api:
        it = Stubborn(api)
        made = it.ask("POST", "/v1/machines", json={"storage_gib": 1, "memory_mib": 128, "autosleep": "never"})
        machine = made["machine_id"]
        it.until(f"/v1/machines/{machine}", "phase", "running")
        it.run(machine, "echo before > ~/file; head -c 4M /dev/urandom > ~/more")
        victim.arm(point)

        snapshot = it.ask("POST", f"/v1/machines/{machine}/snapshots")
        kept = f"/v1/snapshots/{snapshot['snapshot_id']}"
        it.until(kept, "status", "ready")
        fork = it.ask("POST", f"/v1/machines/{machine}/fork")["machine_id"]
        it.until(f"/v1/machines/{fork}", "phase", "running")
        assert it.run(machine, "echo after > ~/file; sync; cat ~/file") == "after\n"
        assert it.run(fork, "cat ~/file; wc -c < ~/more") == "before\n4194304\n"
        copy = it.ask("POST", "/v1/machines", json={"memory_mib": 128, "snapshot": snapshot["snapshot_id"]})[
            "machine_id"
        ]
        it.until(f"/v1/machines/{copy}", "phase", "running")
        assert it.run(copy, "cat ~/file") == "before\n"

        it.ask("DELETE", kept)
        wait_until(lambda: it.ask("GET", kept) == {}, _PATIENCE, "the snapshot is gone")
        assert victim.struck(point)
        assert list((disks / "snapshots").iterdir()) == []
        for each in (machine, fork, copy):
            it.ask("DELETE", f"/v1/machines/{each}", params=WAIT)
            it.until(f"/v1/machines/{each}", "phase", "destroyed")
        wait_until(lambda: _files(disks / "machines") == [], 10, "no disk is left")


def _files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())
