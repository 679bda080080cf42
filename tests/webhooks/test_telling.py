"""What webhooks are told, on a live server with a real endpoint."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from dormice import Dormice, NotFoundError
from tests.conftest import StartLive
from tests.live import Api, Live, new_key, path_of
from tests.wait import wait_until
from tests.webhooks.conftest import QUICK
from tests.webhooks.receiver import Receiver, receiving


def create(api: Api, url: str, **body: Any) -> dict[str, Any]:
    made = api.post("/v1/webhooks", json={"url": url, **body})
    assert made.status_code == 200, made.text
    record: dict[str, Any] = made.json()
    return record


@contextmanager
def told(api: Api, url: str, **body: Any) -> Iterator[dict[str, Any]]:
    """Have a webhook for as long as the block lasts."""
    webhook = create(api, url, **body)
    try:
        yield webhook
    finally:
        assert api.delete(f"/v1/webhooks/{webhook['webhook_id']}").status_code == 200


def test_an_end_is_told_signed_and_as_the_api_shows_it(telling_api: Api, receiver: Receiver) -> None:
    machine = telling_api.create_machine()
    with told(telling_api, receiver.url, events=["execution.finished"]) as webhook:
        record = telling_api.execute(machine, "sh", "-c", "echo hi; exit 3")
        (request,) = receiver.wait_for("execution.failed")
        assert request.path == "/hook?to=us"
        assert request.event["data"] == telling_api.get(path_of(record)).json()
        assert request.event["timestamp"] == record["completed_at"]
        assert request.signed_with(webhook["secret"])
        assert not request.signed_with("whsec_" + "A" * 44)
        assert [one["status"] for one in deliveries(telling_api, webhook, 1)] == ["delivered"]
        shown = telling_api.get(f"/v1/webhooks/{webhook['webhook_id']}")
        assert webhook["secret"] not in shown.text + telling_api.get("/v1/webhooks").text


def deliveries(api: Api, webhook: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Return its deliveries once so many have ended."""

    def ended() -> list[dict[str, Any]]:
        items = api.get(f"/v1/webhooks/{webhook['webhook_id']}/deliveries").json()["items"]
        return [one for one in items if one["status"] != "pending"]

    wait_until(lambda: len(ended()) >= count, 20, f"{count} ended")
    return ended()


def test_the_life_of_a_machine_is_told(telling_api: Api, receiver: Receiver) -> None:
    with told(telling_api, receiver.url, events=["machine.changed"]):
        machine = telling_api.create_machine()
        telling_api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 20_000}).raise_for_status()
        telling_api.delete(f"/v1/machines/{machine}", params={"wait_ms": 20_000}).raise_for_status()
        for phase in ("running", "sleeping", "destroyed"):
            (request,) = receiver.wait_for(f"machine.{phase}")
            assert (request.event["data"]["machine_id"], request.event["data"]["phase"]) == (machine, phase)


def test_what_is_not_asked_for_is_not_told(telling_api: Api, receiver: Receiver) -> None:
    with told(telling_api, receiver.url, events=["execution.succeeded"]):
        machine = telling_api.create_machine()
        telling_api.execute(machine, "false")
        telling_api.execute(machine, "true")
        receiver.wait_for("execution.succeeded")
        assert len(receiver.requests) == 1


def test_a_test_event_says_whether_it_works(telling_api: Api, receiver: Receiver) -> None:
    with told(telling_api, receiver.url) as webhook:
        path = f"/v1/webhooks/{webhook['webhook_id']}"
        sent = telling_api.post(f"{path}/test", params={"wait_ms": 20_000}).json()
        assert (sent["status"], sent["type"], sent["last_status_code"]) == ("delivered", "webhook.test", 200)
        receiver.status = 500
        sent = telling_api.post(f"{path}/test", params={"wait_ms": 20_000}).json()
        assert (sent["status"], sent["attempts"], sent["last_status_code"]) == ("pending", 1, 500)
        receiver.status = 200
        wait_until(lambda: len(deliveries(telling_api, webhook, 2)) == 2, 20, "tried again")
        same = [one for one in receiver.requests if one.event_id == sent["event_id"]]
        assert len(same) >= 2, "the same id at every attempt"


