"""What Dormice adds to the machine surface: long polls, live events, exact bytes, open standard input."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.live import Api, new_key, path_of

ALL_BYTES = bytes(range(256))
WRITE_ALL_BYTES = "import os; os.write(1, bytes(range(256))); os.write(2, b'\\xff')"
STREAM = {"Accept": "text/event-stream"}
Event = dict[str, Any]


def _events(answer: httpx.Response) -> Iterator[Event]:
    """Yield what a stream says, each event with its id, up to the stream's end."""
    lines: dict[str, str] = {}
    for line in answer.iter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            lines[name] = value
        elif lines:
            event: Event = json.loads(lines["data"])
            assert lines["event"] == event["type"]
            assert lines["id"] == str(event["sequence"])
            yield event
            lines = {}
    assert not lines, "the last event must be ended by a blank line"


def test_a_long_poll_ends_with_the_execution(api: Api, machine: str) -> None:
    began = time.monotonic()
    record = api.shell(machine, "sleep 0.3", wait_ms=20_000)
    assert record["status"] == "succeeded"
    assert 0.3 <= time.monotonic() - began < 3


def test_a_long_poll_ends_with_its_time(api: Api, machine: str) -> None:
    began = time.monotonic()
    record = api.execute(machine, "sleep", "600", wait_ms=300)
    assert record["status"] == "running"
    assert 0.3 <= time.monotonic() - began < 3
    found = api.get(path_of(record), params={"wait_ms": 200}).json()
    assert found["status"] == "running"
    api.delete(path_of(record))
    assert api.finished(record)["status"] == "cancelled"


def test_without_a_wait_the_answer_comes_at_once(api: Api, machine: str) -> None:
    began = time.monotonic()
    record = api.execute(machine, "sleep", "600", wait_ms=0)
    assert record["status"] in {"queued", "running"}
    assert time.monotonic() - began < 1
    api.delete(path_of(record))


def test_a_machine_is_waited_for(api: Api) -> None:
    machine = api.create_machine()
    for action, phase in (("sleep", "sleeping"), ("wake", "running")):
        path = f"/v1/machines/{machine}/{action}"
        assert api.post(path, params={"wait_ms": 20_000}, headers=new_key()).json()["phase"] == phase


def test_events_come_live_and_the_stream_ends_with_the_execution(api: Api, machine: str) -> None:
    record = api.execute(machine, "cat", stdin_open=True, wait_ms=0)
    stdin, seen = f"{path_of(record)}/stdin", []
    with api.stream("GET", f"{path_of(record)}/events", headers=STREAM) as answer:
        for event in _events(answer):
            seen.append(event)
            if event.get("status") == "running":
                api.put(stdin, params={"offset": 0}, content=b"first\n").raise_for_status()
            if event.get("chunk") == "first\n":
                api.put(stdin, params={"offset": 6, "eof": "true"}, content=b"second\n").raise_for_status()
    assert [event["sequence"] for event in seen] == list(range(1, len(seen) + 1))
    assert "".join(event.get("chunk", "") for event in seen) == "first\nsecond\n"
    assert (seen[-1]["type"], seen[-1]["status"], seen[-1]["exit_code"]) == ("lifecycle", "succeeded", 0)


def test_a_stream_resumes_after_the_last_event_seen(api: Api, machine: str) -> None:
    record = api.shell(machine, "for i in 1 2 3 4 5; do echo $i; sleep 0.02; done")
    path = f"{path_of(record)}/events"
    whole = api.get(path).json()["items"]
    for after in range(len(whole) + 1):
        for headers, parameters in (({"Last-Event-ID": str(after)}, {}), ({}, {"cursor": str(after)})):
            with api.stream("GET", path, headers={**STREAM, **headers}, params=parameters) as answer:
                assert list(_events(answer)) == whole[after:]
    with api.stream("GET", path, headers={**STREAM, "Last-Event-ID": "x"}) as answer:
        assert answer.status_code == 422


