"""The OpenAPI document of this surface has every route, and what it refers to is there."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.live import Live
from tests.workflow_surface.test_access import OPERATIONS


@pytest.fixture(scope="module", name="document")
def _document(live: Live) -> dict[str, Any]:
    found: dict[str, Any] = (
        httpx.get(f"{live.base_url}/api-docs/openapi.json", trust_env=False).raise_for_status().json()
    )
    return found


def test_it_has_every_route_once(document: dict[str, Any]) -> None:
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(one.method, one.shown or one.path.replace("*}", "}")) for one in OPERATIONS}
    ids = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(ids) == len(set(ids)) == len(OPERATIONS)
    tags = {tag["name"] for tag in document["tags"]}
    assert {one.tag for one in OPERATIONS} <= tags


def test_references_lead_somewhere_and_parameters_are_told(document: dict[str, Any]) -> None:
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
    for path, methods in document["paths"].items():
        for one in methods.values():
            told = {parameter["name"] for parameter in one["parameters"] if parameter["in"] == "path"}
            assert told == set(re.findall(r"\{(\w+)\}", path))


def test_errors_have_the_shape_of_this_surface(document: dict[str, Any]) -> None:
    error = document["components"]["schemas"]["WorkflowError"]
    assert set(error["properties"]) == {"error", "error_type"}
    assert "Problem" not in document["components"]["schemas"]
    for methods in document["paths"].values():
        for one in methods.values():
            open_to_all = one.get("security") == []
            assert open_to_all == ("401" not in one["responses"])
            assert "WorkflowError" in str(one["responses"]["default"])
