"""Terminals as clients use them: a bare WebSocket on the `stream_url`, and the routes around it."""

from __future__ import annotations

import json
from contextlib import ExitStack
from hashlib import sha256
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.conformance.terminals import PLAIN, Window, create, ended, path, shown, window
from tests.conftest import StartLive
from tests.live import Api, Live, new_key
from tests.wait import wait_until


def refused(url: str, **headers: str) -> tuple[int, dict[str, Any]]:
    with pytest.raises(InvalidStatus) as raised, window(url, additional_headers=headers):
        pass
    answer = raised.value.response
    return answer.status_code, json.loads(answer.body or b"{}")


def finish(one: Window) -> None:
    one.type("exit\n")
    assert one.end() == 1000
    assert one.closed


def test_a_shell_is_typed_into_and_ends_with_its_exit_code(api: Api, machine: str) -> None:
    record = create(api, machine, env=PLAIN, cwd="/tmp")
    assert (record["status"], record["protocol"], record["width"], record["height"]) == ("ready", "websocket", 80, 24)
    with window(record["stream_url"]) as one:
        one.type("echo $((6 * 7)) in $PWD on $(tty | cut -c 1-9); stty size\n")
        one.wait_for(b"42 in /tmp on /dev/pts/\r\n24 80\r\n")
        one.type("exit 3\n")
        assert one.end() == 1000
        assert one.closed
    found = ended(api, record)
    assert (found["exit_code"], found.get("signal"), found.get("stream_url")) == (3, None, None)
    assert found["closed_at"] >= found["ready_at"]
    assert b"42 in /tmp" in shown(api, record), "the transcript can be read after the end"
    assert refused(record["stream_url"])[1]["details"]["current_status"] == "closed"


def test_a_command_can_run_instead_of_a_shell(api: Api, machine: str) -> None:
    record = create(api, machine, "sh", "-c", "read line; echo $0 $1; kill -9 $$", "a b", "c")
    with window(record["stream_url"]) as one:
        one.type("\n")
        assert one.end() == 1000
        assert one.seen == b"\r\na b c\r\n"
    assert ended(api, record)["signal"] == 9


def test_the_older_form_is_understood(api: Api, machine: str) -> None:
    with window(create(api, machine, env=PLAIN)["stream_url"]) as one:
        one.connection.send(json.dumps({"cols": 101, "rows": 33}))
        one.connection.send(b"stty size\n")
        one.wait_for(b"33 101\r\n")
        finish(one)


def test_a_new_size_comes_in_its_place_and_is_in_the_record(api: Api, machine: str) -> None:
    record = create(api, machine, env=PLAIN)
    with window(record["stream_url"]) as one:
        one.type("stty size\n")
        one.wait_for(b"24 80\r\n")
        one.say(type="resize", width=132, height=50)
        one.type("stty size\n")
        one.wait_for(b"50 132\r\n")
        found = api.get(path(machine, record["terminal_id"])).json()
        assert (found["width"], found["height"]) == (132, 50)
        finish(one)


def test_what_is_no_message_is_told_and_the_connection_goes_on(api: Api, machine: str) -> None:
    wrong = [
        "{",
        "[]",
        '{"type": "dance"}',
        '{"type": "input", "data": "*"}',
        '{"type": "resize", "width": 0, "height": 5}',
        '{"type": "resize", "width": 5, "height": 65536}',
        "{}",
    ]
    with window(create(api, machine, env=PLAIN)["stream_url"]) as one:
        for text in wrong:
            one.connection.send(text)
        one.type("echo a''live\n")
        one.wait_for(b"alive\r\n")
        assert [error["error_code"] for error in one.errors] == ["INVALID_MESSAGE"] * len(wrong)
        assert all(error["error_message"] for error in one.errors)
        finish(one)


def test_many_watch_and_type_and_see_the_same(api: Api, machine: str) -> None:
    record = create(api, machine, "cat")
    with ExitStack() as stack:
        windows = [stack.enter_context(window(record["stream_url"])) for _ in range(4)]
        lines = [f"line {number} of a window, whole {'x' * 40}\n" for number in range(40)]
        for number, line in enumerate(lines):
            windows[number % 4].type(line)
        for line in lines:
            windows[0].wait_for(b"\n" + line.encode().replace(b"\n", b"\r\n"))
        windows[0].type(b"\x04")
        for one in windows:
            assert one.end() == 1000
        assert len({one.seen for one in windows}) == 1
        assert shown(api, record) == windows[0].seen


