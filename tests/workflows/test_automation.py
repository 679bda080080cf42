"""Schedules and event triggers over HTTP, against a real server: the contract's answers, and ours for what it leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from dormice.api.workflows.automation_wire import ScheduleRequest, TriggerRequest
from dormice.domain.limits import Limits
from tests.live import Api, Live
from tests.wait import wait_until

SCHEDULES, TRIGGERS = "/api/v1/schedules", "/api/v1/event-triggers"


class Flow:
    """A workflow of its own, which a deployment has."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.id = f"flow-{uuid4().hex[:8]}"
        self.topic = f"topic-{uuid4().hex[:8]}"
        api.post("/api/v1/workers/deployments", json={"deployment_id": "d1"}).raise_for_status()
        body = {"workflow_id": self.id, "workflow_type": "workflow", "trigger_on_event": True, "scheduled": True}
        api.post("/api/v1/workers/deployments/d1/workflows", json=body).raise_for_status()

    def schedule(self, **fields: Any) -> httpx.Response:
        """Put a schedule."""
        body = {"workflow_id": self.id, "cron": "0 9 * * 1-5", "timezone": "Europe/Berlin", "key": "global"}
        return self.api.post(SCHEDULES, json=body | fields)

    def scheduled(self, **fields: Any) -> str:
        """Put a schedule; return its id."""
        made: dict[str, str] = self.schedule(**fields).raise_for_status().json()
        assert set(made) == {"schedule_id"}
        return made["schedule_id"]

    def trigger(self, **fields: Any) -> httpx.Response:
        """Register a trigger."""
        body = {"workflow_id": self.id, "deployment_id": "d1", "event_topic": self.topic, "batch_size": 1}
        return self.api.post(f"{TRIGGERS}/register", json=body | fields)

    def publish(self, *data: Any) -> list[int]:
        """Publish events; return their sequences."""
        body = {"topic": self.topic, "events": [{"event_type": "told", "data": one} for one in data]}
        sequences: list[int] = (
            self.api.post("/api/v1/events/publish", json=body).raise_for_status().json()["sequence_ids"]
        )
        return sequences


@pytest.fixture(name="flow")
def _flow(live: Live) -> Iterator[Flow]:
    with live.client() as api:
        yield Flow(api)


def of(flow: Flow, schedule_id: str, path: str = "", **query: Any) -> Any:
    """Read a schedule, or what lies below it."""
    return flow.api.get(f"{SCHEDULES}/{schedule_id}{path}", params=query).raise_for_status().json()


def test_a_schedule_is_put_read_and_put_again(flow: Flow) -> None:
    schedule_id = flow.scheduled()
    assert flow.scheduled(cron="30 9 * * 1-5", catch_up="one", overlap=True) == schedule_id
    listed = flow.api.get(f"{SCHEDULES}/workflows/{flow.id}").raise_for_status().json()
    [record] = listed["schedules"]
    assert {
        name: record[name] for name in ("id", "workflow_id", "cron", "timezone", "key", "status", "last_run_at")
    } == {
        "id": schedule_id,
        "workflow_id": flow.id,
        "cron": "30 9 * * 1-5",
        "timezone": "Europe/Berlin",
        "key": "global",
        "status": "active",
        "last_run_at": None,
    }
    assert (record["catch_up"], record["overlap"], record["last_skipped_at"]) == ("one", True, None)
    moments = [datetime.fromisoformat(record[name]) for name in ("created_at", "updated_at", "next_run_at")]
    assert moments == sorted(moments)
    assert flow.id in flow.api.get(f"{SCHEDULES}/workflows").raise_for_status().json()["workflow_ids"]
    assert of(flow, schedule_id) == record
    assert of(flow, schedule_id, "/ticks") == {"ticks": []}


