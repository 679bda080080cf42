"""Details of the wire contract that are easily missed, read off raw HTTP."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from tests.live import Api, Live, new_key, path_of
from tests.wait import wait_until

MICROSECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
UUID7 = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
OTHER_ORGANIZATION = "11111111-2222-4333-8444-555555555555"


@pytest.fixture(name="own")
def _own(api: Api) -> str:
    """A machine that a test may put to sleep, wake and delete."""
    return api.create_machine()


def test_a_machine_is_the_body_that_every_sdk_version_reads(api: Api, machine: str) -> None:
    record = api.get(f"/v1/machines/{machine}").json()
    assert re.fullmatch(f"dm-{UUID7}", record["machine_id"])
    assert record["phase"] == record["status"]["phase"] == record["desired_state"] == "running"
    assert record["status"]["reason"] == "DesiredStateReached"
    assert record["status"]["memory_configured_mib"] == record["memory_mib"] == 256
    assert record["autosleep_seconds"] == 0
    for moment in (record["created_at"], record["status"]["last_transition_at"], record["status"]["last_progress_at"]):
        assert MICROSECONDS.fullmatch(moment)


def test_an_execution_shows_no_null_and_no_stranger(api: Api, machine: str) -> None:
    record = api.execute(machine, "true")
    assert None not in record.values()
    assert record["log_capture"] == {}
    assert record["artifacts"] == record["env_keys"] == []
    assert record["cwd"] == "/root"
    assert re.fullmatch(f"exec-{UUID7}", record["execution_id"])
    assert not record.keys() & {"signal", "error_code", "error_message", "retry_after_ms", "expires_at"}
    for name in ("created_at", "started_at", "completed_at"):
        assert MICROSECONDS.fullmatch(record[name])


def test_every_change_of_a_machine_answers_with_it_and_its_etag(api: Api, own: str) -> None:
    path = f"/v1/machines/{own}"
    for answer in (
        api.get(path),
        api.patch(path, json={"memory_mib": 300}, headers=new_key()),
        api.post(f"{path}/sleep", headers=new_key()),
        api.post(f"{path}/wake", headers=new_key()),
        api.delete(path, headers=new_key()),
    ):
        assert answer.status_code in {200, 202}, answer.text
        assert answer.headers["content-type"] == "application/json"
        record = answer.json()
        assert answer.headers["etag"] == f'"{record["status"]["revision"]}"'
        assert record["phase"] == record["status"]["phase"]


@pytest.mark.parametrize("form", ["{}", '"{}"', 'W/"{}"', "*"])
def test_if_match_takes_the_revision_in_each_form(api: Api, own: str, form: str) -> None:
    revision = api.get(f"/v1/machines/{own}").json()["status"]["revision"]
    headers = {**new_key(), "If-Match": form.format(revision)}
    assert api.patch(f"/v1/machines/{own}", json={"autosleep": "10m"}, headers=headers).status_code == 200


@pytest.mark.parametrize(("method", "tail"), [("PATCH", ""), ("DELETE", ""), ("POST", "/sleep"), ("POST", "/wake")])
def test_a_stale_revision_is_a_conflict_that_no_sdk_retries(api: Api, own: str, method: str, tail: str) -> None:
    body = {"autosleep": "10m"} if method == "PATCH" else None
    answer = api.request(method, f"/v1/machines/{own}{tail}", json=body, headers={**new_key(), "If-Match": "424242"})
    assert answer.status_code == 409
    assert answer.headers["x-should-retry"] == "false"
    error = answer.json()
    assert error["error_code"] == "REVISION_MISMATCH"
    assert error["details"]["provided_revision"] == "424242"
    assert error["details"]["expected_revision"].isdecimal()


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}, {"Content-Length": "0"}])
def test_actions_need_no_body(api: Api, own: str, headers: dict[str, str]) -> None:
    for action in ("sleep", "wake"):
        answer = api.post(f"/v1/machines/{own}/{action}", headers={**new_key(), **headers}, params={"wait_ms": 20_000})
        assert answer.status_code == 200, answer.text
    answer = api.delete(f"/v1/machines/{own}", headers=headers, params={"wait_ms": 20_000})
    assert answer.status_code == 200
    assert answer.json()["phase"] == "destroyed"


def test_sleep_and_wake_again_change_nothing(api: Api, own: str) -> None:
    for action, phase in (("wake", "running"), ("sleep", "sleeping")):
        path = f"/v1/machines/{own}/{action}"
        first = api.post(path, params={"wait_ms": 20_000}, headers=new_key()).json()
        second = api.post(path, headers=new_key()).json()
        assert first == second
        assert first["phase"] == phase


def test_a_destroyed_machine_is_still_read_but_not_listed_and_takes_nothing(api: Api, own: str) -> None:
    path = f"/v1/machines/{own}"
    assert api.delete(path, params={"wait_ms": 20_000}).json()["phase"] == "destroyed"
    assert api.get(path).json()["desired_state"] == "destroyed"
    assert own not in [item["machine_id"] for item in api.get("/v1/machines", params={"limit": 1000}).json()["items"]]
    again = api.delete(path)
    assert (again.status_code, again.json()["phase"]) == (200, "destroyed")
    for action in ("sleep", "wake"):
        answer = api.post(f"{path}/{action}", headers=new_key())
        assert answer.status_code == 409
        assert answer.json()["error_code"] == "INVALID_STATE"
        assert answer.headers["x-should-retry"] == "false"
    body = {"command": ["true"]}
    assert api.post(f"{path}/executions", json=body, headers=new_key()).status_code == 404


def test_a_bare_uuid_is_the_machine(api: Api, machine: str) -> None:
    bare = machine.removeprefix("dm-")
    record = api.execute(bare, "true")
    assert record["machine_id"] == machine
    assert api.get(f"/v1/machines/{bare}/executions/{record['execution_id']}").json() == record
    key = new_key()
    made = [
        api.post(f"/v1/machines/{name}/executions", json={"command": ["true"]}, headers=key).json()["execution_id"]
        for name in (machine, bare)
    ]
    assert made[0] == made[1], "both names of a machine are one scope of idempotency keys"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "x-api-key", "both", "one of two"])
def test_any_valid_credential_will_do(live: Live, scheme: str) -> None:
    key = live.api_key
    headers = {
        "Bearer": {"Authorization": f"Bearer {key}"},
        "bearer": {"Authorization": f"bearer {key}"},
        "x-api-key": {"X-API-KEY": key},
        "both": {"Authorization": f"Bearer {key}", "x-api-key": key},
        "one of two": {"Authorization": f"Bearer {'x' * 43}", "x-api-key": key},
    }[scheme]
    assert httpx.get(f"{live.base_url}/v1/machines", headers=headers, trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "AUTH_REQUIRED"),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, "AUTH_REQUIRED"),
        ({"Authorization": f"Bearer {'x' * 43}"}, "AUTH_INVALID"),
        ({"x-api-key": "short"}, "AUTH_INVALID"),
    ],
)
def test_without_a_valid_key_the_answer_is_401(live: Live, headers: dict[str, str], code: str) -> None:
    answer = httpx.get(f"{live.base_url}/v1/machines", headers=headers, trust_env=False)
    assert answer.status_code == 401
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json()["error_code"] == code
    assert answer.json()["retryable"] is False


def test_an_organization_that_is_not_the_keys_is_403(api: Api, machine: str) -> None:
    answer = api.get(f"/v1/machines/{machine}", headers={"X-Dedalus-Org-Id": OTHER_ORGANIZATION})
    assert answer.status_code == 403
    assert answer.json()["error_code"] == "AUTH_ORG_MISMATCH"
    own = api.get("/v1/keys").json()["items"][0]["organization_id"]
    assert api.get(f"/v1/machines/{machine}", headers={"X-Dedalus-Org-Id": own}).status_code == 200


def test_what_belongs_to_others_is_not_there(live: Live, api: Api, machine: str) -> None:
    record = api.execute(machine, "true")
    secret = api.post("/v1/keys", json={"organization": "strangers"}, headers=new_key()).json()["key"]
    stranger = live.client(headers={"Authorization": f"Bearer {secret}"})
    with stranger:
        unknown = "/v1/machines/dm-01234567-89ab-7cde-8f01-23456789abcd"
        for foreign, missing in (
            (f"/v1/machines/{machine}", unknown),
            (f"/v1/machines/{machine}/executions", f"{unknown}/executions"),
            (path_of(record), f"{unknown}/executions/exec-1"),
            (f"{path_of(record)}/output", f"{unknown}/executions/exec-1/output"),
            (f"{path_of(record)}/events", f"{unknown}/executions/exec-1/events"),
            (f"/v1/machines/{machine}/status/stream", f"{unknown}/status/stream"),
        ):
            answers = [stranger.get(path) for path in (foreign, missing)]
            assert [answer.status_code for answer in answers] == [404, 404]
            assert answers[0].json() == answers[1].json(), "whether an id exists must not be told"
        assert stranger.delete(path_of(record)).status_code == 404
        assert stranger.delete(f"/v1/machines/{machine}").status_code == 404
        assert stranger.get("/v1/machines").json()["items"] == []
        assert stranger.post("/v1/keys", json={}).status_code == 403


def test_status_events_begin_with_the_present_and_each_ends_with_a_blank_line(api: Api, own: str) -> None:
    with api.stream("GET", f"/v1/machines/{own}/status/stream", headers={"Accept": "text/event-stream"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = answer.read().decode()
    (event,) = _events(text)
    assert event["event"] == "status"
    assert json.loads(event["data"]) == api.get(f"/v1/machines/{own}").json()
    assert event["id"] == json.loads(event["data"])["status"]["revision"]


def test_status_events_follow_a_machine_to_its_desired_state(api: Api) -> None:
    made = api.post("/v1/machines", json={"memory_mib": 256, "storage_gib": 1}, headers=new_key()).json()
    events = _events(api.get(f"/v1/machines/{made['machine_id']}/status/stream").text)
    phases = [json.loads(event["data"])["phase"] for event in events]
    assert phases[-1] == "running"
    order = ["accepted", "placement_pending", "starting", "running"]
    assert phases == sorted(set(phases), key=order.index)


def _events(text: str) -> list[dict[str, str]]:
    assert text.endswith("\n\n"), "the last event must be ended, or clients drop it"
    blocks = [block for block in text.removesuffix("\n\n").split("\n\n") if not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


@pytest.fixture(scope="module", name="silence", autouse=True)
def _silence(live: Live, machine: str) -> Iterator[Future[str]]:
    """What a stream says that has nothing to say, up to its second word; heard while other tests run."""

    def listen() -> str:
        with live.client() as api:
            record = api.execute(machine, "sleep", "600", wait_ms=0)
            with api.stream("GET", f"{path_of(record)}/events", headers={"Accept": "text/event-stream"}) as answer:
                seen = ""
                for text in answer.iter_text():
                    seen += text
                    if ":" in seen.rpartition("\n\n:")[1] and seen.endswith("\n\n"):
                        break
            api.delete(path_of(record))
            return seen

    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(listen)


def test_a_silent_stream_is_kept_alive_by_comments(silence: Future[str]) -> None:
    assert re.search(r"\n\n: [^\n]*\n\n$", silence.result(30))


def test_retry_after_stands_only_in_wake_in_progress(api: Api, own: str) -> None:
    api.post(f"/v1/machines/{own}/sleep", params={"wait_ms": 20_000}, headers=new_key())
    made = api.execute(own, "true", wait_ms=0)
    assert made["status"] == "wake_in_progress"
    assert 0 < made["retry_after_ms"] <= 60_000
    assert MICROSECONDS.fullmatch(made["expires_at"])
    ended = api.finished(made)
    assert ended["status"] == "succeeded"
    assert "retry_after_ms" not in ended
    listed = [event["status"] for event in api.get(f"{path_of(made)}/events").json()["items"] if "status" in event]
    assert listed == ["wake_in_progress", "queued", "running", "succeeded"]


def test_pages_have_items_and_the_last_one_no_cursor(api: Api, own: str) -> None:
    path = f"/v1/machines/{own}/executions"
    assert api.get(path).json() == {"items": []}
    made = [api.execute(own, "true")["execution_id"] for _ in range(4)]
    seen: list[str] = []
    pages, cursor = 0, ""
    while True:
        page = api.get(path, params={"limit": 2, "cursor": cursor}).json()
        pages, seen = pages + 1, seen + [item["execution_id"] for item in page["items"]]
        if not (cursor := page.get("next_cursor", "")):
            break
    assert seen == made[::-1]
    assert pages == 2, "a full last page must not promise another"
    assert len(api.get(path, params={"limit": 0}).json()["items"]) == 4


def test_no_answer_is_empty(api: Api, own: str) -> None:
    record = api.execute(own, "true")
    requests = [
        ("GET", "/nowhere"),
        ("PUT", "/v1/machines"),
        ("OPTIONS", "/v1/machines"),
        ("DELETE", path_of(record)),
        ("GET", f"{path_of(record)}/nowhere"),
        ("GET", "/v1/machines/%00"),
        ("GET", "/v1/machines/" + "x" * 5000),
        ("GET", "//v1//machines"),
        ("GET", "/v1/machines/"),
    ]
    for method, path in requests:
        answer = api.request(method, path)
        assert answer.status_code < 500, (method, path)
        assert answer.status_code != 204, (method, path)
        assert isinstance(answer.json(), dict), (method, path)


def test_what_is_not_http_is_refused_with_a_problem(live: Live) -> None:
    host, port = urlsplit(live.base_url).hostname, urlsplit(live.base_url).port
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["status"] == 400


def test_a_slow_client_keeps_nobody_waiting(live: Live, api: Api) -> None:
    host, port = urlsplit(live.base_url).hostname, urlsplit(live.base_url).port
    slow = [socket.create_connection((host, port)) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(b"POST /v1/machines HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n")
        assert api.get("/healthz").status_code == 200
        assert api.get("/v1/machines").elapsed.total_seconds() < 2
    finally:
        for connection in slow:
            connection.close()


def test_health_needs_no_key(live: Live) -> None:
    for path in ("/health", "/healthz"):
        answer = httpx.get(live.base_url + path, trust_env=False)
        assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
    ready = httpx.get(f"{live.base_url}/readyz", trust_env=False).json()
    assert ready["ready"] is True
    assert {name: part["ready"] for name, part in ready["parts"].items()} == dict.fromkeys(ready["parts"], True)
    assert ready["parts"].keys() == {"store", "node", "services"}


def test_the_limits_are_told(api: Api) -> None:
    told = api.get("/v1/limits").json()
    assert told["limits"]["request_body_bytes"] == 1 << 20
    assert told.keys() >= {"limits", "defaults"}


def test_an_image_that_is_not_there_is_refused_at_once(api: Api) -> None:
    answer = api.post("/v1/machines", json={"image": "no-such-image"}, headers=new_key())
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["location"] == "body.image"


def test_autosleep_puts_an_idle_machine_to_sleep(api: Api) -> None:
    machine_id = api.create_machine(autosleep="1s")
    wait_until(lambda: api.get(f"/v1/machines/{machine_id}").json()["phase"] == "sleeping", 15, "asleep")
    assert api.execute(machine_id, "true")["status"] == "succeeded"