def test_who_comes_again_sees_what_was_shown_meanwhile_and_nothing_twice(api: Api, machine: str) -> None:
    record = create(api, machine, env=PLAIN)
    with window(record["stream_url"]) as one:
        one.type("echo fi''rst\n")
        one.wait_for(b"first\r\n")
        one.type("sleep 0.2; echo sec''ond\n")
    wait_until(lambda: b"second\r\n" in shown(api, record), 10, "shown to nobody")
    with window(f"{record['stream_url']}&after={one.after}") as other:
        other.wait_for(b"second\r\n")
        assert b"first" not in other.seen
        assert one.seen + other.seen == shown(api, record)
    with window(record["stream_url"]) as third:
        third.wait_for(b"second\r\n")
        assert third.seen == one.seen + other.seen, "all of it, to those who do not say where they were"
    with window(f"{record['stream_url']}&after={1 << 40}") as fourth:
        finish(fourth)
        assert b"first" not in fourth.seen


def test_the_end_of_what_is_shown_is_kept(api: Api, machine: str) -> None:
    record = create(api, machine, "sh", "-c", "seq -w 400000; read line")
    wait_until(lambda: shown(api, record).endswith(b"400000\r\n"), 30, "all shown")
    answer = api.get(f"{path(machine, record['terminal_id'])}/output")
    assert int(answer.headers["x-dormice-offset"]) == 400_000 * 8 - (1 << 20)
    assert len(answer.content) == 1 << 20
    with window(f"{record['stream_url']}&after=5") as one:
        one.wait_for(b"400000\r\n")
        assert one.begin is not None
        assert one.begin > 400_000 * 8 - (2 << 20)
        one.type("\n")
        assert one.end() == 1000


def test_what_nobody_reads_is_bounded_and_refused_in_words(start_live: StartLive) -> None:
    with start_live(DORMICE_LIMIT_TERMINAL_UNREAD_BYTES="100000") as live, live.client() as api:
        machine = api.create_machine(autosleep="never")
        record = create(api, machine, "sh", "-c", "stty raw -echo; echo raw; read line < /tmp/there-is-none; sleep 600")
        with window(record["stream_url"]) as one:
            one.wait_for(b"raw")
            for _ in range(8):
                one.type(b"x" * 40_000)
            while not one.errors:
                one.take()
            assert one.errors[0]["error_code"] == "INVALID_STATE"
            assert "terminal_unread_bytes" in one.errors[0]["error_message"]
            api.delete(path(machine, record["terminal_id"])).raise_for_status()
            assert one.end() == 1000


def test_a_slow_reader_gets_all_that_is_pasted(start_live: StartLive) -> None:
    limits = {"DORMICE_LIMIT_TERMINAL_UNREAD_BYTES": "70000", "DORMICE_LIMIT_TERMINAL_UNREAD_MS": "60000"}
    with start_live(**limits) as live, live.client() as api:
        machine = api.create_machine(autosleep="never")
        script = "stty raw -echo; echo raw; head -c 1000000 | sha256sum"
        record = create(api, machine, "sh", "-c", script)
        with window(record["stream_url"]) as one:
            one.wait_for(b"raw")
            for _ in range(10):
                one.type(b"0123456789" * 10_000)
            assert one.end() == 1000
        assert one.errors == []
        assert sha256(b"0123456789" * 100_000).hexdigest().encode() in one.seen
        api.delete(f"/v1/machines/{machine}")


def test_deleting_hangs_up_and_can_be_said_twice(api: Api, machine: str) -> None:
    record = create(api, machine, env=PLAIN)
    with window(record["stream_url"]) as one:
        for _ in range(2):
            api.delete(path(machine, record["terminal_id"])).raise_for_status()
        assert one.end() == 1000
        assert one.closed
    assert "stream_url" not in ended(api, record)


def test_a_key_makes_one_terminal(api: Api, machine: str) -> None:
    key, body = new_key(), {"width": 80, "height": 24, "env": PLAIN}
    first, again = (api.post(path(machine), json=body, headers=key).json() for _ in range(2))
    assert first["terminal_id"] == again["terminal_id"]
    other = api.post(path(machine), json={**body, "width": 81}, headers=key)
    assert (other.status_code, other.json()["error_code"]) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert [item["terminal_id"] for item in api.get(path(machine)).json()["items"]].count(first["terminal_id"]) == 1
    assert first["terminal_id"] not in api.get(f"/v1/machines/{machine}/executions").text
    api.delete(path(machine, first["terminal_id"]))


