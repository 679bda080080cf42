"""Schedules of the foreign SDK that really fire. They know no less than a minute, so that these tests are slow."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.conformance.workflows.world import Client, Refused, World
from tests.wait import wait_until

MODULES = ("scheduled_flows",)
MINUTE = timedelta(minutes=1)


def fired(world: World, workflow: str, key: str | None = None) -> list[dict[str, Any]]:
    """Return the payloads with which a workflow was started."""
    lines = [line for line in world.notes("fired") if line["workflow"] == workflow]
    return [line["payload"] for line in lines if key in (None, line["payload"]["key"])]


def instants(payloads: list[dict[str, Any]], name: str = "timestamp") -> list[datetime]:
    """Return one of the times that payloads tell."""
    return [datetime.fromisoformat(payload[name]) for payload in payloads]


def twice(world: World, workflow: str, key: str | None = None) -> bool:
    """Return whether a workflow was started twice."""
    return len(fired(world, workflow, key)) >= 2


@pytest.mark.timeout(240)
def test_schedules_fire_at_every_tick(world: World, client: Client) -> None:
    """One test, because its parts wait for the same minutes."""
    made = client("schedule", workflow="when_told", cron="* * * * *", key="mine")
    assert client("schedule", workflow="when_told", cron="*/1 * * * *", key="mine") == made, "the same is changed"
    other = client("schedule", workflow="when_told", cron="* * * * *", timezone="America/New_York", key="other")
    seldom = client("schedule", workflow="when_told", cron="0 0 29 2 *", key="seldom")
    assert len({made, other, seldom}) == 3
    wait_until(lambda: twice(world, "each_minute") and twice(world, "when_told", "mine"), 150, "two ticks")
    payloads = fired(world, "each_minute")[:2]
    first, second = instants(payloads)
    assert (first.second, first.microsecond, second - first) == (0, 0, MINUTE), "no tick is skipped"
    assert instants(payloads, "upcoming") == [first + MINUTE, second + MINUTE]
    assert (payloads[0]["last_timestamp"], instants(payloads[1:], "last_timestamp")) == (None, [first])
    assert {(payload["timezone"], payload["key"]) for payload in payloads} == {("UTC", "global")}
    elsewhere = fired(world, "each_minute_elsewhere")[0]
    assert (elsewhere["timezone"], elsewhere["key"]) == ("Asia/Kolkata", "k")
    assert {payload["schedule_id"] for payload in fired(world, "when_told", "mine")} == {made}
    assert {payload["timezone"] for payload in fired(world, "when_told", "other")} == {"America/New_York"}
    assert fired(world, "when_told", "seldom") == []
    assert len(fired(world, "overruns")) == 1, "a tick is skipped while the last one's run still runs"
    (line,) = [line for line in world.notes("fired") if line["workflow"] == "each_minute"][:1]
    record = world.ended(line["run"])
    assert (record["status"], record["concurrency_key"], record["queue_name"]) == ("completed", "global", "each_minute")
    assert record["session_id"] is None
    world.open_gate("overruns")


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"cron": "nonsense"}, "cron"),
        ({"cron": "61 * * * *"}, "cron"),
        ({"cron": "* * * * * *"}, "cron"),
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"cron": "* * * * *", "timezone": "Mars/Olympus"}, "timezone"),
    ],
)
def test_nonsense_is_refused(world: World, client: Client, said: dict[str, str], field: str) -> None:
    with pytest.raises(Refused, match="400"):
        client("schedule", workflow="when_told", **said)
    body = {"workflow_id": "when_told", "timezone": "UTC", "key": "k", **said}
    with world.http() as http:
        refused = http.post("/api/v1/schedules", json=body)
    assert (refused.status_code, field in refused.json()["error"]) == (400, True)


def test_a_workflow_that_is_not_made_for_it_is_not_scheduled(client: Client) -> None:
    with pytest.raises(Refused, match="400"):
        client("schedule", workflow="unheard_of", cron="* * * * *")
