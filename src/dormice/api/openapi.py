"""The OpenAPI 3.1 document, made from the routes' declarations and the wire records."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec

from dormice.api.http.asgi import ASGIApp
from dormice.api.http.call import Call
from dormice.api.http.operation import Answer, Handler, Operation, Parameter
from dormice.api.http.replies import Reply
from dormice.api.http.wire import CodedError, Problem
from dormice.api.machines.autosleep import PATTERN as AUTOSLEEP_PATTERN
from dormice.domain.limits import Limits
from dormice.domain.webhook import SUBSCRIBABLE
from dormice.outbound.targets import URL_CHARACTERS

Document = dict[str, Any]

_REF = "#/components/schemas/{name}"
_PATH_PARAMETER = re.compile(r"\{(\w+)\}")
_NO_NUL = "^[^\\u0000]*$"
_MEDIA: dict[str, Document] = {
    "application/json": {"type": "object"},
    "text/event-stream": {
        "type": "object",
        "properties": {"event": {"type": "string"}, "id": {"type": "string"}, "data": {"type": "string"}},
    },
    "application/octet-stream": {"type": "string", "format": "binary"},
    "application/x-tar": {"type": "string", "format": "binary"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """What the documents of the two surfaces differ in."""

    title: str
    description: str
    tags: Mapping[str, str]
    ids: Mapping[str, str]
    """What path parameters are."""
    id_chars: int | None
    """How long they may be."""
    header: Parameter
    """What every request with a key may say besides."""
    refusals: Mapping[int, str]
    """What statuses mean that are answered with `refusal`."""
    always: frozenset[int]
    """Those that every route with a key may answer."""
    refusal: type[msgspec.Struct]
    otherwise: type[msgspec.Struct]
    """What every other error is answered with, as this media type."""
    otherwise_type: str
    otherwise_means: str


MACHINES = Surface(
    title="Dormice",
    description="Durable executions on machines that sleep.",
    tags={
        "machines": "Isolated Linux machines that sleep when nobody needs them.",
        "snapshots": "Copies of machines' disks, and machines made from them.",
        "executions": "Commands on machines, and what becomes of them.",
        "usage": "What machines have used.",
        "previews": "Ports of machines that are served under an address.",
        "ssh": "Who may log in to a machine by SSH.",
        "files": "Files inside machines.",
        "artifacts": "Files that executions leave behind, copied out of their machines.",
        "keys": "API keys of organizations.",
        "webhooks": "URLs that are told of what happens to executions and machines.",
        "service": "The server itself.",
    },
    ids={
        "machine_id": "As it was returned: `dm-` and a UUID, or the bare UUID.",
        "execution_id": "As it was returned: `exec-` and a UUID.",
        "snapshot_id": "As it was returned: `snap-` and a UUID.",
        "stream_id": "As it was returned with the token.",
        "org_id": "The organization of the key.",
        "preview_id": "As it was returned: `pv-` and 26 letters and digits.",
        "port_id": "As it was returned: the id of a preview.",
        "session_id": "As it was returned: `ssh-` and a UUID.",
        "artifact_id": "As it was returned: `art-` and a UUID.",
        "key_id": "As it was returned.",
        "webhook_id": "As it was returned.",
        "event_id": "As it was returned.",
    },
    id_chars=253,
    header=Parameter(
        "X-Dedalus-Org-Id", "header", {"type": "string"}, "The organization that the key must belong to (else 403)."
    ),
    refusals={
        401: "No API key, or one that is not valid.",
        403: "The key is valid but may not do this.",
        409: "The request does not fit the present state, or the Idempotency-Key was used for another request.",
        429: "Too much at once; `retry-after-ms` says when to come again.",
        503: "Something that the request needs is not there just now; `retry-after-ms` says when to come again.",
    },
    always=frozenset({401, 403, 429, 503}),
    refusal=CodedError,
    otherwise=Problem,
    otherwise_type="application/problem+json",
    otherwise_means="Every other error, as an RFC 9457 problem.",
)


def describing(operations: Sequence[Operation], limits: Limits, surface: Surface) -> Handler:
    """Return what answers with the document, which is made when it is first asked for: a start takes a tenth less without it."""

    @cache
    def described() -> bytes:
        return msgspec.json.encode(document(operations, limits, surface))

    async def serve(_call: Call) -> ASGIApp:
        return Reply(described())

    return serve


def document_operation(operations: Sequence[Operation], limits: Limits) -> Operation:
    """Return the route of the document of these routes."""
    return Operation(
        id="openapi",
        method="GET",
        path="/openapi.json",
        tag="service",
        summary="This document",
        handle=describing(operations, limits, MACHINES),
        answers={200: Answer("The document.", media_types=("application/json",))},
        public=True,
    )


def document(operations: Sequence[Operation], limits: Limits, surface: Surface = MACHINES) -> Document:
    """Return the document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _operation(operation, limits, surface)
        paths.setdefault(_path(operation), {})[operation.method.lower()] = described
        for status, answer in operation.answers.items():
            if links := _links(operation, answer, operations, surface):
                described["responses"][str(status)]["links"] = links
    return {
        "openapi": "3.1.0",
        "info": {
            "title": surface.title,
            "version": version("dormice"),
            "description": surface.description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": [{"name": name, "description": text} for name, text in surface.tags.items()],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": _schemas(operations, limits, surface),
        },
    }


