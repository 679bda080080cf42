"""What stands in the log, as fields that a program can read, and what never does."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import StartLive
from tests.live import Api, Live, new_key, path_of
from tests.wait import wait_until

SECRET = "hunter2-hunter2"
Line = dict[str, Any]


@pytest.fixture(scope="module", name="live")
def _live(start_live: StartLive) -> Iterator[Live]:
    with start_live() as live:
        yield live


def lines(live: Live, **fields: str) -> list[Line]:
    """Return the log's lines that have these fields."""
    found = [json.loads(line) for line in live.log.read_text().splitlines()]
    return [line for line in found if fields.items() <= line.items()]


def line(live: Live, **fields: str) -> Line:
    """Wait for the one line with these fields."""
    found = wait_until(lambda: lines(live, **fields), 10, f"a line with {fields}")
    assert len(found) == 1
    return found[0]


def test_a_request_is_one_line_with_all_ids(live: Live, api: Api) -> None:
    machine, request_id, trace_id = api.create_machine(), secrets.token_hex(8), secrets.token_hex(16)
    made = api.post(
        f"/v1/machines/{machine}/executions?wait_ms=20000&note={SECRET}",
        json={"command": ["echo", SECRET], "env": {"PASSWORD": SECRET}, "stdin": SECRET},
        headers={**new_key(), "x-request-id": request_id, "traceparent": f"00-{trace_id}-00f067aa0ba902b7-00"},
    )
    assert made.headers["x-request-id"] == request_id
    (key,) = (item for item in api.get("/v1/keys").json()["items"] if item["name"] == "host")
    logged = line(live, request_id=request_id)
    assert logged.pop("duration_ms") > 0
    assert logged.pop("at").endswith("Z")
    assert logged.pop("message").startswith(f"POST /v1/machines/{machine}/executions 200 ")
    assert logged == {
        "level": "info",
        "logger": "dormice.access",
        "request_id": request_id,
        "trace_id": trace_id,
        "method": "POST",
        "path": f"/v1/machines/{machine}/executions",
        "route": "/v1/machines/{machine_id}/executions",
        "status": 200,
        "machine_id": machine,
        "execution_id": made.json()["execution_id"],
        "organization_id": key["organization_id"],
        "key_id": key["key_id"],
    }
    api.get(path_of(made.json()))
    assert line(live, execution_id=made.json()["execution_id"], method="GET")["machine_id"] == machine
    log = live.log.read_text()
    assert SECRET not in log
    assert live.api_key not in log


@pytest.mark.parametrize("offered", ["", "two words", "x" * 129, 'quo"te', "semi;colon", "\u00e4"])
def test_a_request_id_that_is_not_plain_is_replaced(live: Live, api: Api, offered: str) -> None:
    answer = api.get("/v1/limits", headers={b"x-request-id": offered.encode("latin-1")})
    made = answer.headers["x-request-id"]
    assert made != offered
    assert line(live, request_id=made)["status"] == 200


def test_a_trace_that_is_not_valid_is_not_logged(live: Live, api: Api) -> None:
    answer = api.get("/v1/limits", headers={"traceparent": "00-" + "0" * 32 + "-00f067aa0ba902b7-01"})
    assert "trace_id" not in line(live, request_id=answer.headers["x-request-id"])


def test_a_refused_request_is_logged_without_a_caller(live: Live, api: Api) -> None:
    guess = secrets.token_urlsafe(32)
    answer = api.get("/v1/machines", headers={"Authorization": f"Bearer {guess}"})
    logged = line(live, request_id=answer.headers["x-request-id"])
    assert logged["status"] == 401
    assert "key_id" not in logged
    assert guess not in live.log.read_text()


def test_a_step_of_a_machine_names_it_in_a_field(live: Live, api: Api) -> None:
    machine = api.create_machine(autosleep="1s")
    logged = line(live, machine_id=machine, logger="dormice.engine.reaper")
    assert logged["message"] == f"machine {machine} is idle and goes to sleep"
    awake = api.create_machine(autosleep="never")
    live.kill("node")
    adopted = line(live, machine_id=awake, logger="dormice.node.node", level="info")
    assert adopted["message"] == f"machine {awake} is alive and adopted"
