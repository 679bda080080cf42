"""Requests in a row, each about what those before have made: the links of the OpenAPI document, against a live server."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, ClassVar

import msgspec
import pytest
import schemathesis
from hypothesis import Phase, seed, settings
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import Case

from dormice.domain.limits import Limits
from tests.conformance.test_openapi import CHECKS, DOCUMENT, LONGEST_WAIT_MS, NOWHERE, keep_to_one_place
from tests.conftest import StartLive
from tests.fuzz.budget import chosen, replayable, rounds
from tests.live import Live

schema = schemathesis.openapi.from_dict(json.loads(msgspec.json.encode(DOCUMENT)))
"""One of its own, as the state machine adds to it."""
IDS = {"machine_id", "execution_id", "key_id", "webhook_id", "event_id", "preview_id", "port_id"}
LINKED = {
    "createMachine",
    "createMachineExecution",
    "createKey",
    "createPreview",
    "createPort",
    "createSnapshot",
    "getSnapshot",
    "deleteSnapshot",
    "createMachineSSHSession",
    "createWebhook",
    "testWebhook",
    "redeliverWebhookEvent",
    "getMachineArtifact",
    "deleteMachineArtifact",
    "createMachineExecutionLogToken",
    "getMachineExecutionLogs",
    "reauthorizeMachineExecutionLogs",
}


def test_the_document_links_what_is_made_to_all_that_can_be_done_with_it() -> None:
    linked: dict[str, set[str]] = {}
    reachable: dict[str, set[str]] = {}
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            for answer in operation["responses"].values():
                linked.setdefault(operation["operationId"], set()).update(answer.get("links", {}))
            for name in (
                "execution_id",
                "terminal_id",
                "preview_id",
                "port_id",
                "artifact_id",
                "snapshot_id",
                "session_id",
                "stream_id",
                "machine_id",
                "key_id",
                "webhook_id",
            ):
                if f"{{{name}}}" in path:
                    reachable.setdefault(name, set()).add(operation["operationId"])
                    break
    assert {name for name, targets in linked.items() if targets} == LINKED
    assert linked["createMachine"] == reachable["machine_id"]
    assert linked["createMachineExecution"] == reachable["execution_id"]
    assert linked["createKey"] == reachable["key_id"]
    assert linked["createWebhook"] == reachable["webhook_id"] - {"redeliverWebhookEvent"}
    assert linked["createPreview"] == reachable["preview_id"]
    assert linked["createPort"] == reachable["port_id"]


@pytest.fixture(scope="module", name="own")
def _own(start_live: StartLive) -> Any:
    """A Dormice that may lose its keys and machines."""
    with start_live() as live:
        yield live


class Client(schema.as_state_machine()):  # type: ignore[misc] # made at run time
    """Follows links, and from elsewhere goes mostly to what was made, as made-up ids lead nowhere."""

    live: ClassVar[Live]
    failures: ClassVar[list[BaseException]] = []

    def setup(self) -> None:
        """Begin with a machine and an execution, so that even a short walk comes far."""
        with self.live.client() as api:
            self.machine = api.create_machine(autosleep="never")
            self.made = {
                "machine_id": self.machine,
                "execution_id": api.shell(self.machine, "echo out")["execution_id"],
            }

    def teardown(self) -> None:
        """Leave no machine behind that takes the next one's place."""
        with self.live.client() as api:
            for machine_id in {self.machine, self.made["machine_id"]}:
                api.delete(f"/v1/machines/{machine_id}")

    def after_call(self, response: Any, case: Case[Any]) -> None:
        """Remember what was made."""
        super().after_call(response, case)
        if response.status_code in {200, 202} and case.operation.definition.raw["operationId"] in LINKED:
            self.made |= {name: value for name, value in response.json().items() if name in IDS}

    def before_call(self, case: Case[Any]) -> None:
        """Let no request wait long, start anything that lasts, or make a machine that the next ones cannot join."""
        case.headers.pop("X-Dedalus-Org-Id", None)
        if sum(map(ord, str(case.body))) % 4:
            case.path_parameters = {
                name: value if value.startswith(("dm-", "exec-", "key-", "wh-", "evt-")) else self.made.get(name, value)
                for name, value in (case.path_parameters or {}).items()
            }
        keep_to_one_place(case)
        if isinstance(case.query, dict) and isinstance(case.query.get("wait_ms"), int):
            case.query["wait_ms"] = min(case.query["wait_ms"], LONGEST_WAIT_MS)
        if not isinstance(case.body, dict):
            return
        if isinstance(command := case.body.get("command"), list) and command:
            command[0] = "true"
        if "url" in case.body:
            case.body["url"] = NOWHERE
        for name, most in (("memory_mib", Limits().memory_mib_min), ("vcpu", Limits().vcpu_min)):
            if isinstance(asked := case.body.get(name), int | float):
                case.body[name] = min(asked, most)

    def get_call_kwargs(self, case: Case[Any]) -> dict[str, Any]:
        """Return how to reach the server."""
        del case
        headers = {"Authorization": f"Bearer {self.live.api_key}"}
        return {"headers": headers, "base_url": self.live.base_url, "timeout": 30}

    def validate_response(self, response: Any, case: Case[Any], **more: Any) -> None:
        """Hold the answer against the document."""
        del more
        try:
            case.validate_response(response, checks=CHECKS)
        except BaseException as failure:
            self.failures.append(failure)
            raise


def test_what_was_made_keeps_to_the_document_whatever_is_done_with_it(own: Live) -> None:
    Client.live = own
    bounded = settings(chosen(examples=12, steps=8), phases=(Phase.generate,))
    for number in rounds():
        with replayable(number):
            # A live server need not be as far the second time: that its answers differ then is no failure by itself.
            with suppress(FlakyStrategyDefinition):
                run_state_machine_as_test(seed(number)(Client), settings=bounded)
            if Client.failures:
                raise Client.failures[0]
