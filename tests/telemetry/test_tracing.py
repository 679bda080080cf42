"""Spans of a real server, as a real collector gets them."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import certifi
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.conftest import StartLive
from tests.live import Api, Live, new_key, path_of
from tests.shares import Share
from tests.telemetry.authority import Authority
from tests.telemetry.collector import Collector, attributes, collecting
from tests.wait import wait_until

CREATE = "POST /v1/machines/{machine_id}/executions"
SECRET = "hunter2-hunter2"
LIBRARY = "/google/_upb/"
"""Whoever has loaded the exporter has loaded this."""


@pytest.fixture(scope="module", name="collector")
def _collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module", name="live")
def _live(start_live: StartLive, collector: Collector) -> Iterator[Live]:
    """A Dormice that is traced."""
    with start_live(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, OTEL_BSP_SCHEDULE_DELAY="50") as live:
        yield live


class Parent:
    """A client's span."""

    def __init__(self, flags: str = "01") -> None:
        self.trace_id, self.span_id = secrets.token_hex(16), secrets.token_hex(8)
        self.headers = {
            "traceparent": f"00-{self.trace_id}-{self.span_id}-{flags}",
            "tracestate": "vendor=opaque,other=1",
            "x-request-id": secrets.token_hex(6),
        }


def only(collector: Collector, name: str, **wanted: str) -> Span:
    """Wait for the one span of a name with these attributes."""
    found = wait_until(lambda: collector.find(name, **wanted), 20, f"a span {name} with {wanted}")
    assert len(found) == 1
    return found[0]


def micros(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1_000_000)


def access_line(live: Live, request_id: str) -> dict[str, object]:
    lines = (json.loads(line) for line in live.log.read_text().splitlines() if line.startswith("{"))
    found: dict[str, object] = next(line for line in lines if line.get("request_id") == request_id)
    return found


def execute(api: Api, machine: str, *command: str, headers: dict[str, str] | None = None) -> dict[str, str]:
    body = {"command": command, "env": {"PASSWORD": SECRET}}
    path = f"/v1/machines/{machine}/executions"
    made = api.post(path, json=body, params={"wait_ms": 20_000}, headers={**new_key(), **(headers or {})})
    record: dict[str, str] = made.raise_for_status().json()
    return record


def test_a_request_and_its_execution_belong_to_the_clients_trace(
    live: Live, api: Api, machine: str, collector: Collector
) -> None:
    parent = Parent()
    record = execute(api, machine, "sh", "-c", f"echo {SECRET}; exit 7", headers=parent.headers)
    ran = only(collector, "execution", execution_id=record["execution_id"])
    asked = only(collector, CREATE, request_id=parent.headers["x-request-id"])
    assert {asked.trace_id.hex(), ran.trace_id.hex()} == {parent.trace_id}
    assert (asked.parent_span_id.hex(), ran.parent_span_id) == (parent.span_id, asked.span_id)
    assert asked.trace_state == ran.trace_state == parent.headers["tracestate"]
    assert asked.kind == Span.SPAN_KIND_SERVER
    assert attributes(asked)["http.response.status_code"] == 200
    assert attributes(ran) == {
        "dormice.execution_id": record["execution_id"],
        "dormice.machine_id": machine,
        "dormice.organization_id": access_line(live, parent.headers["x-request-id"])["organization_id"],
        "dormice.status": "failed",
        "dormice.error_code": "nonzero_exit",
        "dormice.exit_code": 7,
        "dormice.stdout_bytes": len(SECRET) + 1,
        "dormice.stderr_bytes": 0,
    }
    assert ran.status.code == Status.STATUS_CODE_ERROR
    assert ran.start_time_unix_nano // 1000 == micros(record["created_at"])
    assert [(event.name, event.time_unix_nano // 1000) for event in ran.events] == [
        ("started", micros(record["started_at"]))
    ]
    assert ran.end_time_unix_nano // 1000 == micros(record["completed_at"])
    assert asked.start_time_unix_nano <= ran.start_time_unix_nano
    assert not any(SECRET.encode() in raw or live.api_key.encode() in raw for raw in collector.raw)
    assert "dormice" in {resource["service.name"] for resource in collector.resources}
    assert access_line(live, parent.headers["x-request-id"])["trace_id"] == parent.trace_id


def test_without_a_parent_a_trace_begins_here(live: Live, api: Api, machine: str, collector: Collector) -> None:
    request_id = secrets.token_hex(6)
    record = execute(api, machine, "true", headers={"x-request-id": request_id, "traceparent": "00-bad-bad-01"})
    ran = only(collector, "execution", execution_id=record["execution_id"])
    asked = only(collector, CREATE, request_id=request_id)
    assert asked.parent_span_id == b""
    assert (ran.trace_id, ran.parent_span_id) == (asked.trace_id, asked.span_id)
    assert ran.status.code == Status.STATUS_CODE_UNSET
    assert access_line(live, request_id)["trace_id"] == asked.trace_id.hex()


def test_requests_on_one_connection_have_traces_of_their_own(api: Api, machine: str, collector: Collector) -> None:
    records = [execute(api, machine, "true") for _ in range(3)]
    traces = {only(collector, "execution", execution_id=record["execution_id"]).trace_id for record in records}
    assert len(traces) == 3


def test_what_the_client_does_not_sample_is_not_exported(api: Api, machine: str, collector: Collector) -> None:
    unsampled = Parent("00")
    left_out = execute(api, machine, "true", headers=unsampled.headers)
    later = execute(api, machine, "true")
    only(collector, "execution", execution_id=later["execution_id"])
    assert collector.find("execution", execution_id=left_out["execution_id"]) == []
    assert unsampled.trace_id not in {span.trace_id.hex() for span in collector.spans}


def test_a_repeated_request_adds_no_execution(api: Api, machine: str, collector: Collector) -> None:
    key, first, again = new_key(), Parent(), Parent()
    record = execute(api, machine, "true", headers={**key, **first.headers})
    assert execute(api, machine, "true", headers={**key, **again.headers}) == record
    only(collector, CREATE, request_id=again.headers["x-request-id"])
    ran = only(collector, "execution", execution_id=record["execution_id"])
    assert ran.trace_id.hex() == first.trace_id


def test_an_execution_that_outlives_the_server_has_a_trace_of_its_own(
    live: Live, api: Api, machine: str, collector: Collector
) -> None:
    parent = Parent()
    made = api.post(
        f"/v1/machines/{machine}/executions",
        json={"command": ["sleep", "600"]},
        headers={**new_key(), **parent.headers},
    ).json()
    live.kill("server")
    live.wait_ready()
    api.delete(path_of(made)).raise_for_status()
    assert api.finished(made)["status"] == "cancelled"
    ran = only(collector, "execution", execution_id=made["execution_id"])
    assert ran.parent_span_id == b""
    assert ran.trace_id.hex() != parent.trace_id


def test_what_is_left_is_sent_when_the_server_stops(start_live: StartLive, collector: Collector) -> None:
    settings = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.endpoint}/v1/traces", "OTEL_SERVICE_NAME": "ours"}
    with start_live(**settings, OTEL_BSP_SCHEDULE_DELAY="3600000") as live, live.client() as api:
        record = execute(api, api.create_machine(), "true")
    only(collector, "execution", execution_id=record["execution_id"])
    assert "ours" in {resource["service.name"] for resource in collector.resources}


