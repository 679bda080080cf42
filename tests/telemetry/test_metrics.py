"""What `/metrics` says, compared with what was done."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import StartLive
from tests.live import Api, Live, new_key, path_of
from tests.telemetry.scraping import Samples, risen, scrape, value
from tests.wait import wait_until

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
LABELS = {
    *("version", "part", "status", "error_code", "stream", "phase", "from", "to", "method", "route", "le"),
    *("reason", "kind", "state", "answer", "result", "direction"),
}
CREATE = "/v1/machines/{machine_id}/executions"


@pytest.fixture(scope="module", name="live")
def _live(start_live: StartLive) -> Iterator[Live]:
    """A Dormice that nobody else uses: one command at a time on a machine."""
    with start_live(DORMICE_LIMIT_RUNNING_PER_MACHINE="1", DORMICE_LIMIT_KEPT_OUTPUT_BYTES="1000") as live:
        yield live


def finished(before: Samples, after: Samples) -> dict[tuple[str, str], float]:
    """How many executions ended meanwhile, by status and error code; those without are left out."""
    name = "dormice_executions_finished_total"
    keys = [dict(labels) for found, labels in after if found == name]
    rises = {(key["status"], key["error_code"]): risen(before, after, name, **key) for key in keys}
    return {key: rise for key, rise in rises.items() if rise}


def test_executions_are_counted_by_how_they_ended(api: Api, machine: str) -> None:
    before = scrape(api)
    for _ in range(3):
        api.execute(machine, "true")
    api.shell(machine, "exit 7")
    api.shell(machine, "kill -9 $$")
    api.execute(machine, "no-such-program")
    api.execute(machine, "sleep", "600", timeout_ms=100)
    running = api.execute(machine, "sleep", "600", wait_ms=0)
    waiting = api.execute(machine, "true", wait_ms=0)
    late = api.execute(machine, "true", start_timeout_ms=1)
    assert late["status"] == "expired"
    api.delete(path_of(waiting))
    api.delete(path_of(running))
    assert api.finished(running)["status"] == "cancelled"
    api.delete(path_of(running))  # an ended one is left as it is
    after = scrape(api)
    assert finished(before, after) == {
        ("succeeded", ""): 3,
        ("failed", "nonzero_exit"): 1,
        ("failed", "signalled"): 1,
        ("failed", "command_not_found"): 1,
        ("failed", "timeout"): 1,
        ("cancelled", "cancelled"): 2,
        ("expired", "start_deadline_exceeded"): 1,
    }
    assert risen(before, after, "dormice_executions_created_total") == 10
    assert risen(before, after, "dormice_execution_start_seconds_count") == 7
    assert risen(before, after, "dormice_execution_run_seconds_count") == 7
    assert 0.1 <= risen(before, after, "dormice_execution_run_seconds_sum") < 60
    posted = {"method": "POST", "route": CREATE}
    assert risen(before, after, "dormice_http_requests_total", **posted, status="200") == 10
    assert risen(before, after, "dormice_http_request_seconds_count", **posted) == 10
    assert risen(before, after, "dormice_http_requests_total", method="GET", route="/metrics", status="200") == 1


def test_output_is_counted_beyond_what_is_kept(api: Api, machine: str) -> None:
    before = scrape(api)
    api.shell(machine, "head -c 5000 /dev/zero; head -c 300 /dev/zero >&2")
    after = scrape(api)
    assert risen(before, after, "dormice_output_bytes_total", stream="stdout") == 5000
    assert risen(before, after, "dormice_output_bytes_total", stream="stderr") == 300


def test_what_waits_and_runs_is_shown_also_after_a_restart(live: Live, api: Api, machine: str) -> None:
    running = api.execute(machine, "sleep", "600", wait_ms=0)
    waiting = [api.execute(machine, "true", wait_ms=0) for _ in range(3)]

    def shown(samples: Samples) -> tuple[float, float]:
        name = "dormice_executions_open"
        return value(samples, name, status="running"), value(samples, name, status="queued")

    wait_until(lambda: shown(scrape(api)) == (1, 3), 10, "one runs, three wait")
    live.kill("server")
    live.wait_ready()
    wait_until(lambda: shown(scrape(api)) == (1, 3), 10, "one runs, three wait")
    after = scrape(api)
    assert value(after, "dormice_queue_oldest_age_seconds") > 0
    assert value(after, "dormice_executions_created_total") == 0
    api.delete(path_of(running))
    for record in waiting:
        api.finished(record)
    last = scrape(api)
    assert shown(last) == (0, 0)
    assert value(last, "dormice_queue_oldest_age_seconds") == 0
    assert finished(after, last) == {("succeeded", ""): 3, ("cancelled", "cancelled"): 1}


def test_machines_are_counted_by_phase_and_change(api: Api) -> None:
    before = scrape(api)
    machine = api.create_machine(autosleep="never")
    for action in ("sleep", "wake", "sleep"):
        api.post(f"/v1/machines/{machine}/{action}", params={"wait_ms": 20_000}, headers=new_key()).raise_for_status()
    after = scrape(api)
    moves = "dormice_machine_transitions_total"
    assert risen(before, after, moves, **{"from": "starting", "to": "running"}) == 2
    assert risen(before, after, moves, **{"from": "stopping", "to": "sleeping"}) == 2
    assert risen(before, after, "dormice_machine_start_seconds_count") == 2
    assert risen(before, after, "dormice_machines", phase="sleeping") == 1
    api.delete(f"/v1/machines/{machine}", params={"wait_ms": 20_000}, headers=new_key()).raise_for_status()
    gone = scrape(api)
    assert risen(before, gone, "dormice_machines", phase="sleeping") == 0
    assert risen(before, gone, moves, **{"from": "destroying", "to": "destroyed"}) == 1


def test_commits_parts_and_the_process_are_shown(live: Live, api: Api, machine: str) -> None:
    before = scrape(api)
    api.execute(machine, "true")
    after = scrape(api)
    commits = risen(before, after, "dormice_store_commit_seconds_count")
    assert commits >= 2
    assert risen(before, after, "dormice_store_commit_operations_sum") >= commits
    assert value(after, "dormice_store_commit_failures_total") == 0
    for part in ("store", "node", "services"):
        assert value(after, "dormice_part_ready", part=part) == 1
    assert value(after, "dormice_build_info", version="0.1.0") == 1
    assert value(after, "process_open_fds") > 3
    wait_until(lambda: value(scrape(api), "dormice_event_loop_lag_seconds_count"), 10, "the loop is watched")


def test_buckets_ascend_to_the_count(api: Api, machine: str) -> None:
    api.execute(machine, "true")
    samples = scrape(api)
    histograms = {(n.removesuffix("_count"), labels) for n, labels in samples if n.endswith("_count")}
    assert len(histograms) >= 7
    for name, labels in histograms:
        buckets = sorted(
            (float(dict(key)["le"]), number)
            for (found, key), number in samples.items()
            if found == f"{name}_bucket" and labels == {pair for pair in key if pair[0] != "le"}
        )
        numbers = [number for _, number in buckets]
        assert numbers == sorted(numbers)
        assert buckets[-1] == (float("inf"), samples[f"{name}_count", labels])


def test_nothing_that_a_tenant_chooses_is_a_label(api: Api, machine: str) -> None:
    record = api.execute(machine, "true")
    for method, path in (("GET", f"/{machine}"), ("GET", path_of(record)), ("PROPFIND", "/"), ("POST", "/metrics")):
        api.request(method, path)
    with suppress(Exception):
        api.request("CHOSEN", "/")
    labels: set[tuple[str, str]] = set().union(*(labels for _, labels in scrape(api)))
    assert {name for name, _ in labels} <= LABELS
    known = api.get("/openapi.json").json()["paths"]
    routes = {chosen for name, chosen in labels if name == "route"}
    assert routes <= {*known, "/openapi.json", "other"}
    assert "other" in routes
    assert {chosen for name, chosen in labels if name == "method"} <= {"GET", "POST", "DELETE", "PUT", "PATCH", "other"}
    assert not any(machine in text or record["execution_id"] in text for _, text in labels)


def test_only_an_admin_key_may_read_them(live: Live, api: Api) -> None:
    made = api.post("/v1/keys", json={"organization": "tenant"}, headers=new_key()).raise_for_status().json()
    refused = api.get("/metrics", headers={"Authorization": f"Bearer {made['key']}"})
    assert (refused.status_code, refused.json()["error_code"]) == (403, "AUTH_SCOPE_FORBIDDEN")
    unknown: Any = {"headers": {"Authorization": "Bearer " + "x" * 40}}
    assert api.get("/metrics", **unknown).status_code == 401


def test_every_figure_is_on_the_page_and_the_page_names_no_other(api: Api, machine: str) -> None:
    api.execute(machine, "true")
    shown = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(api.get("/metrics").text)
        if family.name.startswith("dormice_")
    }
    assert set(re.findall(r"^\| `(dormice_\w+)", PAGE.read_text(), re.MULTILINE)) == shown