def test_a_page_of_events_is_waited_for(api: Api, machine: str) -> None:
    record = api.execute(machine, "cat", stdin_open=True, wait_ms=0)
    path = f"{path_of(record)}/events"
    cursor = ""
    seen: list[Event] = []
    written = False
    while True:
        page = api.get(path, params={"cursor": cursor, "wait_ms": 5_000}).json()
        seen += page["items"]
        if not written and any(event.get("status") == "running" for event in seen):
            written = True
            api.put(f"{path_of(record)}/stdin", params={"offset": 0, "eof": "true"}, content=b"x")
        if "next_cursor" not in page:
            break
        cursor = page["next_cursor"]
    assert seen[-1]["status"] == "succeeded"
    assert "".join(event.get("chunk", "") for event in seen) == "x"


def test_a_page_without_news_comes_empty_after_its_wait(api: Api, machine: str) -> None:
    record = api.execute(machine, "sleep", "600", wait_ms=300)
    path = f"{path_of(record)}/events"
    last = api.get(path).json()["items"][-1]["sequence"]
    began = time.monotonic()
    assert api.get(path, params={"cursor": last, "wait_ms": 300}).json()["items"] == []
    assert 0.3 <= time.monotonic() - began < 3
    api.delete(path_of(record))


def test_base64_carries_the_exact_bytes(api: Api, machine: str) -> None:
    record = api.execute(machine, "python3", "-c", WRITE_ALL_BYTES)
    output = api.get(f"{path_of(record)}/output", params={"encoding": "base64"}).json()
    assert b64decode(output["stdout_base64"]) == ALL_BYTES
    assert b64decode(output["stderr_base64"]) == b"\xff"
    assert not output.keys() & {"stdout", "stderr"}
    page = api.get(f"{path_of(record)}/events", params={"encoding": "base64"}).json()["items"]
    with api.stream("GET", f"{path_of(record)}/events", params={"encoding": "base64"}, headers=STREAM) as answer:
        assert list(_events(answer)) == page
    at = 0
    for event in page:
        assert "chunk" not in event
        if event["type"] == "stdout":
            assert event["offset"] == at
            at += len(b64decode(event["chunk_base64"]))
    assert at == 256
    assert api.get(f"{path_of(record)}/output", params={"encoding": "hex"}).status_code == 422


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("0-9", 0, 10), ("250-", 250, 256), ("-6", 250, 256), ("100-9999", 100, 256), ("0-0", 0, 1), ("-999", 0, 256)],
)
def test_a_range_of_bytes_is_served(api: Api, machine: str, asked: str, start: int, end: int) -> None:
    record = api.execute(machine, "python3", "-c", WRITE_ALL_BYTES)
    answer = api.get(f"{path_of(record)}/output/stdout", headers={"Range": f"bytes={asked}"})
    assert answer.status_code == 206
    assert answer.content == ALL_BYTES[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/256"
    assert answer.headers["x-dormice-total-bytes"] == "256"
    assert answer.headers["x-dormice-truncated"] == "false"


def test_a_range_beyond_the_end_is_told(api: Api, machine: str) -> None:
    record = api.execute(machine, "echo", "hi")
    path = f"{path_of(record)}/output/stdout"
    answer = api.get(path, headers={"Range": "bytes=3-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */3")
    assert answer.json()["status"] == 416
    for whole in ("bytes=2-1", "lines=0-1", "bytes=0-0,2-2", "bytes=x"):
        answer = api.get(path, headers={"Range": whole})
        assert (answer.status_code, answer.content) == (200, b"hi\n")
    empty = api.get(f"{path_of(record)}/output/stderr")
    assert (empty.status_code, empty.content, empty.headers["content-type"]) == (200, b"", "application/octet-stream")


def test_output_is_read_while_it_is_written(api: Api, machine: str) -> None:
    record = api.execute(machine, "/bin/bash", "-c", "echo so far; cat", stdin_open=True, wait_ms=0)
    api.wait_for_output(record, b"so far\n")
    output = api.get(f"{path_of(record)}/output").json()
    assert (output["stdout"], output["stdout_truncated"]) == ("so far\n", False)
    api.put(f"{path_of(record)}/stdin", params={"offset": 0, "eof": "true"}, content=b"rest")
    assert api.output(api.finished(record)) == b"so far\nrest"


def test_standard_input_is_written_by_offset(api: Api, machine: str) -> None:
    record = api.execute(machine, "cat", stdin_open=True, wait_ms=0)
    path = f"{path_of(record)}/stdin"

    def put(offset: int, data: bytes, **parameters: str) -> httpx.Response:
        return api.put(path, params={"offset": offset, **parameters}, content=data)

    name = record["execution_id"]
    assert put(0, b"hello ").json() == {"execution_id": name, "offset": 6, "eof": False}
    assert put(0, b"hello ").json()["offset"] == 6, "a repeat is skipped"
    assert put(3, b"lo world").json()["offset"] == 11, "only what is new is taken"
    gap = put(20, b"x")
    assert gap.status_code == 409
    assert gap.json()["error_code"] == "INVALID_STATE"
    assert gap.json()["details"]["expected_offset"] == "11"
    assert gap.headers["x-should-retry"] == "false"
    assert put(11, ALL_BYTES).json()["offset"] == 267
    assert put(267, b"", eof="true").json() == {"execution_id": name, "offset": 267, "eof": True}
    assert api.output(api.finished(record)) == b"hello world" + ALL_BYTES
    late = put(267, b"more")
    assert late.status_code == 409
    assert late.headers["x-should-retry"] == "false"


def test_eof_sent_again_is_no_error(api: Api, machine: str) -> None:
    record = api.execute(machine, "/bin/bash", "-c", "cat; sleep 0.5", stdin_open=True, wait_ms=0)
    for _ in range(2):
        answer = api.put(f"{path_of(record)}/stdin", params={"offset": 0, "eof": "true"}, content=b"x")
        assert answer.status_code == 200, answer.text
        assert answer.json()["eof"] is True
    assert api.output(api.finished(record)) == b"x"


def test_standard_input_that_is_not_open_is_refused(api: Api, machine: str) -> None:
    for body in ({}, {"stdin": "x"}):
        record = api.execute(machine, "sleep", "600", wait_ms=0, **body)
        answer = api.put(f"{path_of(record)}/stdin", params={"offset": 0}, content=b"x")
        assert answer.status_code == 409, answer.text
        api.delete(path_of(record))


def test_standard_input_has_its_bounds(api: Api, machine: str) -> None:
    record = api.execute(machine, "cat", stdin_open=True, wait_ms=0)
    path = f"{path_of(record)}/stdin"
    assert api.put(path, content=b"x").status_code == 422
    assert api.put(path, params={"offset": -1}, content=b"x").status_code == 422
    assert api.put(path, params={"offset": 0, "eof": "maybe"}, content=b"x").status_code == 422
    assert api.put(path, params={"offset": 0}, content=b"x" * ((1 << 20) + 1)).status_code == 413
    data = b"0123456789abcdef" * 65_536
    for n in range(3):
        answer = api.put(path, params={"offset": n << 20, "eof": str(n == 2).lower()}, content=data)
        assert answer.status_code == 200, answer.text
    assert api.output(api.finished(record)) == data * 3


def test_standard_input_may_be_written_before_the_machine_is_awake(api: Api) -> None:
    machine = api.create_machine()
    api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 20_000}, headers=new_key())
    record = api.execute(machine, "cat", stdin_open=True, wait_ms=0)
    api.put(f"{path_of(record)}/stdin", params={"offset": 0, "eof": "true"}, content=b"early")
    assert api.output(api.finished(record)) == b"early"


def test_the_image_of_a_machine_is_told(api: Api, machine: str) -> None:
    assert api.get(f"/v1/machines/{machine}").json()["image"] == "default"


def test_keys_are_made_shown_once_and_revoked(api: Api) -> None:
    made = api.post("/v1/keys", json={"organization": "acme", "name": "ci"}, headers=new_key()).json()
    secret = made.pop("key")
    assert made["prefix"] == secret[: len(made["prefix"])]
    assert made in api.get("/v1/keys").json()["items"]
    assert secret not in api.get("/v1/keys").text
    own = {"Authorization": f"Bearer {secret}"}
    assert [key["key_id"] for key in api.get("/v1/keys", headers=own).json()["items"]] == [made["key_id"]]
    assert api.post("/v1/machines", json={"image": "none"}, headers={**own, **new_key()}).status_code == 422
    assert api.delete(f"/v1/keys/{made['key_id']}").json()["revoked_at"]
    assert api.get("/v1/keys", headers=own).status_code == 401
