"""A key is revoked while it is used: what stands by it ends at once and says why; what stands by others goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from dormice.client import AuthenticationError, Dormice
from tests.conformance.terminals import PLAIN, create, path, window
from tests.conformance.test_terminals import finish, refused
from tests.live import Api, Live, new_key, path_of
from tests.wait import wait_until

Guest = tuple[Api, Callable[[], httpx.Response]]


@pytest.fixture(name="guest")
def _guest(live: Live, api: Api) -> Iterator[Guest]:
    """A client with a key of its own, and what revokes that."""
    made = api.post("/v1/keys", json={"name": "guest"}).json()
    with live.client(headers={"Authorization": f"Bearer {made['key']}"}) as client:
        yield client, lambda: api.delete(f"/v1/keys/{made['key_id']}").raise_for_status()


def _key(client: Api) -> dict[str, str]:
    return {"Authorization": client.headers["Authorization"]}


@pytest.mark.parametrize("by", ["key", "token"])
def test_a_terminals_connection_ends_and_the_terminal_goes_on(api: Api, machine: str, guest: Guest, by: str) -> None:
    client, revoke = guest
    record = create(client, machine, env=PLAIN)
    url = str(record["stream_url"])
    bare = url.partition("?")[0]
    ours = api.get(path(machine, record["terminal_id"])).json()["stream_url"]
    opened = window(url) if by == "token" else window(bare, additional_headers=_key(client))
    with opened as theirs, window(ours) as own:
        theirs.type("echo he''re\n")
        theirs.wait_for(b"here\r\n")
        revoke()
        assert theirs.end() == 1008
        assert [error["error_code"] for error in theirs.errors] == ["AUTH_INVALID"]
        assert not theirs.closed, "the terminal has not ended"
        assert refused(url)[0] == refused(bare, **_key(client))[0] == 401
        own.type("echo st''ill\n")
        own.wait_for(b"still\r\n")
        finish(own)


def _events(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


@contextmanager
def _stream(client: httpx.Client, url: str, **headers: str) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
    with client.stream("GET", url, headers={"Accept": "text/event-stream", **headers}) as answer:
        yield _events(answer.raise_for_status())


@pytest.mark.parametrize("kind", ["events", "log"])
def test_a_stream_of_events_ends_with_an_error(api: Api, machine: str, guest: Guest, kind: str) -> None:
    client, revoke = guest
    record = client.execute(machine, "cat", stdin_open=True, wait_ms=0)
    url, headers = f"{path_of(record)}/events", {}
    if kind == "log":
        token = client.post(f"{path_of(record)}/logs/token", headers=new_key()).raise_for_status().json()
        url = f"/v1/logs/{token['stream_id']}"
        headers = {"Authorization": f"Bearer {token['access_token']}"}
    with _stream(client, url, **headers) as theirs, _stream(api, f"{path_of(record)}/events") as own:
        next(theirs)
        revoke()
        name, error = [*theirs][-1]
        assert (name, error["error_code"], error["message"]) == ("error", "AUTH_INVALID", "the API key was revoked")
        assert client.get(url, headers=headers).status_code == 401
        api.delete(path_of(record)).raise_for_status()
        assert [*own][-1][1]["status"] == "cancelled"


def test_the_client_raises_what_it_would_if_it_came_again(live: Live, api: Api, machine: str, guest: Guest) -> None:
    client, revoke = guest
    record = client.execute(machine, "cat", stdin_open=True, wait_ms=0)
    key = _key(client)["Authorization"].removeprefix("Bearer ")
    with Dormice(base_url=live.base_url, api_key=key) as ours:
        events = ours.machines.executions.stream(record["execution_id"], machine_id=machine)
        next(events)
        revoke()
        with pytest.raises(AuthenticationError):
            for _ in events:
                pass
    api.delete(path_of(record)).raise_for_status()


def test_a_download_is_cut_off_and_an_upload_is_refused_in_its_midst(api: Api, machine: str, guest: Guest) -> None:
    client, revoke = guest
    files = f"/v1/machines/{machine}/files"
    big, new = {"path": "/tmp/revoked-big"}, {"path": "/tmp/revoked-new"}
    api.shell(machine, f"head -c 64M /dev/zero > {big['path']}")

    def body() -> Iterator[bytes]:
        yield b"first"
        with client.stream("GET", files, params=big) as answer:
            pieces = answer.raise_for_status().iter_raw(1_000)
            next(pieces)
            revoke()
            with pytest.raises(httpx.RemoteProtocolError):
                for _ in pieces:
                    pass
        yield b"second"

    sent = client.put(files, params=new, content=body())
    assert (sent.status_code, sent.json()["error_code"]) == (401, "AUTH_INVALID")
    assert api.get(files, params=new).status_code == 404
    api.delete(files, params=big).raise_for_status()


def test_a_download_url_of_an_artifact_is_good_for_nothing_any_more(api: Api, machine: str, guest: Guest) -> None:
    client, revoke = guest
    made = client.post(
        f"/v1/machines/{machine}/executions?wait_ms=10000",
        json={"command": ["sh", "-c", "echo kept > /tmp/revoked"], "artifacts": ["/tmp/revoked"]},
        headers={"Idempotency-Key": "revoked artifact"},
    ).json()

    def urls(reader: Api) -> list[str]:
        found = reader.get(f"/v1/machines/{machine}/artifacts").json()["items"]
        return [one["download_url"] for one in found if one["execution_id"] == made["execution_id"]]

    wait_until(lambda: urls(api), 10, "it is collected")
    [theirs], [own] = urls(client), urls(api)
    assert httpx.get(theirs, trust_env=False).text == httpx.get(own, trust_env=False).text == "kept\n"
    revoke()
    assert httpx.get(theirs, trust_env=False).status_code == 404
    assert httpx.get(own, trust_env=False).text == "kept\n"
