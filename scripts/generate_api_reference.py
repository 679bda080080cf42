"""Write docs/reference/machines-api.md from the routes' declarations; with --check, say whether it is up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from dormice.api.app import all_operations
from dormice.api.openapi import document
from dormice.api.services import Services
from dormice.domain.limits import Limits, MachineDefaults

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference" / "machines-api.md"
HEAD = """# HTTP API

Made by `scripts/generate_api_reference.py` from the code: change it there. The same as OpenAPI 3.1: `GET /openapi.json`.
What is an addition to the Dedalus Machines API is told in [native-api.md](../native-api.md), errors in
[errors.md](../errors.md).

Every route but `/health`, `/healthz`, `/readyz` and `/openapi.json` needs `Authorization: Bearer KEY` or
`x-api-key: KEY`, and takes `X-Dedalus-Org-Id`, which must then be the key's organization.
"""
Schema = dict[str, Any]


def reference() -> str:
    """Return the page."""
    nothing = cast("Any", None)  # declarations only: nothing is called
    services = Services(
        executions=nothing,
        machines=nothing,
        keys=nothing,
        health=nothing,
        metrics=nothing,
        requests=nothing,
        limits=Limits(),
        defaults=MachineDefaults(),
    )
    described = document(all_operations(services), services.limits)
    lines = [HEAD]
    for tag in described["tags"]:
        lines += [f"## {tag['name'].capitalize()}\n", f"{tag['description']}\n"]
        for path, methods in described["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    lines += _operation(method, path, operation)
    lines += ["## Records\n"]
    for name, schema in described["components"]["schemas"].items():
        lines += _record(name, schema)
    return "\n".join(lines).rstrip() + "\n"


def _operation(method: str, path: str, operation: Schema) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`\n"
    yield f"{operation['summary']}. {operation.get('description', '')}".rstrip() + "\n"
    parameters = [p for p in operation["parameters"] if p["in"] != "path" and p["name"] != "X-Dedalus-Org-Id"]
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
        yield f"- {', '.join(others)}: [CodedError](#codederror); every other error: [Problem](#problem)"
    yield ""


def _content(content: Schema) -> str:
    return " or ".join(
        _type(media["schema"]) if "$ref" in media["schema"] else f"`{media_type}`"
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
    """Return the exit code: 1 if --check finds the page out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page is out of date")
    text = reference()
    if not parser.parse_args().check:
        TARGET.write_text(text)
    elif not TARGET.exists() or TARGET.read_text() != text:
        print(f"{TARGET} is out of date: run scripts/generate_api_reference.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
