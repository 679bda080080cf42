"""Terminals for tests: made through the API, used through a WebSocket as any client of that protocol would."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.live import LONGEST_WAIT_MS, Api, new_key

SIZE = {"width": 80, "height": 24}
SECONDS = 20.0
PLAIN = {"PS1": "", "TERM": "dumb"}


def path(machine: str, terminal_id: str = "") -> str:
    """Return the path of a machine's terminals, or of one of them."""
    return f"/v1/machines/{machine}/terminals" + (f"/{terminal_id}" if terminal_id else "")


def create(api: Api, machine: str, *command: str, **body: Any) -> dict[str, Any]:
    """Open a terminal and return its record once it is ready."""
    body = {**SIZE, **({"command": [*command]} if command else {}), **body}
    made = api.post(path(machine), json=body, params={"wait_ms": LONGEST_WAIT_MS}, headers=new_key())
    record: dict[str, Any] = made.raise_for_status().json()
    return record


def ended(api: Api, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a terminal's record, which must say that it is over."""
    found: dict[str, Any] = api.get(path(record["machine_id"], record["terminal_id"])).raise_for_status().json()
    assert found["status"] == "closed", found
    return found


def shown(api: Api, record: Mapping[str, Any]) -> bytes:
    """Return what is kept of what a terminal has shown."""
    return api.get(f"{path(record['machine_id'], record['terminal_id'])}/output").raise_for_status().content


class Window:
    """One connection to a terminal, and what it has shown there."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.seen = b""
        self.after = 0
        """The offset behind what was seen."""
        self.begin: int | None = None
        self.errors: list[dict[str, Any]] = []
        self.closed = False

    def say(self, **message: Any) -> None:
        """Send a message."""
        self.connection.send(json.dumps(message))

    def type(self, text: str | bytes) -> None:
        """Have something typed."""
        data = text.encode() if isinstance(text, str) else text
        self.say(type="input", data=b64encode(data).decode())

    def take(self) -> None:
        """Take one message, which must follow what came before."""
        message = json.loads(self.connection.recv(SECONDS))
        match message["type"]:
            case "output":
                if self.begin is None:
                    self.begin = self.after = message["offset"]
                assert message["offset"] == self.after, (message, self.after)
                data = b64decode(message["data"], validate=True)
                self.seen += data
                self.after += len(data)
            case "error":
                self.errors.append(message)
            case other:
                assert other == "closed"
                self.closed = True

    def wait_for(self, text: bytes) -> None:
        """Take messages until it has shown this."""
        while text not in self.seen:
            self.take()

    def end(self) -> int:
        """Take what comes until the connection ends, and return with which code."""
        try:
            while True:
                self.take()
        except ConnectionClosed as over:
            return over.rcvd.code if over.rcvd else 1006


@contextmanager
def window(url: str, **options: Any) -> Iterator[Window]:
    """Connect to the address of a stream."""
    with connect(url, open_timeout=SECONDS, proxy=None, **options) as connection:
        yield Window(connection)
