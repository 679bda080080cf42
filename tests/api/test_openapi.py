"""The OpenAPI document is true, and the pages made from it are fresh."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import ignored_auth, negative_data_rejection, positive_data_acceptance
from schemathesis.core.parameters import ParameterLocation

from dormice.api.app import create_app
from tests.api.fakes import ADMIN_KEY, IDS, World, finished

ROOT = Path(__file__).parents[2]


def test_the_reference_page_is_fresh() -> None:
    script = ROOT / "scripts" / "generate_api_reference.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_the_document_has_every_route(client: httpx.AsyncClient, world: World) -> None:
    document = (await client.get("/openapi.json")).json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(operation.method, operation.path) for operation in world.operations()}
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


async def test_references_in_the_document_lead_somewhere(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]

    def check(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                assert node["$ref"].rpartition("/")[2] in schemas
            for value in node.values():
                check(value)
        elif isinstance(node, list):
            for value in node:
                check(value)

    check(document)
    assert schemas["CreateExecutionRequest"]["additionalProperties"] is False


def _fuzzed() -> Any:
    world = World()
    world.executions.add(*finished())
    return create_app(world.services())


schema = schemathesis.openapi.from_asgi("/openapi.json", _fuzzed())


def _without_integral_floats(value: Any) -> Any:
    """JSON Schema takes 1.0 for an integer; we do not."""
    if isinstance(value, dict):
        return {name: _without_integral_floats(item) for name, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _body_is_bad(case: Case[Any]) -> bool:
    """Whether the body is what makes a generated request bad."""
    component = case.meta.components.get(ParameterLocation.BODY) if case.meta is not None else None
    return component is not None and component.mode is GenerationMode.NEGATIVE


@schema.parametrize()
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_generated_requests_are_answered_as_the_document_says(case: Case[Any]) -> None:
    excluded = [ignored_auth]  # a bad bearer beside a good x-api-key is let in, as it must be
    if case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE:
        # Unknown ids are answered 404 before anything else is looked at: known ones lead further.
        case.body = _without_integral_floats(case.body)
        if isinstance(case.body, dict) and case.body.get("stdin_open") and case.body.get("stdin") is not None:
            del case.body["stdin"]  # each is valid; that they exclude each other is said in words (422)
        if isinstance(case.body, dict) and isinstance(case.body.get("egress"), dict):
            case.body["egress"] = {
                "allow": ["example.com"]
            }  # which names and networks there can be is said in words (422)
        if isinstance(case.query, dict) and {"period_start", "period_end"} <= case.query.keys():
            days = sorted((case.query["period_start"], case.query["period_end"]))
            case.query["period_start"], case.query["period_end"] = days  # likewise: the end is not before the start
        if isinstance(case.body, dict) and case.body.get("shell") and case.body.get("command") is not None:
            del case.body["shell"]  # likewise
        case.path_parameters = {name: IDS[name] for name in case.path_parameters or {}}
    if "Range" in case.headers:
        excluded.append(positive_data_acceptance)  # a range beyond the end is valid, and 416
    response = case.call(headers={"x-api-key": ADMIN_KEY})
    if not _body_is_bad(case) or not response.request.body:
        # Parameters that we do not know are passed over, and null is sent as no body at all, which may be good.
        excluded.append(negative_data_rejection)
    case.validate_response(response, excluded_checks=excluded)
