"""WebSockets through the proxy."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.conftest import StartLive
from tests.live import Live
from tests.previews.conftest import Program, run_program


@contextmanager
def _opened(url: str, **options: Any) -> Iterator[tuple[ClientConnection, dict[str, Any]]]:
    """A WebSocket to the program's echo, and what it saw of the handshake."""
    address = f"{url.replace('http', 'ws', 1)}echo"
    with connect(address, proxy=None, max_size=None, **options) as socket:
        yield socket, json.loads(socket.recv(20))


def test_messages_go_both_ways_whole(url: str) -> None:
    with _opened(url) as (socket, _):
        for message in ("text \u20ac", b"\x00\xff", "", os.urandom(70_000), os.urandom(900_000)):
            socket.send(message)
            assert socket.recv(20) == message
        socket.send(["in ", "three ", "pieces"])
        assert socket.recv(20) == "in three pieces"


def test_the_handshake_is_the_programs_own(url: str) -> None:
    with _opened(f"{url}", subprotocols=["other", "chat"], additional_headers={"X-Mine": "1"}) as (socket, seen):
        assert socket.subprotocol == "chat"
        headers = dict(seen["headers"])
    assert headers["x-mine"] == "1"
    assert headers["host"] == headers["x-forwarded-host"] == httpx.URL(url).netloc.decode()
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert "sec-websocket-extensions" not in headers  # each of the two WebSockets has its own


def test_who_closes_tells_the_other_why(program: Program, url: str) -> None:
    with _opened(url) as (socket, _):
        socket.send("close me")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(20)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you wish")
    with _opened(url) as (socket, _):
        socket.close(4321, "enough")
    program.seen(url, "closed 4321")


def _talk(socket: ClientConnection, messages: int) -> None:
    for _ in range(messages):
        socket.send(bytes(65_535))


def test_both_sides_may_talk_before_they_listen(url: str) -> None:
    with (
        connect(f"{url.replace('http', 'ws', 1)}flood", proxy=None, max_size=None, ping_interval=None) as socket,
        ThreadPoolExecutor() as threads,
    ):
        talk = threads.submit(_talk, socket, 400)
        try:
            heard = 0
            while (message := socket.recv(20)) != "done":
                heard += len(message)
            assert heard == 400 * 65_535
            talk.result(20)
        finally:
            socket.socket.close()  # which frees the thread


def test_a_program_that_dies_closes_the_socket(program: Program, live: Live) -> None:
    mortal = run_program(program.api, program.machine)
    url = mortal.preview(visibility="public")["url"]
    with _opened(url) as (socket, _):
        program.api.delete(f"/v1/machines/{program.machine}/executions/{mortal.record['execution_id']}")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1014


def test_what_takes_no_websocket_refuses_it_in_its_own_words(program: Program, url: str) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(f"{url.replace('http', 'ws', 1)}x", proxy=None):
        pass
    assert refused.value.response.status_code == 200
    assert b'"target": "/x"' in (refused.value.response.body or b"")
    with pytest.raises(InvalidStatus) as refused, connect(f"{url.replace('http', 'ws', 1)}cookies", proxy=None):
        pass
    headers = refused.value.response.headers
    assert [cookie.partition(";")[0] for cookie in headers.get_all("Set-Cookie")] == ["sid=1", "deep=2", "plain=3"]
    assert "" not in headers.get_all("Content-Type")
    with pytest.raises(InvalidStatus) as refused, connect(f"{url.replace('http', 'ws', 1)}nonsense", proxy=None):
        pass
    assert refused.value.response.status_code == 502


def test_who_is_let_in(program: Program, live: Live, url: str) -> None:
    preview = program.preview()
    address = f"{preview['url'].replace('http', 'ws', 1)}echo"
    link = program.api.post(f"/v1/machines/{program.machine}/previews/{preview['preview_id']}/links").json()["url"]
    token = link.partition("dormice_token=")[2]
    with pytest.raises(InvalidStatus) as refused, connect(address, proxy=None):
        pass
    assert refused.value.response.status_code == 401
    key = {"Authorization": f"Bearer {live.api_key}"}
    with _opened(preview["url"], additional_headers=key) as (_, seen):
        assert live.api_key not in str(seen)
    with connect(f"{address}?a=1&dormice_token={token}", proxy=None) as socket:
        seen = json.loads(socket.recv(20))
        assert seen["target"] == "/echo?a=1"
    cookie = {"Cookie": f"dormice_preview={token}"}
    with _opened(preview["url"], additional_headers=cookie) as (_, seen):
        assert token not in str(seen)
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(address, proxy=None, additional_headers=cookie, origin=Origin("http://evil.example")),
    ):
        pass
    assert refused.value.response.status_code == 401


def test_the_end_of_a_preview_ends_its_sockets(program: Program) -> None:
    preview = program.preview(visibility="public")
    with _opened(preview["url"]) as (socket, _):
        program.api.delete(f"/v1/machines/{program.machine}/previews/{preview['preview_id']}").raise_for_status()
        with pytest.raises(ConnectionClosed):
            socket.recv(20)


def test_a_message_beyond_the_limit_closes_it(start_live: StartLive) -> None:
    with start_live(DORMICE_LIMIT_WEBSOCKET_MESSAGE_BYTES="100000") as live, live.client() as api:
        url = run_program(api, api.create_machine(autosleep="never")).preview(visibility="public")["url"]
        with _opened(url) as (socket, _):
            socket.send(bytes(90_000))
            assert len(socket.recv(20)) == 90_000
            socket.send(bytes(200_000))
            with pytest.raises(ConnectionClosed):
                socket.recv(20)
