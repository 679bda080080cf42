"""Generated requests against the live server are answered as its own OpenAPI document says, and never with a 5xx."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from dormice.api.openapi import document
from dormice.domain.limits import Limits
from tests.api.fakes import PREVIEWS_DECLARED, World
from tests.live import Api, Live, new_key

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SPARED = {"deleteMachine", "revokeKey"}
"""They are called with made-up ids only: what they destroy, the other requests need."""
LONGEST_WAIT_MS = 20
NOWHERE = "https://hook.invalid"
"""The URL of all webhooks: nobody is to be called."""


@pytest.fixture(scope="module", name="known")
def _known(api: Api) -> dict[str, str]:
    """Ids that exist."""
    machine_id = api.create_machine(autosleep="never")
    record = api.shell(machine_id, "echo out; echo err >&2")
    made = api.post(f"/v1/machines/{machine_id}/previews", json={"port": 80}, headers=new_key()).raise_for_status()
    preview_id = made.json()["preview_id"]
    return {
        "machine_id": machine_id,
        "execution_id": record["execution_id"],
        "preview_id": preview_id,
        "port_id": preview_id,
    }


DOCUMENT = document(World(previews=PREVIEWS_DECLARED).operations(), Limits())
schema = schemathesis.openapi.from_dict(json.loads(msgspec.json.encode(DOCUMENT)))


def keep_to_one_place(case: Case[Any]) -> None:
    """Aim what works on files at one directory: the machines of these tests are this host."""
    if "/files" in case.operation.path and isinstance(case.query, dict):
        for name in {"path", "to"} & case.query.keys():
            if case.query[name]:
                case.query[name] = f"/tmp/dormice-generated/{len(str(case.query[name])) % 3}"
    if isinstance(case.body, dict) and isinstance(patterns := case.body.get("artifacts"), list):
        case.body["artifacts"] = [
            f"/tmp/dormice-generated/{pattern}" for pattern in patterns if isinstance(pattern, str)
        ]


def _tame(case: Case[Any], known: dict[str, str]) -> None:
    """Let no request wait long, or start anything but `true`; aim most of them at what exists."""
    operation = case.operation.definition.raw["operationId"]
    if operation not in SPARED and sum(map(ord, str(case.body))) % 4:
        case.path_parameters = {name: known.get(name, "x") for name in case.path_parameters or {}}
    keep_to_one_place(case)
    if isinstance(case.query, dict) and isinstance(case.query.get("wait_ms"), int):
        case.query["wait_ms"] = min(case.query["wait_ms"], LONGEST_WAIT_MS)
    if isinstance(case.body, dict) and isinstance(command := case.body.get("command"), list) and command:
        command[0] = "true"
    if isinstance(case.body, dict) and "url" in case.body:
        case.body["url"] = NOWHERE


def test_the_live_document_is_the_one_that_is_tested(api: Api) -> None:
    assert api.get("/openapi.json").json() == schema.raw_schema


@schema.parametrize()
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_the_live_server_keeps_to_its_document(case: Case[Any], live: Live, known: dict[str, str]) -> None:
    _tame(case, known)
    headers = {"Authorization": f"Bearer {live.api_key}"}
    case.call_and_validate(headers=headers, checks=CHECKS, timeout=30, base_url=live.base_url)