@pytest.fixture(name="authority")
def _authority(directory: Callable[[], Path]) -> Authority:
    place = directory()
    place.chmod(0o755)  # the server looks in after it has given up root
    return Authority(place)


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"])
@pytest.mark.parametrize("believed", ["", certifi.where()], ids=["by default", "host"])
def test_a_collector_may_speak_https(authority: Authority, start_live: StartLive, variable: str, believed: str) -> None:
    with collecting(authority.server()) as collector:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            variable: str(authority.certificate),
            "REQUESTS_CA_BUNDLE": believed,  # what hosts behind a proxy tell all programs
            "CURL_CA_BUNDLE": believed,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        with start_live(**settings) as live, live.client() as api:
            record = execute(api, api.create_machine(), "true")
            only(collector, "execution", execution_id=record["execution_id"])
        assert collector.endpoint.startswith("https://")


def test_a_collector_that_nobody_vouches_for_is_told_nothing(authority: Authority, start_live: StartLive) -> None:
    with collecting(authority.server()) as collector:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with start_live(**settings) as live, live.client() as api:
            assert execute(api, api.create_machine(), "true")["status"] == "succeeded"
            wait_until(lambda: "CERTIFICATE_VERIFY_FAILED" in live.log.read_text(), 20, "the log says why")
        assert collector.raw == []
        log = live.log.read_text()
        assert live.api_key not in log
        assert SECRET not in log


def nobody_listens() -> socket.socket:
    """Return a socket whose port refuses connections for as long as it is open."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held


def nobody_answers() -> socket.socket:
    """Return a socket that takes connections and never reads."""
    return socket.create_server(("127.0.0.1", 0))


@pytest.mark.parametrize("dead", [nobody_listens, nobody_answers])
def test_a_dead_collector_costs_spans_only(dead: Callable[[], socket.socket], start_live: StartLive) -> None:
    with dead() as held:
        queue = {"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"}
        endpoint = f"http://127.0.0.1:{held.getsockname()[1]}"
        with start_live(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **queue) as live, live.client() as api:
            machine = api.create_machine()
            for _ in range(20):
                assert execute(api, machine, "true")["status"] == "succeeded"
        # Its end, which the block's end has waited for, is an orderly one.
        log = live.log.read_text()
        assert live.api_key not in log
        assert SECRET not in log


def test_without_a_collector_nothing_of_it_is_loaded(live: Live, start_live: StartLive) -> None:
    def loaded(traced: Live) -> bool:
        return LIBRARY in Path(f"/proc/{traced.part('server')}/maps").read_text()

    assert loaded(live)
    with start_live() as untraced:
        assert not loaded(untraced)
    with start_live(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_SDK_DISABLED="true") as disabled:
        assert not loaded(disabled)


def refusal(directory: Path, **variables: str) -> str:
    """Return what a server says that does not start."""
    extra = {
        "DORMICE_LISTEN": "127.0.0.1:0",
        "DORMICE_SSH_LISTEN": "off",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        **variables,
    }
    live = Live(directory, "process", "refused", Share(0), extra)
    command = [sys.executable, "-m", "dormice.cli", "server"]
    done = subprocess.run(command, env=live.environment(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    return done.stderr.splitlines()[-1]


def test_another_protocol_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert said == ("dormice: OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc', must be http/protobuf (a collector's port 4318)")


def test_without_the_extra_it_says_what_is_missing(tmp_path: Path) -> None:
    shadow = tmp_path / "shadow" / "opentelemetry"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").touch()
    said = refusal(tmp_path, PYTHONPATH=str(shadow.parent))
    assert said.endswith("is set, and opentelemetry is not installed: dormice[otel] has it")
