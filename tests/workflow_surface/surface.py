"""A project of a running Dormice, and a worker of it that takes every run and does what the test says, over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import httpx

from tests.live import Live
from tests.wait import wait_until

DEPLOYMENT = "d1"


class Project(httpx.Client):
    """A client of one project."""

    def __init__(self, live: Live, project: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        self.project = project or str(uuid4())
        super().__init__(
            base_url=live.base_url,
            headers={"X-Project-ID": self.project, **(headers or {})},
            timeout=30,
            trust_env=False,
        )

    def ok(self, method: str, path: str, **options: Any) -> Any:
        """Send a request that must succeed; return what it answers, None for an empty body."""
        answer = self.request(method, path, **options)
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def deploy(self, deployment: str = DEPLOYMENT) -> None:
        """Make a deployment."""
        self.ok("POST", "/api/v1/workers/deployments", json={"deployment_id": deployment})

    def define(self, workflow: str, kind: str = "workflow", deployment: str = DEPLOYMENT, **fields: Any) -> None:
        """Say that the deployment has a workflow, agent or tool."""
        body = {"workflow_id": workflow, "workflow_type": kind, **fields}
        self.ok("POST", f"/api/v1/workers/deployments/{deployment}/workflows", json=body)

    def start(self, workflow: str = "w", **fields: Any) -> str:
        """Submit a run; return its id."""
        body = {"payload": None, **fields}
        return str(self.ok("POST", f"/api/v1/workflows/{workflow}/run", json=body)["execution_id"])

    def run(self, run: str) -> dict[str, Any]:
        """Return a run's record."""
        return dict(self.ok("GET", f"/api/v1/executions/{run}"))

    def in_status(self, run: str, *wanted: str) -> dict[str, Any]:
        """Wait until a run is in one of some states."""

        def reached() -> dict[str, Any] | None:
            found = self.run(run)
            return found if found["status"] in wanted else None

        return wait_until(reached, 20, f"{run} in {wanted}") or {}

    def step(self, run: str, key: str, outputs: Any = None, **fields: Any) -> None:
        """Record a step."""
        body = {"step_key": key, "outputs": outputs, "success": True, **fields}
        self.ok("POST", f"/internal/executions/{run}/steps", json=body)

    def publish(self, topic: str, event_type: str, data: Any, **fields: Any) -> None:
        """Publish an event."""
        body = {"topic": topic, "events": [{"event_type": event_type, "data": data}], **fields}
        self.ok("POST", "/api/v1/events/publish", json=body)

    def suspend(self, run: str, key: str, data: Any, *, topic: str, wait: bool = True, **fields: Any) -> None:
        """Suspend a run that a worker has, as the SDK does it: first the event, then the wait."""
        self.publish(topic, f"suspend_{key}", data, execution_id=run)
        if wait:
            body = {"step_key": key, "wait_type": "suspend", "wait_topic": topic, **fields}
            self.ok("POST", f"/internal/executions/{run}/wait", json=body)


class Worker:
    """Takes every run; the test reports of them."""

    def __init__(self, project: Project, url: str) -> None:
        self.project = project
        self.pushed: list[dict[str, Any]] = []
        project.deploy()
        body = {"project_id": project.project, "deployment_id": DEPLOYMENT, "push_endpoint_url": url, "mode": "push"}
        self.id = project.ok("POST", "/api/v1/workers/register", json=body)["worker_id"]

    def online(self) -> None:
        """Be given runs."""
        self.project.ok("POST", f"/api/v1/workers/{self.id}/online")

    def running(self, workflow: str = "w", **fields: Any) -> str:
        """Submit a run, and return its id once it runs here."""
        run = self.project.start(workflow, **fields)
        self.project.in_status(run, "running")
        return run

    def complete(self, run: str, result: Any = None) -> None:
        """End a run well."""
        body = {"result": result, "worker_id": self.id}
        self.project.ok("POST", f"/internal/executions/{run}/complete", json=body)

    def fail(self, run: str, error: str = "no") -> None:
        """End a run badly."""
        body = {"error": error, "worker_id": self.id, "retryable": False}
        self.project.ok("POST", f"/internal/executions/{run}/fail", json=body)


@contextmanager
def worker_of(project: Project) -> Iterator[Worker]:
    """Have a worker for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            pushed = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/execute":
                worker.pushed.append(json.loads(pushed))
            body = b'{"status": "accepted"}'
            self.send_response(200 if self.path == "/execute" else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    worker = Worker(project, f"http://127.0.0.1:{server.server_port}")
    worker.online()
    try:
        yield worker
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