def test_an_event_can_be_sent_again(telling_api: Api, receiver: Receiver) -> None:
    with told(telling_api, receiver.url) as webhook:
        path = f"/v1/webhooks/{webhook['webhook_id']}"
        first = telling_api.post(f"{path}/test", params={"wait_ms": 20_000}).json()
        again = telling_api.post(f"{path}/deliveries/{first['event_id']}/redeliver", params={"wait_ms": 20_000}).json()
        assert (again["status"], again["attempts"]) == ("delivered", 2)
        assert len({request.event_id for request in receiver.requests}) == 1


def test_both_secrets_sign_after_a_rotation(telling_api: Api, receiver: Receiver) -> None:
    with told(telling_api, receiver.url) as webhook:
        path = f"/v1/webhooks/{webhook['webhook_id']}"
        rotated = telling_api.post(f"{path}/rotate-secret").json()
        telling_api.post(f"{path}/test", params={"wait_ms": 20_000})
        (request,) = receiver.requests
        assert request.signed_with(webhook["secret"])
        assert request.signed_with(rotated["secret"])


def test_a_redirect_is_not_followed(telling_api: Api, receiver: Receiver) -> None:
    with receiving() as other, told(telling_api, receiver.url) as webhook:
        receiver.status, receiver.location = 307, other.url
        path = f"/v1/webhooks/{webhook['webhook_id']}/test"
        sent = telling_api.post(path, params={"wait_ms": 20_000}).json()
        assert (sent["status"], sent["last_status_code"]) == ("pending", 307)
        assert "redirects are not followed" in sent["last_error"]
        assert other.requests == []


def test_an_endpoint_that_is_gone_is_disabled(telling_api: Api, receiver: Receiver) -> None:
    with told(telling_api, receiver.url) as webhook:
        path = f"/v1/webhooks/{webhook['webhook_id']}"
        receiver.status = 410
        telling_api.post(f"{path}/test", params={"wait_ms": 20_000})
        shown = telling_api.get(path).json()
        assert (shown["enabled"], shown["disabled_reason"]) == (False, "the endpoint answered 410 Gone")
        refused = telling_api.post(f"{path}/test")
        assert (refused.status_code, refused.json()["error_code"]) == (409, "INVALID_STATE")
        receiver.status = 200
        shown = telling_api.patch(path, json={"enabled": True}).json()
        assert shown["enabled"]
        assert "disabled_reason" not in shown
        assert deliveries(telling_api, webhook, 1)[0]["status"] == "delivered", "what was pending goes on"


def test_a_dead_endpoint_delays_no_other(telling_api: Api, receiver: Receiver) -> None:
    machine = telling_api.create_machine()
    with receiving() as stuck, told(telling_api, receiver.url) as webhook:
        stuck.hold = threading.Event()
        with told(telling_api, stuck.url), told(telling_api, "http://127.0.0.1:9/"):
            for _ in range(20):
                telling_api.execute(machine, "true")
            receiver.wait_for("execution.succeeded", 20)
            assert len(deliveries(telling_api, webhook, 20)) == 20


def test_what_happens_while_the_endpoint_is_away_and_the_server_dies_is_told(start_live: StartLive) -> None:
    with start_live(**QUICK) as live, live.client() as api:
        with receiving() as away:
            port = away.port
        create(api, f"http://127.0.0.1:{port}/", events=["execution.finished"])
        machine = api.create_machine()
        ended = {api.execute(machine, "true")["execution_id"] for _ in range(5)}
        running = api.execute(machine, "sh", "-c", "sleep 1; true", wait_ms=0)
        live.kill("server")
        live.wait_ready()
        ended.add(running["execution_id"])
        with receiving(port) as receiver:
            wait_until(
                lambda: {one.event["data"]["execution_id"] for one in receiver.of("execution.succeeded")} == ended,
                30,
                "all",
            )