def _path(operation: Operation) -> str:
    return operation.shown or operation.path.replace("*}", "}")


def _needs_key(operation: Operation) -> bool:
    return operation.guarded or not operation.public


def _operation(operation: Operation, limits: Limits, surface: Surface) -> Document:
    found: Document = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": [
            *_path_parameters(_path(operation), surface),
            *map(_parameter, _all_parameters(operation, surface)),
        ],
        "responses": _responses(operation, surface),
    }
    if operation.description:
        found["description"] = operation.description
    if not _needs_key(operation):
        found["security"] = []
    if operation.body is not None:
        content = {"application/json": {"schema": _ref(operation.body)}}
        found["requestBody"] = {"required": operation.body_required, "content": content}
    if operation.raw_body:
        octets = {"schema": {"type": "string", "format": "binary", "maxLength": limits.stdin_segment_bytes}}
        found["requestBody"] = {"required": False, "content": {"application/octet-stream": octets}}
    if operation.streamed_body:
        binary = {"schema": {"type": "string", "format": "binary"}}
        found["requestBody"] = {"required": False, "content": {"application/octet-stream": binary}}
    return found


def _all_parameters(operation: Operation, surface: Surface) -> Iterable[Parameter]:
    return (*operation.parameters, surface.header) if _needs_key(operation) else operation.parameters


def _path_parameters(path: str, surface: Surface) -> list[Document]:
    longest = {} if surface.id_chars is None else {"maxLength": surface.id_chars}
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": surface.ids.get(name, "As it was returned."),
            "schema": {"type": "string", "minLength": 1, **longest},
        }
        for name in _PATH_PARAMETER.findall(path)
    ]


def _parameter(parameter: Parameter) -> Document:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _responses(operation: Operation, surface: Surface) -> Document:
    found = {str(status): _answer(answer) for status, answer in operation.answers.items()}
    if not _needs_key(operation):
        return found | {"default": _otherwise(surface)}
    for status in sorted(surface.always | operation.errors):
        content = {"application/json": {"schema": _ref(surface.refusal)}}
        found[str(status)] = {"description": surface.refusals[status], "content": content}
    return found | {"default": _otherwise(surface)}


def _answer(answer: Answer) -> Document:
    content: Document = {}
    if answer.body is not None:
        one = _ref(answer.body)
        content["application/json"] = {"schema": {"type": "array", "items": one} if answer.many else one}
    for media_type in answer.media_types:
        content[media_type] = {"schema": _MEDIA.get(media_type, {"type": "string"})}
    return {"description": answer.description, "content": content}


def _links(operation: Operation, answer: Answer, operations: Iterable[Operation], surface: Surface) -> Document:
    """What can be done next with what was just made: the operations on an id that this one's path does not have."""
    found = set(answer.body.__struct_fields__) & surface.ids.keys() if answer.body is not None else set()
    new = found.difference(_PATH_PARAMETER.findall(operation.path))
    links = {}
    for other in operations:
        names = _PATH_PARAMETER.findall(other.path)
        if new.intersection(names) and found.issuperset(names):
            parameters = {name: f"$response.body#/{name}" for name in names}
            links[other.id] = {"operationId": other.id, "parameters": parameters}
    return links


def _otherwise(surface: Surface) -> Document:
    content = {surface.otherwise_type: {"schema": _ref(surface.otherwise)}}
    return {"description": surface.otherwise_means, "content": content}


def _ref(body: type[msgspec.Struct]) -> Document:
    return {"$ref": _REF.format(name=body.__name__)}


