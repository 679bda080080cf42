"""Whatever a program behind a preview says, its client gets a whole answer, an answer that breaks off, or is told that it is none."""

from __future__ import annotations

import asyncio
import re
from collections.abc import MutableMapping
from typing import Any, cast

import h11
from hypothesis import given
from hypothesis import strategies as st

from dormice.api.http.replies import CUT
from dormice.api.previews.addresses import Target
from dormice.api.previews.exchange import Exchange, PortFailed
from dormice.api.previews.headers import other_cookies, own_cookies, own_tokens
from dormice.engine.port_connections import Place
from tests.fuzz.budget import fuzzed

Message = MutableMapping[str, Any]

_LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.0 200",
        b"HTTP/1.1 204 No",
        b"HTTP/1.1 101 X",
        b"HTTP/1.1 999 X",
        b"HTTP/9.9 200 OK",
        b"Content-Length: 3",
        b"Content-Length: -1",
        b"Content-Length: 99999999999999999999",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip",
        b"Location: http://[",
        b"Location: //evil",
        b"Location: http://x/y",
        b"Set-Cookie: ;;=",
        b"Set-Cookie: a; Path; Domain=",
        b"X: \x01",
        b"X: \xff\xfe",
        b": empty",
        b"no colon",
        b" folded",
        b"Connection: x, close",
        b"",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"abc",
    ]
)
_ANSWERS = st.lists(st.one_of(_LINES.map(lambda line: line + b"\r\n"), st.binary(max_size=20)), max_size=12)


class _Said:
    """A connection to a program that says these pieces, then hangs up."""

    quiet = False

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    async def write(self, data: bytes) -> None:
        assert data.count(b"\r\n\r\n") == 1, "one request"

    def close(self) -> None:
        self._pieces.clear()


class _OnePlace:
    """A place that has that connection."""

    def __init__(self, connection: _Said) -> None:
        self._connection = connection

    async def connect(self, *, fresh: bool = False) -> tuple[_Said, bool]:
        assert fresh in (True, False)
        return self._connection, False

    def keep(self) -> None:
        self._connection.close()

    close = keep


async def _asked(pieces: list[bytes], prefix: str) -> tuple[list[Message], bool]:
    """Return what the client was sent, and whether it was cut off."""
    sent: list[Message] = []
    gone = asyncio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    target = Target("pv-x", b"/", prefix, "http://x")
    request = h11.Request(method="GET", target="/", headers=[("Host", "x")])
    place = cast("Place", _OnePlace(_Said(pieces)))
    exchange = Exchange(place, target, request, has_body=False, patience_seconds=5)
    scope: Any = {"state": {CUT: gone.set}}
    try:
        await exchange.run(scope, cast("Any", receive), cast("Any", send))
    except PortFailed:
        assert sent == []
    return sent, gone.is_set()


@fuzzed(300)
@given(_ANSWERS, st.sampled_from(["", "/p/pv-x"]))
def test_whatever_a_program_answers(pieces: list[bytes], prefix: str) -> None:
    sent, cut = asyncio.run(_asked(pieces, prefix))
    if not sent:
        return
    start, *bodies = sent
    assert start["type"] == "http.response.start"
    assert 200 <= start["status"] <= 599
    for name, value in start["headers"]:
        assert re.fullmatch(rb"[!-~]+", name)
        assert not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value)
        assert name not in (b"transfer-encoding", b"connection")
    assert [body["more_body"] for body in bodies[:-1]] == [True] * len(bodies[:-1])
    assert cut or bodies[-1]["more_body"] is False


@fuzzed(300)
@given(st.binary(max_size=60), st.lists(st.binary(max_size=30), max_size=4))
def test_whatever_stands_in_queries_and_cookies(query: bytes, cookies: list[bytes]) -> None:
    _, rest = own_tokens(query + b"&dormice_token=secret&dormice%5Ftoken=secret")
    assert b"secret" not in rest
    headers = [(b"cookie", cookie) for cookie in [*cookies, b"dormice_preview=secret; a=b;dormice_preview=secret"]]
    assert b"secret" not in other_cookies(headers)
    assert "secret" in own_cookies(headers) or len(own_cookies(headers)) == 8
