"""Write docs/reference/*.md from the routes' declarations; with --check, say whether they are up to date."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from dormice.api.app import all_operations
from dormice.api.openapi import document
from dormice.api.services import PreviewServices, Services, WorkflowServices
from dormice.api.workflows.openapi import WORKFLOWS
from dormice.api.workflows.routes import workflow_operations
from dormice.domain.limits import Limits, MachineDefaults

PLACE = Path(__file__).resolve().parent.parent / "docs" / "reference"
MACHINES_HEAD = """# HTTP API

Made by `scripts/generate_api_reference.py` from the code: change it there. The same as OpenAPI 3.1: `GET /openapi.json`.
What is an addition to the Dedalus Machines API is told in [native-api.md](../native-api.md), errors in
[errors.md](../errors.md).

Every route but `/health`, `/healthz`, `/readyz` and `/openapi.json` needs `Authorization: Bearer KEY` or
`x-api-key: KEY`, and takes `X-Dedalus-Org-Id`, which must then be the key's organization.
"""
HEADERS = {"X-Dedalus-Org-Id", "X-Project-ID"}
"""Told of once, at the head."""
WORKFLOWS_HEAD = """# HTTP API of workflows

Made by `scripts/generate_api_reference.py` from the code: change it there. The same as OpenAPI 3.1: `GET /api-docs/openapi.json`.
Errors are told in [errors.md](../errors.md). Inside, an execution of this surface is called a run: see the [glossary](../glossary.md).

In local mode (`dormice up --local-mode`) no route needs a key; otherwise every route but those under `/approve` and `/api/v1/approvals`
needs `Authorization: Bearer KEY`. `X-Project-ID` names the project; without it, it is the key's own one or the organization's default one.
"""
Schema = dict[str, Any]


def pages() -> dict[Path, str]:
    """Return the pages by where they belong."""
    nothing = cast("Any", None)  # declarations only: nothing is called
    fields = dict.fromkeys((field.name for field in dataclasses.fields(WorkflowServices)), nothing)
    previews = PreviewServices(previews=nothing, addresses=nothing, now=nothing)
    others = dict.fromkeys((field.name for field in dataclasses.fields(Services)), nothing)
    services = Services(**{**others, "limits": Limits(), "defaults": MachineDefaults(), "previews": previews})
    services = Services(**{**others, "limits": Limits(), "defaults": MachineDefaults()})
    limits = services.limits
    workflows = workflow_operations(WorkflowServices(**fields), limits, nothing)
    return {
        PLACE / "machines-api.md": _page(MACHINES_HEAD, document(all_operations(services, nothing), limits)),
        PLACE / "workflows-api.md": _page(WORKFLOWS_HEAD, document(workflows, limits, WORKFLOWS)),
    }


def _page(head: str, described: Schema) -> str:
    lines = [head]
    for tag in described["tags"]:
        routes = [
            (method, path, operation)
            for path, methods in described["paths"].items()
            for method, operation in methods.items()
            if tag["name"] in operation["tags"]
        ]
        if routes:
            lines += [f"## {tag['name'].capitalize()}\n", f"{tag['description']}\n"]
        for method, path, operation in routes:
            lines += _operation(method, path, operation)
    lines += ["## Records\n"]
    for name, schema in described["components"]["schemas"].items():
        lines += _record(name, schema)
    return "\n".join(lines).rstrip() + "\n"


def _operation(method: str, path: str, operation: Schema) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`\n"
    yield f"{operation['summary']}. {operation.get('description', '')}".rstrip() + "\n"
    parameters = [p for p in operation["parameters"] if p["in"] != "path" and p["name"] not in HEADERS]
    if parameters:
        yield "| parameter | in | type | |\n|---|---|---|---|"
        for parameter in parameters:
            needed = "Required. " if parameter["required"] else ""
            yield (
                f"| `{parameter['name']}` | {parameter['in']} | {_type(parameter['schema'])} "
                f"| {needed}{parameter['description']} |"
            )
        yield ""
    if (body := operation.get("requestBody")) is not None:
        yield f"Body: {_content(body['content'])}{'' if body['required'] else ', may be absent'}.\n"
    for status, answer in operation["responses"].items():
        if status.startswith("2") or "ReadinessRecord" in str(answer):
            yield f"- {status}: {answer['description']} {_content(answer['content'])}"
    others = [status for status in operation["responses"] if not status.startswith("2") and status != "default"]
    if others and operation.get("security") != []:
        refused, otherwise = (_content(operation["responses"][one]["content"]) for one in (others[0], "default"))
        same = refused == otherwise
        yield f"- {', '.join(others)}{' and every other error' if same else ''}: {refused}{'' if same else f'; every other error: {otherwise}'}"
    yield ""


def _content(content: Schema) -> str:
    return " or ".join(
        _type(media["schema"]) if {"$ref", "items"} & media["schema"].keys() else f"`{media_type}`"
        for media_type, media in content.items()
    )


def _record(name: str, schema: Schema) -> Iterator[str]:
    yield f"### {name}\n"
    if "enum" in schema:
        yield f"{schema.get('description', '').rstrip('.')}: {', '.join(f'`{word}`' for word in schema['enum'])}.\n"
        return
    yield f"{schema.get('description', '')}\n"
    if not schema["properties"]:
        return
    yield "| field | type | |\n|---|---|---|"
    for field, rules in schema["properties"].items():
        presence = "" if field in schema.get("required", ()) else "optional"
        description = rules.get("description", "") or _branch(rules).get("description", "")
        yield f"| `{field}` | {_type(rules)} | {': '.join(filter(None, (presence, description)))} |"
    yield ""


def _branch(schema: Schema) -> Schema:
    """Return what a value is when it is not null."""
    return next((branch for branch in schema.get("anyOf", ()) if branch.get("type") != "null"), schema)


def _type(schema: Schema) -> str:
    schema = _branch(schema)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if schema.get("type") == "array":
        return f"array of {_type(schema['items'])}"
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if schema.get("type") == "object":
        return f"map to {_type(values)}" if isinstance(values := schema.get("additionalProperties"), dict) else "object"
    bounds = [f"{schema[rule]:,}" if rule in schema else "" for rule in ("minimum", "maximum")]
    span = f" {bounds[0]} … {bounds[1]}".rstrip() if any(bounds) else ""
    return f"{schema.get('format') or schema.get('type', 'any')}{span}"


def main() -> int:
    """Return the exit code: 1 if --check finds a page out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page is out of date")
    check = parser.parse_args().check
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path} is out of date: run scripts/generate_api_reference.py", file=sys.stderr)
        else:
            path.write_text(pages()[path])
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
