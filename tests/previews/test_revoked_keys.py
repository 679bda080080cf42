"""A key is revoked while what it has opened is open."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.live import Api, Live
from tests.previews.conftest import Program

Guest = tuple[Program, dict[str, str], Callable[[], httpx.Response]]


@pytest.fixture(name="guest")
def _guest(program: Program, api: Api, live: Live) -> Iterator[Guest]:
    """The program as somebody with a key of his own has it, the header of that key, and what revokes it."""
    made = api.post("/v1/keys", json={"name": "guest"}).json()
    header = {"Authorization": f"Bearer {made['key']}"}
    with live.client(headers=header) as client:
        own = Program(client, program.machine, program.port, program.record)
        yield own, header, lambda: api.delete(f"/v1/keys/{made['key_id']}").raise_for_status()


@pytest.mark.parametrize("by", ["key", "link"])
def test_a_websocket_is_closed_and_told_why(guest: Guest, url: str, by: str) -> None:
    own, header, revoke = guest
    preview = own.preview()
    address = f"{preview['url'].replace('http', 'ws', 1)}echo"
    if by == "link":
        made = own.api.post(f"/v1/machines/{own.machine}/previews/{preview['preview_id']}/links").json()["url"]
        address, header = f"{address}?{httpx.URL(made).query.decode()}", {}
    public = f"{url.replace('http', 'ws', 1)}echo"
    with (
        connect(address, proxy=None, additional_headers=header) as theirs,
        connect(public, proxy=None, additional_headers=header) as open_to_all,
    ):
        json.loads(theirs.recv(20))
        open_to_all.recv(20)
        revoke()
        with pytest.raises(ConnectionClosed) as closed:
            theirs.recv(20)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "the API key was revoked")
        open_to_all.send("still")
        assert open_to_all.recv(20) == "still"


def test_an_answer_is_cut_off(guest: Guest) -> None:
    own, header, revoke = guest
    address = own.preview()["url"]
    with httpx.stream("GET", f"{address}big", headers=header, trust_env=False) as answer:
        pieces = answer.iter_raw(1_000)
        next(pieces)
        revoke()
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in pieces:
                pass


def test_who_still_waits_for_an_answer_gets_a_refusal(guest: Guest, url: str, program: Program) -> None:
    own, header, revoke = guest
    address = own.preview()["url"]
    before = program.api.get(f"{url}seen").json()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(httpx.get, f"{address}silent", headers=header, trust_env=False, timeout=20)
        program.seen_again(url, before, "asked")
        revoke()
        answer = waiting.result(20)
    assert (answer.status_code, answer.headers["x-dormice-preview-error"]) == (401, "auth_invalid")
    program.seen_again(url, before, "asker left")