def test_what_was_under_way_when_the_server_died_is_told_again(start_live: StartLive) -> None:
    with start_live(**QUICK) as live, live.client() as api, receiving() as receiver:
        create(api, receiver.url, events=["execution.finished"])
        machine = api.create_machine()
        receiver.hold = threading.Event()
        api.execute(machine, "true")
        wait_until(lambda: receiver.taken, 10, "it is being told")
        live.kill("server")
        receiver.hold.set()
        live.wait_ready()
        first, again = receiver.wait_for("execution.succeeded", 2)
        assert (first.event_id, first.body) == (again.event_id, again.body)


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({}, "body.url"),
        ({"url": 5}, "body.url"),
        ({"url": "https://10.0.0.1/"}, "body.url"),
        ({"url": "http://169.254.169.254/latest"}, "body.url"),
        ({"url": "https://a.net/#b"}, "body.url"),
        ({"url": "https://a.net", "events": []}, "body.events"),
        ({"url": "https://a.net", "events": ["machine.running", "nonsense"]}, "body.events[1]"),
        ({"url": "https://a.net", "events": ["webhook.test"]}, "body.events[0]"),
        ({"url": "https://a.net", "secret": "mine"}, "body.secret"),
    ],
)
def test_bad_input_is_told_with_its_place(telling_api: Api, body: dict[str, Any], location: str) -> None:
    answer = telling_api.post("/v1/webhooks", json=body)
    assert answer.status_code == 422, answer.text
    assert [one["location"] for one in answer.json()["errors"]] == [location]


def test_a_repeated_request_gets_the_same_webhook_and_its_secret(telling_api: Api, receiver: Receiver) -> None:
    def ask(key: dict[str, str], **body: Any) -> httpx.Response:
        return telling_api.post("/v1/webhooks", json={"url": receiver.url, **body}, headers=key)

    key, before = new_key(), telling_api.get("/v1/webhooks").json()["items"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(key), range(16)))
    made = answers[0].json()
    assert {answer.status_code for answer in answers} == {200}, answers[-1].text
    assert all(answer.json() == made for answer in answers)
    assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}
    assert len(telling_api.get("/v1/webhooks").json()["items"]) == len(before) + 1
    path = f"/v1/webhooks/{made['webhook_id']}"
    telling_api.post(f"{path}/test", params={"wait_ms": 20_000}).raise_for_status()
    assert receiver.wait_for("webhook.test")[0].signed_with(made["secret"])
    refused = ask(key, enabled=False)
    assert (refused.status_code, refused.json()["error_code"]) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert made["secret"] not in refused.text
    rotated = telling_api.post(f"{path}/rotate-secret").json()
    assert ask(key).json()["secret"] == rotated["secret"]
    other = ask(new_key()).json()
    assert other["webhook_id"] != made["webhook_id"]
    for one in (made, other):
        telling_api.delete(f"/v1/webhooks/{one['webhook_id']}").raise_for_status()
    assert ask(key).status_code == 404


def test_a_stranger_with_the_same_key_gets_a_webhook_of_its_own(telling_api: Api, receiver: Receiver) -> None:
    stranger = telling_api.post("/v1/keys", json={"organization": "namesakes"}).json()["key"]
    key = new_key()
    mine, others = (
        telling_api.post("/v1/webhooks", json={"url": receiver.url}, headers={**key, **whose}).raise_for_status().json()
        for whose in ({}, {"authorization": f"Bearer {stranger}"})
    )
    assert (mine["webhook_id"], mine["secret"]) != (others["webhook_id"], others["secret"])
    assert mine["secret"] != others["secret"]
    telling_api.delete(f"/v1/webhooks/{mine['webhook_id']}").raise_for_status()


def test_an_organization_has_so_many_at_most(start_live: StartLive) -> None:
    with start_live(DORMICE_LIMIT_WEBHOOKS_PER_ORGANIZATION="1") as live, live.client() as api:
        create(api, "https://example.com/1")
        refused = api.post("/v1/webhooks", json={"url": "https://example.com/2"})
        assert (refused.status_code, refused.json()["error_code"]) == (409, "QUOTA_EXCEEDED")


