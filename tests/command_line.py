"""`dormice` against a real server, each test in a project of its own, with the examples for workflows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.live import Live
from tests.wait import wait_until

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
COMMAND = [sys.executable, "-m", "dormice.cli"]
SECONDS = 60


class CommandLine:
    """`dormice` as a process, for a project of its own on a server, and the project's worker."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.project_id = str(uuid4())
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DORMICE_")}
        self.environment = {
            **inherited,
            "DORMICE_BASE_URL": live.base_url,
            "DORMICE_API_KEY": live.api_key,
            "DORMICE_PROJECT_ID": self.project_id,
        }
        self._worker: subprocess.Popen[bytes] | None = None

    def worker(self, module: str) -> None:
        """Start a worker, whose standard error goes to the server's log, and wait until it is given runs."""
        words = [*COMMAND, "worker", module]
        with self.live.log.open("ab") as log:
            self._worker = subprocess.Popen(
                words, cwd=EXAMPLES, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        online = lambda: [one for one in self.all("workers", "list") if one["status"] == "online"]  # noqa: E731
        wait_until(online, SECONDS, f"a worker; log:\n{self.live.end_of_log()}")

    def stop(self) -> None:
        """Stop the worker, which must work."""
        if self._worker is not None:
            self._worker.send_signal(signal.SIGTERM)
            assert self._worker.wait(SECONDS) == 0, self.live.end_of_log()
            self._worker = None

    def run(self, *words: str, stdin: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
        """Run `dormice WORDS` to its end, with `changes` to its environment."""
        environment = {**self.environment, **changes}
        command = [*COMMAND, *words]
        return subprocess.run(
            command, env=environment, input=stdin, capture_output=True, text=True, check=False, timeout=SECONDS
        )

    def dormice(self, *words: str) -> str:
        """Return what `dormice WORDS` prints. It must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: {done.stderr}\n{done.stdout}\nlog:\n{self.live.end_of_log()}"
        return done.stdout

    def one(self, *words: str) -> dict[str, Any]:
        """Return the record that a command prints."""
        return dict(json.loads(self.dormice(*words, "--json")))

    def all(self, *words: str) -> list[dict[str, Any]]:
        """Return the records of a list."""
        return [json.loads(line) for line in self.dormice(*words, "--json").splitlines()]

    def start(self, workflow: str, payload: object = None) -> str:
        """Start a run, and return its id."""
        return str(self.one("runs", "start", workflow, "--payload", json.dumps(payload))["execution_id"])

    def result(self, workflow: str, payload: object = None) -> Any:
        """Run a workflow to its end, and return its result."""
        return self.one("runs", "start", workflow, "--payload", json.dumps(payload), "--wait")["result"]

    def waits(self, run_id: str) -> None:
        """Wait until a run waits."""
        wait_until(lambda: self.one("runs", "get", run_id)["status"] == "waiting", SECONDS, "waiting")
