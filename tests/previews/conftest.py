"""A program that runs in a machine, and previews of its port."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live import Api, Live, new_key
from tests.wait import wait_until

PROGRAM = Path(__file__).with_name("program.py").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Program:
    """A web server inside a machine."""

    api: Api
    machine: str
    port: int
    record: dict[str, Any]

    def preview(self, **body: Any) -> dict[str, Any]:
        """Make a preview of it that is ready."""
        made = self.api.post(
            f"/v1/machines/{self.machine}/previews",
            json={"port": self.port, **body},
            params={"wait_ms": 20_000},
            headers=new_key(),
        )
        record: dict[str, Any] = made.raise_for_status().json()
        assert record["status"] == "ready"
        return record

    def seen(self, url: str, *words: str) -> None:
        """Wait until all these things have happened to it."""
        wait_until(lambda: set(words) <= set(self.api.get(f"{url}seen").json()), 20, f"it has seen {words}")

    def seen_again(self, url: str, before: list[str], word: str) -> None:
        """Wait until a thing has happened to it once more than `before`, which is what GET /seen has told."""
        most = before.count(word)
        wait_until(lambda: self.api.get(f"{url}seen").json().count(word) > most, 20, f"it has seen {word} again")


def run_program(api: Api, machine: str, *arguments: str) -> Program:
    """Have it run in a machine."""
    record = api.execute(machine, "python3", "-c", PROGRAM, *arguments, wait_ms=0)
    api.wait_for_output(record, b"\n")
    port = int(api.output(record).split()[1])
    return Program(api, machine, port, record)


@pytest.fixture(scope="module", name="program")
def _program(api: Api, machine: str) -> Iterator[Program]:
    program = run_program(api, machine)
    yield program
    api.delete(f"/v1/machines/{machine}/executions/{program.record['execution_id']}")
    api.finished(program.record)


@pytest.fixture(scope="module", name="url")
def _url(program: Program) -> str:
    """Where a public preview of the program is."""
    return str(program.preview(visibility="public")["url"])


@pytest.fixture(name="browser")
def _browser(live: Live) -> Iterator[httpx.Client]:
    """A client without a key, that keeps cookies and follows nothing by itself."""
    with httpx.Client(base_url=live.base_url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session", name="new_client")
def _new_client(live: Live, api: Api) -> Callable[..., Api]:
    """Make a client with a new key, of an organization of that name (of the host's own: none)."""

    def make(organization: str | None = None) -> Api:
        body = {"organization": organization, "name": "other"}
        key = api.post("/v1/keys", json={name: value for name, value in body.items() if value}).json()["key"]
        return live.client(headers={"Authorization": f"Bearer {key}"})

    return make


def echoed(answer: httpx.Response) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return what the program saw of a request, and its headers by name."""
    said: dict[str, Any] = json.loads(answer.raise_for_status().content)
    headers: dict[str, list[str]] = {}
    for name, value in said["headers"]:
        headers.setdefault(name, []).append(value)
    return said, headers
