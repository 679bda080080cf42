"""A small real HTTP server that speaks the machine surface, for tests of the client and of the command line.

Its machines reach their desired state at once, its commands are made up: `echo` and `cat` do what they are known for,
`forever` runs until it is cancelled, `long N` writes twice
as much as is kept, `fail N` exits with N, `die N` dies of signal N, `error CODE` never starts.
It records every request, and does with the next ones what a test plans: answer something else, or break off.
"""

from __future__ import annotations

import json
import ssl
import threading
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4

KEY = "key-of-the-fake-server-0123456789"
NOW = "2026-06-01T10:00:00.123456Z"
FINISHED = {"succeeded", "failed", "cancelled", "expired"}


@dataclass
class Recorded:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)


@dataclass
class Answer:
    """What to answer instead; with `cut` the connection ends without an answer, with `hang` it stays without one."""

    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: object = None
    cut: bool = False
    hang: bool = False
    raw: bytes | None = None


class Execution:
    """A made-up command and its log."""

    def __init__(self, machine_id: str, body: dict[str, Any], *, asleep: bool) -> None:
        self.changed = threading.Condition()
        self.events: list[dict[str, Any]] = []
        self.streams = {"stdout": b"", "stderr": b""}
        self.stdin = b""
        self.eof = not body.get("stdin_open")
        self.record: dict[str, Any] = {
            "execution_id": f"exec-{uuid4()}",
            "machine_id": machine_id,
            "command": body["command"],
            "created_at": NOW,
            "env_keys": sorted(body.get("env") or {}),
            "cwd": body.get("cwd", "/root"),
            "log_capture": {},
            "artifacts": [],
            "a_field_of_tomorrow": 1,
        }
        self.patterns: list[str] = body.get("artifacts") or []
        if self.patterns:
            self.record["artifacts_status"] = "pending"
        if asleep:
            self.lifecycle("wake_in_progress", retry_after_ms=250)
        self.play(body.get("stdin") or "")

    def collect(self) -> None:
        """Keep files; those of a pattern that begins with `none` are none."""
        if self.finished and self.record.get("artifacts_status") == "pending":
            found = [pattern for pattern in self.patterns if not pattern.startswith("none")]
            self.record["artifacts"] = [{"artifact_id": f"art-{name}", "name": name} for name in found]
            self.record["artifacts_status"] = "collected"

    def play(self, stdin: str) -> None:
        name, *rest = self.record["command"]
        if name == "error":
            self.end("failed", error_code=rest[0], error_message="it did not start")
            return
        self.lifecycle("running")
        match name:
            case "echo":
                for word in rest:
                    self.write("stdout", word.encode() + b"\n")
                self.end("succeeded", exit_code=0)
            case "both":
                for stream, data in (("stdout", b"out\n"), ("stderr", b"err\xff\n"), ("stdout", b"more\n")):
                    self.write(stream, data)
                self.end("succeeded", exit_code=0)
            case "cat":
                self.read(stdin.encode(), eof=self.eof)
            case "fail":
                self.end("failed", exit_code=int(rest[0]), error_code="nonzero_exit", error_message="exit code")
            case "die":
                self.end("failed", signal=int(rest[0]), error_code="signalled", error_message="signal")
            case "slow":
                self.end("failed", signal=9, error_code="timeout", error_message="killed after 5000 ms")
            case "long":
                self.write("stdout", b"x" * int(rest[0]))
                self.end("succeeded", exit_code=0)
                self.record.update(stdout_truncated=True, stdout_bytes=2 * int(rest[0]))
            case "forever":
                self.write("stdout", b"ready\n")
            case _:
                self.end("succeeded", exit_code=0)

    def log(self, kind: str, **fields: Any) -> None:
        with self.changed:
            self.events.append({"sequence": len(self.events) + 1, "type": kind, "at": NOW, **fields})
            self.changed.notify_all()

    def lifecycle(self, status: str, **fields: Any) -> None:
        self.record["status"] = status
        if status == "running":
            self.record["started_at"] = NOW
        self.log("lifecycle", status=status, **{k: v for k, v in fields.items() if k != "retry_after_ms"})

    def write(self, stream: str, data: bytes) -> None:
        offset = len(self.streams[stream])
        self.streams[stream] += data
        self.log(stream, data=data, offset=offset)

    def end(self, status: str, **fields: Any) -> None:
        sizes = {f"{stream}_bytes": len(data) for stream, data in self.streams.items()}
        flags = {"stdout_truncated": False, "stderr_truncated": False}
        self.record.update(completed_at=NOW, **sizes, **flags, **fields)
        self.lifecycle(status, **fields)

    def read(self, data: bytes, *, eof: bool) -> None:
        self.stdin += data
        if data:
            self.write("stdout", data)
        if eof:
            self.eof = True
            self.end("succeeded", exit_code=0)

    @property
    def finished(self) -> bool:
        return self.record["status"] in FINISHED


