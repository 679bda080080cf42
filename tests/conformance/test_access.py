"""Nobody gets in: every route of the document, with every kind of key that must not open it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from dormice.api.http.operation import Operation
from tests.api.fakes import PREVIEWS_DECLARED, World
from tests.conftest import StartLive
from tests.live import Api, Live, new_key
from tests.wait import wait_until

OPERATIONS = World(previews=PREVIEWS_DECLARED).operations()
PRIVATE = [operation for operation in OPERATIONS if operation.guarded or not operation.public]
OWNED = [
    operation
    for operation in PRIVATE
    if any(name in operation.path for name in ("{machine_id}", "{org_id}", "{webhook_id}", "{snapshot_id}"))
]
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDNWOBOElBh+cRB8WubH7UF9WSpWIjx8+btUbc09dGcZ"
BODIES: dict[str, Any] = {
    "createMachine": {},
    "patchMachine": {"vcpu": 0.5},
    "createMachineExecution": {"command": ["touch", "/tmp/stranger"]},
    "createMachineTerminal": {"width": 80, "height": 24},
    "putMachineAutoresizing": {"enabled": True},
    "putOrganizationAutoresizing": {"enabled": False},
    "createPreview": {"port": 80, "visibility": "public"},
    "createPort": {"port": 80},
    "createMachineSSHSession": {"public_key": PUBLIC_KEY},
    "createKey": {"organization": "stolen", "admin": True},
    "createWebhook": {"url": "https://example.com"},
    "patchWebhook": {"enabled": False},
}
UNKNOWN = {
    "machine_id": "dm-01234567-89ab-7cde-8f01-23456789abcd",
    "execution_id": "exec-01234567-89ab-7cde-8f01-23456789abcd",
    "terminal_id": "term-0123456789abcdef0123456789abcdef01234567",
    "preview_id": "pv-abcdefghijklmnopqrstuvwxyz",
    "port_id": "pv-abcdefghijklmnopqrstuvwxyz",
    "snapshot_id": "snap-01234567-89ab-7cde-8f01-23456789abcd",
    "session_id": "ssh-01234567-89ab-7cde-8f01-23456789abcd",
    "artifact_id": "art-01234567-89ab-7cde-8f01-23456789abcd",
    "key_id": "key-01234567-89ab-4cde-8f01-23456789abcd",
    "org_id": "01234567-89ab-4cde-8f01-23456789abcd",
    "stream_id": "exec-01234567-89ab-7cde-8f01-23456789abcd",
    "webhook_id": "wh-01234567-89ab-7cde-8f01-23456789abcd",
    "event_id": "evt-01234567-89ab-7cde-8f01-23456789abcd",
}


@dataclass(frozen=True)
class House:
    """A Dormice with a machine, an execution and a key of one organization, and strangers before its doors."""

    live: Live
    ids: dict[str, str]
    stranger: str
    """A valid key of another organization."""
    stranger_admin: str
    revoked: str

    def ask(self, operation: Operation, ids: dict[str, str], headers: dict[str, str], key: str = "") -> httpx.Response:
        arguments: dict[str, Any] = {"headers": {"Idempotency-Key": key or new_key()["Idempotency-Key"], **headers}}
        if operation.id in BODIES:
            arguments["json"] = BODIES[operation.id]
        if operation.tag == "files":
            arguments["params"] = {"path": "/tmp/dormice-stranger", "to": "/tmp/dormice-stranger-too"}
        if operation.id == "putMachineExecutionStdin":
            arguments |= {"params": {"offset": "0"}, "content": b"x"}
        return httpx.request(
            operation.method,
            self.live.base_url + operation.path.format_map(ids),
            trust_env=False,
            timeout=30,
            **arguments,
        )


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module", name="house")
def _house(start_live: StartLive) -> Iterator[House]:
    with start_live(DORMICE_LOG_LEVEL="debug", DORMICE_SSH_LISTEN="127.0.0.1:0") as live, live.client() as api:
        machine = api.create_machine(autosleep="never")
        record = api.execute(machine, "/bin/bash", "-c", "echo the-secret-output; cat", stdin_open=True, wait_ms=0)
        wait_until(lambda: b"output" in api.output(record), 10, "it runs")
        made = {name: _new_key(api, name, admin=name == "admins") for name in ("strangers", "admins", "dismissed")}
        assert api.delete(f"/v1/keys/{made['dismissed']['key_id']}").status_code == 200
        own = next(key for key in api.get("/v1/keys").json()["items"] if key["name"] == "host")
        size = {"width": 80, "height": 24}
        terminal = api.post(f"/v1/machines/{machine}/terminals", json=size, headers=new_key()).json()
        previews = f"/v1/machines/{machine}/previews"
        preview = api.post(previews, json={"port": 80}, headers=new_key()).raise_for_status().json()["preview_id"]
        login = api.post(f"/v1/machines/{machine}/ssh", json={"public_key": PUBLIC_KEY}, headers=new_key())
        copy = api.post(f"/v1/machines/{machine}/snapshots", json={}, headers=new_key())
        ids = {
            "machine_id": machine,
            "session_id": login.raise_for_status().json()["session_id"],
            "snapshot_id": copy.raise_for_status().json()["snapshot_id"],
            "preview_id": preview,
            "port_id": preview,
            "execution_id": record["execution_id"],
            "terminal_id": terminal["terminal_id"],
            "artifact_id": _artifact(api, machine),
            "key_id": own["key_id"],
            "org_id": own["organization_id"],
            "stream_id": record["execution_id"],
        }
        hook = api.post("/v1/webhooks", json={"url": "https://hook.invalid"}).raise_for_status().json()["webhook_id"]
        event = api.post(f"/v1/webhooks/{hook}/test").raise_for_status().json()["event_id"]
        ids |= {"webhook_id": hook, "event_id": event}
        yield House(live, ids, made["strangers"]["key"], made["admins"]["key"], made["dismissed"]["key"])


def _artifact(api: Api, machine: str) -> str:
    api.shell(machine, "true", artifacts=["/etc/hostname"])
    path = f"/v1/machines/{machine}/artifacts"
    found = wait_until(lambda: api.get(path).json()["items"], 10, "the artifact is collected")
    return str(found[0]["artifact_id"])


def _new_key(api: Api, organization: str, *, admin: bool) -> dict[str, Any]:
    made = api.post("/v1/keys", json={"organization": organization, "admin": admin}, headers=new_key())
    record: dict[str, Any] = made.raise_for_status().json()
    return record


def names(operation: Operation) -> str:
    return operation.id


def test_the_document_has_these_routes_and_no_others(house: House) -> None:
    paths = httpx.get(f"{house.live.base_url}/openapi.json", trust_env=False).json()["paths"]
    found = {(method.upper(), path) for path, item in paths.items() for method in item}
    assert found == {(operation.method, operation.path) for operation in OPERATIONS}
    assert {operation.id for operation in OPERATIONS if operation.public and not operation.guarded} == {
        "health",
        "healthz",
        "readyz",
        "downloadArtifact",
    }


@pytest.mark.parametrize("operation", PRIVATE, ids=names)
def test_no_route_opens_without_a_valid_key(house: House, operation: Operation) -> None:
    own = house.live.api_key
    wrong = [
        {},
        {"Authorization": "Bearer"},
        _bearer(secrets.token_urlsafe(32)),
        _bearer(own[:-1]),
        _bearer(f"{own}x"),
        _bearer(own.swapcase()),
        _bearer(house.revoked),
        {"Authorization": f"Basic {own}"},
        {"Authorization": own},
        {"x-api-key": house.revoked},
        {"x-api-key": f"{own},{own}"},
        {"Cookie": f"x-api-key={own}; Authorization=Bearer {own}"},
        {"Proxy-Authorization": f"Bearer {own}"},
    ]
    for headers in wrong:
        answer = house.ask(operation, house.ids, headers)
        assert answer.status_code == 401, (headers, answer.text)
        assert answer.json()["error_code"] in ("AUTH_REQUIRED", "AUTH_INVALID")
        assert not any(secret in answer.text for secret in (own, house.revoked, *headers.values()) if len(secret) > 20)


@pytest.mark.parametrize("operation", OWNED, ids=names)
def test_what_another_organization_has_is_like_what_nobody_has(house: House, operation: Operation) -> None:
    for key in (house.stranger, house.stranger_admin):
        theirs, nobodys = (house.ask(operation, ids, _bearer(key)) for ids in (house.ids, UNKNOWN))
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.content == nobodys.content
        assert theirs.headers.keys() == nobodys.headers.keys()


def test_no_list_shows_what_another_organization_has(house: House) -> None:
    with house.live.client(headers=_bearer(house.stranger)) as stranger:
        assert stranger.get("/v1/machines").json()["items"] == []
        assert stranger.get("/v1/webhooks").json()["items"] == []
        assert {key["organization"] for key in stranger.get("/v1/keys").json()["items"]} == {"strangers"}


@pytest.mark.parametrize("key_of", ["ids", "unknown"])
def test_who_is_no_admin_makes_and_revokes_no_key(house: House, key_of: str) -> None:
    ids = house.ids if key_of == "ids" else UNKNOWN
    for operation in (operation for operation in PRIVATE if operation.id in ("createKey", "revokeKey")):
        assert house.ask(operation, ids, _bearer(house.stranger)).status_code == 403
    with house.live.client() as api:
        assert api.get("/v1/machines").status_code == 200


def test_an_idempotency_key_of_another_organization_is_a_new_one(house: House) -> None:
    create = next(operation for operation in OPERATIONS if operation.id == "createMachine")
    made = [house.ask(create, {}, _bearer(key), "the-same") for key in (house.live.api_key, house.stranger)]
    first, second = (answer.json() for answer in made)
    assert first["machine_id"] != second["machine_id"]
    with house.live.client(headers=_bearer(house.stranger)) as stranger:
        gone = stranger.delete(f"/v1/machines/{second['machine_id']}", params={"wait_ms": 20_000})
        assert gone.json()["phase"] == "destroyed"


def test_a_stranger_has_changed_nothing_and_no_key_is_in_the_log(house: House) -> None:
    with house.live.client() as api:
        assert api.get("/v1/machines/{machine_id}".format_map(house.ids)).json()["vcpu"] == 1
        record = api.get("/v1/machines/{machine_id}/executions/{execution_id}".format_map(house.ids)).json()
        assert (record["status"], api.output(record)) == ("running", b"the-secret-output\n")  # `cat` was fed nothing
        listed = api.get("/v1/keys").text
    log = house.live.log.read_text()
    for secret in (house.live.api_key, house.stranger, house.stranger_admin, house.revoked):
        assert secret not in log
        assert secret not in listed