def test_the_next_ticks_are_told_to_who_asks(flow: Flow) -> None:
    record = of(flow, flow.scheduled(cron="0 0 * * *", timezone="UTC"), upcoming=3)
    first, *others = (datetime.fromisoformat(moment) for moment in record["upcoming"])
    assert first == datetime.fromisoformat(record["next_run_at"])
    assert others == [first + timedelta(days=1), first + timedelta(days=2)]


def test_schedules_are_listed_page_by_page(flow: Flow) -> None:
    made = [flow.scheduled(key=str(number)) for number in range(5)]
    found: list[str] = []
    query = {"workflow_id": flow.id, "limit": "2"}
    for _ in range(3):
        page = flow.api.get(SCHEDULES, params=query).raise_for_status().json()
        found += [record["id"] for record in page["schedules"]]
        query["cursor"] = page["next_cursor"]
    assert (found, page["next_cursor"]) == (made, None)
    keyed = flow.api.get(SCHEDULES, params={"workflow_id": flow.id, "key": "3"}).raise_for_status().json()
    assert [record["id"] for record in keyed["schedules"]] == made[3:4]


def test_a_schedule_is_paused_resumed_and_deleted(flow: Flow) -> None:
    schedule_id = flow.scheduled()
    paused = flow.api.post(f"{SCHEDULES}/{schedule_id}/pause").raise_for_status().json()
    assert (paused["status"], paused["next_run_at"]) == ("paused", None)
    assert flow.scheduled() == schedule_id
    assert of(flow, schedule_id, upcoming=2)["upcoming"] == []
    resumed = flow.api.post(f"{SCHEDULES}/{schedule_id}/resume").raise_for_status().json()
    assert resumed["status"] == "active"
    assert resumed["next_run_at"] is not None
    deleted = flow.api.delete(f"{SCHEDULES}/{schedule_id}")
    assert (deleted.status_code, deleted.content) == (200, b"")
    for ask in ("GET", "DELETE"):
        assert flow.api.request(ask, f"{SCHEDULES}/{schedule_id}").status_code == 404
    for ask in ("pause", "resume"):
        assert flow.api.post(f"{SCHEDULES}/{schedule_id}/{ask}").status_code == 404
    assert flow.api.get(f"{SCHEDULES}/{schedule_id}/ticks").status_code == 404


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"cron": "x"}, "minute (0-59)"),
        ({"cron": "61 * * * *"}, "bad minute"),
        ({"cron": "* * * * * *"}, "five fields"),
        ({"cron": "0 0 30 2 *"}, "bad day-of-month"),
        ({"timezone": "Mars/Olympus"}, "Europe/Berlin"),
        ({"timezone": "../../etc/passwd"}, "Europe/Berlin"),
        ({"key": ""}, "key must have"),
        ({"key": "k" * (Limits().schedule_key_chars + 1)}, "schedule_key_chars"),
        ({"workflow_id": ""}, "workflow_id"),
        ({"workflow_id": "unheard of"}, "scheduled: true"),
        ({"catch_up": "some"}, "none, one, all"),
    ],
)
def test_what_means_nothing_is_refused_and_says_what_is_wanted(flow: Flow, fields: dict[str, str], told: str) -> None:
    refused = flow.schedule(**fields)
    assert (refused.status_code, refused.json()["error_type"]) == (400, "BAD_REQUEST")
    assert told in refused.json()["error"]
    assert flow.api.get(f"{SCHEDULES}/workflows/{flow.id}").json() == {"schedules": []}


@pytest.mark.parametrize("missing", ScheduleRequest.__struct_fields__[:4])
def test_a_schedule_has_four_fields(flow: Flow, missing: str) -> None:
    body = {"workflow_id": flow.id, "cron": "* * * * *", "timezone": "UTC", "key": "k"}
    del body[missing]
    refused = flow.api.post(SCHEDULES, json=body)
    assert refused.status_code == 422
    assert missing in refused.json()["error"]


