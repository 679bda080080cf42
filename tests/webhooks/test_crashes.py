"""The server dies at each step between something's end and the word that it was told: everything is told, and the same each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from dormice.crash_points import VARIABLE, CrashPoint
from tests.conftest import StartLive
from tests.live import Api, Live, new_key
from tests.wait import wait_until
from tests.webhooks.conftest import QUICK
from tests.webhooks.receiver import Receiver

TERMINAL = {"succeeded", "failed", "cancelled", "expired"}


@pytest.mark.parametrize(
    "point",
    [
        CrashPoint.REPORT_RECEIVED,
        CrashPoint.REPORT_COMMITTED,
        CrashPoint.END_COMMITTED,
        CrashPoint.CANCEL_COMMITTED,
        CrashPoint.SLEEP_COMMITTED,
        CrashPoint.MACHINE_DOWN_COMMITTED,
        CrashPoint.WAKE_COMMITTED,
        CrashPoint.WEBHOOK_ANSWERED,
        CrashPoint.WEBHOOK_COMMITTED,
    ],
)
def test_all_is_told_wherever_the_server_dies(
    start_live: StartLive, receiver: Receiver, directory: Callable[[], Path], point: CrashPoint
) -> None:
    points = directory()  # not of pytest, which keeps others out of its own: the server is no longer root
    points.chmod(0o777)
    with start_live(**QUICK, **{VARIABLE: str(points)}) as live, live.client() as api:
        made = api.post("/v1/webhooks", json={"url": receiver.url}).raise_for_status().json()
        machine = api.create_machine(autosleep="never")
        (points / point).touch()
        (points / point).chmod(0o666)
        for script in ("exit 0", "exit 1", "sleep 600"):
            _ask(api, machine, script)
        _patiently(api, "DELETE", f"/v1/machines/{machine}/executions/{_open(live, api, machine)}")
        _patiently(api, "POST", f"/v1/machines/{machine}/sleep")
        _wait_for_phase(live, api, machine, "sleeping")
        _ask(api, machine, "exit 0")
        wait_until(lambda: not (points / point).exists(), 20, f"{point} was reached")
        live.wait_ready()
        wait_until(lambda: _open(live, api, machine) is None, 30, "all have ended")
        items = api.get(f"/v1/machines/{machine}/executions").json()["items"]
        expected = {(one["execution_id"], one["status"]) for one in items}
        assert len(expected) == 4

        def told() -> set[tuple[str, str]]:
            events = [request.event for request in list(receiver.requests)]
            return {
                (event["data"]["execution_id"], event["data"]["status"])
                for event in events
                if event["type"].startswith("execution.")
            }

        wait_until(lambda: told() == expected, 30, "all were told")
        receiver.wait_for("machine.sleeping")
        receiver.wait_for("machine.running", 2)
        bodies: dict[str, set[bytes]] = {}
        for request in receiver.requests:
            assert request.signed_with(made["secret"])
            bodies.setdefault(request.event_id, set()).add(request.body)
        assert all(len(same) == 1 for same in bodies.values())


def test_a_death_between_commit_and_answer_makes_one_webhook(
    start_live: StartLive, receiver: Receiver, directory: Callable[[], Path]
) -> None:
    points = directory()
    points.chmod(0o777)
    with start_live(**QUICK, **{VARIABLE: str(points)}) as live, live.client() as api:
        point = points / CrashPoint.WEBHOOK_CREATED
        point.touch()
        point.chmod(0o666)
        made = _patiently(api, "POST", "/v1/webhooks", json={"url": receiver.url})
        assert not point.exists()
        (only,) = api.get("/v1/webhooks").raise_for_status().json()["items"]
        assert only["webhook_id"] == made["webhook_id"]
        _patiently(api, "POST", f"/v1/webhooks/{made['webhook_id']}/test")
        assert receiver.wait_for("webhook.test")[0].signed_with(made["secret"])


def _ask(api: Api, machine: str, script: str) -> None:
    _patiently(api, "POST", f"/v1/machines/{machine}/executions", json={"command": ["sh", "-c", script]})


def _patiently(api: Api, method: str, path: str, **more: object) -> Any:
    """Ask until it is answered, always with the same key; return the answer's record."""
    key = new_key()

    def answered() -> httpx.Response | None:
        try:
            answer = api.request(method, path, headers=key, **more)  # type: ignore[arg-type] # as it comes
        except httpx.TransportError:
            return None
        return answer if answer.status_code < 300 else None

    return wait_until(answered, 30, f"{method} {path} is answered").json()


def _open(live: Live, api: Api, machine: str) -> str | None:
    """Return an execution that has not ended, None when all have."""
    live.wait_ready()
    items = api.get(f"/v1/machines/{machine}/executions").raise_for_status().json()["items"]
    return next((str(one["execution_id"]) for one in items if one["status"] not in TERMINAL), None)


def _wait_for_phase(live: Live, api: Api, machine: str, phase: str) -> None:
    def there() -> bool:
        live.wait_ready()
        return bool(api.get(f"/v1/machines/{machine}").raise_for_status().json()["phase"] == phase)

    wait_until(there, 30, phase)