def test_the_clients_do_it_all(telling: Live, receiver: Receiver) -> None:
    with Dormice(base_url=telling.base_url, api_key=telling.api_key) as client:
        webhook = client.webhooks.create(receiver.url, events=["machine.failed"], idempotency_key="of the client")
        again = client.webhooks.create(receiver.url, events=["machine.failed"], idempotency_key="of the client")
        assert (again, again.secret) == (webhook, webhook.secret)
        assert webhook.secret not in repr(webhook)
        assert client.webhooks.update(webhook.webhook_id, enabled=False).enabled is False
        assert client.webhooks.update(webhook.webhook_id, enabled=True).events == ["machine.failed"]
        assert webhook.webhook_id in [one.webhook_id for one in client.webhooks.list()]
        sent = client.webhooks.test(webhook.webhook_id, wait_ms=20_000)
        assert sent.status == "delivered"
        assert client.webhooks.redeliver(webhook.webhook_id, sent.event_id, wait_ms=20_000).attempts == 2
        assert [one.event_id for one in client.webhooks.deliveries(webhook.webhook_id)] == [sent.event_id]
        assert client.webhooks.rotate_secret(webhook.webhook_id).secret != webhook.secret
        assert client.webhooks.retrieve(webhook.webhook_id).url == receiver.url
        client.webhooks.delete(webhook.webhook_id)
        with pytest.raises(NotFoundError):
            client.webhooks.retrieve(webhook.webhook_id)


def test_the_command_line_does_it_all(telling: Live, receiver: Receiver) -> None:
    def dormice(*words: str) -> Any:
        environment = {**telling.environment(), "DORMICE_BASE_URL": telling.base_url}
        command = [sys.executable, "-m", "dormice.cli", "webhooks", *words, "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    words = ("create", receiver.url, "--event", "execution.finished", "--event", "machine.failed")
    (made,) = dormice(*words, "--idempotency-key", "of the command line")
    assert dormice(*words, "--idempotency-key", "of the command line") == [made]
    identity = made["webhook_id"]
    assert made["events"] == ["execution.finished", "machine.failed"]
    assert made["secret"].startswith("whsec_")
    assert identity in [one["webhook_id"] for one in dormice("list")]
    (sent,) = dormice("test", identity, "--wait-ms", "20000")
    assert sent["status"] == "delivered"
    (again,) = dormice("redeliver", identity, sent["event_id"], "--wait-ms", "20000")
    assert again["attempts"] == 2
    assert [one["event_id"] for one in dormice("deliveries", identity)] == [sent["event_id"]]
    assert dormice("update", identity, "--disable")[0]["enabled"] is False
    assert dormice("get", identity)[0]["enabled"] is False
    assert dormice("rotate-secret", identity)[0]["secret"] != made["secret"]
    dormice("delete", identity)


def test_others_see_nothing_of_it(telling_api: Api, receiver: Receiver) -> None:
    key = telling_api.post("/v1/keys", json={"organization": "strangers"}).json()["key"]
    stranger = {"authorization": f"Bearer {key}"}
    with told(telling_api, receiver.url) as webhook:
        path = f"/v1/webhooks/{webhook['webhook_id']}"
        event = telling_api.post(f"{path}/test", params={"wait_ms": 20_000}).json()["event_id"]
        assert telling_api.get("/v1/webhooks", headers=stranger).json() == {"items": []}
        for method, route, body in (
            ("GET", path, None),
            ("PATCH", path, {"enabled": False}),
            ("DELETE", path, None),
            ("POST", f"{path}/rotate-secret", None),
            ("POST", f"{path}/test", None),
            ("GET", f"{path}/deliveries", None),
            ("POST", f"{path}/deliveries/{event}/redeliver", None),
        ):
            answer = telling_api.request(method, route, json=body, headers=stranger)
            assert answer.status_code == 404, (method, route, answer.text)
        machine = telling_api.create_machine()
        telling_api.execute(machine, "true")
        receiver.wait_for("execution.succeeded")