@pytest.mark.parametrize(
    ("path", "query"),
    [("", {"upcoming": "101"}), ("", {"upcoming": "x"}), ("/ticks", {"limit": "-1"}), ("/ticks", {"before": "soon"})],
)
def test_a_query_that_means_nothing_is_refused(flow: Flow, path: str, query: dict[str, str]) -> None:
    refused = flow.api.get(f"{SCHEDULES}/{flow.scheduled()}{path}", params=query)
    assert refused.status_code in {400, 422}
    assert next(iter(query)) in refused.json()["error"]


def test_events_start_runs_at_once(flow: Flow) -> None:
    registered = flow.trigger()
    assert (registered.status_code, registered.content) == (200, b"")
    sequences = flow.publish({"n": 1}, {"n": 2})
    wait_until(lambda: trigger_of(flow)["last_sequence_id"] == sequences[-1], 5, "both events have started runs")
    [last] = flow.publish({"n": 3})
    wait_until(lambda: trigger_of(flow)["last_sequence_id"] == last, 5, "the third one has")


def test_a_batch_waits_until_it_is_full(flow: Flow) -> None:
    flow.trigger(batch_size=2, batch_timeout_seconds=1000).raise_for_status()
    [first, second] = flow.publish(1)[0], flow.publish(2)[0]
    wait_until(lambda: trigger_of(flow)["last_sequence_id"] == second, 5, "two events have started a run")
    flow.publish(3)
    assert first < trigger_of(flow)["last_sequence_id"] == second


def trigger_of(flow: Flow) -> dict[str, Any]:
    """The trigger of the workflow."""
    listed = flow.api.get(TRIGGERS).raise_for_status().json()["event_triggers"]
    [found] = [record for record in listed if record["workflow_id"] == flow.id]
    return dict(found)


def test_a_trigger_is_changed_listed_and_deleted(flow: Flow) -> None:
    flow.trigger().raise_for_status()
    made = trigger_of(flow)
    assert (made["queue_name"], made["active"], made["last_sequence_id"]) == (flow.id, True, 0)
    flow.trigger(batch_size=5, batch_timeout_seconds=2, queue_name="q").raise_for_status()
    changed = trigger_of(flow)
    assert (changed["id"], changed["batch_size"], changed["queue_name"]) == (made["id"], 5, "q")
    for status in (200, 404):
        assert flow.api.delete(f"{TRIGGERS}/{made['id']}").status_code == status


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": -1}, "batch_size"),
        ({"batch_size": Limits().trigger_batch_events + 1}, "trigger_batch_events"),
        ({"batch_timeout_seconds": 0}, "batch_timeout_seconds"),
        ({"batch_timeout_seconds": 1 << 31}, "batch_timeout_seconds"),
        ({"event_topic": ""}, "event_topic"),
        ({"event_topic": "t" * (Limits().topic_chars + 1)}, "topic_chars"),
        ({"deployment_id": "unheard of"}, "register it first"),
        ({"workflow_id": "unheard of"}, "register it first"),
    ],
)
def test_a_trigger_that_means_nothing_is_refused(flow: Flow, fields: dict[str, Any], told: str) -> None:
    refused = flow.trigger(**fields)
    assert (refused.status_code, refused.json()["error_type"]) == (400, "BAD_REQUEST")
    assert told in refused.json()["error"]


@pytest.mark.parametrize("missing", TriggerRequest.__struct_fields__[:4])
def test_a_trigger_has_four_fields(flow: Flow, missing: str) -> None:
    body = {"workflow_id": flow.id, "deployment_id": "d1", "event_topic": "t", "batch_size": 1}
    del body[missing]
    assert flow.api.post(f"{TRIGGERS}/register", json=body).status_code == 422


def test_what_is_of_another_form_is_refused(flow: Flow) -> None:
    for path in (SCHEDULES, f"{TRIGGERS}/register"):
        assert flow.api.post(path, content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
        assert flow.api.post(path, json=[]).status_code == 422
        assert flow.api.post(path, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