class FakeServer:
    """What the server holds, and what a test may plan."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.planned: deque[Answer] = deque()
        self.cut_streams_after: deque[int] = deque()
        """For each of the next event streams: after how many events its connection ends."""
        self.machines: dict[str, dict[str, Any]] = {}
        self.executions: dict[str, Execution] = {}
        self.by_key: dict[str, Execution] = {}
        self.keys: dict[str, dict[str, Any]] = {}
        self.url = ""
        self.over = threading.Event()
        self.arrived = threading.Condition()

    def machine(self, **fields: Any) -> str:
        """Make a machine and return its id."""
        machine_id = f"dm-{uuid4()}"
        sizes = {"vcpu": 1, "memory_mib": 512, "storage_gib": 4, "image": "default"}
        asleep = fields.pop("asleep", False)
        self.machines[machine_id] = {"machine_id": machine_id, "created_at": NOW, "autosleep_seconds": 300, **sizes}
        self.machines[machine_id].update({k: v for k, v in fields.items() if v is not None and k != "autosleep"})
        self.settle(machine_id, "sleeping" if asleep else "running")
        return machine_id

    def settle(self, machine_id: str, phase: str) -> dict[str, Any]:
        machine = self.machines[machine_id]
        revision = str(int(machine.get("status", {}).get("revision", 0)) + 1)
        status = {"phase": phase, "reason": "DesiredStateReached", "retryable": False, "revision": revision}
        times = {"last_transition_at": NOW, "last_progress_at": NOW, "memory_configured_mib": machine["memory_mib"]}
        machine.update(desired_state=phase, phase=phase, status={**status, **times})
        return machine

    def wait_for(self, method: str) -> None:
        """Return when a request with this method has come."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: self.sent(method), 30)

    def sent(self, method: str, end_of_path: str = "") -> list[Recorded]:
        return [r for r in self.requests if r.method == method and r.path.endswith(end_of_path)]


@contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[FakeServer]:
    fake = FakeServer()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": fake}))
    fake.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.over.set()
        for execution in fake.executions.values():
            if not execution.finished:
                execution.end("cancelled", signal=15)
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    fake: FakeServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's word
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, ValueError):
            self.close_connection = True

    def _any(self) -> None:
        url = urlsplit(self.path)
        content = self._content()
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Recorded(self.command, unquote(url.path), query, headers, content)
        with self.fake.arrived:
            self.fake.requests.append(request)
            self.fake.arrived.notify_all()
        if self.fake.planned:
            self._instead(self.fake.planned.popleft())
        elif headers.get("authorization") != f"Bearer {KEY}":
            self._coded(401, "AUTH_INVALID", "no such key")
        else:
            self._route(request)

    def _content(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _any  # noqa: N815 - the base class looks these names up

    def _instead(self, answer: Answer) -> None:
        if answer.hang:
            self.fake.over.wait()
        if answer.cut or answer.hang:
            self.close_connection = True
        elif answer.raw is not None:
            self._send(answer.status, answer.raw, answer.headers)
        else:
            self._json(answer.body, answer.status, answer.headers)

    def _route(self, request: Recorded) -> None:
        match [part for part in request.path.split("/") if part][1:]:
            case ["limits"]:
                self._json(
                    {"limits": {"argv_bytes": 131071}, "defaults": {"vcpu": 1}, "machine": {"autosleep": "300s"}}
                )
            case ["keys", *rest]:
                self._keys(request, rest)
            case ["machines"] if request.method == "POST":
                fields = json.loads(request.content)
                self._json(self.fake.machines[self.fake.machine(**fields)], 202)
            case ["machines"]:
                self._page(request, list(self.fake.machines.values()))
            case ["machines", machine_id, *rest] if machine_id in self.fake.machines:
                self._machine(request, machine_id, rest)
            case _:
                self._missing()

    def _keys(self, request: Recorded, rest: list[str]) -> None:
        match request.method, rest:
            case "GET", []:
                self._page(request, list(self.fake.keys.values()))
            case "POST", []:
                names = {"organization": "default", "name": None, "admin": False, **request.body}
                key = {"key_id": f"key-{uuid4()}", "organization_id": str(uuid4()), "prefix": "dk-abc", **names}
                self.fake.keys[key["key_id"]] = {**key, "created_at": NOW, "revoked_at": None}
                self._json({**self.fake.keys[key["key_id"]], "key": "dk-abcdefgh"})
            case "DELETE", [key_id] if key_id in self.fake.keys:
                self.fake.keys[key_id]["revoked_at"] = NOW
                self._json(self.fake.keys[key_id])
            case _:
                self._missing()

    def _machine(self, request: Recorded, machine_id: str, rest: list[str]) -> None:
        machine = self.fake.machines[machine_id]
        match request.method, rest:
            case "GET", []:
                self._json(machine)
            case "PATCH", []:
                machine.update({k: v for k, v in request.body.items() if k != "autosleep"})
                self._json(self.fake.settle(machine_id, machine["phase"]))
            case "DELETE", []:
                self._json(self.fake.settle(machine_id, "destroyed"))
            case "POST", ["sleep"]:
                self._json(self.fake.settle(machine_id, "sleeping"))
            case "POST", ["wake"]:
                self._json(self.fake.settle(machine_id, "running"))
            case "GET", ["status", "stream"]:
                self._stream(iter([("status", machine["status"]["revision"], machine)]), None)
            case "POST", ["executions"]:
                self._create(request, machine)
            case "GET", ["executions"]:
                mine = [e.record for e in self.fake.executions.values() if e.record["machine_id"] == machine_id]
                self._page(request, mine[::-1])
            case "GET", ["artifacts"]:
                mine = [e.record for e in self.fake.executions.values() if e.record["machine_id"] == machine_id]
                kept = [{**one, "size_bytes": 4} for record in mine for one in record["artifacts"]]
                self._page(request, kept[::-1])
            case _, ["executions", execution_id, *below] if execution_id in self.fake.executions:
                self._execution(request, self.fake.executions[execution_id], below)
            case _:
                self._missing()

    def _create(self, request: Recorded, machine: dict[str, Any]) -> None:
        key = request.headers.get("idempotency-key", "")
        if not key or not request.body.get("command"):
            self._problem(422, "invalid request", [{"location": "body.command", "message": "must not be empty"}])
            return
        execution = self.fake.by_key.get(key)
        if execution is None:
            asleep = machine["phase"] == "sleeping"
            execution = Execution(machine["machine_id"], request.body, asleep=asleep)
            self.fake.by_key[key] = self.fake.executions[execution.record["execution_id"]] = execution
        self._json(execution.record)

    def _execution(self, request: Recorded, execution: Execution, below: list[str]) -> None:
        match request.method, below:
            case "GET", []:
                if request.query.get("wait_ms"):
                    with execution.changed:
                        execution.changed.wait_for(lambda: execution.finished, int(request.query["wait_ms"]) / 1000)
                self._json(execution.record)
                execution.collect()
            case "DELETE", []:
                if not execution.finished:
                    execution.end("cancelled", signal=15, error_code="cancelled", error_message="cancelled")
                self._json(execution.record)
            case "GET", ["events"] if "event-stream" in request.headers["accept"]:
                after = int(request.headers.get("last-event-id") or 0)
                cut = self.fake.cut_streams_after.popleft() if self.fake.cut_streams_after else None
                self._stream(self._live(execution, after), cut)
            case "GET", ["events"]:
                exact = request.query.get("encoding") == "base64"
                self._page(request, [_wire(event, exact=exact) for event in execution.events], key="sequence")
            case "GET", ["output"]:
                texts = {stream: data.decode(errors="replace") for stream, data in execution.streams.items()}
                self._json({"execution_id": execution.record["execution_id"], **texts})
            case "GET", ["output", stream]:
                self._bytes(request, execution.streams[stream])
            case "PUT", ["stdin"]:
                self._stdin(request, execution)
            case _:
                self._missing()

    def _stdin(self, request: Recorded, execution: Execution) -> None:
        offset, have = int(request.query["offset"]), len(execution.stdin)
        if execution.finished or execution.eof:
            self._coded(409, "INVALID_STATE", "stdin is closed")
        elif offset > have:
            self._coded(409, "INVALID_STATE", "a gap", {"expected_offset": str(have)})
        else:
            execution.read(request.content[have - offset :], eof=request.query.get("eof") == "true")
            position = {"offset": len(execution.stdin), "eof": execution.eof}
            self._json({"execution_id": execution.record["execution_id"], **position})

    def _live(self, execution: Execution, after: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for at in count(after):
            with execution.changed:
                while len(execution.events) <= at:
                    execution.changed.wait()
                event = execution.events[at]
            yield event["type"], str(at + 1), _wire(event, exact=True)
            if event["type"] == "lifecycle" and event["status"] in FINISHED:
                return

    def _stream(self, events: Iterator[tuple[str, str, dict[str, Any]]], cut: int | None) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._chunk(b": hello\n\n")
        for number, (name, number_id, data) in enumerate(events):
            if number == cut:
                self.close_connection = True
                return
            self._chunk(f"event: {name}\nid: {number_id}\ndata: {json.dumps(data)}\n\n".encode())
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _page(self, request: Recorded, items: list[dict[str, Any]], key: str = "") -> None:
        start = int(request.query.get("cursor") or 0)
        page = items[start : start + int(request.query.get("limit") or 50)]
        end = start + len(page)
        more = {"next_cursor": str(end)} if end < len(items) or (key and page) else {}
        self._json({"items": page, **more})

    def _bytes(self, request: Recorded, data: bytes) -> None:
        headers = {"content-type": "application/octet-stream", "x-dormice-total-bytes": str(len(data))}
        status, span = 200, request.headers.get("range", "")
        if span:
            first, _, last = span.removeprefix("bytes=").partition("-")
            if int(first) >= len(data):
                self._problem(416, "nothing there")
                return
            status, data = 206, data[int(first) : int(last) + 1 if last else None]
        self._send(status, data, headers)

    def _missing(self) -> None:
        self._problem(404, "there is no such thing")

    def _problem(self, status: int, detail: str, errors: list[dict[str, str]] | None = None) -> None:
        body = {"title": "Refused", "status": status, "detail": detail, **({"errors": errors} if errors else {})}
        self._json(body, status, {"content-type": "application/problem+json"})

    def _coded(self, status: int, code: str, message: str, details: dict[str, str] | None = None) -> None:
        body = {"error_code": code, "message": message, "retryable": False, "details": details or {}}
        self._json(body, status, {"x-should-retry": "false"})

    def _json(self, body: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(body).encode(), {"content-type": "application/json", **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()


def _wire(event: dict[str, Any], *, exact: bool) -> dict[str, Any]:
    fields = {name: value for name, value in event.items() if name not in {"data", "offset"}}
    if "data" in event and exact:
        return {**fields, "chunk_base64": b64encode(event["data"]).decode(), "offset": event["offset"]}
    return {**fields, "chunk": event["data"].decode(errors="replace")} if "data" in event else fields