def test_a_terminal_wakes_its_machine_and_ends_with_its_sleep(api: Api) -> None:
    machine = api.create_machine()
    asleep = api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 20_000}, headers=new_key()).json()
    assert asleep["phase"] == "sleeping"
    waking = api.post(path(machine), json={"width": 80, "height": 24}, headers=new_key()).json()
    if waking["status"] == "wake_in_progress":
        assert waking["retry_after_ms"] > 0
    found = api.get(path(machine, waking["terminal_id"]), params={"wait_ms": 20_000}).json()
    assert found["status"] == "ready"
    with window(found["stream_url"]) as one:
        api.post(f"/v1/machines/{machine}/sleep", headers=new_key()).raise_for_status()
        assert one.end() == 1000
        assert one.closed
    other = create(api, machine)
    with window(other["stream_url"]) as one:
        api.delete(f"/v1/machines/{machine}", headers=new_key()).raise_for_status()
        assert one.end() == 1000


def test_one_that_is_closed_while_its_machine_wakes_never_starts(api: Api) -> None:
    machine = api.create_machine()
    api.post(f"/v1/machines/{machine}/sleep", params={"wait_ms": 20_000}, headers=new_key())
    waking = api.post(path(machine), json={"width": 80, "height": 24}, headers=new_key()).json()
    api.delete(path(machine, waking["terminal_id"])).raise_for_status()
    found = wait_until(
        lambda: (one := api.get(path(machine, waking["terminal_id"])).json())["status"] == "closed" and one,
        20,
        "closed",
    )
    assert refused(waking["stream_url"])[0] == 409
    assert found["terminal_id"] == waking["terminal_id"]


def test_a_program_that_is_not_there_has_failed(api: Api, machine: str) -> None:
    record = create(api, machine, shell="/no/such/shell")
    with_end = wait_until(
        lambda: (one := api.get(path(machine, record["terminal_id"])).json())["status"] != "ready" and one, 10, "over"
    )
    assert with_end["exit_code"] == 127
    assert b"/no/such/shell" in shown(api, record)


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({"width": 0}, "body.width"),
        ({"height": 65_536}, "body.height"),
        ({"shell": "a\0b"}, "body.shell"),
        ({"shell": "sh", "command": ["sh"]}, "body.command"),
        ({"command": []}, "body.command"),
        ({"cwd": "x" * 5_000}, "body.cwd"),
        ({"env": {"A=B": "c"}}, "body.env"),
    ],
)
def test_a_bad_order_is_refused_with_its_field(api: Api, machine: str, body: dict[str, Any], location: str) -> None:
    answer = api.post(path(machine), json={"width": 80, "height": 24, **body}, headers=new_key())
    assert answer.status_code == 422, answer.text
    assert location in [fault["location"] for fault in answer.json()["errors"]]


def test_who_may_open_the_stream(api: Api, live: Live, machine: str) -> None:
    record = create(api, machine, env=PLAIN)
    url, _, token = record["stream_url"].partition("?token=")
    key = {"Authorization": f"Bearer {live.api_key}"}
    assert refused(url)[0] == 401
    assert refused(f"{url}?token={'0' * len(token)}")[0] == 401
    assert refused(f"{url}?token=1.{'0' * 64}")[0] == 401
    assert refused(url, Authorization="Bearer no-key-at-all")[0] == 401
    assert refused(url.replace(record["terminal_id"], "term-" + "0" * 40), **key)[0] == 404
    other = create(api, machine, "true")["terminal_id"]
    assert refused(f"{url.replace(record['terminal_id'], other)}?token={token}")[0] == 401, "good for one terminal"
    assert refused(f"{url}?token={token}&after=-1")[0] == 422
    with window(f"{url}?token=old", additional_headers=key) as one:
        finish(one)
    answer = api.get(f"{path(machine, record['terminal_id'])}/stream")
    assert answer.status_code == 426
    with live.client(headers={"X-Forwarded-Proto": "https"}) as proxied:
        secure = create(proxied, machine)
        assert secure["stream_url"].startswith("wss://")
        api.delete(path(machine, secure["terminal_id"]))


def test_too_large_a_message_ends_the_connection_and_not_the_terminal(api: Api, machine: str) -> None:
    record = create(api, machine, env=PLAIN)
    with window(record["stream_url"]) as one:
        one.connection.send("x" * (2 << 20))
        assert one.end() == 1009
    with window(record["stream_url"]) as one:
        finish(one)


def test_the_server_stops_while_somebody_watches(start_live: StartLive) -> None:
    with start_live(DORMICE_TERMINALS_BY_ID="1") as live, live.client() as api:
        machine = api.create_machine(autosleep="never")
        record = create(api, machine, env=PLAIN)
        with window(record["stream_url"]) as one:
            live.stop()
            assert one.end() in (1001, 1012)
        live.start()
        with window(record["stream_url"].partition("?")[0]) as one:
            one.type("echo a''live\n")
            one.wait_for(b"alive\r\n")
            finish(one)