def _schemas(operations: Iterable[Operation], limits: Limits, surface: Surface) -> Document:
    bodies: dict[str, type[msgspec.Struct]] = {kind.__name__: kind for kind in (surface.refusal, surface.otherwise)}
    for operation in operations:
        for body in (operation.body, *(answer.body for answer in operation.answers.values())):
            if body is not None:
                bodies[body.__name__] = body
    _, found = msgspec.json.schema_components(
        [bodies[name] for name in sorted(bodies)], ref_template=_REF, schema_hook=None
    )
    for name, tighten in _TIGHTER.items():
        if name in found:
            tighten(found[name]["properties"], limits)
    return dict(sorted(found.items()))


def _only(schema: Document, **rules: Any) -> None:
    """Add rules to a property's schema, to its non-null branch where there are two."""
    for branch in schema.get("anyOf", (schema,)):
        if branch.get("type") != "null":
            branch.update(rules)


def _tighten_execution(properties: Document, limits: Limits) -> None:
    _tighten_program(properties, limits)
    pattern = {"type": "string", "minLength": 1, "maxLength": limits.path_bytes, "pattern": _NO_NUL}
    _only(properties["artifacts"], maxItems=limits.artifact_patterns, items=pattern)
    _only(properties["timeout_ms"], minimum=0, maximum=limits.timeout_ms)
    _only(properties["start_timeout_ms"], minimum=0, maximum=limits.start_timeout_ms)


def _tighten_terminal(properties: Document, limits: Limits) -> None:
    _tighten_program(properties, limits)
    _only(properties["shell"], maxLength=limits.cwd_bytes, pattern=_NO_NUL)


def _tighten_program(properties: Document, limits: Limits) -> None:
    first = {"type": "string", "minLength": 1, "pattern": _NO_NUL}
    others = {"type": "string", "maxLength": limits.argv_bytes, "pattern": _NO_NUL}
    _only(properties["command"], minItems=1, maxItems=limits.argv_count, prefixItems=[first], items=others)
    _only(properties["cwd"], maxLength=limits.cwd_bytes, pattern=_NO_NUL)
    value = {"type": "string", "maxLength": limits.env_value_bytes, "pattern": _NO_NUL}
    name = {"minLength": 1, "maxLength": limits.env_name_bytes, "pattern": "^[^=\\u0000]+$"}
    _only(properties["env"], additionalProperties=value, propertyNames=name, maxProperties=limits.env_count)


def _tighten_machine(properties: Document, limits: Limits) -> None:
    _only(properties["vcpu"], minimum=limits.vcpu_min, multipleOf=limits.vcpu_step)
    _only(properties["memory_mib"], minimum=limits.memory_mib_min, format="int64")
    _only(properties["storage_gib"], minimum=limits.storage_gib_min, maximum=limits.storage_gib_max)
    _only(properties["autosleep"], pattern=AUTOSLEEP_PATTERN)


def _tighten_allow_list(properties: Document, limits: Limits) -> None:
    entry = {"type": "string", "minLength": 1, "maxLength": 254, "pattern": "^[A-Za-z0-9*._/-]+$"}
    _only(properties["allow"], items=entry, maxItems=limits.egress_entries)


def _tighten_snapshot(properties: Document, limits: Limits) -> None:
    _only(properties["name"], maxLength=limits.name_chars, pattern="^[ -~]*$")


def _tighten_key(properties: Document, limits: Limits) -> None:
    for name in ("organization", "name"):
        _only(properties[name], minLength=1, maxLength=limits.name_chars, pattern="^[ -~]*$")


def _tighten_webhook(properties: Document, limits: Limits) -> None:
    del limits  # a URL's length is bounded where it is read
    _only(properties["url"], minLength=1, maxLength=URL_CHARACTERS)
    _only(properties["events"], minItems=1)
    for branch in properties["events"].get("anyOf", (properties["events"],)):
        if "items" in branch:
            branch["items"] = {"type": "string", "enum": list(SUBSCRIBABLE)}


_TIGHTER: dict[str, Callable[[Document, Limits], None]] = {
    "CreateExecutionRequest": _tighten_execution,
    "CreateTerminalRequest": _tighten_terminal,
    "CreateMachineRequest": _tighten_machine,
    "UpdateMachineRequest": _tighten_machine,
    "ForkRequest": _tighten_machine,
    "AllowList": _tighten_allow_list,
    "CreateSnapshotRequest": _tighten_snapshot,
    "CreateKeyRequest": _tighten_key,
    "CreateWebhookRequest": _tighten_webhook,
    "UpdateWebhookRequest": _tighten_webhook,
}
